"""`python -m search.status RUN`: the state of a run, live, finished or killed, from its record.

It reads files and nothing else: no Ray, no torch, no Optuna, and it changes nothing. Given a folder
of runs it lists them.
"""

import fcntl
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.folder import LOCK
from search.folds import told
from search.forecast import Estimate
from search.front import Point, front, front_lines
from search.monitor import number, rung_lines, span, trial_line
from search.tally import Known, Tally
from trainables.cli import Parser, run_command
from trainables.store import RunStore

WATCH_SECONDS = 2.0
PATIENCE = 10  # a look is taken anew after so many times the time that it took
FAILURES = 5  # shown; `--json` tells all
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
        tally = Tally(meta.get("rungs") or ())
        for record in store.records():
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


# --- as JSON -------------------------------------------------------------------------------------


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
        "failures": [_failure(trial, tally.trials[trial]) for trial in tally.failures],
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
    return {"trial": trial, "score": score, "epoch": known.epoch, "config": dict(known.config)}


def _failure(trial: str, known: Known) -> dict[str, Any]:
    assert known.result is not None
    return {"trial": trial, "epoch": known.result.epoch, "error": known.result.error}


# --- for people ----------------------------------------------------------------------------------


def page(status: Status, now: float) -> Group:
    """The state of one run in a screen."""
    meta, tally = status.meta, status.tally
    title = f"{status.root}: {STATES[status.state]}"
    named = ", ".join(f"{n} {state}" for state, n in status.counts.items() if n)
    asked = meta.get("trials", "?")
    lines = [
        Text(title, "bold"),
        Text(f"trials   {len(tally.trials)} of {asked} begun" + (f": {named}" if named else "")),
        Text(f"active   {_ago(now - status.changed)}; started {meta.get('started') or '?'}"),
        Text(f"spent    {_spent(status)}"),
    ]
    if forecast := _forecast(meta):
        lines.append(Text(f"forecast {forecast}"))
    for name, trial in (("best", tally.best), ("baseline", tally.baseline)):
        if trial is not None:
            lines.append(Text(f"{name:9}{trial_line(tally, trial)}"))
    lines += [Text(f"front    {t}") for t in front_lines(status.front(), status.objectives)]
    if tally.rungs:
        lines.append(Text("rungs    " + "; ".join(rung_lines(tally))))
    if tally.folds > 1:
        lines.append(Text("folds    " + told(tally.fold_counts(), tally.folds)))
    if meta.get("dashboard"):
        lines.append(
            Text(f"Ray      {meta['dashboard']}" + " (gone)" * (status.state != "running"))
        )
    return Group(*lines, *_failure_lines(tally))


def _failure_lines(tally: Tally) -> list[Text]:
    told = [_failure(trial, tally.trials[trial]) for trial in tally.failures[:FAILURES]]
    lines = [Text(f"failed   {f['trial']} at epoch {f['epoch']}: {f['error']}") for f in told]
    more = len(tally.failures) - len(told)
    return [*lines, Text(f"         and {more} more (--json tells all)")] if more else lines


def _spent(status: Status) -> str:
    worker, gpu = status.hours()
    text = f"{status.tally.epochs} epochs, {worker:.3g} worker-hours"
    if gpu:
        text += f", {gpu:.3g} GPU-hours"
    seconds = (status.meta.get("spent") or {}).get("seconds")
    return text if seconds is None else f"{text}, {span(seconds)} in all"


def _forecast(meta: Mapping[str, Any]) -> str:
    """What was forecast before the first trial, with its intervals; "" where nothing was."""
    there = meta.get("forecast") or {}
    units: dict[str, tuple[Callable[[float], str], str]] = {
        "epochs": ("{:.0f}".format, " epochs"),
        "worker_hours": ("{:.3g}".format, " worker-hours"),
        "seconds": (span, " in all"),
    }
    return ", ".join(
        Estimate(**there[name]).told(shown) + unit
        for name, (shown, unit) in units.items()
        if there.get(name)
    )


def _ago(seconds: float) -> str:
    return f"last activity {span(max(0.0, seconds))} ago"


def listing(statuses: Sequence[Status], now: float) -> Table:
    """A row for each run."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("run", "state", "trials", "failed", "best", "baseline", "active"):
        table.add_column(column, overflow="fold")
    for status in statuses:
        tally, counts = status.tally, status.counts
        scores = [
            tally.trials[t].score if t else float("nan") for t in (tally.best, tally.baseline)
        ]
        table.add_row(
            Text(status.root.name),
            status.state,
            f"{len(tally.trials) - counts['unfinished']}/{status.meta.get('trials', '?')}",
            str(counts["failed"]),
            *map(number, scores),
            f"{span(max(0.0, now - status.changed))} ago",
        )
    return table


# --- the command ---------------------------------------------------------------------------------


def find_runs(path: Path) -> list[Path]:
    """The run at that path, or the runs in that folder. Raises FileNotFoundError for neither."""
    if (path / "run.json").is_file():
        return [path]
    if runs := sorted(file.parent for file in path.glob("*/run.json")):
        return runs
    what = "it has no run.json, and no folder in it has one" if path.is_dir() else "no such folder"
    raise FileNotFoundError(f"no run at '{path}': {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the state of a run, or of each run of a folder, from the record alone."""
    parser = Parser(prog="python -m search.status", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, or of several, such as runs")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", action="store_true", help="look again until no run is running")
    args = parser.parse(arguments)
    if args.json and args.watch:
        parser.error("--json is told once: leave out --watch")
    if args.watch:
        _watch(args.run)
        return 0
    statuses = [look(run) for run in find_runs(args.run)]
    if args.json:
        told = [as_dict(status) for status in statuses]
        print(json.dumps(told[0] if statuses[0].root == args.run else told, indent=1))
    else:
        Console().print(_shown(statuses, args.run))
    return 0


def _shown(statuses: Sequence[Status], path: Path) -> RenderableType:
    now = time.time()
    return page(statuses[0], now) if statuses[0].root == path else listing(statuses, now)


def _watch(path: Path) -> None:
    """Show the state again and again until nothing runs any more, or Ctrl-C."""
    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            statuses = [look(run) for run in find_runs(path)]
            live.update(_shown(statuses, path), refresh=True)
            if all(status.state in ("finished", "ended") for status in statuses):
                return
            time.sleep(max(WATCH_SECONDS, PATIENCE * (time.monotonic() - began)))


if __name__ == "__main__":
    run_command(main)
