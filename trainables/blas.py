"""Matrices of a few hundred rows are multiplied sooner by one thread than by several.

BLAS wakes a thread on every core for each product, and they wait for the next one by spinning: a
decision of the model took three times as long that way on two cores, and six times the processor,
which the trials beside it miss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """In this context, and in functions that it decorates, BLAS computes with one thread."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks for them among all that is loaded: once, not each time
