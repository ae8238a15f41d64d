"""What the user sees while a search runs: a live table, or plain lines where there is none.

It only looks at the search. A line for each failure stays on the screen above the table. Rich finds
out whether it writes to a terminal, a notebook or a log.
"""

import io
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.core import Search
from search.folds import told
from search.outlook import Outlook
from search.tally import Tally
from trainables.config import REPEATED, Flat

REDRAW_SECONDS = 0.5
NOTEBOOK_SECONDS = 2.0  # each redraw is a message to the browser
LINE_SECONDS = 10.0
ROWS = 12  # running trials shown; a cluster may have hundreds
PAGE_WIDTH = 110  # columns
PAGE = '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">{code}</pre>'
UNTOLD = REPEATED


@dataclass(frozen=True)
class Place:
    """Where a search runs and what it may spend there; what is None has no limit."""

    workers: int = 1
    gpus_per_trial: float = 0.0
    dashboard: str = ""
    hours: float | None = None
    gpu_hours: float | None = None


class Monitor:
    """An observer. State: when the last thing was shown, and the search as tallied."""

    def __init__(
        self,
        search: Search,
        total: int,
        max_epochs: int,
        console: Console,
        place: Place = Place(),  # noqa: B008  # frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search, self.total, self.max_epochs = search, total, max_epochs
        self.console, self.place, self.clock = console, place, clock
        self.live: Live | Page | None = None
        self.began = self.shown = clock()
        self.outlook = Outlook(search, place.workers, clock)
        self.tally = self.outlook.tally

    def start(self) -> None:
        self.began = self.shown = self.clock()
        self.tally.follow(self.search)
        self.told = len(self.search.results)
        if self.console.is_terminal or self.console.is_jupyter:
            is_page = self.console.is_jupyter
            self.live = Page() if is_page else Live(console=self.console, auto_refresh=False)
            self.live.start()
            self.live.update(self.table(), refresh=True)

    def update(self) -> None:
        """Show what is new, at most every half second."""
        self._tell_ends()
        now = self.clock()
        if now - self.shown < self._pause():
            return
        self.shown = now
        if self.live:
            self.live.update(self.table(), refresh=True)
        else:
            self._print(self.summary())

    def _pause(self) -> float:
        if self.live is None:
            return LINE_SECONDS
        return NOTEBOOK_SECONDS if self.console.is_jupyter else REDRAW_SECONDS

    def stop(self) -> None:
        self._tell_ends()
        if self.live:
            self.live.update(self.table(), refresh=True)
            self.live.stop()
            self.live = None
        else:
            self._print(self.summary())

    def _tell_ends(self) -> None:
        results = self.search.results
        if len(results) == self.told:
            return
        self.tally.follow(self.search)
        latest = islice(reversed(results), len(results) - self.told)  # no pass over the others
        for trial in reversed(list(latest)):
            self.told += 1
            if self.live is None or results[trial].status == "failed":
                self._print(end_line(self.tally, trial))

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def times(self) -> str:
        """Time gone, time to come with its interval, and what has been spent."""
        parts = [f"{span(self.clock() - self.began)} elapsed"]
        if (there := self.outlook.look()) is not None:
            left = there.seconds
            parts.append(f"~{span(left.middle)} left ({span(left.low)} to {span(left.high)})")
        parts.append(self.spent())
        return ", ".join(part for part in parts if part)

    def spent(self) -> str:
        """GPU-hours, hours of workers without one, and the limits that were set."""
        place, hours = self.place, self.tally.seconds / 3600
        gpus = place.gpus_per_trial
        text = f"{hours * gpus:.2f} GPU-hours" if gpus else f"{hours:.2f} worker-hours"
        if place.gpu_hours is not None:
            text += f" of {place.gpu_hours:g}"
        if place.hours is not None:
            text += f", stops after {span(3600 * place.hours)}"
        return text

    def summary(self) -> str:
        """The state of the search in a line."""
        self.tally.follow(self.search)
        leader = self.tally.best
        top = ""
        if leader is not None:
            named = f"{leader}{whole(self.tally, leader)}"
            top = f"; best {self.tally.trials[leader].score:.4f} ({named})"
        return f"{states(self.search, self.tally, self.total)}{top}; {self.times()}"

    def table(self) -> Group:
        """The state of the search in a screen of 80 columns."""
        tally = self.tally
        tally.follow(self.search)
        lines = [Text(states(self.search, tally, self.total), "bold"), Text(self.times())]
        for name, trial in (("best", tally.best), ("baseline", tally.baseline)):
            if trial is not None:
                lines.append(Text(f"{name:9}{trial_line(tally, trial)}", overflow="ellipsis"))
        if tally.rungs:
            lines.append(Text("rungs    " + "; ".join(rung_lines(tally))))
        if tally.folds > 1:
            lines.append(Text("folds    " + told(tally.fold_counts(), tally.folds)))
        if self.place.dashboard:
            lines.append(Text(f"Ray      {self.place.dashboard}", "dim"))
        for line in lines:
            line.no_wrap = True
        return Group(*lines, self._running())

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        for name, width in {"running": 11, "epoch": 7, "score": 7}.items():
            table.add_column(name, no_wrap=True, min_width=width)
        table.add_column("settings", no_wrap=True, overflow="ellipsis", ratio=1)
        known = self.tally.trials
        running = sorted(self.search.started, key=lambda trial: known[trial].index)
        for trial in running[:ROWS]:
            table.add_row(
                trial,
                f"{known[trial].epoch}/{self.max_epochs}",
                number(known[trial].score),
                describe(self.tally, trial),
            )
        if len(running) > ROWS:
            table.add_row(f"and {len(running) - ROWS} more", "", "", "")
        return table


class Page:
    """What `Live` is to a terminal, for a notebook; Rich's own needs ipywidgets. State: its id."""

    def start(self) -> None:
        self.id = ""

    def update(self, table: Group, refresh: bool = True) -> None:
        """Draw the table in the place where it was drawn before."""
        from IPython import display

        canvas = Console(record=True, file=io.StringIO(), force_jupyter=False, width=PAGE_WIDTH)
        canvas.print(table)
        page = display.HTML(canvas.export_html(inline_styles=True, code_format=PAGE))
        if self.id:
            display.update_display(page, display_id=self.id)
        else:
            self.id = uuid.uuid4().hex
            display.display(page, display_id=self.id)

    def stop(self) -> None: ...


def states(search: Search, tally: Tally, total: int) -> str:
    """How many trials have ended, and what became of them."""
    named = ", ".join(f"{n} {state}" for state, n in counts(search, tally).items() if n)
    return f"{len(search.results)} of {total} trials ended" + (f": {named}" if named else "")


def counts(search: Search, tally: Tally) -> dict[str, int]:
    """Trials by state: with a worker, ended, paused at a rung, and waiting for a worker."""
    return {
        "running": len(search.started),
        **{status: tally.ended[status] for status in ("completed", "stopped", "failed")},
        "paused": len(search.paused),
        "waiting": len(search.backlog) + len(search.live) - len(search.started),
    }


def trial_line(tally: Tally, trial: str) -> str:
    known = tally.trials[trial]
    reached = f"epoch {known.epoch}{whole(tally, trial)}"
    return f"{number(known.score)} {trial} {reached}, {describe(tally, trial, ('seed',))}"


def whole(tally: Tally, trial: str) -> str:
    """How many folds its score is of; "" where there are none."""
    count = len(tally.trials[trial].whole)
    return f", {count} of {tally.folds} folds" if count else ""


def end_line(tally: Tally, trial: str) -> str:
    """How a trial ended, in a line."""
    known = tally.trials[trial]
    result = known.result
    assert result is not None
    if result.status == "failed":
        return f"trial {trial} failed at epoch {result.epoch}: {result.error}"
    lead = " (best so far)" if tally.best == trial else ""
    return (
        f"trial {trial} {result.status} at epoch {result.epoch}: score "
        f"{number(known.score)}{lead}, {span(result.seconds)}, {describe(tally, trial)}"
    )


def rung_lines(tally: Tally) -> list[str]:
    """For each milestone how many trials came there and how many went on."""
    return [
        f"epoch {milestone}: {rung.came} came, {rung.went_on} went on"
        for milestone, rung in tally.rungs.items()
    ]


def describe(tally: Tally, trial: str, repeats: Sequence[str] = ("seed", "fold")) -> str:
    """In what trials of this run differ: seed, fold, settings; a plug-in by its name alone."""
    config = tally.trials[trial].config
    told = [f"{name} {config.get(name, 0)}" for name in repeats if name in tally.varying]
    used = [n for n in config if n not in UNTOLD and "." not in n and config[n] != "none"]
    names = [n for n in used if n in tally.varying]
    told += [setting(config, name) for name in names or ("backbone", "loss", "lr")]
    return ", ".join(told)


def setting(config: Flat, name: str) -> str:
    value = config.get(name, "")
    if isinstance(value, str):
        return value
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def number(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else "-"


def span(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
