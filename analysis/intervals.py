"""Intervals of many models' scores, and of their leads over one. M models, B rounds."""

from functools import lru_cache

import numpy as np

from analysis import statistics
from analysis.statistics import Goal
from trainables.metrics import Floats, Ints

ROUNDS = 1000  # of the bootstrap
BOOTSTRAPPED = 500  # models; ten thousand would take a minute


def of_scores(
    labels: Ints, predicted: Ints, goal: Goal, scores: Floats, base: int | None
) -> dict[str, Floats]:
    """The intervals of all scores (M,), and of their leads over the model `base`.

    By the bootstrap for the best BOOTSTRAPPED and the base; beyond, normal ones by the
    infinitesimal jackknife (Efron 1982), close to those and a hundred times as fast.
    """
    best = np.sort(np.argsort(-scores, kind="stable")[:BOOTSTRAPPED])
    if base is not None and base not in best:
        best = np.append(best, base)
    sampled = sampled_scores(labels, predicted[best], goal)
    shape = (2, 2, len(scores))
    has_rest = len(best) < len(scores)
    low, high = jackknifed(labels, predicted, goal, scores, base) if has_rest else np.empty(shape)
    low[0, best], high[0, best] = statistics.interval(sampled)
    out = {"score low": low[0], "score high": high[0]}
    if base is None:
        return out
    gaps = sampled - sampled[:, [int(np.flatnonzero(best == base)[0])]]
    low[1, best], high[1, best] = statistics.interval(gaps)
    lead = scores - scores[base]
    out |= {"vs baseline": lead, "vs baseline low": low[1], "vs baseline high": high[1]}
    for column in ("vs baseline", "vs baseline low", "vs baseline high"):
        out[column][base] = np.nan
    return out


def sampled_scores(labels: Ints, predicted: Ints, goal: Goal) -> Floats:
    """The score in each round of the bootstrap (B, M), the rounds the same for all models."""
    weights = _weights(labels.astype(np.int64).tobytes())
    return statistics.resampled(labels, predicted, goal, weights)


@lru_cache(maxsize=4)
def _weights(labels: bytes) -> Floats:
    return statistics.resample(np.frombuffer(labels, np.int64), ROUNDS, np.random.default_rng(0))


def jackknifed(
    labels: Ints, predicted: Ints, goal: Goal, scores: Floats, base: int | None
) -> tuple[Floats, Floats]:
    """(low, high), each (2, M): of the score, and of its lead over the base."""
    own = None if base is None else predicted[base]
    found = np.stack(errors(labels, predicted, goal, own))
    middle = np.stack([scores, scores - (0.0 if base is None else scores[base])])
    half = statistics.NORMAL_95 * found
    low, high = middle - half, middle + half
    low[0], high[0] = np.maximum(low[0], 0), np.minimum(high[0], 1)
    return low, high


def errors(
    labels: Ints, predicted: Ints, goal: Goal, base: Ints | None = None
) -> tuple[Floats, Floats]:
    """The standard errors of each model's score (M,) and of its lead over the calls `base` (N,)."""
    reference = 0.0 if base is None else statistics.influence(labels, base[None], goal)
    own, lead = np.empty(len(predicted)), np.empty(len(predicted))
    for start in range(0, len(predicted), statistics.MODELS_AT_ONCE):
        rows = slice(start, start + statistics.MODELS_AT_ONCE)
        each = statistics.influence(labels, predicted[rows], goal)
        own[rows] = np.sqrt((each**2).sum(1))
        lead[rows] = np.sqrt(((each - reference) ** 2).sum(1))
    return own, lead
