"""Matrices of a few hundred rows are multiplied sooner by one thread than by several.

BLAS wakes a thread on every core for each product, and they wait for the next one by spinning: a
decision of the model took three times as long that way on two cores, and six times the processor,
which the trials beside it miss.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

OWNERS = ("numpy", "scipy.linalg", "scipy.special")  # scipy brings a BLAS of its own


@contextmanager
def one_thread() -> Iterator[None]:
    """In this context, and in functions that it decorates, BLAS computes with one thread."""
    with _libraries(*(name in sys.modules for name in OWNERS)).limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries(*are_loaded: bool) -> ThreadpoolController:
    """The libraries of this process, looked for once more when another one may have come."""
    return ThreadpoolController()
