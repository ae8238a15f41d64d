"""What methods of search have in common when compared: a budget in epochs, a clock, the regret."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf, log
from typing import Protocol

from search.problems import Array, Problem
from search.pruners import ETA, best_so_far
from spaces.space import Value

MARKS = (5, 10, 20, 50, 100)  # full trainings at which the regret is noted, as in `simulate`
Flat = dict[str, Value]


@dataclass
class Course:
    """How far a run has come: epochs trained, the best score so far, the regret at each mark."""

    problem: Problem
    budget: float  # in full trainings
    trials: int = 0
    epochs: int = 0
    best: float = -inf
    seconds: float = 0.0  # on the simulated clock
    regret: dict[int, float] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.epochs >= round(self.budget * self.problem.max_epochs)

    def note(self, score: float, now: float) -> None:
        """An epoch more, with its score; nothing once the budget is spent."""
        if self.is_over:
            return
        self.epochs, self.seconds = self.epochs + 1, max(self.seconds, now)
        self.best = best_so_far((self.best, score))
        for mark in MARKS:
            if self.epochs >= mark * self.problem.max_epochs and mark <= self.budget:
                self.regret.setdefault(mark, self.problem.regret(self.best))


class Peer(Protocol):
    """A method that is asked for trials and told of their epochs, as they come."""

    def start(self) -> tuple[str, Flat]:
        """A new trial and its configuration."""

    def report(self, trial: str, epoch: int, score: float) -> bool:
        """Whether the trial goes on."""


@dataclass
class Training:
    """A trial on a worker."""

    trial: str
    scores: Array
    elapsed: Array
    began: float
    done: int = 0  # epochs

    @property
    def due(self) -> float:
        """When its next epoch will have ended."""
        return self.began + float(self.elapsed[self.done])


def race(peer: Peer, course: Course, workers: int) -> None:
    """Run to the budget: the worker whose epoch ends next on the simulated clock reports next."""
    queue: list[tuple[float, int, Training]] = []
    ties = count()

    def push(training: Training) -> None:
        heappush(queue, (training.due, next(ties), training))

    def start(now: float) -> None:
        trial, flat = peer.start()
        course.trials += 1
        push(Training(trial, *course.problem.curve(flat), now))

    for _ in range(workers):
        start(0.0)
    while not course.is_over:
        now, _, training = heappop(queue)
        score = float(training.scores[training.done])
        training.done += 1
        course.note(score, now)
        if peer.report(training.trial, training.done, score):
            push(training)
        else:
            start(now)


class Replay:
    """For methods that ask for a configuration trained to an epoch, one at a time.

    State: who is how far. One asked for again goes on from there: only new epochs are charged.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self.done: dict[tuple[tuple[str, Value], ...], int] = {}

    def train(self, settings: Mapping[str, Value], epoch: int, resumes: bool = True) -> float:
        """The error at that epoch, in percent where the score is."""
        flat = self.course.problem.space.nearest(settings)  # without those that do not apply
        key = tuple(sorted(flat.items()))
        self.course.trials += key not in self.done
        done = self.done.get(key, 0) if resumes else 0
        scores, elapsed = self.course.problem.curve(flat)
        began = self.course.seconds - (float(elapsed[done - 1]) if done else 0.0)
        for i in range(done, epoch):
            self.course.note(float(scores[i]), began + float(elapsed[i]))
        self.done[key] = max(epoch, self.done.get(key, 0))
        return error_of(float(scores[epoch - 1]))


def error_of(score: float) -> float:
    """What peers minimise. Positive: SMAC takes its logarithm."""
    return 100 - score


def first_rung_of(problem: Problem, asked: int) -> int:
    """The epoch of the first rung; 0 asks for a ninth of all, as `simulate.run` takes it."""
    return asked or max(1, round(problem.max_epochs / 9))


def lowest_of(problem: Problem, first_rung: int) -> float:
    """The first rung of methods that count rungs down from the last: R / 3^k, nearest to ours."""
    steps = round(log(problem.max_epochs / first_rung) / log(ETA))
    return problem.max_epochs / float(ETA**steps)
