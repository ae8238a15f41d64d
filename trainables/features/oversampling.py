"""Feature vectors made of the images of a class. N images, D features, K classes, M new rows.

Every synthesis makes as many rows of the same classes (`allotted`), so that they differ in nothing
but what a row is; `repeat` is their control: real rows again. With `classes` "all", what is
synthetic does not tell the class; with "tail" it does, and `synthetic_probe_auc` says how well.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainables.features.examples import Examples, Floats, Ints, joined
from trainables.features.judges import distances
from trainables.features.synthesis import SYNTHESES, Synthesis, rows_of

NEIGHBOURS = 5
Make = Callable[[Examples, Ints, int, np.random.Generator], Examples]  # members, how many rows


def allotted(counts: Ints, ratio: float, classes: str) -> Ints:
    """(K,) rows to make: `ratio` times the mean of the classes that have images, for each of them
    ("all") or for those below that mean ("tail")."""
    mean = counts.sum() / max(1, (counts > 0).sum())
    chosen = counts > 0 if classes == "all" else (counts > 0) & (counts < mean)
    return np.where(chosen, round(ratio * mean), 0).astype(np.int64)


def by_class(ratio: float, classes: str, make: Make) -> Synthesis:
    """A synthesis that makes the rows of each class by itself. Raises ValueError for the first
    two where they are out of range."""
    check(ratio, classes)

    def synthesise(real: Examples, rng: np.random.Generator) -> Examples:
        parts = [rows_of(real, np.zeros(0, np.int64))]
        for k, count in enumerate(allotted(real.counts(), ratio, classes).tolist()):
            if count:
                parts.append(make(real, np.flatnonzero(real.labels == k), count, rng))
        return joined(parts)

    return synthesise


def check(ratio: float, classes: str) -> None:
    if not 0 <= ratio <= 10:
        raise ValueError(f"ratio {ratio:g} cannot be: give 0 to 10")
    if classes not in ("all", "tail"):
        raise ValueError(f"classes '{classes}'; known: all, tail")


@SYNTHESES.register
def repeat(*, ratio: float = 0.5, classes: str = "all") -> Synthesis:
    """The control of all others: as many rows, all of them real ones again."""

    def make(real: Examples, members: Ints, count: int, rng: np.random.Generator) -> Examples:
        return rows_of(real, rng.choice(members, count))

    return by_class(ratio, classes, make)


@SYNTHESES.register
def smote(*, ratio: float = 0.5, classes: str = "all", neighbours: int = NEIGHBOURS) -> Synthesis:
    """Points between a row and one of its nearest in the class: x + u (x_nn - x), u in [0, 1).

    Chawla et al. 2002 (1106.1813). Of a class of one image, the row itself.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours {neighbours} are too few: give 1 or more")

    def make(real: Examples, members: Ints, count: int, rng: np.random.Generator) -> Examples:
        near = _nearest(real.features[members], min(neighbours, len(members) - 1))
        first = rng.integers(len(members), size=count)
        pick = rng.integers(near.shape[1], size=count)
        return blend(real, members[first], members[near[first, pick]], rng.random(count))

    return by_class(ratio, classes, make)


@SYNTHESES.register
def mixing(
    *, ratio: float = 0.5, classes: str = "all", alpha: float = 0.4, within: bool = True
) -> Synthesis:
    """MixUp of features, Beta(alpha, alpha) of a row and another: of its class (`within`), or of
    any, when the row keeps the larger share and the target is as mixed (Verma et al. 2019,
    1806.05236; here of the features that the classifier sees, not of hidden layers)."""
    if alpha <= 0:
        raise ValueError(f"alpha {alpha:g} is too small: give more than 0")

    def make(real: Examples, members: Ints, count: int, rng: np.random.Generator) -> Examples:
        others = members if within else np.arange(len(real))
        share = rng.beta(alpha, alpha, count)
        share = np.minimum(share, 1 - share)  # of the other
        first = rng.choice(members, count)
        steps = rng.integers(1, max(2, len(others)), count)  # to another than itself, if there is
        second = others[(np.searchsorted(others, first) + steps) % len(others)]
        return blend(real, first, second, share)

    return by_class(ratio, classes, make)


def blend(
    real: Examples,
    first: Ints,
    second: Ints,
    share: NDArray[np.float64],
) -> Examples:
    """Rows that are `share` of the second and the rest of the first, in features and targets; they
    count as of the first's class."""
    part = share[:, None].astype(np.float32)
    one, two = rows_of(real, first), rows_of(real, second)
    return Examples(
        one.features + part * (two.features - one.features),
        one.targets + part * (two.targets - one.targets),
        one.labels,
        real.components,
        real.basics,
    )


def _nearest(features: Floats, k: int) -> Ints:
    """(n, k) the nearest others of each row; (n, 1), itself, where there are none."""
    n = len(features)
    if k == 0:
        return np.arange(n)[:, None]
    found = np.empty((n, k), np.int64)
    start = 0
    for rows in distances(features, features):
        own = np.arange(len(rows))
        rows[own, start + own] = np.inf
        found[start : start + len(rows)] = np.argpartition(rows, k - 1, 1)[:, :k]
        start += len(rows)
    return found
