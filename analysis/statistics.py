"""Intervals and corrections of scores. N images, K classes, M models, B bootstrap rounds.

labels (N,), predicted (M, N) class indices, weights (B, N) how often a round draws an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainables.metrics import Floats, Ints

Counts = Ints | Floats
MODELS_AT_ONCE = 64  # bounds the memory of what is made on the way
LEVEL = 0.95
NORMAL_95 = 1.959963984540054  # the 97.5 % point of the standard normal


@dataclass(frozen=True)
class Tally:
    """What the scores are made of; each (..., K), the leading axes being rounds and models."""

    hits: Counts  # images of the class that were called so
    said: Counts  # images that were called so
    support: Counts  # images of the class


@dataclass(frozen=True)
class Goal:
    """What the search maximises: one of metrics.OBJECTIVES."""

    name: str
    keep: NDArray[np.bool_]  # (K,), the classes that "macro_f1" is made of

    @property
    def classes(self) -> int:
        return len(self.keep)

    def scores(self, counts: Tally) -> Floats:
        """The score of each tally (...)."""
        if self.name == "accuracy":
            return accuracies(counts)
        if self.name == "uar":
            return uars(counts)
        every = np.ones_like(self.keep)
        return macro_f1s(counts, self.keep if self.name == "macro_f1" else every)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


class Bounded(Protocol):
    """A value with its interval: an Estimate, or a Spread over seeds; NaN where it has none."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def bracketed(found: Bounded | None) -> str:
    """A value with its interval, where it has one."""
    if found is None:
        return "–"
    if np.isnan(found.low):
        return f"{found.value:.3f}"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def signed(lead: Bounded | None) -> str:
    """A difference with its interval, if there is one."""
    if lead is None:
        return "–"
    return f"{lead.value:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"


def resample(labels: Ints, rounds: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How often each image is drawn (B, N): with replacement, within each class."""
    weights = np.zeros((rounds, len(labels)), np.float32)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        size = len(members)
        drawn = rng.integers(size, size=(rounds, size)) + np.arange(rounds)[:, None] * size
        weights[:, members] = np.bincount(drawn.ravel(), minlength=rounds * size).reshape(
            rounds, size
        )
    return weights


def tally(labels: Ints, predicted: Ints, classes: int) -> Tally:
    """The counts of each model on all images (M, K)."""
    shape = (len(predicted), classes)
    hits, said = np.empty(shape, np.int64), np.empty(shape, np.int64)
    for start in range(0, len(predicted), MODELS_AT_ONCE):
        rows = slice(start, start + MODELS_AT_ONCE)
        part = predicted[rows]
        key = part + classes * np.arange(len(part))[:, None]
        for counts, keys in ((said, key.ravel()), (hits, key[part == labels])):
            counts[rows] = np.bincount(keys, minlength=part.shape[0] * classes).reshape(-1, classes)
    support = np.bincount(labels, minlength=classes)
    return Tally(hits, said, np.broadcast_to(support, shape))


def weighted_tally(labels: Ints, predicted: Ints, classes: int, weights: Floats) -> Tally:
    """The counts of each model in each round (B, M, K)."""
    rounds, models = len(weights), len(predicted)
    hits, said = (np.empty((rounds, models, classes), np.float32) for _ in range(2))
    for start in range(0, models, MODELS_AT_ONCE):
        part = predicted[start : start + MODELS_AT_ONCE].T  # (N, m)
        calls = (part[:, :, None] == np.arange(classes)).astype(np.float32)
        shape = (rounds, part.shape[1], classes)
        said[:, start : start + shape[1]] = (weights @ calls.reshape(len(part), -1)).reshape(shape)
        for k in range(classes):  # only images of the class can be hits of it
            own = labels == k
            hits[:, start : start + shape[1], k] = weights[:, own] @ calls[own, :, k]
    support = weights @ (labels[:, None] == np.arange(classes)).astype(np.float32)
    return Tally(hits, said, np.broadcast_to(support[:, None], said.shape))


def resampled(labels: Ints, predicted: Ints, goal: Goal, weights: Floats) -> Floats:
    """The score of each model in each round (B, M), a few models at a time."""
    scores = np.empty((len(weights), len(predicted)))
    for start in range(0, len(predicted), MODELS_AT_ONCE):
        rows = slice(start, start + MODELS_AT_ONCE)
        scores[:, rows] = goal.scores(
            weighted_tally(labels, predicted[rows], goal.classes, weights)
        )
    return scores


def accuracies(counts: Tally) -> Floats:
    """Accuracy (...)."""
    total: Floats = counts.hits.sum(-1) / np.maximum(counts.support.sum(-1), 1)
    return total


def uars(counts: Tally) -> Floats:
    """Mean recall over the classes that have images (...)."""
    recall = counts.hits / np.maximum(counts.support, 1)
    mean: Floats = recall.sum(-1) / np.maximum((counts.support > 0).sum(-1), 1)
    return mean


def macro_f1s(counts: Tally, keep: NDArray[np.bool_]) -> Floats:
    """Mean F1 over the classes (K,) in `keep` that have images (...)."""
    f1 = 2 * counts.hits / np.maximum(counts.support + counts.said, 1)
    used = keep & (counts.support > 0)
    mean: Floats = (f1 * used).sum(-1) / np.maximum(used.sum(-1), 1)
    return mean


def interval(samples: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """The percentile interval over the first axis: (low, high), each of the other axes' shape."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def estimated(value: float, samples: Floats) -> Estimate:
    """The value with the percentile interval of its samples (B,)."""
    low, high = interval(samples)
    return Estimate(value, float(low), float(high))


def bootstrap(labels: Ints, predicted: Ints, goal: Goal, weights: Floats) -> dict[str, Floats]:
    """Score, accuracy and UAR of every model in every round, each (B, M)."""
    counts = weighted_tally(labels, predicted, goal.classes, weights)
    return {"score": goal.scores(counts), "accuracy": accuracies(counts), "uar": uars(counts)}


def corrected_best(
    labels: Ints,
    predicted: Ints,
    goal: Goal,
    weights: Floats,
    baseline: Ints | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> tuple[Estimate, Estimate | None]:  # six: the models and what is known of them
    """What the best of M models scores on images that did not choose it, and its lead there.

    BBC-CV (Tsamardinos et al. 2018): each round takes the winner on the images drawn and scores it,
    and `baseline` (N,) or, of several seeds, (S, N), on those left out. We deviate in pooling the
    left-out counts over rounds before the one score (a mean of F1 over three images a class would
    be biased). `groups` are the models of one configuration under several seeds: the best is then
    the best mean over seeds.
    """
    inside = resampled(labels, predicted, goal, weights)
    outside = weights == 0
    own = groups or [[m] for m in range(len(predicted))]
    means = np.stack([inside[:, list(rows)].mean(1) for rows in own], 1)
    most = max(map(len, own))
    seeds = np.stack([np.resize(rows, most) for rows in own])[means.argmax(1)]  # (B, most)
    found = [_left_out(labels, predicted[rows], goal, outside) for rows in seeds.T]
    pooled, each = float(np.mean([p for p, _ in found])), np.mean([e for _, e in found], 0)
    low, high = _narrowed(each, outside)
    score = Estimate(pooled, max(0.0, pooled + low), min(1.0, pooled + high))
    if baseline is None:
        return score, None
    bases = [
        _left_out(labels, np.broadcast_to(calls, outside.shape), goal, outside)
        for calls in np.atleast_2d(baseline)
    ]
    base_pooled, base_each = np.mean([p for p, _ in bases]), np.mean([e for _, e in bases], 0)
    low, high = _narrowed(each - base_each, outside)
    lead = float(pooled - base_pooled)
    return score, Estimate(lead, lead + low, lead + high)


def corrected_lead(labels: Ints, mine: Ints, others: Ints, goal: Goal, weights: Floats) -> Estimate:
    """The lead of the best of some models (M, N) over the best of others (M', N).

    As in `corrected_best`: both winners of a round are chosen on the images drawn and compared on
    those left out, so that neither many models nor luck with these images makes a lead.
    """
    outside = weights == 0
    sides = []
    for predicted in (mine, others):
        winners = resampled(labels, predicted, goal, weights).argmax(1)
        sides.append(_left_out(labels, predicted[winners], goal, outside))
    (pooled, each), (other_pooled, other_each) = sides
    low, high = _narrowed(each - other_each, outside)
    lead = pooled - other_pooled
    return Estimate(lead, lead + low, lead + high)


def _left_out(
    labels: Ints, calls: Ints, goal: Goal, outside: NDArray[np.bool_]
) -> tuple[float, Floats]:
    """The score of each round's calls (B, N) on the images outside: pooled, and per round (B,)."""
    rounds, classes = len(outside), goal.classes
    key = calls + classes * np.arange(rounds)[:, None]
    shape = (rounds, classes)
    said = np.bincount(key[outside], minlength=rounds * classes).reshape(shape)
    hits = np.bincount(key[outside & (calls == labels)], minlength=rounds * classes).reshape(shape)
    support = outside.astype(np.float32) @ (labels[:, None] == np.arange(classes))
    pooled = goal.scores(Tally(hits.sum(0), said.sum(0), support.sum(0)))
    return float(pooled), goal.scores(Tally(hits, said, support))


def _narrowed(each: Floats, outside: NDArray[np.bool_]) -> tuple[float, float]:
    """The interval of the rounds' values around their mean, brought to the size of all N images.

    A round's share p of N images, drawn without replacement, has a variance of (1 - p) / p of that
    of N images.
    """
    share = outside.mean()
    low, high = np.array(interval(each - each.mean())) * np.sqrt(share / (1 - share))
    return float(low), float(high)


def wilson(hits: Ints, total: Ints) -> tuple[Floats, Floats]:
    """The 95 % Wilson interval of hits / total; (0, 1) where total is 0."""
    n = np.maximum(np.asarray(total, np.float64), 1)
    share, z2 = np.asarray(hits) / n, NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    empty = np.asarray(total) == 0
    low = np.where(empty, 0.0, np.maximum(centre - half, 0.0))
    return low, np.where(empty, 1.0, np.minimum(centre + half, 1.0))


def influence(labels: Ints, predicted: Ints, goal: Goal) -> Floats:
    """What each image adds to the score of each model (M, N), to first order: sums to about zero.

    The infinitesimal jackknife (Efron 1982); the variance of a score under resampling of images is
    the sum of squares, and differences of models are paired.
    """
    counts = tally(labels, predicted, goal.classes)
    hit = predicted == labels
    if goal.name == "accuracy":
        out: Floats = (hit - hit.mean(1, keepdims=True)) / max(1, len(labels))
        return out
    rows = np.arange(len(predicted))[:, None]
    support = np.maximum(counts.support, 1)
    if goal.name == "uar":
        used = counts.support > 0
        recall = counts.hits / support
        each: Floats = (hit - recall[rows, labels]) / support[rows, labels]
        each /= np.maximum(used.sum(1), 1)[:, None]
        return each
    keep = (goal.keep if goal.name == "macro_f1" else True) & (counts.support > 0)
    size = np.maximum(counts.support + counts.said, 1)
    half = np.where(keep, counts.hits / size**2, 0.0)  # a fall of F1 by half of this for a call
    gain = np.where(keep, 1 / size, 0.0)[rows, labels] * hit
    out = 2 * (gain - half[rows, labels] - half[rows, predicted])
    out /= np.maximum(keep.sum(1), 1)[:, None]
    return out
