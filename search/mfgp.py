"""Proposals from a Gaussian process over configuration and training length (`surrogate.py`).

Expected improvement at full training, among random points and changes of the best. Every proposal
is a pure function of what was told and of its seed: the parameters are fitted anew each time, from
the same start, on a subset that does not depend on the order of arrival.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from search.core import score
from search.encoding import Encoder
from search.surrogate import Points, Posterior, Theta, expected_improvement, fit
from spaces.space import Space, Value
from trainables.store import Row, Status

Array = NDArray[np.float64]
STARTUP = 8  # random trials first
FIT_POINTS, KNOWN_POINTS = 120, 400  # most observations fitted to, and conditioned on
SHAKE = 0.3  # of the length scales' logarithms: parallel proposals then differ
POOL, CHANGED, KEPT, ROUNDS = 200, 80, 8, 3  # candidates


@dataclass
class Known:
    """A trial as the model sees it."""

    point: Array
    scores: dict[int, float] = field(default_factory=dict)  # epoch -> score
    status: Status = "running"

    def tops(self, grid: Sequence[int]) -> dict[int, float]:
        """The best so far at the epochs of the grid; -inf where it failed or never had a score."""
        is_blank = not any(map(isfinite, self.scores.values()))
        if self.status == "failed" or (self.status in ("completed", "stopped") and is_blank):
            return {max([1, *self.scores]): -math.inf}
        best, tops = -math.inf, dict[int, float]()
        for epoch, value in sorted(self.scores.items()):
            best = max(best, value) if isfinite(value) else best
            if epoch in grid and isfinite(best):
                tops[epoch] = best
        return tops


class FidelityModel:
    """A `proposer.Model`. State: the trials in the order they were asked for."""

    def __init__(self, space: Space, epochs: int, budget: int = 100) -> None:
        self.encoder, self.epochs = Encoder(space), epochs
        self.startup = min(STARTUP, max(4, budget // 4))
        self.grid = observed_epochs(epochs)
        self.trials: dict[str, Known] = {}
        self._drawn: Array = np.zeros(0)

    def draw(self, seed: int) -> dict[str, Value]:
        rng = np.random.default_rng(seed)
        seen = [t for t in self.trials.values() if t.tops(self.grid)]
        if len(self.trials) < self.startup or len(seen) < max(2, self.startup // 2):
            row = self._believed(1, seed)[0]
        else:
            row = self._improve(rng, seed)
        flat = self.encoder.flat(row)
        self._drawn = self.encoder.point(flat)  # as the record will have it, to the last digit
        return flat

    def keep(self, trial: str) -> None:
        self.trials[trial] = Known(self._drawn)

    def drop(self) -> None:
        self._drawn = np.zeros(0)

    def reopen(self, trial: str, params: Mapping[str, Value], seed: int) -> None:
        self.trials[trial] = Known(self.encoder.point(params))

    def observe(self, trial: str, epoch: int, score: float) -> None:
        self.trials[trial].scores[epoch] = score

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """A failed trial counts as the worst, at the epoch where it ended."""
        known = self.trials[trial]
        known.status = status
        known.scores = {row["epoch"]: score(row) for row in history}

    def _improve(self, rng: np.random.Generator, seed: int) -> Array:
        """The point of the largest expected improvement at full training."""
        trials = list(self.trials.values())
        x = self.encoder.features(np.array([t.point for t in trials]))
        points, y = self._observations(trials, x)
        few = subset(y, FIT_POINTS)
        theta = fit(points.take(few), y[few], self.encoder.groups, len(self.encoder.dims))
        some = subset(y, KNOWN_POINTS)
        points, y = points.take(some), y[some]
        posterior = Posterior(points, y, theta, self.encoder.groups)
        mean, _ = posterior.predict(x, np.arange(len(trials)))
        seen = np.unique(points.trial)
        pending = np.array([i for i, t in enumerate(trials) if not t.tops(self.grid)], dtype=int)
        shaken = Theta(theta.scales + SHAKE * rng.normal(size=len(theta.scales)), theta.sizes)
        believed = Points(
            np.vstack([points.x, x[pending]]),
            np.concatenate([points.trial, pending]),
            np.concatenate([points.gap, np.zeros(len(pending))]),
        )  # running trials at their expected end, so that others look elsewhere
        posterior = Posterior(
            believed, np.concatenate([y, mean[pending]]), shaken, self.encoder.groups
        )
        top = seen[np.argsort(-mean[seen], kind="stable")[:KEPT]]
        parents = [*(trials[i].point for i in top), *self._believed(2, seed)]
        return self._climb(np.array(parents), posterior, float(mean[seen].max()), rng)

    def _believed(self, n: int, seed: int) -> Array:
        """Random points (n, P), near the defaults as often as the space believes in them."""
        rng = random.Random(seed)
        return np.array([self.encoder.point(self.encoder.space.sample(rng)) for _ in range(n)])

    def _climb(
        self, parents: Array, posterior: Posterior, best: float, rng: np.random.Generator
    ) -> Array:
        near = self.encoder.mutate(parents[rng.integers(len(parents), size=POOL)], rng)
        pool = np.vstack([self.encoder.sample(POOL, rng), near])
        for round_ in range(ROUNDS):
            mean, sd = posterior.predict(self.encoder.features(pool))
            gain = expected_improvement(mean, sd, best)
            pool = pool[np.argsort(-gain, kind="stable")[:KEPT]]
            if round_ < ROUNDS - 1:
                near = self.encoder.mutate(pool[rng.integers(len(pool), size=CHANGED)], rng)
                pool = np.vstack([pool, near])
        return np.asarray(pool[0])

    def _observations(self, trials: Sequence[Known], x: Array) -> tuple[Points, Array]:
        """Every observation, its target the normal quantile of its rank among all of them."""
        rows = [(i, e, top) for i, t in enumerate(trials) for e, top in t.tops(self.grid).items()]
        trial = np.array([i for i, _, _ in rows])
        spread = math.log(max(2, self.epochs))
        gap = np.array([max(0.0, 1 - math.log(e) / spread) for _, e, _ in rows])
        ranks = rankdata([s for _, _, s in rows])  # ties share theirs, divergence is a tie
        return Points(x[trial], trial, gap), np.asarray(ndtri((ranks - 0.5) / len(rows)))


def observed_epochs(epochs: int) -> tuple[int, ...]:
    """Where curves are looked at: the last epoch and, by steps of sqrt(3), down to the first."""
    steps, at = {epochs}, float(epochs)
    while at > 1:
        steps.add(max(1, round(at)))
        at /= math.sqrt(3)
    return tuple(sorted(steps | {1}))


def subset(y: Array, size: int) -> NDArray[np.int64]:
    """At most `size` observations: the best half of it, and an even pick of the others."""
    if len(y) <= size:
        return np.arange(len(y))
    order = np.argsort(-y, kind="stable")
    best, rest = order[: size // 2], order[size // 2 :]
    pick = np.linspace(0, len(rest) - 1, size - len(best)).round().astype(int)
    return np.sort(np.concatenate([best, rest[pick]]))
