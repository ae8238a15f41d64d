"""Scores of many models at once, as metrics.py has them of one.

M models, N images, K classes, A action units.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import Goal, Tally
from analysis.votes import Votes
from trainables import metrics
from trainables.metrics import MIN_SUPPORT, Floats, Ints

BINS = 15  # of the calibration error, as in metrics.py


def of_classes(counts: Tally, goal: Goal) -> dict[str, Floats]:
    """Each of metrics.decisions for every model (M,), and the score: the goal's."""
    found = {name: Goal(name, goal.keep).scores(counts) for name in metrics.OBJECTIVES}
    return {"score": found[goal.name], **found}


def calibration(votes: Votes) -> tuple[Floats, Floats]:
    """Log-loss and calibration error of each model (M,)."""
    calls = votes.predicted
    likely = np.take_along_axis(votes.probs, votes.labels[None, :, None], 2)[:, :, 0]
    nll = -np.log(np.maximum(likely.astype(np.float64), 1e-7)).mean(1)
    sure = np.take_along_axis(votes.probs, calls[:, :, None], 2)[:, :, 0]  # max(2) is ten times it
    return nll, calibration_errors(sure, calls == votes.labels)


def calibration_errors(confidence: Floats, hit: NDArray[np.bool_], bins: int = BINS) -> Floats:
    """metrics.expected_calibration_error of each model (M,)."""
    images = confidence.shape[1]
    order = np.argsort(confidence, axis=1, kind="stable")
    gap = np.take_along_axis(confidence.astype(np.float64) - hit, order, 1)
    sizes = [len(part) for part in np.array_split(np.arange(images), bins)]
    starts = np.cumsum([0, *sizes])[:-1][np.array(sizes) > 0]
    found: Floats = np.abs(np.add.reduceat(gap, starts, axis=1)).sum(1) / max(1, images)
    return found


def recalls(counts: Tally) -> Floats:
    """Recall per class (M, K); NaN for a class without images."""
    support: NDArray[np.int64] = np.asarray(counts.support)
    found: Floats = np.where(support > 0, counts.hits / np.maximum(support, 1), np.nan)
    return found


def of_units(votes: Votes) -> Floats:
    """F1 per action unit (M, A); NaN for a model without a head for them, or an AU never shown."""
    probs, positives = votes.au_probs, (votes.aus == 1).sum(0)
    said = (probs >= 0.5).astype(np.float32)
    hits, false = (
        np.einsum("mna,na->ma", said, (votes.aus == value).astype(np.float32)) for value in (1, 0)
    )
    f1: Floats = np.where(
        positives > 0, 2.0 * hits / np.maximum(hits + false + positives, 1), np.nan
    )
    f1[np.isnan(probs).any((1, 2))] = np.nan
    return f1


def mean_of_units(aus: Ints, f1: Floats) -> Floats:
    """Mean F1 (M,) over the AUs that enough images show; NaN if there is none."""
    enough = (aus == 1).sum(0) >= MIN_SUPPORT
    mean: Floats = f1[:, enough].mean(1) if enough.any() else np.full(len(f1), np.nan)
    return mean


def as_rows(trials: Sequence[str], columns: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """Trial -> column -> value."""
    lists = {name: values.tolist() for name, values in columns.items()}
    return {
        trial: {name: values[row] for name, values in lists.items()}
        for row, trial in enumerate(trials)
    }
