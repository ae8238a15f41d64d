"""Scores of many models at once, as metrics.py has them of one.

M models, N images, K classes, A action units.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from analysis import statistics
from analysis.statistics import Goal
from analysis.votes import Votes
from trainables.metrics import MIN_SUPPORT, Floats, Ints

AT_ONCE = 256  # models; bounds the memory of what is made on the way
BINS = 15  # of the calibration error, as in metrics.py


def of_classes(votes: Votes, goal: Goal) -> dict[str, Floats]:
    """Each of metrics.scores for every model (M,)."""
    counts = statistics.tally(votes.labels, votes.predicted, goal.classes)
    found = {
        name: Goal(name, goal.keep).scores(counts)
        for name in ("macro_f1", "macro_f1_all", "accuracy", "uar")
    }
    nll, ece = (np.empty(len(votes.trials)) for _ in range(2))
    for rows in _chunks(len(votes.trials)):
        probs = votes.probs[rows]
        likely = probs[:, np.arange(len(votes.labels)), votes.labels].astype(np.float64)
        nll[rows] = -np.log(np.maximum(likely, 1e-7)).mean(1)
        ece[rows] = calibration_errors(probs.max(2), votes.predicted[rows] == votes.labels)
    return {"score": found[goal.name], **found, "nll": nll, "ece": ece}


def calibration_errors(confidence: Floats, hit: NDArray[np.bool_], bins: int = BINS) -> Floats:
    """metrics.expected_calibration_error of each model (M,)."""
    images = confidence.shape[1]
    order = np.argsort(confidence, axis=1, kind="stable")
    gap = np.take_along_axis(confidence.astype(np.float64) - hit, order, 1)
    sizes = [len(part) for part in np.array_split(np.arange(images), bins)]
    starts = np.cumsum([0, *sizes])[:-1][np.array(sizes) > 0]
    found: Floats = np.abs(np.add.reduceat(gap, starts, axis=1)).sum(1) / max(1, images)
    return found


def recalls(votes: Votes, classes: int) -> Floats:
    """Recall per class (M, K); NaN for a class without images."""
    counts = statistics.tally(votes.labels, votes.predicted, classes)
    support: NDArray[np.int64] = np.asarray(counts.support)
    found: Floats = np.where(support > 0, counts.hits / np.maximum(support, 1), np.nan)
    return found


def of_units(votes: Votes) -> Floats:
    """F1 per action unit (M, A); NaN for a model without a head for them, or an AU never shown."""
    shown, known = votes.aus == 1, votes.aus >= 0
    found = np.full((len(votes.trials), votes.aus.shape[1]), np.nan)
    positives = shown.sum(0)
    for rows in _chunks(len(votes.trials)):
        probs = votes.au_probs[rows].astype(np.float32)
        said = probs >= 0.5
        hits = (said & shown).sum(1)
        wrong = (known & (said != shown)).sum(1)
        f1 = np.where(positives > 0, 2 * hits / np.maximum(2 * hits + wrong, 1), np.nan)
        f1[np.isnan(probs).any((1, 2))] = np.nan
        found[rows] = f1
    return found


def mean_of_units(aus: Ints, f1: Floats) -> Floats:
    """Mean F1 (M,) over the AUs that enough images show; NaN if there is none."""
    enough = (aus == 1).sum(0) >= MIN_SUPPORT
    mean: Floats = f1[:, enough].mean(1) if enough.any() else np.full(len(f1), np.nan)
    return mean


def _chunks(models: int) -> Iterator[slice]:
    for start in range(0, models, AT_ONCE):
        yield slice(start, min(models, start + AT_ONCE))


def as_rows(votes: Votes, columns: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """Trial -> column -> value."""
    lists = {name: values.tolist() for name, values in columns.items()}
    return {
        trial: {name: values[row] for name, values in lists.items()}
        for row, trial in enumerate(votes.trials)
    }
