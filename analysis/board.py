"""A run as the analysis reads it: its record, the votes of its trials, what they are votes on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.decisions import Decisions, read_decisions
from analysis.groups import Folds, Group, as_repeat, ended_folds, folds_of, groups_of
from analysis.statistics import Goal
from trainables import metrics
from trainables.metrics import MIN_SUPPORT, Ints
from trainables.registry import unknown
from trainables.store import Record, RunStore

NAMES = {
    "score": "score",
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1": "macro-F1",
    "macro_f1_all": "macro-F1 all",
    "ece": "ECE",
}
GOALS = {  # metrics.OBJECTIVES in words
    "macro_f1": f"macro-F1 over the classes with at least {MIN_SUPPORT} validation images",
    "macro_f1_all": "macro-F1 over all classes that have images",
    "accuracy": "accuracy",
    "uar": "the mean recall of all classes (UAR)",
}


@dataclass(frozen=True)
class Board:
    """A run, read once."""

    run: RunStore
    meta: Mapping[str, Any]
    records: tuple[Record, ...]
    votes: Decisions  # of the trials that did not fail
    class_names: tuple[str, ...]
    au_names: tuple[str, ...]
    folds: Folds = field(default_factory=dict)  # the trials of each record: itself, or its folds

    @property
    def trainings(self) -> int:
        """Trials, each fold by itself."""
        return sum(map(len, self.folds.values())) or len(self.records)

    @property
    def goal(self) -> Goal:
        """What the search maximised."""
        return goal_of(self.meta, self.votes.labels, len(self.class_names))

    @property
    def support(self) -> NDArray[np.int64]:
        """Validation images per class (K,)."""
        return np.bincount(self.votes.labels, minlength=len(self.class_names))

    @cached_property
    def groups(self) -> list[Group]:
        """The configurations, repeats that stand alike together, in the order begun."""
        ended = {trial: len(ended_folds(own)) for trial, own in self.folds.items()}
        stand = {r.id: (status(r, self.meta), ended.get(r.id)) for r in self.records}
        return groups_of(self.records, stand)

    @cached_property
    def _repeats(self) -> dict[str, tuple[str, ...]]:
        return {trial: group.repeats for group in self.groups for trial in group.repeats}

    def repeats(self, trial: str) -> tuple[str, ...]:
        """The trials of its configuration that stand as it does, by seed; it is one of them."""
        return self._repeats[trial]

    @property
    def train_counts(self) -> tuple[int, ...]:
        """Training images per class; () where run.json does not have them."""
        counts = tuple(int(n) for n in self.meta["data"].get("train_counts") or ())
        return counts if len(counts) == len(self.class_names) else ()

    @cached_property
    def varying(self) -> list[str]:
        """The settings that differ between trials."""
        return varying(self.records)

    @cached_property
    def _by_id(self) -> dict[str, Record]:
        return {record.id: record for record in self.records}

    def record(self, trial: str) -> Record:
        return self._by_id[trial]


def read_board(run: RunStore) -> Board:
    """Everything that the analysis reads of a run. Raises ValueError where run.json lacks names."""
    meta = run.meta()
    data = meta.get("data") or {}
    if not data.get("class_names"):
        raise ValueError(f"'{run.root / 'run.json'}' names no classes: data.class_names is missing")
    if (meta.get("metric") or "macro_f1") not in GOALS:
        raise ValueError(unknown("metric", str(meta["metric"]), GOALS))
    names = tuple(map(str, data["class_names"]))
    folds = folds_of(run.records())
    is_over = bool(meta.get("finished"))
    records = tuple(as_repeat(own, is_over) for own in folds.values())
    live = [record for record in records if status(record, meta) != "failed"]
    votes = _votes(run, live, len(names), folds, meta)
    units = tuple(map(str, data.get("au_names") or ()))
    if len(units) != votes.aus.shape[1]:
        units = tuple(f"AU column {number}" for number in range(1, votes.aus.shape[1] + 1))
    return Board(run, meta, records, votes, names, units, folds)


def _votes(
    run: RunStore, live: Sequence[Record], classes: int, folds: Folds, meta: Mapping[str, Any]
) -> Decisions:
    """The votes with the probabilities of completed trials, or of all where none is completed."""
    metric = meta.get("metric") or "macro_f1"
    completed = {record.id for record in live if status(record, meta) == "completed"}
    keep = completed | {record.id for record in live if record.role == "baseline"}
    votes = read_decisions(run, live, classes, folds, keep, metric)
    if completed.isdisjoint(votes.trials):
        return read_decisions(run, live, classes, folds, None, metric)
    return votes


def goal_of(meta: Mapping[str, Any], labels: Ints, classes: int) -> Goal:
    """What a run with these validation labels maximises."""
    return Goal(meta.get("metric") or "macro_f1", metrics.supported(labels, classes))


def status(record: Record, meta: Mapping[str, Any]) -> str:
    """How the trial stands; "unfinished" is one that a finished run left open."""
    if record.result and record.result.status != "running":
        return record.result.status
    return "unfinished" if meta.get("finished") else "running"


def varying(records: Sequence[Record]) -> list[str]:
    """The settings that differ between trials, in the order of the configuration."""
    found: dict[str, set[Any]] = {}
    counts = Counter[str]()
    for record in records:
        counts.update(record.config.keys())
        for name, value in record.config.items():
            found.setdefault(name, set()).add(value)
    return [n for n, values in found.items() if len(values) > 1 or counts[n] < len(records)]
