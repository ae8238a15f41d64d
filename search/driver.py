"""Ray Tune as a front of the search: Tune places workers, the core decides, the store remembers.

Tune gets a trial's address and no more; it retries nothing, saves nothing and prints nothing. Why
each of these: README.md of this package. What it asks of us: searcher.py, scheduler.py.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from search.cluster import Cluster, Resources, count_workers, quiet, ray_in_background, start_ray
from search.core import Search
from search.nodes import Nodes, group_of
from search.protocols import Observer, RunTrial
from search.scheduler import Ended, TuneScheduler
from search.searcher import TuneSearcher
from search.visibility import check_nodes, needs
from search.worker import TrialActor

log = logging.getLogger(__name__)

__all__ = ["Cluster", "Resources", "count_workers", "ray_in_background", "run_ray", "start_ray"]

STUCK_SECONDS = 10.0  # after Ctrl-C, until the loop is left where it stands


def run_ray(
    search: Search,
    data: Path,
    run_trial: RunTrial,
    resources: Resources = Resources(),  # noqa: B008  # frozen
    observer: Observer | None = None,
    scratch: Path | None = None,
) -> bool:
    """Run until all is done or spent; False when the user interrupted. The record is whole anyway.

    A second Ctrl-C while workers are being stopped raises KeyboardInterrupt. Raises OSError when
    the record cannot be written any more, or when no node sees what a trial needs.
    """
    quiet()
    nodes = Nodes(resources)
    nodes.check()
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, nodes.workers))
    wanted = needs(search.store.root, [data, *resources.paths])
    check_nodes(wanted)
    address = {
        "trial": dotted_name(run_trial),
        "data": str(data.resolve()),
        "store": str(search.store.root.resolve()),
        "cpus": resources.cpus_per_trial,
        "gpus": resources.bundle.get("GPU", 0),
        "ranks": resources.size,
        "needs": [list(need) for need in wanted],
    }
    with ended_by_ctrl_c() as is_asked:
        searcher = TuneSearcher(search, address, nodes, is_asked)
        _fit(searcher, resources, observer, scratch)
    if searcher.failure is not None:
        raise searcher.failure
    return search.is_over


def _fit(
    searcher: TuneSearcher, resources: Resources, observer: Observer | None, scratch: Path | None
) -> None:
    """Run Tune's loop to its end, or out of it; whatever was in hand then waits for a resume."""
    scheduler = TuneScheduler(searcher)
    if observer:
        observer.start()
    try:
        with tempfile.TemporaryDirectory(prefix="tune-", dir=scratch) as folder:
            try:
                _tuner(searcher, scheduler, resources, observer, folder).fit()
            except Ended:
                scheduler.end_workers()
                for trial in list(searcher.search.live):
                    searcher.search.on_lost(trial, is_preempted=True)
    finally:
        if observer:
            observer.stop()


def _tuner(
    searcher: TuneSearcher,
    scheduler: TuneScheduler,
    resources: Resources,
    observer: Observer | None,
    folder: str,
) -> Any:
    actor = tune.with_resources(TrialActor, group_of(resources))
    actor.__qualname__ = TrialActor.__qualname__  # Ray's dashboard shows it
    return tune.Tuner(
        actor,
        tune_config=tune.TuneConfig(
            num_samples=10**9,  # the core ends the search
            search_alg=searcher,
            scheduler=scheduler,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["tid"],
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            verbose=0,
            callbacks=[Watcher(searcher, observer)],
            failure_config=tune.FailureConfig(max_failures=0),  # the core retries
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )


def dotted_name(function: RunTrial) -> str:
    """`module:name`, by which a worker finds the function. Raises ValueError if it would not."""
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if getattr(sys.modules.get(module), name, None) is not function:
        raise ValueError(f"{function!r} must stand at the top of a module that workers can import")
    return f"{module}:{name}"


@contextmanager
def ended_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. A second one, or a loop that hangs, raises KeyboardInterrupt."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before, untouched = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    clock = threading.Timer(STUCK_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
    clock.daemon = True

    def end(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        clock.start()
        log.warning("interrupted: stopping the workers; Ctrl-C again ends at once")

    signal.signal(signal.SIGINT, end)
    try:
        yield pressed.is_set
    finally:
        clock.cancel()
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGUSR1, untouched)  # Tune listens to it and forgets to stop


class Watcher(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Tells the core which trials have a worker, and the observer when to look."""

    def __init__(self, searcher: TuneSearcher, observer: Observer | None) -> None:
        self.searcher, self.observer = searcher, observer

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.searcher.search.on_start(self.searcher.handouts[trial.trial_id].id)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        if self.observer:
            self.observer.update()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks, and a terminal cannot be pickled
