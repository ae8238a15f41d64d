"""What the user sees while a search runs: a live table, or plain lines where there is no terminal.

It only looks at the search. A line for each failure stays on the screen above the table.
"""

import time
from collections.abc import Callable
from math import isfinite

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.core import Search, best, counts, last_score
from trainables.config import Flat

REDRAW_SECONDS = 0.5
LINE_SECONDS = 10.0
ROWS = 12  # running trials shown; a cluster may have hundreds
UNTOLD = ("seed", "fold")


class Monitor:
    """An observer. State: when the last thing was shown, and the trials whose end was."""

    def __init__(
        self,
        search: Search,
        total: int,
        max_epochs: int,
        console: Console,
        dashboard: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search, self.total, self.max_epochs = search, total, max_epochs
        self.console, self.dashboard, self.clock = console, dashboard, clock
        self.live: Live | None = None
        self.began = self.shown = clock()
        self.told: set[str] = set()
        self.epochs_before = 0

    def start(self) -> None:
        self.began = self.shown = self.clock()
        self.told = set(self.search.results)
        self.epochs_before = epochs_done(self.search)
        if self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False)
            self.live.start()
            self.live.update(self.table(), refresh=True)

    def update(self) -> None:
        """Show what is new, at most every half second."""
        self._tell_ends()
        now = self.clock()
        if now - self.shown < (REDRAW_SECONDS if self.live else LINE_SECONDS):
            return
        self.shown = now
        if self.live:
            self.live.update(self.table(), refresh=True)
        else:
            self._print(self.summary())

    def stop(self) -> None:
        self._tell_ends()
        if self.live:
            self.live.update(self.table(), refresh=True)
            self.live.stop()
            self.live = None
        else:
            self._print(self.summary())

    def _tell_ends(self) -> None:
        for trial in [t for t in self.search.results if t not in self.told]:
            self.told.add(trial)
            if self.live is None or self.search.results[trial].status == "failed":
                self._print(end_line(self.search, trial))

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def seconds_left(self) -> float | None:
        """A rough forecast from the epochs a second so far; None before there is a rate."""
        done = epochs_done(self.search) - self.epochs_before
        elapsed = self.clock() - self.began
        if done < 3 or elapsed <= 0:
            return None
        return expected_epochs_left(self.search, self.total) * elapsed / done

    def times(self) -> str:
        left = self.seconds_left()
        forecast = "" if left is None or self.search.is_finished else f", ~{span(left)} left"
        return f"{span(self.clock() - self.began)} elapsed{forecast}"

    def summary(self) -> str:
        """The state of the search in a line."""
        leader = best(self.search)
        top = "" if leader is None else f"; best {last_score(self.search, leader):.4f} ({leader})"
        return f"{states(self.search, self.total)}{top}; {self.times()}"

    def table(self) -> Group:
        """The state of the search in a screen of 80 columns."""
        lines = [Text(states(self.search, self.total), "bold"), Text(self.times())]
        for name, trial in (("best", best(self.search)), ("baseline", baseline(self.search))):
            if trial is not None:
                lines.append(Text(f"{name:9}{trial_line(self.search, trial)}", overflow="ellipsis"))
        if rungs := rung_lines(self.search):
            lines.append(Text("rungs    " + "; ".join(rungs)))
        if self.dashboard:
            lines.append(Text(f"Ray      {self.dashboard}", "dim"))
        for line in lines:
            line.no_wrap = True
        return Group(*lines, self._running())

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        for name, width in {"running": 11, "epoch": 7, "score": 7}.items():
            table.add_column(name, no_wrap=True, min_width=width)
        table.add_column("settings", no_wrap=True, overflow="ellipsis", ratio=1)
        running = [t for t in self.search.rows if t in self.search.started]
        for trial in running[:ROWS]:
            epoch = max(self.search.rows[trial], default=0)
            settings = describe(self.search, trial)
            table.add_row(
                trial,
                f"{epoch}/{self.max_epochs}",
                number(last_score(self.search, trial)),
                settings,
            )
        if len(running) > ROWS:
            table.add_row(f"and {len(running) - ROWS} more", "", "", "")
        return table


def states(search: Search, total: int) -> str:
    """How many trials have ended, and what became of them."""
    ended = len(search.results)
    named = ", ".join(f"{n} {state}" for state, n in counts(search).items() if n)
    return f"{ended} of {total} trials ended" + (f": {named}" if named else "")


def baseline(search: Search) -> str | None:
    return next((t for t, role in search.roles.items() if role == "baseline"), None)


def trial_line(search: Search, trial: str) -> str:
    epoch = max(search.rows[trial], default=0)
    return f"{number(last_score(search, trial))} {trial} epoch {epoch}, {describe(search, trial)}"


def end_line(search: Search, trial: str) -> str:
    """How a trial ended, in a line."""
    result = search.results[trial]
    if result.status == "failed":
        return f"trial {trial} failed at epoch {result.epoch}: {result.error}"
    lead = " (best so far)" if best(search) == trial else ""
    return (
        f"trial {trial} {result.status} at epoch {result.epoch}: score "
        f"{number(last_score(search, trial))}{lead}, {span(result.seconds)}, "
        f"{describe(search, trial)}"
    )


def rung_lines(search: Search) -> list[str]:
    """For each milestone how many trials came there and how many went on."""
    lines = []
    for milestone, rung in search.asha.rungs.items():
        on = sum(max(search.rows[trial]) > milestone for trial in rung)
        lines.append(f"epoch {milestone}: {len(rung)} came, {on} went on")
    return lines


def describe(search: Search, trial: str) -> str:
    """The settings in which trials of this run differ, a plug-in by its name alone."""
    config = search.configs[trial]
    used = [n for n in config if n not in UNTOLD and "." not in n and config[n] != "none"]
    names = [n for n in used if varies(search, n)]
    return ", ".join(setting(config, name) for name in names or ("backbone", "loss", "lr"))


def varies(search: Search, name: str) -> bool:
    first, *others = search.configs.values()
    return any(other.get(name) != first.get(name) for other in others)


def setting(config: Flat, name: str) -> str:
    value = config.get(name, "")
    if isinstance(value, str):
        return value
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def epochs_done(search: Search) -> int:
    return sum(len(rows) for rows in search.rows.values())


def expected_epochs_left(search: Search, total: int) -> float:
    """Epochs still to be trained, were it chance which trials ASHA lets go on."""
    asha, left = search.asha, 0.0
    for trial in [*search.live, *search.backlog]:
        epoch = max(search.rows[trial], default=0)
        if trial in asha.protected:
            left += asha.max_epochs - epoch
        else:
            left += asha.expected_epochs(total, epoch)
    unborn = 0 if search.exhausted else max(0, total - len(search.rows))
    return left + unborn * asha.expected_epochs(total)


def number(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else "-"


def span(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
