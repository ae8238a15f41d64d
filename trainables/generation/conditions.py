"""Which faces to ask a generator for. N images, K classes, A action units.

Labels (N,) and AUs (N, A) in {1, 0, -1 unknown}. `train` is all that is known of the real ones.
"""

import numpy as np
from numpy.typing import NDArray

from trainables.data.bundle import Split

Ints = NDArray[np.int64]
NOVELTY = 0.1  # chance of each AU to come from another image of the class


def sampling_weights(labels: Ints, exponent: float) -> NDArray[np.float64]:
    """(N,) chances, summing to 1, by which the GAN sees the images: a class as its count^(1-e)."""
    counts = np.bincount(labels)
    weights = counts[labels].astype(np.float64) ** -exponent
    return np.asarray(weights / weights.sum(), np.float64)


def spread_evenly(total: int, weights: NDArray[np.float64]) -> Ints:
    """(K,) whole numbers that sum to `total` and are as near to proportional as they can be."""
    exact = total * weights / weights.sum()
    out: Ints = np.floor(exact).astype(np.int64)
    most_missed = np.argsort(out - exact, kind="stable")
    out[most_missed[: total - int(out.sum())]] += 1
    return out


def cycle(rows: Ints, count: int, rng: np.random.Generator) -> Ints:
    """(count,) of the rows in random order, none again before all have come."""
    rounds = -(-count // len(rows)) if len(rows) else 0
    drawn: Ints = np.concatenate([rows[:0], *(rng.permutation(rows) for _ in range(rounds))])
    return drawn[:count]


def wanted(
    train: Split, counts: Ints, rng: np.random.Generator, novelty: float = NOVELTY
) -> tuple[Ints, NDArray[np.int8]]:
    """Labels and AUs of so many images of each class (K,).

    The AUs are those of real images of the class, each with a chance replaced by that of another:
    AUs that go together stay so, and yet six images do not make six expressions.
    """
    labels, units = [], []
    for k, count in enumerate(counts.tolist()):
        rows = np.flatnonzero(train.labels == k)
        if count and not len(rows):
            raise ValueError(f"no training image shows class {k}: nothing tells how it looks")
        own = train.aus[cycle(rows, count, rng)]
        other = train.aus[rng.choice(rows, (count, own.shape[1]))] if count else own[:, None]
        other = np.take_along_axis(other, np.arange(own.shape[1])[None, :, None], 2)[..., 0]
        swap = (rng.random(own.shape) < novelty) & (own >= 0) & (other >= 0)
        units.append(np.where(swap, other, own))
        labels.append(np.full(count, k, np.int64))
    return np.concatenate(labels), np.concatenate(units).astype(np.int8)
