"""Scores on numpy arrays. N images, K classes, A action units; labels (N,), probs (N, K)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]

MIN_SUPPORT = 10  # a class with fewer images is reported but not optimised (DESIGN.md 5)


def confusion(labels: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """Counts (K, K): row = true class, column = predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Tallies:
    """Images by class (K,): of it, called it, both. Classes are many: no K x K for these."""

    support: NDArray[np.int64]
    called: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, classes: int) -> "Tallies":
        sets = (labels, predicted, labels[labels == predicted])
        return cls(*(np.bincount(each, minlength=classes) for each in sets))

    @property
    def recalls(self) -> NDArray[np.float64]:
        """NaN for a class without images."""
        return np.where(self.support > 0, self.right / np.maximum(self.support, 1), np.nan)

    @property
    def f1_scores(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN); NaN for a class neither true nor predicted."""
        total = self.support + self.called
        return np.where(total > 0, 2 * self.right / np.maximum(total, 1), np.nan)


def supported(labels: Ints, classes: int, min_support: int = MIN_SUPPORT) -> NDArray[np.bool_]:
    """Which classes (K,) have enough images to be optimised; all present ones if none has."""
    support = np.bincount(labels, minlength=classes)
    enough = support >= min_support
    return enough if enough.any() else support > 0


def accuracy(labels: Ints, predicted: Ints) -> float:
    return float((labels == predicted).mean())


def uar(labels: Ints, predicted: Ints, classes: int) -> float:
    """Unweighted average recall over the classes that have images."""
    return float(np.nanmean(Tallies.of(labels, predicted, classes).recalls))


def macro_f1(
    labels: Ints, predicted: Ints, classes: int, keep: NDArray[np.bool_] | None = None
) -> float:
    """Mean F1 over the classes in `keep` (those with images, if None); false positives count."""
    tallies = Tallies.of(labels, predicted, classes)
    kept = tallies.support > 0 if keep is None else keep
    return float(np.nan_to_num(tallies.f1_scores[kept]).mean())


def decisions(labels: Ints, predicted: Ints, classes: int) -> dict[str, float]:
    """The scores that depend on the predicted class alone: any of OBJECTIVES can be maximised."""
    return {
        "macro_f1": macro_f1(labels, predicted, classes, supported(labels, classes)),
        "macro_f1_all": macro_f1(labels, predicted, classes),
        "accuracy": accuracy(labels, predicted),
        "uar": uar(labels, predicted, classes),
    }


OBJECTIVES = ("macro_f1", "macro_f1_all", "accuracy", "uar")


def scores(labels: Ints, probs: Floats, objective: str = "macro_f1") -> dict[str, float]:
    """Everything a leaderboard shows of one model; "score", the objective, is maximised."""
    found = decisions(labels, probs.argmax(1), probs.shape[1])
    return {
        "score": found[objective],
        **found,
        "nll": nll(labels, probs),
        "ece": expected_calibration_error(labels, probs),
    }


def majority_scores(
    train_labels: Ints, labels: Ints, classes: int, objective: str = "macro_f1"
) -> dict[str, float]:
    """What always guessing the most frequent training class scores: stands beside every result."""
    guess = np.full_like(labels, np.bincount(train_labels, minlength=classes).argmax())
    found = decisions(labels, guess, classes)
    return {"score": found[objective], **found}


def nll(labels: Ints, probs: Floats) -> float:
    """Mean negative log-likelihood in nats."""
    likely = probs[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(likely, 1e-7)).mean())


def expected_calibration_error(labels: Ints, probs: Floats, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal mass (Nguyen & O'Connor 2015)."""
    confidence, hit = probs.max(1), probs.argmax(1) == labels
    gaps = [
        len(part) * abs(float(confidence[part].mean() - hit[part].mean()))
        for part in np.array_split(np.argsort(confidence, kind="stable"), bins)
        if len(part)
    ]
    return sum(gaps) / max(1, len(labels))


def au_f1(aus: Ints, au_probs: Floats, threshold: float = 0.5) -> NDArray[np.float64]:
    """F1 per action unit (A,) over the images where it is known; NaN without a positive image."""
    said, known = au_probs >= threshold, aus >= 0
    hits = ((aus == 1) & said).sum(0)
    wrong = (known & (said != (aus == 1))).sum(0)
    positives = (aus == 1).sum(0)
    return np.where(positives > 0, 2 * hits / np.maximum(2 * hits + wrong, 1), np.nan)
