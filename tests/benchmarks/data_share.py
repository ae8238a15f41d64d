"""How many copies of the data ten trials on a node hold; part of data.py, Linux only."""

import multiprocessing
import shutil
from collections.abc import Iterator
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_build import entry_of

from trainables.data import cache

Row = dict[str, Any]


def _hold(path: Path, ours: Connection) -> None:
    """Open the data, touch every pixel, wait."""
    ours.send("imported")
    ours.recv()
    bundle = cache.load(path)
    train = bundle.train.images
    sums = [int(train[k : k + 1024].sum()) for k in range(0, len(train), 1024)]
    ours.send(sum(sums))
    ours.recv()


def measure(folder: Path, count: int, processes: int) -> list[Row]:
    """One row of one process, one of all."""
    path = entry_of(folder, count, 64)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    trials = [context.Process(target=_hold, args=(path, theirs)) for _, theirs in pipes]
    for trial in trials:
        trial.start()
    bare = []
    for (ours, _), trial in zip(pipes, trials, strict=True):
        ours.recv()
        bare.append(trial.pid)
    before = sum(_rolled_up(pid) for pid in bare)
    rows = []
    for number, (ours, _) in enumerate(pipes, 1):
        ours.send("load")
        ours.recv()
        if number in (1, processes):
            rows.append(_row(path, bare, number, before))
    for (ours, _), trial in zip(pipes, trials, strict=True):
        ours.send("end")
        trial.join()
    shutil.rmtree(path)
    return rows


def _row(path: Path, pids: list[int], number: int, before: float) -> Row:
    held = list(chain.from_iterable(_mapped(pid, path) for pid in pids))
    size = cache.load(path).train.images.nbytes / 2**20
    pss, rss = (sum(value for kind, value in held if kind == name) for name in ("Pss", "Rss"))
    return {
        "processes with the data": number,
        "training pixels MiB": size,
        "of the map, RSS MiB in all": rss,
        "of the map, PSS MiB in all": pss,
        "copies": pss / size,
        "PSS grown by, MiB (smaps_rollup)": sum(_rolled_up(pid) for pid in pids) - before,
    }


def _rolled_up(pid: int) -> float:
    """MiB of memory of a process, where what is shared counts in shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _mapped(pid: int, folder: Path) -> Iterator[tuple[str, float]]:
    """MiB of each map of the pixels: a process has one for every split."""
    is_ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            is_ours = bool(rest) and rest[-1] == str(folder / "images.npy")
        elif is_ours and name in ("Pss:", "Rss:"):
            yield name[:-1], int(rest[0]) / 1024
