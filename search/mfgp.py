"""Proposals from a Gaussian process over configuration and training length (`surrogate.py`).

New points are the likeliest to reach a goal, of random ones and changes of the best; what would be
but another seed of a known configuration comes after those that are not. A decision is a pure
function of what was told and of its seed: the parameters are fitted anew each time, from the same
start, on a subset that does not depend on the order of arrival. From CROWD running trials on one
belief serves several decisions, as each of them would see hardly more than the one before. What a
decision costs does not grow with the trials: all that it reads is kept in order as it arrives.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.encoding import Encoder
from search.observed import Known, Ranking, Waiting, observed_epochs
from search.outcome import score
from search.surrogate import Lines, Points, Posterior, Theta, fit
from spaces.space import Space, Value
from trainables.store import Row, Status

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
STARTUP = 8  # random trials first
FIT_POINTS, KNOWN_POINTS = 120, 400  # most observations fitted to, and conditioned on
SHAKE = 0.3  # of the length scales' logarithms: parallel proposals then differ
POOL, CHANGED, KEPT, ROUNDS = 200, 80, 8, 3  # candidates
RANDOM_SHARE = 0.1  # of decisions that the model does not take: a check on what it believes
GOALS = 0.5, 2.5  # improvements aimed at, 10^-u of the spread of what is known
FAR = 1e3  # standard deviations: what another seed of a known configuration is put back by
SHORTLIST = 64  # of those that wait at a rung, how many are weighed
MOST_RUNNING = 1000  # trials that are seen to run
FANTASIES = 200  # of these, how many are taken to end as expected: the best
CROWD, SHARE = 32, 16  # of running trials: from how many on, and how many to a decision of a batch


@dataclass(frozen=True)
class Belief:
    """What decisions are taken on. P dimensions."""

    posterior: Posterior
    top: Array  # (KEPT, P) the points that are expected to end best
    best: float  # the highest value expected
    spread: float  # of the values expected

    def put_back(self, x: Array) -> Array:
        """By how many standard deviations points (N, F) come later: those that are not new. Where
        none is (few dimensions whose settings explain little), nothing is to be chosen by that."""
        is_new = self.posterior.are_new(x)
        return np.where(is_new | ~is_new.any(), 0.0, FAR)

    def goal(self, rng: np.random.Generator) -> float:
        """A value to be reached."""
        return self.best + max(1e-3, self.spread) * 10 ** -rng.uniform(*GOALS)


class FidelityModel:
    """A `proposer.Leader`. State: the trials in the order they were asked for, and the last fit.

    Besides, who runs and who waits, as last told, and the decisions of a batch that are left.
    """

    def __init__(self, space: Space, epochs: int, budget: int = 100) -> None:
        self.encoder, self.epochs = Encoder(space), epochs
        self.startup = min(STARTUP, max(4, budget // 4))
        self.grid = observed_epochs(epochs)
        self.trials: dict[str, Known] = {}
        self._points: list[Array] = []
        self._x: dict[int, Array] = {}  # features of the points that have been asked for
        self._ranking = Ranking()
        self._waiting = Waiting()
        self._batch: list[str | Array] = []  # decisions: a trial that waits, or a new point
        self._drawn: Array = np.zeros(0)
        self._won: Array | None = None  # the new point that no waiting trial could beat
        self._fitted: tuple[bytes, Theta] = (b"", Theta(np.zeros(0), np.zeros(0)))

    def draw(self, seed: int) -> dict[str, Value]:
        rng = np.random.default_rng(seed)
        if self._won is not None:
            row, self._won = self._won, None
        elif self._is_new() or rng.random() < RANDOM_SHARE:
            row = self._believed(1, seed)[0]
        elif self._is_crowded:
            row = self._next_point(rng, seed)
        else:
            belief = self._belief(rng)
            row = self._climb(belief, belief.goal(rng), self._horizon(rng), rng, seed)[0]
        flat = self.encoder.flat(row)
        self._drawn = self.encoder.point(flat)  # as the record will have it, to the last digit
        return flat

    def prefer(self, paused: Mapping[str, int], seed: int) -> str | None:
        """The paused trial (at its epoch) likelier to lead, some time from here, than a new one."""
        self._waiting.settle(paused)
        rng = np.random.default_rng(seed)
        if not paused or self._is_new():
            return None
        if self._is_crowded:
            return self._next(paused, rng, seed)
        self._batch = []
        if rng.random() < RANDOM_SHARE:
            self._won = self._believed(1, seed)[0]
            return None
        belief = self._belief(rng)
        goal, horizon = belief.goal(rng), self._horizon(rng)
        names, waiting, epochs = self._shortlist(paused)
        mean, sd = belief.posterior.predict(
            self._features(waiting), waiting, self._gaps(epochs + horizon)
        )
        chances = (mean - goal) / sd
        best = int(np.argmax(chances))
        new, chance = self._climb(belief, goal, horizon, rng, seed)
        if chances[best] >= chance:
            return self._let_go(names[best], paused)
        self._won = new
        return None

    def keep(self, trial: str) -> None:
        self._add(trial, self._drawn)

    def drop(self) -> None:
        self._drawn = np.zeros(0)

    def reopen(self, trial: str, params: Mapping[str, Value], seed: int) -> None:
        self._add(trial, self.encoder.point(params))

    def _add(self, trial: str, point: Array) -> None:
        self.trials[trial] = self._waiting.running[trial] = Known(len(self._points))
        self._points.append(point)

    def observe(self, trial: str, epoch: int, score: float) -> None:
        known = self.trials[trial]
        known.scores[epoch] = score
        if epoch in self.grid:
            self._ranking.put(known.index, known.tops(self.grid))

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """A failed trial counts as the worst, at the epoch where it ended."""
        known = self.trials[trial]
        known.status = status
        known.scores = {row["epoch"]: score(row) for row in history}
        self._ranking.put(known.index, known.tops(self.grid))
        self._waiting.running.pop(trial, None)

    # --- who runs, and who waits -----------------------------------------------------------------

    def _is_new(self) -> bool:
        """Whether too little is known to model."""
        too_few = len(self.trials) < self.startup
        return too_few or self._ranking.trials < max(2, self.startup // 2)

    @property
    def _is_crowded(self) -> bool:
        return len(self._waiting.running) >= CROWD

    def _let_go(self, trial: str, paused: Mapping[str, int]) -> str:
        self._waiting.let_go(trial, self.trials[trial], paused[trial])
        return trial

    def _shortlist(self, paused: Mapping[str, int]) -> tuple[list[str], Ints, Array]:
        """Of those that wait: their names, their indices and their epochs."""
        short = self._waiting.shortlist(paused, SHORTLIST, self.trials)
        indices = np.array([self.trials[trial].index for trial in short], dtype=int)
        return list(short), indices, np.array(list(short.values()), dtype=float)

    def _features(self, trials: Ints) -> Array:
        new = [i for i in trials.tolist() if i not in self._x]
        if new:
            rows = self.encoder.features(np.array([self._points[i] for i in new]))
            self._x.update(zip(new, rows, strict=True))
        return np.array([self._x[i] for i in trials.tolist()]).reshape(
            len(trials), len(self.encoder.groups)
        )

    # --- what is believed ------------------------------------------------------------------------

    def _belief(self, rng: np.random.Generator) -> Belief:
        """What the observations tell, under length scales shaken a little."""
        theta, groups = self._theta(), self.encoder.groups
        points, y = self._observed(KNOWN_POINTS)
        known = Posterior(points, y, theta, groups)
        seen, running = np.unique(points.trial), self._runners()
        asked = np.union1d(seen, running)
        told, _ = known.predict(self._features(asked), asked)
        mean = told[np.searchsorted(asked, seen)]
        ends = told[np.searchsorted(asked, running)]
        if len(running) > FANTASIES:
            some = np.sort(np.argsort(-ends, kind="stable")[:FANTASIES])
            running, ends = running[some], ends[some]
        believed = Points(
            np.vstack([points.x, self._features(running)]),
            np.concatenate([points.trial, running]),
            np.concatenate([points.gap, np.zeros(len(running))]),
        )  # running trials at their expected end, so that others look elsewhere
        shaken = Theta(theta.scales + SHAKE * rng.normal(size=len(theta.scales)), theta.sizes)
        posterior = Posterior(believed, np.concatenate([y, ends]), shaken, groups)
        top = seen[np.argsort(-mean, kind="stable")[:KEPT]]
        at = np.array([self._points[i] for i in top])
        return Belief(posterior, at, float(mean.max()), float(np.ptp(mean)))

    def _runners(self) -> Ints:
        """Those that run, in order; the latest, should trials wait without our being told."""
        return np.sort([k.index for k in self._waiting.running.values()])[-MOST_RUNNING:].astype(
            int
        )

    def _observed(self, size: int) -> tuple[Points, Array]:
        """Some of the observations, the target of each the normal quantile of its rank."""
        rows, y = self._ranking.pick(size)
        trial = np.array([i for i, _ in rows])
        return Points(self._features(trial), trial, self._gaps([e for _, e in rows])), y

    def _theta(self) -> Theta:
        """The fitted parameters: a function of the observations, remembered for the next ask."""
        points, y = self._observed(FIT_POINTS)
        key = b"".join(a.tobytes() for a in (points.x, points.trial, points.gap, y))
        if key != self._fitted[0]:
            self._fitted = key, fit(points, y, self.encoder.groups, len(self.encoder.dims))
        return self._fitted[1]

    def _horizon(self, rng: np.random.Generator) -> float:
        """Epochs from now in which a goal is to be reached."""
        return rng.uniform(1, self.epochs)

    def _believed(self, n: int, seed: int) -> Array:
        """Random points (n, P), near the defaults as often as the space believes in them."""
        rng = random.Random(seed)
        return np.array([self.encoder.point(self.encoder.space.sample(rng)) for _ in range(n)])

    def _climb(
        self, belief: Belief, goal: float, horizon: float, rng: np.random.Generator, seed: int
    ) -> tuple[Array, float]:
        """The new point likeliest to reach the goal at the horizon, in standard deviations."""
        pool = self._pool(belief, rng, seed)
        gap = self._gaps([horizon])
        for round_ in range(ROUNDS):
            x = self.encoder.features(pool)
            mean, sd = belief.posterior.predict(x, gap=gap)
            chances = (mean - goal) / sd
            order = np.argsort(belief.put_back(x) - chances, kind="stable")[:KEPT]
            pool = pool[order]
            if round_ < ROUNDS - 1:
                pool = np.vstack([pool, self._changed(pool, CHANGED, rng)])
        return np.asarray(pool[0]), float(chances[order[0]])

    def _pool(self, belief: Belief, rng: np.random.Generator, seed: int) -> Array:
        """Candidates to begin with: at random, and near the best."""
        parents = np.vstack([belief.top, self._believed(2, seed)])
        near = self._changed(parents, POOL, rng)
        return np.vstack([self.encoder.sample(POOL, rng), near])

    def _changed(self, parents: Array, n: int, rng: np.random.Generator) -> Array:
        return self.encoder.mutate(parents[rng.integers(len(parents), size=n)], rng)

    # --- many decisions at once ------------------------------------------------------------------

    def _next(self, paused: Mapping[str, int], rng: np.random.Generator, seed: int) -> str | None:
        """The next decision of the batch, of a new one where none is left."""
        while True:
            if not self._batch:
                self._batch = self._decide(paused, rng, seed)
            choice = self._batch.pop(0)
            if not isinstance(choice, str):
                self._won = choice
                return None
            if choice in paused:
                return self._let_go(choice, paused)

    def _next_point(self, rng: np.random.Generator, seed: int) -> Array:
        """The next new point of the batch, of a new one where none is left."""
        for at, choice in enumerate(self._batch):
            if not isinstance(choice, str):
                del self._batch[at]
                return choice
        first, *others = self._decide({}, rng, seed)
        assert not isinstance(first, str)
        self._batch += others
        return first

    def _decide(
        self, paused: Mapping[str, int], rng: np.random.Generator, seed: int
    ) -> list[str | Array]:
        """Decisions for one in SHARE of the running trials, each aware of those before it.

        As one by one, but for the observations and the shaken scales, which they share.
        """
        belief, n = self._belief(rng), len(self._waiting.running) // SHARE
        goals = [belief.goal(rng) for _ in range(n)]
        horizons = [self._horizon(rng) for _ in range(n)]
        names, waiting, epochs = self._shortlist(paused)
        pool = self._climb_all(belief, goals, horizons, rng, seed)
        x = np.vstack([self._features(waiting), self.encoder.features(pool)])
        trials = np.concatenate([waiting, np.full(len(pool), -1)])
        lines = Lines(belief.posterior, x, trials, room=n)
        away = np.concatenate([np.zeros(len(waiting)), belief.put_back(x[len(waiting) :])])
        starts = np.concatenate([epochs, np.zeros(len(pool))])
        is_left, choices = np.ones(len(x), dtype=bool), list[str | Array]()
        for goal, horizon in zip(goals, horizons, strict=True):
            if rng.random() < RANDOM_SHARE:
                choices.append(self._believed(1, int(rng.integers(2**31)))[0])
                continue
            mean, sd = lines.at(self._gaps(starts + horizon))
            best = int(np.argmax(np.where(is_left, (mean - goal) / sd - away, -math.inf)))
            is_left[best] = False
            if best >= len(waiting):  # the pool may hold a point twice
                is_left[len(waiting) :] &= (x[len(waiting) :] != x[best]).any(1)
            lines.believe(best)
            choices.append(names[best] if best < len(names) else pool[best - len(names)])
        return choices

    def _climb_all(
        self, belief: Belief, goals: Sequence[float], horizons: Sequence[float],
        rng: np.random.Generator, seed: int,
    ) -> Array:  # fmt: skip
        """Candidates among which each goal at its horizon finds a good one."""
        pool, gaps = self._pool(belief, rng, seed), self._gaps(horizons)[:, None]
        for _ in range(ROUNDS - 1):
            x = self.encoder.features(pool)
            mean, sd = Lines(belief.posterior, x).at(gaps)
            chances = (mean - np.array(goals)[:, None]) / sd - belief.put_back(x)
            best = pool[np.unique(np.argsort(-chances, axis=1, kind="stable")[:, :KEPT])]
            pool = np.vstack([best, self._changed(best, CHANGED + KEPT * len(goals), rng)])
        return pool

    def _gaps(self, epochs: Sequence[float] | Array) -> Array:
        """1 after the first epoch, 0 at full training and beyond."""
        spread = math.log(max(2, self.epochs))
        gaps: Array = 1 - np.log(np.asarray(epochs, dtype=float)) / spread
        return np.maximum(gaps, 0.0)
