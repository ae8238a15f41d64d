"""The whole search in this process: no Ray, one trial at a time, a breakpoint works anywhere."""

import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

from search.core import Search
from search.protocols import Handout, Observer, RunTrial
from trainables.store import DiskFull, Fenced, Row, TrialStore


def run_inline(
    search: Search, data: Path, run_trial: RunTrial, observer: Observer | None = None
) -> bool:
    """Run to the end of the budget; False when the user interrupted. The record is whole anyway."""
    if observer:
        observer.start()
    try:
        while (handout := search.next()) is not None:
            _run_one(search, handout, data, run_trial, observer)
            if observer:
                observer.update()
    except KeyboardInterrupt:
        return False
    finally:
        if observer:
            observer.stop()
    return True


def _run_one(
    search: Search, handout: Handout, data: Path, run_trial: RunTrial, observer: Observer | None
) -> None:
    store = search.store.trial(handout.id, handout.attempt)
    search.on_start(handout.id)
    rows, error = run_trial(store, data), ""
    try:
        for row in rows:
            if search.on_row(handout.id, row) != "continue":
                break
            if observer:
                observer.update()
    except DiskFull:
        raise  # the end of the search, not of this trial
    except Exception as problem:
        error = save_error(store, problem)
        if is_spoilt(error):
            raise OSError(error) from problem
    finally:
        close(rows)
    search.on_end(handout.id, error)


def save_error(store: TrialStore, problem: Exception) -> str:
    """The problem in a line; its traceback goes to error.txt in the trial's folder."""
    with suppress(Fenced, OSError):
        store.write("error.txt", "".join(traceback.format_exception(problem)).encode())
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:500]


def is_spoilt(error: str) -> bool:
    """Whether no more can be trained in a process after such an error."""
    return "CUDA error" in error


def close(rows: Iterator[Row]) -> None:
    """End a trial's generator, so that it lets go of its memory."""
    if isinstance(rows, Generator):
        rows.close()
