"""A cluster on a simulated clock: nodes of GPUs that fail, trials on them, one driver that is busy.

The search is the real one (`search.core`, its sampler and pruner, its record), and the driver is a
server with one queue: what `Search` takes of the processor, and what Ray's loop takes besides, is
the time in which nobody else is served. A worker waits for the answer to each of its epochs.
"""

import random
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import exp, inf
from typing import Any, TypeVar

from search.cluster import Resources
from search.core import Search
from search.nodes import room
from search.outcome import score
from search.problems import Problem
from search.protocols import Handout
from search.pruners import best_so_far

T = TypeVar("T")
CPUS = 16  # of a GPU: never what is short here


@dataclass(frozen=True)
class World:
    """What there is, and what it costs, in seconds."""

    gpus: int
    gang: int = 1  # GPUs of a trial
    node_gpus: int = 8
    epoch: float = 10.0  # of the median trial on one GPU
    between: float = 0.36  # standard deviations of log(seconds): of trials
    within: float = 0.14  # and of the epochs of one
    speedup: float = 0.9  # of a gang, a GPU
    worker_start: float = 12.0
    trial_start: float = 0.3
    store: float = 0.05  # of an epoch
    ray_row: float = 0.004  # of the driver, beside the search
    ray_start: float = 0.02
    days_to_failure: float = 30.0  # of a node, on average
    repair: float = 600.0
    notice: float = 15.0  # until Ray tells that a node is gone
    slowness: float = 1.0  # of the driver: 0 in an ideal world

    @property
    def ideal(self) -> "World":
        """The same GPUs with nothing to wait for."""
        none = dict.fromkeys(("worker_start", "trial_start", "store", "ray_row", "ray_start"), 0.0)
        kept = {name: getattr(self, name) for name in ("gpus", "gang", "node_gpus", "epoch")}
        return World(**kept, **none, days_to_failure=inf, slowness=0.0)  # type: ignore[arg-type]

    def slots(self) -> list[int]:
        """How many trials each node has room for."""
        asked = Resources(gpus_per_trial=float(self.gang), cpus_per_trial=1)
        sizes = [self.node_gpus] * (self.gpus // self.node_gpus)
        nodes = [{"Resources": {"GPU": n, "CPU": n * CPUS}} for n in sizes]
        return [room(asked, [node]) for node in nodes]


@dataclass
class Course:
    """What came of a run: seconds by what they went into, summed over places for trials."""

    spent: Counter[str] = field(default_factory=Counter)
    reached: dict[float, float] = field(default_factory=dict)  # regret -> seconds
    decisions: int = 0
    failures: int = 0
    trials: int = 0
    best: float = -inf


class Cluster:
    """State: the clock's events, who trains where, and until when the driver is busy."""

    def __init__(
        self, world: World, problem: Problem, search: Search, targets: tuple[float, ...], seed: int
    ) -> None:
        self.world, self.problem, self.search, self.targets = world, problem, search, targets
        self.rng = random.Random(seed)
        self.events: list[tuple[float, int, str, Any]] = []
        self.ties = 0
        self.busy_until = 0.0  # the driver
        self.idle: list[tuple[int, int]] = []  # (node, how often it was repaired)
        self.at: dict[str, tuple[tuple[int, int], float, float]] = {}  # trial -> place, its epoch
        self.lives = [0] * len(world.slots())
        self.reserve: Handout | None = None
        self.course = Course()

    def run(self, horizon: float) -> Course:
        for node, slots in enumerate(self.world.slots()):
            self._plan(self.world.worker_start, "up", [(node, 0)] * slots)
            self._plan_failure(node, 0.0)
        while self.events and self.events[0][0] < horizon:
            now, _, what, subject = heappop(self.events)
            getattr(self, f"_on_{what}")(now, subject)
        for _, start, seconds in self.at.values():  # the epochs in hand
            self.course.spent["training"] += min(seconds, max(0.0, horizon - start))
        self.course.trials = len(self.search.rows)
        self.course.spent["all"] = horizon * sum(self.world.slots())
        return self.course

    def _plan(self, when: float, what: str, subject: Any) -> None:
        self.ties += 1
        heappush(self.events, (when, self.ties, what, subject))

    def _plan_failure(self, node: int, now: float) -> None:
        if self.world.days_to_failure < inf:
            rate = 1 / (86400 * self.world.days_to_failure)
            self._plan(now + self.rng.expovariate(rate), "failure", node)

    def _serve(self, now: float, ray: float, work: Callable[[], T]) -> T:
        """The driver does that as soon as it is free."""
        began = time.process_time()
        found = work()
        seconds = ray + self.world.slowness * (time.process_time() - began)
        self.busy_until = max(now, self.busy_until) + seconds
        self.course.spent["driver"] += seconds
        return found

    def _on_up(self, now: float, places: list[tuple[int, int]]) -> None:
        self.idle += places
        self._fill(now)

    def _on_row(self, now: float, subject: tuple[str, int]) -> None:
        trial, attempt = subject
        if self.search.live.get(trial) != attempt or trial not in self.at:
            return  # its node has failed
        place, _, seconds = self.at[trial]
        self.course.spent["training"] += seconds
        epoch = len(self.search.rows[trial]) + 1
        value = float(self.problem.curve(self.search.configs[trial])[0][epoch - 1])
        row = {"epoch": epoch, "score": value, "seconds": seconds}
        verdict = self._serve(now, self.world.ray_row, lambda: self.search.on_row(trial, row))
        self._look(score(row))
        if verdict == "continue" and epoch < self.problem.max_epochs:
            self._train(trial, place, self.busy_until)
            return
        del self.at[trial]
        if verdict != "pause":
            self._serve(now, 0.0, lambda: self.search.on_end(trial))
        self.idle.append(place)
        self._fill(now)

    def _on_failure(self, now: float, node: int) -> None:
        world, lost = self.world, [t for t, (place, *_) in self.at.items() if place[0] == node]
        self.course.failures += 1
        self.lives[node] += 1
        self.idle = [place for place in self.idle if place[0] != node]
        for trial in lost:
            del self.at[trial]
        self._plan(now + world.notice, "notice", lost)
        back = now + world.repair
        places = [(node, self.lives[node])] * world.slots()[node]
        self._plan(back + world.worker_start, "up", places)
        self._plan_failure(node, back)

    def _on_notice(self, now: float, lost: list[str]) -> None:
        for trial in lost:
            self._serve(now, self.world.ray_start, lambda t=trial: self.search.on_lost(t, True))  # type: ignore[misc]
        self._fill(now)

    def _fill(self, now: float) -> None:
        """A trial for each idle place: the one in reserve at once, the others as they come."""
        while self.idle and (handout := self.reserve or self._next(now)) is not None:
            self.reserve, place = None, self.idle.pop()
            self._serve(now, self.world.ray_start, lambda h=handout: self.search.on_start(h.id))  # type: ignore[misc]
            self._train(handout.id, place, self.busy_until + self.world.trial_start)
        if self.reserve is None:
            self.reserve = self._next(now)

    def _next(self, now: float) -> Handout | None:
        self.course.decisions += 1
        return self._serve(now, 0.0, self.search.next)

    def _train(self, trial: str, place: tuple[int, int], start: float) -> None:
        """The next epoch of the trial there."""
        world, epoch = self.world, len(self.search.rows[trial]) + 1
        own = random.Random(zlib.crc32(trial.encode()))
        log = world.between * own.gauss(0, 1)
        log += world.within * random.Random(zlib.crc32(f"{trial}/{epoch}".encode())).gauss(0, 1)
        seconds = world.epoch * exp(log)
        if world.gang > 1:
            seconds /= world.speedup * world.gang
        self.at[trial] = place, start, seconds
        self._plan(start + seconds + world.store, "row", (trial, self.search.live[trial]))

    def _look(self, value: float) -> None:
        self.course.best = best_so_far((self.course.best, value))
        for target in self.targets:
            if self.problem.regret(self.course.best) <= target:
                self.course.reached.setdefault(target, self.busy_until)
