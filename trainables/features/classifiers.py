"""What is fitted on features. M rows, D features, K classes.

A builder takes its hyper-parameters by keyword and gives a fit: a lesson and a generator -> what
was fitted. It raises ValueError for arguments out of range, its fit for data that it cannot serve.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainables.features.examples import Floats, Lesson
from trainables.registry import Registry


@dataclass(frozen=True)
class Fitted:
    """A classifier after its fit."""

    probs: Callable[[Floats], Floats]  # standardised features (M, D) -> (M, K), rows sum to 1
    tensors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # what it has learned


Fit = Callable[[Lesson, np.random.Generator], Fitted]
ClassifierBuilder = Callable[..., Fit]
CLASSIFIERS: Registry[ClassifierBuilder] = Registry("classifier")


@CLASSIFIERS.register
def none_() -> Fit:
    """No classifier: the trial trains its network, whose head it has."""

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        raise ValueError("a trial on features needs a classifier: " + ", ".join(CLASSIFIERS))

    return fit
