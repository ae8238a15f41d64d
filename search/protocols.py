"""What the core hands out, and what it asks of others: proposer, pruner, trial, observer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search.pruners import Verdict
from trainables.config import Flat, TrialConfig
from trainables.store import Row, Status, TrialStore

RunTrial = Callable[[TrialStore, Path], Iterator[Row]]  # (the trial's folder, the data) -> its rows


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, and why: baseline, default or proposed."""

    role: str
    config: TrialConfig


@dataclass(frozen=True)
class Handout:
    """A trial given to a worker; a worker of an earlier attempt is fenced off."""

    id: str
    attempt: int


class Proposer(Protocol):
    """Where configurations come from."""

    def ask(self) -> Proposal | None:
        """A configuration never given before, or None when there is none left."""

    def prefer(self, paused: Mapping[str, int]) -> str | None:
        """The trial waiting at its epoch that deserves more than any new configuration, if one."""

    def reopen(self, config: Flat) -> None:
        """Take back a configuration of the record, as if it had just been asked for."""

    def observe(self, trial: str, epoch: int, score: float) -> None:
        """A score of a trial that was asked for or reopened, as it arrives."""

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """How a trial went that was asked for or reopened."""


class Pruner(Protocol):
    """Who goes on; `pruners.Pruner` is one. Scores are the best so far of a trial."""

    max_epochs: int
    milestones: tuple[int, ...]
    is_led: bool  # who goes on is asked of the proposer, as long as new configurations may come
    rungs: dict[int, dict[str, float]]  # milestone -> trial -> score
    protected: set[str]

    def protect(self, trial: str) -> None: ...

    def spare(self, trial: str, until: int) -> None: ...

    def record(self, trial: str, epoch: int, score: float) -> None: ...

    def decide(self, trial: str, epoch: int, score: float) -> Verdict: ...

    def promote(self, paused: Mapping[str, int], is_last: bool = False) -> str | None: ...

    def let_go(self, trial: str, rung: int) -> None: ...


class Observer(Protocol):
    """Someone who watches a search; it is told when to look, not what happened."""

    def start(self) -> None: ...

    def update(self) -> None: ...

    def stop(self) -> None: ...
