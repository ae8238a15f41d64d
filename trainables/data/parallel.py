"""Work on all cores: by threads where little is to be done, else by processes.

Light to import, as each of these processes does it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from trainables.data.cores import usable_cores

Progress = Callable[[str, int, int], None]  # what is done, how many of them, of how many
Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 64  # items at a time: what a worker takes, and how often progress is told
FEW = 1500  # images that are decoded before processes would have started


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], stage: str, progress: Progress | None
) -> list[Result]:
    """`work` of each item. Threads help where it leaves Python's lock alone, as reading does."""

    def some(chunk: Sequence[Item]) -> list[Result]:
        return [work(item) for item in chunk]

    pool = ThreadPoolExecutor(usable_cores())
    return [result for each in _told(pool, some, items, stage, progress) for result in each]


def in_chunks(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    stage: str,
    progress: Progress | None = None,
    few: int = FEW,
    workers: int | None = None,
) -> Iterator[Result]:
    """`work` of the items, some at a time and in their order: by processes unless they are few.

    Half of the time of a small image goes to Python, so threads would wait for each other. `work`
    must be importable: processes are started afresh, as a fork would copy the locks of torch's
    threads. Raises ChildProcessError where one of them dies.
    """
    workers = workers or usable_cores()
    if len(items) <= few or workers == 1:
        return _told(ThreadPoolExecutor(workers), work, items, stage, progress)
    context = multiprocessing.get_context("spawn")
    return _told(ProcessPoolExecutor(workers, context, _begin), work, items, stage, progress)


def _told(
    pool: Executor,
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    stage: str,
    progress: Progress | None,
) -> Iterator[Result]:
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    try:
        for number, result in enumerate(pool.map(work, chunks), 1):
            if progress is not None:
                progress(stage, min(number * CHUNK, len(items)), len(items))
            yield result
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a process that should '{stage}' died: where memory is short, close other programs or "
            "allow fewer cores (taskset); a script of yours must call this below "
            "`if __name__ == '__main__':`"
        ) from error
    finally:  # at Ctrl-C too, what has not begun does not begin
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a worker: one thread, Ctrl-C is the parent's, and no life without it."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()


def _end_with(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)  # a worker whose parent was killed would wait for work for ever
