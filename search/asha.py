"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), the stopping kind.

Pure: no clock and no chance. The rungs follow from the histories alone, so a restart rebuilds them.
"""

from math import ceil, isfinite
from typing import Literal

Verdict = Literal["continue", "stop"]


class Asha:
    """Who goes on: at each milestone a trial must be in the best 1/eta of those seen there.

    State: the scores at each milestone and the verdicts given. Both are only ever added to.
    """

    def __init__(self, max_epochs: int, grace: int = 1, eta: int = 3) -> None:
        if max_epochs < 1 or grace < 1 or eta < 2:
            raise ValueError(
                f"max_epochs {max_epochs} and grace {grace} must be 1 or more, eta {eta} 2 or more"
            )
        self.max_epochs, self.grace, self.eta = max_epochs, grace, eta
        self.milestones = milestones(max_epochs, grace, eta)
        self.rungs: dict[int, dict[str, float]] = {m: {} for m in self.milestones}
        self.protected: set[str] = set()
        self._verdicts: dict[tuple[str, int], Verdict] = {}

    def protect(self, trial: str) -> None:
        """Never stop this trial; others are still compared with it."""
        self.protected.add(trial)

    def record(self, trial: str, epoch: int, score: float) -> None:
        """File the score if it was reached at a milestone; a trial's first score there stands."""
        if epoch in self.rungs and isfinite(score):
            self.rungs[epoch].setdefault(trial, score)

    def decide(self, trial: str, epoch: int, score: float) -> Verdict:
        """Whether the trial goes on; asking again about the same epoch gives the same answer."""
        if not isfinite(score):
            return "stop"
        if epoch not in self.rungs:
            return "continue"
        self.record(trial, epoch, score)
        passes = trial in self.protected or self._is_among_best(trial, epoch)
        return self._verdicts.setdefault((trial, epoch), "continue" if passes else "stop")

    def expected_survivors(self, trials: int) -> dict[int, float]:
        """How many of so many trials go beyond each milestone, were their order chance."""
        arrived, survivors = float(trials), {}
        for milestone in self.milestones:
            whole = int(arrived)
            passed = sum(self._share(n) for n in range(1, whole + 1))
            passed += (arrived - whole) * self._share(whole + 1)
            survivors[milestone] = arrived = passed
        return survivors

    def expected_epochs(self, trials: int, epoch: int = 0) -> float:
        """Epochs that one of so many trials still trains, having trained `epoch` of them."""
        survivors = self.expected_survivors(trials)
        chance, epochs, here = 1.0, 0.0, epoch
        before = float(trials)
        for milestone, passed in survivors.items():
            if milestone > epoch:
                epochs += chance * (milestone - here)
                chance, here = chance * passed / before if before else 0.0, milestone
            before = passed
        return epochs + chance * max(0, self.max_epochs - here)

    def _is_among_best(self, trial: str, epoch: int) -> bool:
        rung = self.rungs[epoch]
        mine = (-rung[trial], trial)  # ties go to the smaller id: the same way on every machine
        better = sum((-score, other) < mine for other, score in rung.items())
        return better < self._allowed(len(rung))

    def _allowed(self, n: int) -> int:
        """How many of n may go on. Fewer than eta scores cannot tell a best 1/eta: all of them."""
        return n if n < self.eta else ceil(n / self.eta)

    def _share(self, n: int) -> float:
        return self._allowed(n) / n


def milestones(max_epochs: int, grace: int, eta: int) -> tuple[int, ...]:
    """Epochs at which trials are compared: grace, grace * eta, ... below `max_epochs`."""
    epochs = []
    while grace < max_epochs:
        epochs.append(grace)
        grace *= eta
    return tuple(epochs)
