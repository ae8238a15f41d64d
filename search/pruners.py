"""Who goes on: rules of early stopping, all on the best score so far of the validation metric.

asha        stopping kind of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934)
promotion   its other kind: every trial waits at a rung and goes on once it is among the best there
thaw        every trial waits at rungs, and the sampler's model says who goes on (Swersky et al.
            2014, arXiv 1406.3896); in the end as many as successive halving keeps
hyperband   ASHA in brackets that begin ever later (Li et al. 2018, arXiv 1603.06560)
median      better than the median of the others at every epoch (Golovin et al. 2017, Vizier)
none        every trial is trained to its end

Pure: no clock and no chance. All state follows from the histories, so a restart rebuilds it.
"""

import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from math import ceil, inf, isfinite, sqrt
from typing import Literal

from trainables.registry import Registry

Verdict = Literal["continue", "pause", "stop"]
Allowed = Callable[[int], int]  # of n seen at a rung, how many may go on
Key = tuple[float, str]  # best first; ties go to the smaller id: the same way on every machine
ETA = 3  # a rung keeps the best third
MEDIAN_PEERS = 5  # fewer scores than these make no median to trust


class Pruner:
    """A ladder of rungs and a rule for going on.

    State: the best score so far of each trial at each rung, and the verdicts given. Both are only
    ever added to. A trial is compared with those of its own bracket.
    """

    def __init__(
        self,
        max_epochs: int,
        rungs: Iterable[int],
        allowed: Allowed,
        brackets: int = 1,
        is_pausing: bool = False,
        is_led: bool = False,
    ) -> None:
        self.max_epochs, self.milestones = max_epochs, tuple(rungs)
        self.allowed, self.brackets, self.is_pausing = allowed, brackets, is_pausing
        self.is_led = is_led  # by the proposer, as long as there are new configurations
        self.rungs: dict[int, dict[str, float]] = {m: {} for m in self.milestones}
        self.protected: set[str] = set()
        self.spared: dict[str, int] = {}
        self._order: dict[tuple[int, int], list[Key]] = {}  # (bracket, rung) -> best first
        self._waiting: dict[int, list[Key]] = {m: [] for m in self.milestones}  # heaps
        self._verdicts: dict[tuple[str, int], Verdict] = {}

    def protect(self, trial: str) -> None:
        """Never stop this trial; others are still compared with it."""
        self.protected.add(trial)

    def spare(self, trial: str, until: int) -> None:
        """Do not judge the trial before that epoch: what it does by design has not set in yet."""
        self.spared[trial] = until

    def record(self, trial: str, epoch: int, score: float) -> None:
        """File a score if it was reached at a rung; a trial's first score there stands."""
        if not isfinite(score) or epoch not in self._steps(trial):
            return
        if trial not in self.rungs[epoch]:
            self.rungs[epoch][trial] = score
            insort(self._order.setdefault((self._bracket(trial), epoch), []), (-score, trial))

    def decide(self, trial: str, epoch: int, score: float) -> Verdict:
        """Whether the trial goes on; asking again about the same epoch gives the same answer."""
        if not isfinite(score):
            return "stop"
        if epoch not in self._steps(trial):
            return "continue"
        self.record(trial, epoch, score)
        if trial in self.protected:
            return "continue"
        if (trial, epoch) not in self._verdicts:
            self._verdicts[trial, epoch] = self._judge(trial, epoch)
        return self._verdicts[trial, epoch]

    def promote(self, paused: Mapping[str, int], is_last: bool = False) -> str | None:
        """The trial that waits at the highest rung and has earned more epochs, if there is one.

        At the last, when no other trial will come, the rung keeps at least one.
        """
        for rung in reversed(self.milestones):
            heap = self._waiting[rung]
            while heap and paused.get(heap[0][1]) != rung:
                heappop(heap)  # it has gone on, or ended, since
            if heap and self._rank(heap[0][1], rung) < self._places(heap[0][1], rung, is_last):
                trial = heappop(heap)[1]
                self.let_go(trial, rung)
                return trial
        return None

    def let_go(self, trial: str, rung: int) -> None:
        """The trial that waits there goes on."""
        self._verdicts[trial, rung] = "continue"

    def _judge(self, trial: str, epoch: int) -> Verdict:
        rung = self.rungs[epoch]
        others = len(rung) - sum(trial in rung for trial in self.protected)
        is_first = epoch > self.milestones[0] and others == 1
        if self.is_led and is_first:
            return "continue"  # the first let go is trained whole: what are early epochs worth?
        if self.is_pausing:
            heappush(self._waiting[epoch], (-self.rungs[epoch][trial], trial))
            return "pause"
        return "continue" if self._rank(trial, epoch) < self._places(trial, epoch) else "stop"

    def _steps(self, trial: str) -> tuple[int, ...]:
        """The rungs at which this trial is judged."""
        first = self.spared.get(trial, 0)
        return tuple(m for m in self.milestones[self._bracket(trial) :] if m >= first)

    def _bracket(self, trial: str) -> int:
        """By chance, but always the same; the later a bracket begins, the fewer trials it has."""
        if self.brackets == 1:
            return 0
        draw = zlib.crc32(trial.encode()) / 2**32
        shares = [ETA ** (self.brackets - 1 - b) / (b + 1) for b in range(self.brackets)]
        total = 0.0
        for bracket, share in enumerate(shares):
            total += share / sum(shares)
            if draw < total:
                return bracket
        return self.brackets - 1

    def _rank(self, trial: str, epoch: int) -> int:
        order = self._order[self._bracket(trial), epoch]
        return bisect_left(order, (-self.rungs[epoch][trial], trial))

    def _places(self, trial: str, epoch: int, is_last: bool = False) -> int:
        n = len(self._order[self._bracket(trial), epoch])
        return max(1, self.allowed(n)) if is_last else self.allowed(n)


PrunerBuilder = Callable[[int, int, int], Pruner]  # (epochs, first rung, eta) -> pruner
PRUNERS: Registry[PrunerBuilder] = Registry("pruner")


@PRUNERS.register
def asha(max_epochs: int, grace: int = 1, eta: int = ETA) -> Pruner:
    """Among the best 1/eta of those seen at the rung so far; fewer than eta cannot tell one."""
    rungs = milestones(max_epochs, grace, eta)
    return Pruner(max_epochs, rungs, lambda n: n if n < eta else ceil(n / eta))


@PRUNERS.register
def promotion(max_epochs: int, grace: int = 1, eta: int = ETA) -> Pruner:
    """The best floor(n/eta) of the n that have come to a rung go on, the others wait."""
    rungs = milestones(max_epochs, grace, eta)
    return Pruner(max_epochs, rungs, lambda n: n // eta, is_pausing=True)


@PRUNERS.register
def thaw(max_epochs: int, grace: int = 1, eta: int = ETA) -> Pruner:
    """Rungs by steps of sqrt(eta) down from the end; of n that came to one, n / sqrt(eta) go on."""
    _check(max_epochs, grace, eta)
    rungs, at = {grace}, float(max_epochs)
    while round(at) > grace:
        rungs.add(round(at))
        at /= sqrt(eta)
    below = sorted(rung for rung in rungs if rung < max_epochs)
    return Pruner(max_epochs, below, lambda n: ceil(n / sqrt(eta)), is_pausing=True, is_led=True)


@PRUNERS.register
def hyperband(max_epochs: int, grace: int = 1, eta: int = ETA) -> Pruner:
    """ASHA in brackets, each judged first at a later rung, the last never."""
    rungs = milestones(max_epochs, grace, eta)
    return Pruner(
        max_epochs, rungs, lambda n: n if n < eta else ceil(n / eta), brackets=len(rungs) + 1
    )


@PRUNERS.register
def median(max_epochs: int, grace: int = 1, eta: int = ETA) -> Pruner:
    """Not below the median at any epoch from the first rung on; eta plays no part."""
    _check(max_epochs, grace, eta)
    epochs = range(grace, max_epochs)
    return Pruner(max_epochs, epochs, lambda n: n if n < MEDIAN_PEERS else ceil(n / 2))


@PRUNERS.register
def none_(max_epochs: int, grace: int = 1, eta: int = ETA) -> Pruner:
    """Every trial to its end: the control."""
    _check(max_epochs, grace, eta)
    return Pruner(max_epochs, (), lambda n: n)


def milestones(max_epochs: int, grace: int, eta: int) -> tuple[int, ...]:
    """Epochs at which trials are compared: grace, grace * eta, ... below `max_epochs`."""
    _check(max_epochs, grace, eta)
    epochs = []
    while grace < max_epochs:
        epochs.append(grace)
        grace *= eta
    return tuple(epochs)


def _check(max_epochs: int, grace: int, eta: int) -> None:
    if max_epochs < 1 or grace < 1 or eta < 2:
        raise ValueError(
            f"max_epochs {max_epochs} and grace {grace} must be 1 or more, eta {eta} 2 or more"
        )


def best_so_far(scores: Iterable[float]) -> float:
    """The highest finite score; -inf when there is none."""
    return max((score for score in scores if isfinite(score)), default=-inf)
