"""Honest scores of ensemble methods: choose on some images, score on the others.

R repeats, N images; calls (R, methods, N) are the classes said of images that did not choose.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from analysis import methods as me
from analysis import statistics
from analysis.methods import Method, Pool
from analysis.statistics import Estimate, Goal
from trainables.metrics import Floats, Ints

FOLDS = 5
REPEATS = 3
BOOTSTRAP = 900
FEW_IMAGES = 20  # fewer are not split any further


@dataclass(frozen=True)
class Crossfit:
    """What the methods call images that did not choose them."""

    fold: NDArray[np.int64]  # (R, N)
    calls: NDArray[np.int64]  # (R, methods, N): all folds but the image's have chosen
    inner: NDArray[np.int64]  # (R, F, methods, N): all but the image's and fold F; -1 in fold F


def folds(labels: Ints, rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold per image (N,): classes dealt evenly, sizes differing by at most one."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    out = np.empty(len(labels), np.int64)
    out[order] = (np.arange(len(labels)) + rng.integers(FOLDS)) % FOLDS
    return out


def run(pool: Pool, rng: np.random.Generator, repeats: int = REPEATS) -> Crossfit:
    """Fit all methods without each fold, and without each two.

    A fit without folds f and g serves twice: as an inner fit of outer fold f and of g, which makes
    nested cross-fitting of 5 folds cost 15 fits instead of 30.
    """
    library, count = pool.library, len(me.methods(pool))
    found = Crossfit(
        np.stack([folds(library.labels, rng) for _ in range(repeats)]),
        np.full((repeats, count, library.images), -1),
        np.full((repeats, FOLDS, count, library.images), -1),
    )
    for fold, calls, inner in zip(found.fold, found.calls, found.inner, strict=True):
        parts = library.parts(fold, FOLDS)
        where = [np.flatnonzero(fold == f) for f in range(FOLDS)]
        for held in [*((f,) for f in range(FOLDS)), *combinations(range(FOLDS), 2)]:
            images = np.flatnonzero(~np.isin(fold, held))
            recipes = me.fit(pool, *parts.without(*held), images, rng)
            for f in held:
                said = me.calls_of(recipes, library, where[f])
                if len(held) == 1:
                    calls[:, where[f]] = said
                else:
                    other = held[0] if f == held[1] else held[1]
                    inner[other][:, where[f]] = said
    return found


def judge(calls: NDArray[np.int64], labels: Ints, goal: Goal) -> tuple[Floats, Floats]:
    """Score of each method, and the standard error of its paired distance to the best."""
    repeats, count, images = calls.shape
    flat = calls.reshape(repeats * count, images)
    counts = statistics.tally(labels, flat, goal.classes)
    means = goal.scores(counts).reshape(repeats, count).mean(0)
    each = statistics.influence(labels, flat, goal).reshape(repeats, count, images).mean(0)
    apart = each[int(means.argmax())] - each
    size = np.maximum(np.bincount(labels, minlength=goal.classes), 1)
    own = np.zeros((images, goal.classes))
    own[np.arange(images), labels] = 1
    inside = apart - ((apart @ own) / size)[:, labels]  # images are drawn within their class
    return means, np.sqrt((inside**2).sum(1))


def take(means: Floats, errors: Floats) -> int:
    """The number of the method to take, by the one-standard-error rule on the paired difference:
    the first, in the order of trust, that is within one standard error of the best."""
    return int(np.flatnonzero(means >= means.max() - errors)[0])


def nested(
    pool: Pool, found: Crossfit, rng: np.random.Generator, baseline: Ints | None = None
) -> dict[str, Estimate]:
    """Scores on images that chose neither members, weights nor method; {} for too few images.

    "ensemble", "single", "top" (the plain average) and, where its calls (N,) are given, "baseline",
    which nobody chose; then the ensemble's lead over each of the others.
    """
    labels, goal, names = pool.library.labels, pool.library.goal, me.methods(pool)
    if len(labels) < 2 * FEW_IMAGES:
        return {}
    fixed = [names.index(("average", k)) for k in (1, plain_size(names))]
    repeats = len(found.fold)
    calls = np.empty((repeats, 3, len(labels)), np.int64)
    for repeat in range(repeats):
        for held in range(FOLDS):
            out = found.fold[repeat] == held
            inner = found.inner[repeat, held][None][:, :, ~out]
            chosen = take(*judge(inner, labels[~out], goal))
            calls[repeat][:, out] = found.calls[repeat, [chosen, *fixed]][:, out]
    if baseline is not None:
        same = np.broadcast_to(baseline, (repeats, 1, len(labels)))
        calls = np.concatenate([calls, same], 1)
    return _estimates(calls, labels, goal, rng)


def plain_size(names: list[Method]) -> int:
    """The number of members of the plain average that stands beside everything."""
    return names[0][1]


def _estimates(
    calls: NDArray[np.int64], labels: Ints, goal: Goal, rng: np.random.Generator
) -> dict[str, Estimate]:
    repeats, count, images = calls.shape
    names = ["ensemble", "single", "top", "baseline"][:count]
    flat = calls.reshape(-1, images)
    counts = statistics.tally(labels, flat, goal.classes)
    values = goal.scores(counts).reshape(repeats, count).mean(0)
    weights = statistics.resample(labels, BOOTSTRAP, rng)
    sampled = statistics.bootstrap(labels, flat, goal, weights)["score"]
    sampled = sampled.reshape(len(weights), repeats, count).mean(1)
    one = np.eye(count)
    minus = np.concatenate([one, one[0] - one[1:]]).T
    low, high = statistics.interval(sampled @ minus)
    names += [f"lead over {name}" for name in names[1:]]
    numbers = zip(names, values @ minus, low, high, strict=True)
    return {name: Estimate(float(v), float(a), float(b)) for name, v, a, b in numbers}
