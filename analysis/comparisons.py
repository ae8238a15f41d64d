"""Tests of one model against another. N images, J differences, one for each fold of each repeat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, stdtr, stdtrit  # scipy.stats takes half a second to import

from trainables.metrics import Floats

LEVEL = 0.95


@dataclass(frozen=True)
class McNemar:
    """Images that one of two models calls rightly and the other does not."""

    gained: int  # right by the first alone
    lost: int
    p: float  # two-sided, of both being as often right


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """The exact test of two models that were right (N,) on the same images (McNemar 1947)."""
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    tail = float(bdtr(min(gained, lost), gained + lost, 0.5))
    return McNemar(gained, lost, min(1.0, 2 * tail))


@dataclass(frozen=True)
class CorrectedT:
    """A mean difference over folds, with a variance that knows that training sets overlap."""

    value: float
    low: float
    high: float
    p: float


def corrected_t(differences: Floats, test_share: float) -> CorrectedT:
    """Nadeau & Bengio 2003 (10.1023/A:1024068626366): variance (1 / J + n_test / n_train) s².

    `test_share` is n_test / n_train, 1 / (K - 1) for K folds. One difference has no variance.
    """
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return CorrectedT(mean, float("nan"), float("nan"), float("nan"))
    error = float(np.sqrt((1 / count + test_share) * np.var(differences, ddof=1)))
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error
    p = float(2 * stdtr(count - 1, -abs(mean) / error)) if error else float(mean == 0)
    return CorrectedT(mean, mean - half, mean + half, p)
