"""Corrections of the class imbalance outside the loss. N images, K classes.

A builder takes the class counts of the training set (K,) and its hyper-parameters by keyword.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.config import DEFERRED_START
from trainables.registry import Registry

Counts = NDArray[np.integer]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Rebalance:
    """How much classes weigh in the loss, and how often their images are drawn."""

    class_weights: Callable[[float], Weights]  # progress -> (K,), mean 1 over the images
    sample_weights: Callable[[Counts], Weights | None]  # labels (N,) -> (N,), sum 1


RebalanceBuilder = Callable[..., Rebalance]
REBALANCE: Registry[RebalanceBuilder] = Registry("rebalance")


@REBALANCE.register
def none_(class_counts: Counts) -> Rebalance:
    """Every image counts alike."""
    plain = np.ones(len(class_counts))
    return Rebalance(lambda progress: plain, lambda labels: None)


@REBALANCE.register
def deferred(
    class_counts: Counts, *, start: float = DEFERRED_START, beta: float = 0.99
) -> Rebalance:
    """Class-balanced weights, but only from `start` on (DRW, Cao et al. 2019, 1906.07413)."""
    plain, balanced = np.ones(len(class_counts)), effective_weights(class_counts, beta)
    return Rebalance(lambda p: balanced if p >= start else plain, lambda labels: None)


@REBALANCE.register
def sampler(class_counts: Counts, *, exponent: float = 0.5) -> Rebalance:
    """Images drawn with chance ~ n_k^-exponent: 0 as they are, 1 all classes equally often."""
    plain = np.ones(len(class_counts))
    chances = np.maximum(class_counts, 1).astype(np.float64) ** -exponent

    def sample_weights(labels: Counts) -> Weights:
        return np.asarray(chances[labels] / chances[labels].sum())

    return Rebalance(lambda progress: plain, sample_weights)


def effective_weights(class_counts: Counts, beta: float) -> NDArray[np.float64]:
    """(1 - beta) / (1 - beta^n) per class (K,), mean 1 over images (Cui et al. 2019)."""
    counts = np.maximum(class_counts, 1).astype(np.float64)
    weights = (1 - beta) / (1 - beta**counts)
    return np.asarray(weights / (weights * counts).sum() * counts.sum())
