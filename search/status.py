"""`python -m search.status RUN`: the state of a run, live, finished or killed, from its record.

Given a folder of runs it lists them. What is told is read in standing.py.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.folds import told
from search.forecast import Estimate
from search.front import front_lines
from search.monitor import number, rung_lines, span, trial_line
from search.standing import STATES, Status, as_dict, failure_of, look
from search.tally import Tally
from trainables.cli import Parser, run_command

WATCH_SECONDS = 2.0
PATIENCE = 10  # a look is taken anew after so many times the time that it took
FAILURES = 5  # shown; `--json` tells all


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
    told = [failure_of(trial, tally.trials[trial]) for trial in tally.failures[:FAILURES]]
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
