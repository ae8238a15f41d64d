"""The study as an Optuna journal file, for `optuna-dashboard RUN/study.journal`, live or later.

A mirror: written by the driver alone, from the record, whatever the sampler. Nothing reads it back;
one that is damaged or tells something else than the record is written anew.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.core import Search
from search.outcome import score
from search.proposer import INVALID, own_value
from search.study import STATES
from search.tally import Tally
from spaces.space import Choice, Dimension, IntRange, LogUniform, Space, Value, applies
from trainables.config import Flat
from trainables.store import Row, TrialResult

log = logging.getLogger(__name__)
FILE = "study.journal"
FLUSH_SECONDS = 1.0  # a flush waits for the disk


class Journal:
    """An observer that mirrors a search. State: Optuna's storage, and which trial is which there.

    The first of the `columns` of a row is maximised, the others are minimised.
    """

    def __init__(
        self,
        search: Search,
        space: Space,
        columns: Sequence[str] = ("score",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search, self.space, self.columns, self.clock = search, space, columns, clock
        self.path = search.store.root / FILE
        self.tally = Tally()
        self.mirrored: dict[str, int] = {}  # trial -> Optuna's id
        self.epochs: dict[str, int] = {}  # trial -> the last one that is mirrored
        self.flushed = -1e9

    def start(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._open()
        except Exception as error:  # whatever is wrong with it, all that it said is in the record
            log.warning("%s is written anew: %s", self.path, error or type(error).__name__)
            self.path.unlink()
            self._open()
        self._mirror()
        self.backend.flush()

    def _open(self) -> None:
        """The storage with what it holds. Raises where that is not what the record says."""
        self.mirrored, self.epochs = {}, {}
        self.backend = Batches(self.path)
        self.storage = JournalStorage(self.backend)
        studies = self.storage.get_all_studies()
        if not studies:
            directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(self.columns)]
            name = self.search.store.root.resolve().name
            self.study: int = self.storage.create_new_study(directions[: len(self.columns)], name)
            return
        self.study = self.storage.get_study_id_from_name(studies[0].study_name)
        trials = self.storage.get_all_trials(self.study, deepcopy=False)
        for trial, known in zip(trials, islice(self.search.rows, len(trials)), strict=True):
            self._recognise(trial, known)

    def _recognise(self, mirror: FrozenTrial, trial: str) -> None:
        result, epochs = self.search.results.get(trial), max(mirror.intermediate_values, default=0)
        if mirror.user_attrs.get("trial") != trial:
            raise ValueError(f"trial {mirror.number} is not {trial}")
        if mirror.state.is_finished() and (result is None or STATES[result.status] != mirror.state):
            raise ValueError(f"trial {trial} has another end")
        steps = {e: v for e, v in self._steps(trial).items() if e <= epochs}
        if mirror.intermediate_values != steps:
            raise ValueError(f"trial {trial} has other scores")
        number = self.storage.get_trial_id_from_study_id_trial_number(self.study, mirror.number)
        self.mirrored[trial], self.epochs[trial] = number, epochs

    def update(self) -> None:
        """Mirror what is new, at most every second."""
        if self.clock() - self.flushed >= FLUSH_SECONDS:
            self._mirror()
            self.backend.flush()
            self.flushed = self.clock()

    def stop(self) -> None:
        self._mirror()
        self.backend.flush()

    def _mirror(self) -> None:
        for trial in self.tally.follow(self.search):
            if trial not in self.mirrored:
                self._create(trial)
            else:
                self._continue(trial)

    def _create(self, trial: str) -> None:
        """A trial that the mirror has not, as it stands now."""
        result, params = self.search.results.get(trial), self._params(self.search.configs[trial])
        values, state = self._end(trial, result)
        frozen = FrozenTrial(
            number=-1,  # Optuna counts
            trial_id=-1,
            state=state,
            value=None,
            values=values,
            datetime_start=self._moment(trial, "config.json"),
            datetime_complete=self._moment(trial, "result.json") if result else None,
            params=params,
            distributions={n: distribution(self.space.dimensions[n]) for n in params},
            user_attrs=self._attributes(trial, params, result),
            system_attrs={},
            intermediate_values=self._steps(trial),
        )
        self.mirrored[trial] = self.storage.create_new_trial(self.study, frozen)
        self.epochs[trial] = max(self.search.rows[trial], default=0)

    def _continue(self, trial: str) -> None:
        number, result = self.mirrored[trial], self.search.results.get(trial)
        if self.storage.get_trial(number).state.is_finished():
            return
        for epoch, step in self._steps(trial).items():
            if epoch > self.epochs[trial]:
                self.storage.set_trial_intermediate_value(number, epoch, step)
                self.epochs[trial] = epoch
        if result is not None:
            for name, value in ending(result).items():
                self.storage.set_trial_user_attr(number, name, value)
            values, state = self._end(trial, result)
            self.storage.set_trial_state_values(number, state, values)

    def _steps(self, trial: str) -> dict[int, float]:
        """Scores by epoch; none with several objectives, of which Optuna takes no steps."""
        rows = self.search.rows[trial] if len(self.columns) == 1 else {}
        return {e: value for e, row in sorted(rows.items()) if isfinite(value := score(row))}

    def _end(self, trial: str, result: TrialResult | None) -> tuple[list[float] | None, TrialState]:
        """What Optuna is to know of the end; without a value a completed trial counts as failed."""
        if result is None:
            return None, TrialState.RUNNING
        state, rows = STATES[result.status], self.search.rows[trial]
        last: Row = rows[max(rows)] if rows else {}
        values = [number(last.get(column)) for column in self.columns]
        if state is TrialState.FAIL or not all(map(isfinite, values)):
            return None, TrialState.PRUNED if state is TrialState.PRUNED else TrialState.FAIL
        return values, state

    def _params(self, config: Flat) -> dict[str, Value]:
        """The settings that are dimensions of the space, as far as it holds their values."""
        params = {}
        for name, dim in self.space.dimensions.items():
            with suppress(*INVALID):
                if name in config and applies(dim, config):
                    params[name] = own_value(dim, config[name])
        return params

    def _attributes(
        self, trial: str, params: dict[str, Value], result: TrialResult | None
    ) -> dict[str, Any]:
        config = self.search.configs[trial]
        others = {name: value for name, value in config.items() if name not in params}
        role = self.search.roles[trial]
        return {
            "trial": trial,
            "role": role,
            "others": others,
            **(ending(result) if result else {}),
        }

    def _moment(self, trial: str, name: str) -> datetime:
        """When that file of the trial was written."""
        try:
            seconds = (self.search.store.trial(trial).path / name).stat().st_mtime
        except OSError:
            seconds = time.time()
        return datetime.fromtimestamp(seconds, UTC)


def ending(result: TrialResult) -> dict[str, Value]:
    """What is to be read of a trial's end."""
    told: dict[str, Value] = {"seconds": round(result.seconds, 3), "epoch": result.epoch}
    return {**told, "error": result.error} if result.error else told


def number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def distribution(dim: Dimension) -> BaseDistribution:
    """A dimension of ours as Optuna names it."""
    if isinstance(dim, Choice):
        return CategoricalDistribution(dim.options)
    if isinstance(dim, IntRange):
        return IntDistribution(dim.low, dim.high, log=dim.log)
    return FloatDistribution(dim.low, dim.high, log=isinstance(dim, LogUniform))


class Alone:
    """No lock: one driver holds the run, and a lock left by a killed one would cost 30 seconds."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None: ...


class Batches(BaseJournalBackend):  # type: ignore[misc]  # optuna is not followed by mypy
    """A journal file that is written in batches, since every write waits for the disk.

    State: what is not written yet, and what the storage, which replays all it writes, has not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = JournalFileBackend(str(path), Alone())
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            raise ValueError("its last line is torn")
        self.unread = list(self.file.read_logs(0))
        self.first, self.pending = 0, list[dict[str, Any]]()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Each log is read once: the storage asks on from where it was."""
        logs = self.unread[log_number_from - self.first :]
        self.first, self.unread = log_number_from + len(logs), []
        return iter(logs)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.pending += logs
        self.unread += logs

    def flush(self) -> None:
        """Write what is pending; on a full disk nothing of it stays behind."""
        if not self.pending:
            return
        size = self.path.stat().st_size
        try:
            self.file.append_logs(self.pending)
        except OSError:
            with suppress(OSError), self.path.open("rb+") as file:
                file.truncate(size)
            raise
        self.pending = []
