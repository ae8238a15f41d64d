"""What a search will take: the schedule played many times, by the pruner itself, on chance scores.

A forecast is three numbers: the middle, and the ends of an interval meant to hold nine runs of ten.
It varies with the order in which trials do well, with which configurations come, with how well a
few measured steps stand for all, and with how well those steps stand for epochs (`Pace.error`).
"""

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from statistics import NormalDist, quantiles

from search.protocols import Pruner

MOST_PLAYED = 2000  # trials; a longer search is played at this length and scaled
DRAWS = 200
WORK = 40_000  # trials played in all, but no fewer than LEAST_DRAWS schedules
LEAST_DRAWS = 8
LIKENESS = 0.8  # correlation of a trial's early and final standing
NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """The median, and the 5th and 95th of a hundred."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        cuts = quantiles(values, n=20, method="inclusive")
        return cls(cuts[0], cuts[9], cuts[18])

    def told(self, shown: Callable[[float], str]) -> str:
        """The middle and, where there is one, the interval."""
        low, middle, high = map(shown, (self.low, self.middle, self.high))
        return middle if low == high else f"{middle} ({low} to {high})"

    def less(self, amount: float) -> "Estimate":
        return Estimate(*(max(0.0, value - amount) for value in (self.low, self.middle, self.high)))


@dataclass(frozen=True)
class Pace:
    """How fast trials train, known from a sample of them."""

    epoch_seconds: tuple[float, ...]  # of each trial of the sample
    horizons: tuple[int, ...] = (0,)  # epochs before which a trial is not judged
    setup_seconds: float = 0.0  # before a trial's first epoch
    start_seconds: float = 0.0  # of a worker
    error: float = 0.0  # standard deviation of log(truth / measured), the same for all trials


@dataclass(frozen=True)
class Position:
    """Where a search stands: what is unfinished (trial -> epoch), and how many are to come."""

    pruner: Pruner
    to_come: int
    unfinished: Mapping[str, int] = field(default_factory=dict)
    paused: Mapping[str, int] = field(default_factory=dict)
    protected: int = 0  # of those to come, how many are never stopped


@dataclass(frozen=True)
class Forecast:
    """What a search will take from here to its end."""

    seconds: Estimate  # on the clock
    worker_seconds: Estimate  # summed over workers
    epochs: Estimate
    survivors: dict[int, Estimate]  # milestone -> trials that go beyond it

    def gpu_hours(self, gpus_per_trial: float) -> Estimate:
        busy = self.worker_seconds
        hours = (value * gpus_per_trial / 3600 for value in (busy.low, busy.middle, busy.high))
        return Estimate(*hours)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class Played:
    """One way in which the search may go."""

    seconds: float = 0.0
    worker_seconds: float = 0.0
    epochs: float = 0.0
    survivors: dict[int, float] = field(default_factory=dict)


def forecast(
    position: Position, pace: Pace, workers: int, rng: random.Random, work: int = WORK
) -> Forecast:
    """What is to come, from many ways in which it may go; `work` bounds the trials played."""
    scale = max(1.0, position.to_come / MOST_PLAYED)
    trials = round(position.to_come / scale) + len(position.unfinished) + len(position.paused)
    draws = max(LEAST_DRAWS, min(DRAWS, work // max(1, trials)))
    seen = {m: sorted(rung.values()) for m, rung in position.pruner.rungs.items()}
    played = [Game(position, pace, workers, scale, seen, rng).play() for _ in range(draws)]
    factors = [
        math.exp(rng.gauss(0, pace.error)) if pace.error else 1.0 for _ in played
    ]  # all trials are slower than measured, or all are faster
    return Forecast(
        Estimate.of([p.seconds * f for p, f in zip(played, factors, strict=True)]),
        Estimate.of([p.worker_seconds * f for p, f in zip(played, factors, strict=True)]),
        Estimate.of([p.epochs for p in played]),
        {
            milestone: Estimate.of([p.survivors[milestone] for p in played])
            for milestone in position.pruner.milestones
        },
    )


class Game:
    """One playing of the schedule. State: a copy of the pruner, the clock, who trains."""

    def __init__(
        self,
        position: Position,
        pace: Pace,
        workers: int,
        scale: float,
        seen: Mapping[int, list[float]],
        rng: random.Random,
    ) -> None:
        self.pruner = fork(position.pruner)
        self.pace, self.scale, self.seen, self.rng = pace, scale, seen, rng
        self.clock, self.idle = pace.start_seconds, max(1, workers)
        self.waiting, self.paused = list(position.unfinished), dict(position.paused)
        self.reached = {**position.unfinished, **position.paused}  # trial -> epoch
        self.to_come, self.protected = round(position.to_come / scale), position.protected
        self.sample = rng.choices(pace.epoch_seconds, k=len(pace.epoch_seconds))
        self.speeds, self.talents = dict[str, float](), dict[str, float]()
        self.tops: dict[str, float] = {}  # scores so far
        self.running: list[tuple[float, str]] = []
        self.told = Played(survivors=dict.fromkeys(self.pruner.milestones, 0.0))

    def play(self) -> Played:
        """To the end, from event to event."""
        while True:
            while self.idle and (trial := self._next()) is not None:
                self.idle -= 1
                self._train(trial, self.pace.setup_seconds)
            if not self.running:
                break
            self.clock, trial = heappop(self.running)
            self._judge(trial)
        told, scale, start = self.told, self.scale, self.pace.start_seconds
        return Played(
            start + (self.clock - start) * scale if told.epochs else 0.0,
            told.worker_seconds * scale,
            told.epochs * scale,
            {milestone: n * scale for milestone, n in told.survivors.items()},
        )

    def _next(self) -> str | None:
        """As the core hands out: unfinished ones, then a promoted one, then a new one."""
        if self.waiting:
            return self.waiting.pop(0)
        trial = self.pruner.promote(self.paused)
        if trial is None and self.to_come:
            return self._propose()
        if trial is None and not self.running and self.paused:
            trial = self.pruner.promote(self.paused, is_last=True)
        if trial is not None:
            self.told.survivors[self.paused.pop(trial)] += 1
        return trial

    def _propose(self) -> str:
        self.to_come -= 1
        trial = f"{self.rng.random():.12f}"
        self.reached[trial] = 0
        if self.protected:
            self.protected -= 1
            self.pruner.protect(trial)
        self.pruner.spare(trial, self.rng.choice(self.pace.horizons))
        return trial

    def _train(self, trial: str, setup: float) -> None:
        """Until the next epoch at which it is judged."""
        if trial not in self.speeds:
            self.speeds[trial] = self.rng.choice(self.sample)
            self.talents[trial] = self.rng.gauss(0, 1)
        before = self.reached[trial]
        ahead = (m for m in self.pruner.milestones if m > before)
        after = self.reached[trial] = next(ahead, max(before, self.pruner.max_epochs))
        seconds = (after - before) * self.speeds[trial] + setup
        self.told.epochs += after - before
        self.told.worker_seconds += seconds
        heappush(self.running, (self.clock + seconds, trial))

    def _judge(self, trial: str) -> None:
        epoch = self.reached[trial]
        if epoch < self.pruner.max_epochs:
            verdict = self.pruner.decide(trial, epoch, self._score(trial, epoch))
            if verdict == "continue":
                self.told.survivors[epoch] += 1
                self._train(trial, 0)
                return
            if verdict == "pause":
                self.paused[trial] = epoch
        self.idle += 1

    def _score(self, trial: str, epoch: int) -> float:
        """By chance, from among the scores that the rung has seen; never below the trial's last."""
        noise = math.sqrt(1 - LIKENESS**2) * self.rng.gauss(0, 1)
        standing = NORMAL.cdf(LIKENESS * self.talents[trial] + noise)
        seen = self.seen.get(epoch) or []
        if len(seen) < 2:
            seen = [0.0, 1.0]
        at = standing * (len(seen) - 1)
        low = min(int(at), len(seen) - 2)
        value = seen[low] + (at - low) * (seen[low + 1] - seen[low])
        top = self.tops[trial] = max(value, self.tops.get(trial, -math.inf))
        return top


def fork(pruner: Pruner) -> Pruner:
    """A pruner that goes its own way from here: `copy.deepcopy`, but a hundred times faster.

    The state of a pruner is containers, and containers of containers, of what does not change.
    """
    other = copy.copy(pruner)
    for name, value in vars(pruner).items():
        if isinstance(value, dict):
            held = {key: _copied(inner) for key, inner in value.items()}
            setattr(other, name, held)
        else:
            setattr(other, name, _copied(value))
    return other


def _copied(value: object) -> object:
    return copy.copy(value) if isinstance(value, list | dict | set) else value
