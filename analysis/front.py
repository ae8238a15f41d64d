"""What accuracy costs in latency: plain averages under budgets, scored like all others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis import crossfit, statistics
from analysis import methods as me
from analysis.methods import Limits, Pool, Recipe
from trainables.metrics import Floats, Ints

BUDGETS = 8
SIZES = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class Point:
    """An ensemble's cost and its score on images that did not choose it."""

    method: str
    members: int
    latency_ms: float
    score: float
    is_best: bool = False  # none costs less and scores as much


def points(pool: Pool, found: crossfit.Crossfit) -> list[Point]:
    """Plain averages of at most k models under a budget of latency; [] where none is on record."""
    known = np.isfinite(pool.latency_ms)
    if not known.all() or pool.library.images < crossfit.FEW_IMAGES:
        return []
    budgets = _budgets(pool.latency_ms)
    wanted = [(k, float(b)) for b in budgets for k in SIZES if k <= pool.library.models]
    library, repeats = pool.library, len(found.fold)
    calls = np.empty((repeats, len(wanted), library.images), np.int64)
    for repeat, fold in enumerate(found.fold):
        parts = library.parts(fold, crossfit.FOLDS)
        for held in range(crossfit.FOLDS):
            order = library.ranking(*parts.without(held))
            images = np.flatnonzero(fold == held)
            recipes = [_cheap(pool, order, *want) for want in wanted]
            calls[repeat][:, images] = me.calls_of(recipes, library, images)
    flat = calls.reshape(-1, library.images)
    scores = library.goal.scores(statistics.tally(library.labels, flat, library.classes))
    means = scores.reshape(repeats, -1).mean(0)
    order = library.ranking(*library.parts(np.zeros(library.images, np.int64), 1).without())
    out = {}
    for (k, budget), score in zip(wanted, means, strict=True):
        members = _cheap(pool, order, k, budget).members
        out[tuple(members)] = Point(
            "average", len(members), float(pool.latency_ms[members].sum()), float(score)
        )
    return list(out.values())


def marked(found: Sequence[Point]) -> list[Point]:
    """The points by latency; those that none beats in both are marked."""
    out, best = [], -np.inf
    for point in sorted(found, key=lambda p: (p.latency_ms, -p.score)):
        out.append(replace(point, is_best=point.score > best))
        best = max(best, point.score)
    return out


def _budgets(latency: Floats) -> NDArray[np.float64]:
    """From the cheapest model's latency to that of ten of the dearest, evenly on a log scale."""
    most = np.sort(latency)[-10:].sum()
    return np.geomspace(max(float(latency.min()), 1e-6) * 1.001, max(most, 2e-6), BUDGETS)


def _cheap(pool: Pool, order: Ints, k: int, budget: float) -> Recipe:
    limits = Limits(pool.limits.members, min(budget, pool.limits.latency_ms or np.inf))
    return me.plain(replace(pool, limits=limits).first(order, k))
