"""The forecast of a search that runs: what is still to come, from what it has measured itself."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace

from search.core import Search
from search.forecast import Estimate, Forecast, Pace, Position, forecast
from search.tally import Tally
from trainables.config import TrialConfig, pacing_horizon

RECENT = 200  # trials whose speed and pacing stand for those to come
WORK = 10_000  # trials played for a forecast: a tenth of a second
PATIENCE = 100  # a forecast is made anew after so many times the time that it took
LEAST_SECONDS = 5.0
TRUST_SECONDS = 20.0  # of full use of all workers that a new search is assumed to have had


class Outlook:
    """The forecast of a search that runs, from what it has measured, and made anew now and then.

    State: the search as tallied, when it was first seen to advance, and the forecast last made.
    """

    def __init__(
        self, search: Search, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.search, self.workers, self.clock = search, max(1, workers), clock
        self.rng = random.Random(0)
        self.tally = Tally(search.pruner.milestones, search.pooled)
        self.tally.follow(search)
        self.before = self.tally.epochs
        self.began: tuple[float, float] | None = None  # clock and worker seconds at the first row
        self.made_at, self.next_at = -math.inf, -math.inf
        self.made: Forecast | None = None

    def look(self) -> Forecast | None:
        """What is still to come; None before there is anything to tell it from."""
        now = self.clock()
        self.tally.follow(self.search)
        if self.tally.epochs > self.before and self.began is None:
            self.began = (now, self.tally.seconds)
        if self.search.is_over:
            return None
        if now >= self.next_at and self.began and self.tally.epochs >= self.before + 3:
            self.made, self.made_at = self._make(now), now
            cost = self.clock() - now
            self.next_at = now + max(LEAST_SECONDS, PATIENCE * cost)
        if self.made is None:
            return None
        return replace(self.made, seconds=self.made.seconds.less(now - self.made_at))

    def _make(self, now: float) -> Forecast:
        search, trials = self.search, self.tally.trials
        unfinished = {t: trials[t].epoch for t in [*search.live, *search.backlog]}
        to_come = search.to_come
        whole = min(to_come, search.ladder.owed) if search.ladder else 0
        position = Position(search.pruner, to_come, unfinished, search.paused, whole)
        there = forecast(position, self._pace(), self.workers, self.rng, WORK)
        use, seconds = self._use(now), there.seconds
        return replace(
            there, seconds=Estimate(seconds.low / use, seconds.middle / use, seconds.high / use)
        )

    def _pace(self) -> Pace:
        recent = list(self.tally.trials.values())[-RECENT:]
        speeds = tuple(known.seconds / known.epoch for known in recent if known.epoch)
        horizons = tuple(pacing_horizon(TrialConfig.from_flat(known.config)) for known in recent)
        return Pace(speeds or self._all_speeds(), horizons)

    def _all_speeds(self) -> tuple[float, ...]:
        return (self.tally.seconds / self.tally.epochs,)

    def _use(self, now: float) -> float:
        """The share of the workers' time that goes into epochs."""
        assert self.began is not None
        began, trained = self.began
        trust = TRUST_SECONDS * self.workers
        elapsed = (now - began) * self.workers
        return min(1.0, (self.tally.seconds - trained + trust) / (elapsed + trust))
