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

from search.encoding import Encoder
from search.outcome import score
from search.surrogate import Points, Posterior, Theta, fit
from spaces.space import Space, Value
from trainables.store import Row, Status

Array = NDArray[np.float64]
STARTUP = 8  # random trials first
FIT_POINTS, KNOWN_POINTS = 120, 400  # most observations fitted to, and conditioned on
SHAKE = 0.3  # of the length scales' logarithms: parallel proposals then differ
POOL, CHANGED, KEPT, ROUNDS = 200, 80, 8, 3  # candidates
RANDOM_SHARE = 0.1  # of decisions that the model does not take: a check on what it believes
GOALS = 1.0, 4.0  # improvements aimed at, 10^-u of the spread of what is known
NONE: Mapping[str, int] = {}


@dataclass
class Known:
    """A trial as the model sees it."""

    point: Array
    scores: dict[int, float] = field(default_factory=dict)  # epoch -> score
    status: Status = "running"

    @property
    def is_open(self) -> bool:
        return self.status == "running"

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


@dataclass(frozen=True)
class Belief:
    """What a decision is taken on. T trials, F features, P dimensions."""

    posterior: Posterior
    x: Array  # (T, F)
    top: Array  # (KEPT, P) the points that are expected to end best
    goal: float  # the value to be reached
    horizon: float  # epochs from now in which to reach it


class FidelityModel:
    """A `proposer.Leader`. State: the trials in the order they were asked for, and the last fit."""

    def __init__(self, space: Space, epochs: int, budget: int = 100) -> None:
        self.encoder, self.epochs = Encoder(space), epochs
        self.startup = min(STARTUP, max(4, budget // 4))
        self.grid = observed_epochs(epochs)
        self.trials: dict[str, Known] = {}
        self._drawn: Array = np.zeros(0)
        self._won: Array | None = None  # the new point that no waiting trial could beat
        self._fitted: tuple[bytes, Theta] = (b"", Theta(np.zeros(0), np.zeros(0)))

    def draw(self, seed: int) -> dict[str, Value]:
        rng = np.random.default_rng(seed)
        if self._won is not None:
            row, self._won = self._won, None
        elif self._is_new() or rng.random() < RANDOM_SHARE:
            row = self._believed(1, seed)[0]
        else:
            row = self._climb(self._belief(rng), rng, seed)[0]
        flat = self.encoder.flat(row)
        self._drawn = self.encoder.point(flat)  # as the record will have it, to the last digit
        return flat

    def prefer(self, paused: Mapping[str, int], seed: int) -> str | None:
        """The paused trial (at its epoch) likelier to lead, some time from here, than a new one."""
        strange = sorted(trial for trial in paused if trial not in self.trials)
        if strange:
            return strange[0]  # nothing is known of it: it is trained to its end
        rng = np.random.default_rng(seed)
        if not paused or self._is_new():
            return None
        if rng.random() < RANDOM_SHARE:
            self._won = self._believed(1, seed)[0]
            return None
        belief = self._belief(rng, paused)
        index = {trial: i for i, trial in enumerate(self.trials)}
        waiting = sorted(paused, key=lambda trial: index[trial])
        numbers = np.array([index[trial] for trial in waiting])
        gaps = self._gaps([paused[trial] + belief.horizon for trial in waiting])
        mean, sd = belief.posterior.predict(belief.x[numbers], numbers, gaps)
        chances = (mean - belief.goal) / sd
        best = int(np.argmax(chances))
        new, chance = self._climb(belief, rng, seed)
        if chances[best] >= chance:
            return waiting[best]
        self._won = new
        return None

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

    def _is_new(self) -> bool:
        """Whether too little is known to model."""
        if len(self.trials) < self.startup:
            return True
        seen = sum(1 for trial in self.trials.values() if trial.tops(self.grid))
        return seen < max(2, self.startup // 2)

    def _belief(self, rng: np.random.Generator, paused: Mapping[str, int] = NONE) -> "Belief":
        """What the observations tell, under length scales shaken a little."""
        trials = list(self.trials.values())
        x = self.encoder.features(np.array([t.point for t in trials]))
        points, y = self._observations(trials, x)
        theta = self._theta(points, y)
        some = subset(y, KNOWN_POINTS)
        points, y = points.take(some), y[some]
        known = Posterior(points, y, theta, self.encoder.groups)
        mean, _ = known.predict(x, np.arange(len(trials)))
        running = np.array(
            [i for i, (t, k) in enumerate(self.trials.items()) if k.is_open and t not in paused],
            dtype=int,
        )
        believed = Points(
            np.vstack([points.x, x[running]]),
            np.concatenate([points.trial, running]),
            np.concatenate([points.gap, np.zeros(len(running))]),
        )  # running trials at their expected end, so that others look elsewhere
        shaken = Theta(theta.scales + SHAKE * rng.normal(size=len(theta.scales)), theta.sizes)
        posterior = Posterior(
            believed, np.concatenate([y, mean[running]]), shaken, self.encoder.groups
        )
        seen = np.unique(points.trial)
        top = seen[np.argsort(-mean[seen], kind="stable")[:KEPT]]
        leads, spread = float(mean[seen].max()), float(np.ptp(mean[seen]))
        goal = leads + max(1e-3, spread) * 10 ** -rng.uniform(*GOALS)
        horizon = rng.uniform(1, self.epochs)
        return Belief(posterior, x, np.array([trials[i].point for i in top]), goal, horizon)

    def _theta(self, points: Points, y: Array) -> Theta:
        """The fitted parameters: a function of the observations, remembered for the next ask."""
        few = subset(y, FIT_POINTS)
        chosen, targets = points.take(few), y[few]
        key = b"".join(a.tobytes() for a in (chosen.x, chosen.trial, chosen.gap, targets))
        if key != self._fitted[0]:
            groups, dims = self.encoder.groups, len(self.encoder.dims)
            self._fitted = key, fit(chosen, targets, groups, dims)
        return self._fitted[1]

    def _believed(self, n: int, seed: int) -> Array:
        """Random points (n, P), near the defaults as often as the space believes in them."""
        rng = random.Random(seed)
        return np.array([self.encoder.point(self.encoder.space.sample(rng)) for _ in range(n)])

    def _climb(self, belief: "Belief", rng: np.random.Generator, seed: int) -> tuple[Array, float]:
        """The new point likeliest to reach the goal at the horizon, in standard deviations."""
        parents = np.vstack([belief.top, self._believed(2, seed)])
        near = self.encoder.mutate(parents[rng.integers(len(parents), size=POOL)], rng)
        pool = np.vstack([self.encoder.sample(POOL, rng), near])
        gap = self._gaps([belief.horizon])
        for round_ in range(ROUNDS):
            mean, sd = belief.posterior.predict(self.encoder.features(pool), gap=gap)
            chances = (mean - belief.goal) / sd
            order = np.argsort(-chances, kind="stable")[:KEPT]
            pool = pool[order]
            if round_ < ROUNDS - 1:
                near = self.encoder.mutate(pool[rng.integers(len(pool), size=CHANGED)], rng)
                pool = np.vstack([pool, near])
        return np.asarray(pool[0]), float(chances[order[0]])

    def _gaps(self, epochs: Sequence[float]) -> Array:
        """1 after the first epoch, 0 at full training and beyond."""
        spread = math.log(max(2, self.epochs))
        gaps: Array = 1 - np.log(np.asarray(epochs, dtype=float)) / spread
        return np.maximum(gaps, 0.0)

    def _observations(self, trials: Sequence[Known], x: Array) -> tuple[Points, Array]:
        """Every observation, its target the normal quantile of its rank among all of them."""
        rows = [(i, e, top) for i, t in enumerate(trials) for e, top in t.tops(self.grid).items()]
        trial = np.array([i for i, _, _ in rows])
        gap = self._gaps([e for _, e, _ in rows])
        ranks = ranks_of([s for _, _, s in rows])
        return Points(x[trial], trial, gap), np.asarray(ndtri((ranks - 0.5) / len(rows)))


def ranks_of(scores: Sequence[float]) -> Array:
    """From 1, ties share theirs: `scipy.stats.rankdata`, which takes half a second to import."""
    _, place, many = np.unique(scores, return_inverse=True, return_counts=True)
    shared: Array = (many.cumsum() - (many - 1) / 2)[place]
    return shared


def observed_epochs(epochs: int) -> tuple[int, ...]:
    """Where curves are looked at: the last epoch and, by steps of sqrt(3), down to a ninth."""
    return tuple(sorted({max(1, round(epochs / math.sqrt(3) ** step)) for step in range(5)}))


def subset(y: Array, size: int) -> NDArray[np.int64]:
    """At most `size` observations: the best half of it, and an even pick of the others."""
    if len(y) <= size:
        return np.arange(len(y))
    order = np.argsort(-y, kind="stable")
    best, rest = order[: size // 2], order[size // 2 :]
    pick = np.linspace(0, len(rest) - 1, size - len(best)).round().astype(int)
    return np.sort(np.concatenate([best, rest[pick]]))
