"""A bar for each stage of a command's work; where there is no terminal, a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

LINES, QUIET_SECONDS = 20, 5.0  # of a stage without a terminal: at most so many, and none before


class Show(Protocol):
    """Told how far a stage is: done, of how many, and a word on it."""

    def __call__(self, stage: str, done: int, total: int, word: str = "") -> None: ...


@contextmanager
def bars(console: Console, is_transient: bool = False) -> Iterator[Show]:
    """What to tell the progress to. `is_transient`: the bars are gone when the work is done."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeRemainingColumn(), TextColumn("{task.fields[word]}")),
    )
    is_shown = console.is_terminal
    tasks: dict[str, TaskID] = {}
    told: dict[str, tuple[float, int]] = {}  # of a stage: when it began, how many lines are due
    with Progress(*columns, console=console, transient=is_transient, disable=not is_shown) as bar:

        def show(stage: str, done: int, total: int, word: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, word="")
                told[stage] = time.monotonic(), 0
            bar.update(tasks[stage], completed=done, total=total, word=word)
            began, lines = told[stage]
            due = LINES * done // max(1, total)
            if not is_shown and due > lines and time.monotonic() - began >= QUIET_SECONDS:
                told[stage] = began, due
                print(f"{stage}: {done} of {total} {word}".rstrip(), file=sys.stderr, flush=True)

        yield show
