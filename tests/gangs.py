"""Ranks for tests: processes that have met, without Ray; and a trial for gangs with it."""

import json
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toy import quality

from trainables.ranks import here
from trainables.store import Row, TrialStore


def as_ranks(size: int, folder: Path, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `work(*args)` gives on each of `size` ranks; it must stand at the top of a module."""
    spawn = multiprocessing.get_context("spawn")
    ports: Any = spawn.Queue()
    answers = [folder / f"rank{rank}.pickle" for rank in range(size)]
    ranks = [
        spawn.Process(target=_rank, args=(rank, size, ports, answers[rank], work, args))
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return [pickle.loads(answer.read_bytes()) for answer in answers]


def _rank(
    rank: int, size: int, ports: Any, answer: Path, work: Callable[..., Any], args: Any
) -> None:
    import torch

    from trainables import ranks

    torch.set_num_threads(1)
    if rank == 0:
        store, port = ranks.invite("127.0.0.1", size)
        for _ in range(size - 1):
            ports.put(port)
    else:
        store = ranks.visit("127.0.0.1", ports.get(timeout=60), size)
    ranks.join(store, ranks.Ranks(rank, size), "127.0.0.1", has_gpu=False)
    try:
        found = work(*args)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    answer.write_bytes(pickle.dumps(found))
    ranks.leave()


def run_shared(store: TrialStore, data: Path) -> Iterator[Row]:
    """A trial whose score needs every rank at every epoch; `weights` names a fault at `fold`."""
    config, ranks = store.config(), here()
    known = {row["epoch"]: row for row in store.history()}
    saved = ranks.broadcast(store.read("last.pt") if ranks.is_first else None)
    total, epoch = (0.0, 0)
    if saved is not None:
        total, epoch = json.loads(saved)
        yield known[epoch]
    while epoch < config.epochs:
        epoch += 1
        if epoch == config.fold:
            _fault(config.weights, ranks.is_first, store)
        shares = ranks.mean({"score": quality(config) * 2 * (ranks.rank + 1)})
        total += shares["score"] / (ranks.size + 1)  # the shares of all ranks make the quality
        pids = ranks.tell(os.getpid())
        row = {"epoch": epoch, "score": total / config.epochs, "seconds": 1.0, "pids": str(pids)}
        row["done"] = epoch == config.epochs
        if ranks.is_first:
            if epoch not in known:
                store.append(row)
            store.write("last.pt", json.dumps([total, epoch]).encode())
        yield known.get(epoch, row)


def _fault(kind: str, is_first: bool, store: TrialStore) -> None:
    if kind == "raise":
        raise RuntimeError("a bug on every rank")
    if kind == "raise_one" and not is_first:
        raise RuntimeError("a bug on one rank")
    if kind == "break_off" and store.read("attempt") == b"1":  # as gloo does it
        if is_first:
            store.write("broken", b"")
            raise RuntimeError("Connection closed by peer")
        while store.read("broken") is None:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == ("die_first" if is_first else "die_peer") and store.read("died") is None:
        store.write("died", b"")
        os.kill(os.getpid(), signal.SIGKILL)
