"""The decision core: which trial next, who goes on, how a trial ended. No Ray, no Optuna, no clock.

The run folder is the record; study and rungs are rebuilt from it each time a `Search` is made, so
resuming after a crash is making one. A front (inline, driver) calls `next`, `on_row`, `on_end`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any, Protocol

from search.asha import Asha, Verdict
from trainables.config import Flat, TrialConfig
from trainables.store import Fenced, Row, RunStore, Status, TrialResult, TrialStore

STATE = "last.pt"
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

    def reopen(self, config: Flat) -> None:
        """Take back a configuration of the record, as if it had just been asked for."""

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """How a trial went that was asked for or reopened."""


class Observer(Protocol):
    """Someone who watches a search; it is told when to look, not what happened."""

    def start(self) -> None: ...

    def update(self) -> None: ...

    def stop(self) -> None: ...


class Search:
    """One run of the search, from its record to its end. State: what is live, waiting and known."""

    def __init__(
        self, store: RunStore, proposer: Proposer, asha: Asha, budget: int, max_losses: int = 2
    ) -> None:
        self.store, self.proposer, self.asha = store, proposer, asha
        self.budget, self.max_losses = budget, max_losses
        self.rows: dict[str, dict[int, Row]] = {}  # trial -> epoch -> row
        self.configs: dict[str, Flat] = {}
        self.roles: dict[str, str] = {}
        self.results: dict[str, TrialResult] = {}
        self.live: dict[str, int] = {}  # handed out -> attempt
        self.started: set[str] = set()  # of these, the ones that a worker has in hand
        self.losses: Counter[str] = Counter()
        self.exhausted = False  # no new configuration will come
        self._stopped: set[str] = set()
        self.backlog: list[str] = []
        self._replay()

    def _replay(self) -> None:
        """Rebuild study and rungs from the record, in the order the trials were proposed."""
        for record in self.store.records():
            self._know(record.id, record.config, record.role)
            self.proposer.reopen(record.config)
            self._take(record.id, record.history)
            if record.result is None:
                self.backlog.append(record.id)
            else:
                self.results[record.id] = record.result
                if record.result.status != "failed":  # a crash may have come before
                    self.store.trial(record.id).discard(STATE)
                self.proposer.tell(record.id, record.history, record.result.status)

    def _know(self, trial: str, config: Flat, role: str) -> None:
        self.rows[trial], self.configs[trial], self.roles[trial] = {}, config, role
        if role == "baseline":
            self.asha.protect(trial)  # what all else is compared with has the full budget

    def _take(self, trial: str, history: Sequence[Row]) -> None:
        for row in history:
            self.rows[trial].setdefault(row["epoch"], row)
            self.asha.record(trial, row["epoch"], score(row))

    @property
    def is_finished(self) -> bool:
        return self.exhausted and not self.live and not self.backlog

    def next(self) -> Handout | None:
        """The trial to start: unfinished ones first, then a new one. None: nothing to start now.

        A live trial may still be lost and come back, so None is final only when `is_finished`.
        """
        trial = self.backlog.pop(0) if self.backlog else self._propose()
        if trial is None:
            return None
        self.live[trial] = self.store.hand_out(trial)
        return Handout(trial, self.live[trial])

    def _propose(self) -> str | None:
        if not self.exhausted and len(self.rows) < self.budget:
            proposal = self.proposer.ask()
            if proposal is not None:
                trial = self.store.create_trial(proposal.config, len(self.rows), proposal.role)
                self._know(trial, proposal.config.flat(), proposal.role)
                return trial
        self.exhausted = True
        return None

    def is_current(self, handout: Handout) -> bool:
        """Whether this attempt at the trial is the one that counts."""
        return self.live.get(handout.id) == handout.attempt

    def on_start(self, trial: str) -> None:
        if trial in self.live:
            self.started.add(trial)

    def on_row(self, trial: str, row: Row) -> Verdict:
        """Whether the trial goes on. A row seen before changes nothing."""
        if trial not in self.live:
            return "stop"
        self.on_start(trial)
        rows = self.rows[trial]
        row = rows.setdefault(row["epoch"], row)
        if row["epoch"] < max(rows):
            return "continue"  # old news: the decision on it has been taken and carried out
        verdict = self.asha.decide(trial, row["epoch"], score(row))
        if verdict == "stop":
            self._stopped.add(trial)
        return verdict

    def on_lost(self, trial: str) -> None:
        """The worker vanished: the trial goes to the front, unless it has cost too many workers."""
        if trial not in self.live:
            return
        self.losses[trial] += 1
        if self.store.trial(trial).result() is not None:
            self.on_end(trial)  # the worker had closed the trial before it vanished
        elif self.losses[trial] > self.max_losses:
            self.live[trial] = self.store.hand_out(
                trial
            )  # a worker that is only cut off must not write any more
            self.on_end(trial, f"its worker was lost {self.losses[trial]} times")
        else:
            self._release(trial)
            self.backlog.insert(0, trial)

    def on_end(self, trial: str, error: str = "") -> Status:
        """Close the books on a trial; the status that is on record."""
        if trial in self.results:
            return self.results[trial].status
        own = self.store.trial(trial, self.live.get(trial))
        self._take(trial, own.history())  # rows that were stored but never delivered
        rows, is_stopped = self.history(trial), trial in self._stopped
        try:
            own.finish(outcome(rows, self.asha.max_epochs, is_stopped, error))
        except Fenced:  # another driver has handed it out since: the verdict is not ours
            self._release(trial)
            return "running"
        result = own.result()  # the first verdict stands: the trial may have filed its own
        assert result is not None
        self.results[trial] = result
        if result.status != "failed":
            own.discard(STATE)  # nobody goes on from here, and it is four times the weights
        self._release(trial)
        self.proposer.tell(trial, rows, result.status)
        return result.status

    def _release(self, trial: str) -> None:
        self.live.pop(trial, None)
        self.started.discard(trial)

    def history(self, trial: str) -> list[Row]:
        return [self.rows[trial][epoch] for epoch in sorted(self.rows[trial])]


def outcome(rows: Sequence[Row], max_epochs: int, is_stopped: bool, error: str) -> TrialResult:
    """What to file for a trial that did not file its own result."""
    last = rows[-1] if rows else {"epoch": 0}
    bad = [row["epoch"] for row in rows if not isfinite(score(row))]
    done = last["epoch"] >= max_epochs
    if not error and bad:
        error = f"the score is not finite at epoch {bad[0]}"
    if not error and not done and not is_stopped:
        error = f"it ended by itself at epoch {last['epoch']} of {max_epochs}"
    return TrialResult(
        status="failed" if error else "completed" if done else "stopped",
        metrics=metrics(last),
        epoch=last["epoch"],
        seconds=sum(float(row.get("seconds") or 0) for row in rows),
        peak_gib=max((float(row.get("peak_gib") or 0) for row in rows), default=0.0),
        error=error,
    )


def last_score(search: Search, trial: str) -> float:
    """Of its last epoch; NaN for a trial that failed or has no row."""
    result, rows = search.results.get(trial), search.history(trial)
    return nan if not rows or (result and result.status == "failed") else score(rows[-1])


def best(search: Search) -> str | None:
    """The trial with the highest last score, if any has one; ties go to the earlier."""
    scores = {t: s for t in search.rows if isfinite(s := last_score(search, t))}
    return max(scores, key=lambda t: scores[t]) if scores else None


def counts(search: Search) -> dict[str, int]:
    """Trials by state: running, completed, stopped, failed, and waiting for a worker."""
    ended = Counter(result.status for result in search.results.values())
    waiting = len(search.backlog) + len(search.live) - len(search.started)
    return {
        "running": len(search.started),
        "completed": ended["completed"],
        "stopped": ended["stopped"],
        "failed": ended["failed"],
        "waiting": waiting,
    }


def score(row: Row) -> float:
    """The row's score; NaN where it has none."""
    value = row.get("score")
    return nan if value is None else float(value)


def metrics(row: Row) -> dict[str, Any]:
    """A row as a result keeps it: a number that is not finite becomes None."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in row.items()
    }
