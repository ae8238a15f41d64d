"""Greedy selection of models by log-likelihood. M models, N images.

likely (M, N) probability that each model gives the true class, importance (N,) of the images.
"""

import numpy as np
from numpy.typing import NDArray

from trainables.metrics import Floats

Weights = NDArray[np.float64]

ROUNDS = 25
BAGS = 20
SHARE = 0.5  # of the library, in a bag
START = 10  # at most so many of the best are there from the start
FLOOR = 1e-4  # no image may decide alone


def log_likelihood(likely: Floats, importance: Floats) -> Floats:
    """Mean log-likelihood of each model (M,)."""
    mean: Floats = np.log(np.maximum(likely, FLOOR)) @ (importance / importance.sum())
    return mean


def select(likely: Floats, importance: Floats, rounds: int = ROUNDS, start: int = START) -> Weights:
    """Weights (M,), summing to 1, that raise the log-likelihood of the mean, one pick a round.

    Greedy selection with replacement (Caruana et al. 2004) from a sorted start: the best prefix of
    the `start` best models. The best round stands, so that the result is never below the best model
    on these images.
    """
    likely = np.ascontiguousarray(likely, np.float32)
    share = (importance / importance.sum()).astype(np.float32)
    order = np.argsort(-log_likelihood(likely, share), kind="stable")[: min(start, rounds)]
    prefixes = np.cumsum(likely[order], 0) / np.arange(1, len(order) + 1, dtype=np.float32)[:, None]
    values = log_likelihood(prefixes, share)
    size = int(values.argmax()) + 1
    counts, best = np.zeros(len(likely)), values[size - 1]
    counts[order[:size]] = 1
    total, kept, room = likely[order[:size]].sum(0), counts.copy(), np.empty_like(likely)
    for more in range(size + 1, rounds + 1):
        np.add(likely, total, out=room)
        np.maximum(room, FLOOR * more, out=room)
        values = np.log(room, out=room) @ share
        pick = int(values.argmax())
        total, counts[pick] = total + likely[pick], counts[pick] + 1
        value = values[pick] - np.log(more)
        if value > best:
            best, kept = value, counts.copy()
    weights: Weights = kept / kept.sum()
    return weights


def bagged(likely: Floats, importance: Floats, rng: np.random.Generator) -> Weights:
    """The mean of `select` over random halves of the models; that over all, where it is better.

    Caruana et al. 2006: bags lower the chance that one model that fits by luck is taken.
    """
    whole = select(likely, importance)
    size = max(2, round(SHARE * len(likely)))
    if size >= len(likely):
        return whole
    weights = np.zeros(len(likely))
    for _ in range(BAGS):
        part = np.sort(rng.choice(len(likely), size, replace=False))
        weights[part] += select(likely[part], importance) / BAGS
    alone = log_likelihood(likely, importance).max()
    mean = weights.astype(np.float32) @ likely
    return weights if log_likelihood(mean[None], importance)[0] >= alone else whole
