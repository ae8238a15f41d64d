"""What a model is told of trials, kept in order as it arrives: a look costs no pass over all."""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from trainables.store import Status

Array = NDArray[np.float64]
Key = tuple[float, int, int]  # (-score, trial, epoch): the best first, ties to the earlier trial


@dataclass
class Known:
    """A trial as the model sees it."""

    index: int  # in the order in which trials were asked for
    scores: dict[int, float] = field(default_factory=dict)  # epoch -> score
    status: Status = "running"

    @property
    def is_open(self) -> bool:
        return self.status == "running"

    @property
    def best(self) -> float:
        """Its highest score; -inf without one."""
        return max((s for s in self.scores.values() if isfinite(s)), default=-math.inf)

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


class Ranking:
    """Every observation of every trial by rank. State: all of them, in order and by trial."""

    def __init__(self) -> None:
        self._order: list[Key] = []
        self._own: dict[int, list[Key]] = {}  # trial -> its part

    def __len__(self) -> int:
        return len(self._order)

    @property
    def trials(self) -> int:
        """How many trials have been observed."""
        return len(self._own)

    def put(self, trial: int, scores: Mapping[int, float]) -> None:
        """The scores of a trial by epoch, in place of those it had."""
        new = [(-score, trial, epoch) for epoch, score in scores.items()]
        old = self._own.pop(trial, [])
        for key in set(old) - set(new):
            del self._order[bisect_left(self._order, key)]
        for key in set(new) - set(old):
            insort(self._order, key)
        if new:
            self._own[trial] = new

    def pick(self, size: int) -> tuple[list[tuple[int, int]], Array]:
        """At most `size` observations (trial, epoch), and the normal quantile of each one's rank.

        Half of them are the best, the others an even pick of the rest; in the order of the trials.
        """
        n, best = len(self._order), size // 2
        places = list(range(n))
        if n > size:
            rest = np.linspace(0, n - best - 1, size - best).round().astype(int)
            places = [*range(best), *(best + rest).tolist()]
        chosen = sorted(
            (trial, epoch, -low) for low, trial, epoch in map(self._order.__getitem__, places)
        )
        ranks = np.array([self._rank(score) for _, _, score in chosen])
        return [(trial, epoch) for trial, epoch, _ in chosen], np.asarray(ndtri((ranks - 0.5) / n))

    def _rank(self, score: float) -> float:
        """1 for the lowest; ties share the mean of theirs."""
        first = bisect_left(self._order, (-score, -1, 0))
        last = bisect_right(self._order, (-score, 2**62, 0)) - 1
        return len(self._order) - (first + last) / 2


class Waiting:
    """Who runs, and who waits at which rung. State: both, as last told; the best of a rung first.

    Only who ran at the last look can have begun to wait.
    """

    def __init__(self) -> None:
        self.running: dict[str, Known] = {}
        self._rungs: dict[int, list[tuple[float, int, str]]] = {}

    def settle(self, paused: Mapping[str, int]) -> None:
        """Take in who waits at its epoch now."""
        for trial in [trial for trial in self.running if trial in paused]:
            known = self.running.pop(trial)
            insort(self._rungs.setdefault(paused[trial], []), (-known.best, known.index, trial))

    def shortlist(
        self, paused: Mapping[str, int], size: int, trials: Mapping[str, Known]
    ) -> dict[str, int]:
        """The best `size` of each rung, in the order of trials; who has gone on is seen to run."""
        found = []
        for epoch, line in self._rungs.items():
            at = 0
            while at < min(size, len(line)):
                _, index, trial = line[at]
                if paused.get(trial) == epoch:
                    found.append((index, trial, epoch))
                    at += 1
                else:
                    del line[at]
                    if trials[trial].is_open:
                        self.running[trial] = trials[trial]
        return {trial: epoch for _, trial, epoch in sorted(found)}

    def let_go(self, trial: str, known: Known, epoch: int) -> None:
        """It waits no more."""
        line, key = self._rungs.get(epoch, []), (-known.best, known.index, trial)
        at = bisect_left(line, key)
        if line[at : at + 1] == [key]:
            del line[at]
        self.running[trial] = known


def observed_epochs(epochs: int) -> tuple[int, ...]:
    """Where curves are looked at: the last epoch and, by steps of sqrt(3), down to a ninth."""
    return tuple(sorted({max(1, round(epochs / math.sqrt(3) ** step)) for step in range(5)}))
