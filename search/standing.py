"""The state of a run, live, finished or killed, from its record alone; and as JSON.

It reads files and nothing else: no Ray, no torch, no Optuna, and it changes nothing.
"""

import fcntl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from search.folder import LOCK
from search.folds import pooled_score
from search.front import Point, front
from search.tally import Known, Tally
from trainables.store import RunStore

STATES = {
    "running": "running",
    "finished": "finished",
    "ended": "not finished, and no driver works on it: --resume goes on",
    "unknown": "not finished; whether a driver works on it is unknown: the disk has no locks",
}


@dataclass(frozen=True)
class Status:
    """A run as its record tells it."""

    root: Path
    meta: Mapping[str, Any]
    tally: Tally
    has_driver: bool | None  # None where the disk knows no locks
    changed: float  # when a file of the record was last written, in seconds since 1970

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.meta.get("finished"):
            return "finished"
        return {True: "running", False: "ended", None: "unknown"}[self.has_driver]

    @property
    def counts(self) -> dict[str, int]:
        ended = {name: self.tally.ended[name] for name in ("completed", "stopped", "failed")}
        return {"unfinished": len(self.tally.trials) - sum(ended.values()), **ended}

    @property
    def objectives(self) -> list[str]:
        return list(self.meta.get("objectives") or ())

    def front(self) -> dict[str, Point]:
        """Trials that no other beats in every objective; {} where there is but one."""
        return front({t: k.result for t, k in self.tally.trials.items()}, self.objectives)

    def hours(self) -> tuple[float, float | None]:
        """Hours of training summed over workers, and GPU-hours where run.json tells the GPUs."""
        worker, gpus = self.tally.seconds / 3600, self.meta.get("gpus_per_trial")
        return worker, None if gpus is None else worker * float(gpus)


def look(root: Path) -> Status:
    """Read a run. Raises FileNotFoundError where there is none, ValueError for a damaged one."""
    store = RunStore.open(root)
    try:
        meta = store.meta()
        records = store.records()
        metric = str(records[0].config.get("metric", "macro_f1")) if records else ""
        tally = Tally(meta.get("rungs") or (), pooled_score(store, metric))
        for record in records:
            tally.add(record.id, record.config, record.role)
            tally.take(record.id, {row["epoch"]: row for row in record.history}, record.result)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the record of '{root}' cannot be read: {error}") from error
    return Status(root, meta, tally, has_driver(root), _last_change(root))


def has_driver(root: Path) -> bool | None:
    """Whether a process holds the run; None where that cannot be told."""
    try:
        with (root / LOCK).open() as file:
            # shared, so that many may look at once, and let go of as soon as it is had
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except (FileNotFoundError, BlockingIOError) as error:
        return isinstance(error, BlockingIOError)
    except OSError:
        return None


def _last_change(root: Path) -> float:
    moments = [0.0]
    names = ("config.json", "attempt", "history.jsonl", "result.json")
    for path in [root / "run.json", *(p for n in names for p in root.glob(f"trials/*/{n}"))]:
        with suppress(OSError):  # replaced at this moment
            moments.append(path.stat().st_mtime)
    return max(moments)


def as_dict(status: Status) -> dict[str, Any]:
    """All that is told, for programs."""
    meta, tally = status.meta, status.tally
    worker, gpu = status.hours()
    return {
        "run": str(status.root),
        "state": status.state,
        "has_driver": status.has_driver,
        "space": _space(meta),
        **{name: meta.get(name) for name in ("started", "finished", "dashboard")},
        "last_activity": datetime.fromtimestamp(status.changed, UTC).isoformat(timespec="seconds"),
        "trials": {"asked": meta.get("trials"), "begun": len(tally.trials), **status.counts},
        "best": _trial(tally, tally.best),
        "baseline": _trial(tally, tally.baseline),
        "front": [
            {"trial": trial, **dict(zip(status.objectives, point, strict=True))}
            for trial, point in status.front().items()
        ],
        "rungs": [{"epoch": epoch, **vars(rung)} for epoch, rung in tally.rungs.items()],
        "folds": {str(n): count for n, count in tally.fold_counts().items()},
        "failures": [failure_of(trial, tally.trials[trial]) for trial in tally.failures],
        "epochs": tally.epochs,
        "worker_hours": worker,
        "gpu_hours": gpu,
        **{name: meta.get(name) for name in ("forecast", "spent")},
    }


def _space(meta: Mapping[str, Any]) -> str | None:
    space = meta.get("space")
    return space.get("name") if isinstance(space, dict) else None


def _trial(tally: Tally, trial: str | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    known = tally.trials[trial]
    score = known.score if isfinite(known.score) else None
    told = {"trial": trial, "score": score, "epoch": known.epoch, "folds": len(known.whole)}
    return {**told, "config": dict(known.config)}


def failure_of(trial: str, known: Known) -> dict[str, Any]:
    assert known.result is not None
    return {"trial": trial, "epoch": known.result.epoch, "error": known.result.error}
