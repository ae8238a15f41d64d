"""Feature vectors made for classes of few images. N images, D features, K classes, M new rows.

A builder takes its hyper-parameters by keyword and gives a synthesis: training examples (one view
of each image) and a generator -> the new rows alone, whose targets may be soft.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trainables.features.examples import Examples
from trainables.registry import Registry

Synthesis = Callable[[Examples, np.random.Generator], Examples]
SynthesisBuilder = Callable[..., Synthesis]
SYNTHESES: Registry[SynthesisBuilder] = Registry("synthesis")


@SYNTHESES.register
def none_() -> Synthesis:
    """Nothing is made."""
    return lambda real, rng: rows_of(real, np.zeros(0, np.int64))


def rows_of(real: Examples, rows: np.ndarray) -> Examples:
    """Some of the rows, in this order, with repeats."""
    return replace(
        real, features=real.features[rows], targets=real.targets[rows], labels=real.labels[rows]
    )
