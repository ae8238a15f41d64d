"""A trial on several processes: the first rank in Tune's actor, the others its children.

All ranks live in the trial's placement group and run the same generator step by step; the first
alone writes the record. A gang goes on from trial to trial; one that met trouble is made anew.
"""

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from threadpoolctl import threadpool_limits

from search.inline import close, save_error
from search.protocols import RunTrial
from search.vacancy import Occupied, check_gpu
from search.visibility import check_worker
from trainables.store import Row, TrialStore

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 10.0  # for the first rank to come back by itself when another has raised
LOOK_SECONDS = 0.2
SETTLE_SECONDS = 2.0  # an exchange breaks off before Ray tells of the death that broke it


def load(trial: str) -> RunTrial:
    """The function behind `module:name`."""
    module, _, name = trial.partition(":")
    found: RunTrial = getattr(importlib.import_module(module), name)
    return found


def use_threads(cpus: float) -> None:
    """As many threads as the trial has CPUs, whether or not torch and numpy are imported yet."""
    threads = max(1, int(cpus))
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    threadpool_limits(threads, user_api="blas")  # of what is loaded, and for good
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


class Peer:
    """A rank beside the first. State: the trial that it is at."""

    def __init__(self, cpus: float, gpus: float) -> None:
        use_threads(cpus)
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: Ray leaves it
        self.gpus = gpus
        self.rows: Iterator[Row] | None = None
        self.at: tuple[str, int] | None = None
        self.is_seeing = False

    def look(self) -> Occupied | None:
        """What keeps this process from its GPU, if anything does."""
        try:
            check_gpu(self.gpus, ray.get_runtime_context().get_node_id())
        except Occupied as problem:
            return problem
        return None

    def load(self) -> None:
        """Import what meeting takes, which lasts seconds, while the first rank does so too."""
        importlib.import_module("trainables.ranks")

    def join(self, rank: int, size: int, address: str, port: int) -> None:
        from trainables.ranks import Ranks, join, visit

        own = ray.util.get_node_ip_address()
        join(visit(address, port, size), Ranks(rank, size), own, bool(self.gpus))

    def step(self, config: Mapping[str, Any]) -> int:
        """Train the next epoch of the trial together with the first rank; which it was."""
        handout = (config["tid"], config["attempt"])
        if handout != self.at:
            self.close()
            if not self.is_seeing:  # once a process, as in the first rank
                check_worker(config.get("needs", ()))
            self.is_seeing = True
            store = TrialStore(Path(config["store"]) / "trials" / handout[0], handout[1])
            self.rows, self.at = load(config["trial"])(store, Path(config["data"])), handout
        assert self.rows is not None
        return int(next(self.rows)["epoch"])

    def close(self) -> None:
        if self.rows is not None:
            close(self.rows)
        self.rows = self.at = None

    def wait(self) -> None:
        """Never returns: the call fails when this process dies."""
        threading.Event().wait()


class Gang:
    """The other ranks of this process. State: their actors, and what they are asked just now."""

    def __init__(self, size: int, cpus: float, gpus: float, store: TrialStore) -> None:
        group = ray.util.get_current_placement_group()
        actor = ray.remote(Peer)
        self.peers = [
            actor.options(
                num_cpus=cpus,
                num_gpus=gpus,
                max_concurrency=2,  # one for the steps, one for `wait`
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=rank
                ),
            ).remote(cpus, gpus)
            for rank in range(1, size)
        ]
        self.alive = [peer.wait.remote() for peer in self.peers]
        self.asked = [peer.load.remote() for peer in self.peers]
        self.store = store
        self.is_over = False
        threading.Thread(target=self._watch, name="gang", daemon=True).start()
        if gpus:
            for problem in filter(None, ray.get([peer.look.remote() for peer in self.peers])):
                raise problem
        try:
            self._meet(size, bool(gpus))
        except Exception as error:  # the trial has not begun; the core retries on a fresh gang
            self._give_up(error)

    def _meet(self, size: int, has_gpu: bool) -> None:
        from trainables.ranks import Ranks, invite, join

        own = ray.util.get_node_ip_address()
        store, port = invite(own, size)
        self.asked = [
            peer.join.remote(rank, size, own, port) for rank, peer in enumerate(self.peers, 1)
        ]
        join(store, Ranks(0, size), own, has_gpu)
        ray.get(self.asked)
        self.asked = []

    def step(self, config: Mapping[str, Any], store: TrialStore, rows: Iterator[Row]) -> Row:
        """The next row of the trial, trained by all ranks. Raises what the first rank raises."""
        self.store, self.asked = store, [peer.step.remote(dict(config)) for peer in self.peers]
        try:
            row = next(rows)
        except RuntimeError as error:  # of an exchange, perhaps, because another rank has died
            if ray.wait(self.alive, timeout=SETTLE_SECONDS)[0]:
                self._give_up(error)
            raise
        epochs = ray.get(self.asked)
        self.asked = []
        if set(epochs) != {row["epoch"]}:
            raise RuntimeError(f"the ranks are out of step: epochs {[row['epoch'], *epochs]}")
        return row

    def close(self) -> None:
        """Let the other ranks let go of their trial; they stay."""
        ray.get([peer.close.remote() for peer in self.peers])

    def end(self) -> None:
        """End the other ranks."""
        from trainables.ranks import leave

        self.is_over = True
        for peer in self.peers:
            ray.kill(peer)
        leave()

    def _watch(self) -> None:
        """End this process when another rank has died, or has raised and left us waiting for it.

        An exchange among ranks cannot be interrupted.
        """
        trouble: tuple[float, Exception] | None = None
        while not self.is_over:
            gone, _ = ray.wait(self.alive, timeout=LOOK_SECONDS)
            if gone and not self.is_over:
                self._give_up()
            problem = raised(self.asked)
            if problem is None:
                trouble = None
            elif trouble is None:
                trouble = time.monotonic(), problem
            elif time.monotonic() - trouble[0] > PATIENCE_SECONDS:
                self._give_up(trouble[1])

    def _give_up(self, problem: Exception | None = None) -> NoReturn:
        """End this process; the core retries the trial on a fresh gang."""
        if problem is not None:
            save_error(self.store, problem)
        os._exit(1)


def raised(asked: list[Any]) -> Exception | None:
    """What the first of these calls to fail has raised so far."""
    if not asked:
        return None
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
    for call in done:
        try:
            ray.get(call)
        except Exception as error:
            return error
    return None
