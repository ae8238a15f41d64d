"""Ray Tune as a front of the search: Tune places workers, the core decides, the store remembers.

Thin adapters. Tune gets a trial's address and no more; it retries nothing, saves nothing and prints
nothing. Why each of these: README.md of this package.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.cluster import Cluster, Resources, count_workers, quiet, ray_in_background, start_ray
from search.core import Handout, Observer, RunTrial, Search
from search.worker import TrialActor

log = logging.getLogger(__name__)

__all__ = ["Cluster", "Resources", "count_workers", "ray_in_background", "run_ray", "start_ray"]


def run_ray(
    search: Search,
    data: Path,
    run_trial: RunTrial,
    resources: Resources = Resources(),  # noqa: B008  # frozen
    observer: Observer | None = None,
    scratch: Path | None = None,
) -> bool:
    """Run to the end of the budget; False when the user interrupted. The record is whole anyway.

    A second Ctrl-C while workers are being stopped raises KeyboardInterrupt.
    """
    there = ray.cluster_resources()
    workers = count_workers(resources, there.get("CPU", 0), there.get("GPU", 0))
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    address: dict[str, str | float] = {
        "trial": dotted_name(run_trial),
        "data": str(data.resolve()),
        "store": str(search.store.root.resolve()),
        "cpus": resources.cpus_per_trial,
        "gpus": resources.gpus_per_trial,
    }
    quiet()
    limit = partial(allowed_ahead, workers, resources.max_concurrent is not None)
    searcher = TuneSearcher(search, address, limit)
    if observer:
        observer.start()
    try:
        with tempfile.TemporaryDirectory(prefix="tune-", dir=scratch) as folder, ended_by_ctrl_c():
            _tuner(searcher, resources, observer, folder).fit()
    finally:
        if observer:
            observer.stop()
    return search.is_finished


def _tuner(
    searcher: "TuneSearcher", resources: Resources, observer: Observer | None, folder: str
) -> Any:
    bundle = {"CPU": resources.cpus_per_trial}
    if resources.gpus_per_trial:
        bundle["GPU"] = resources.gpus_per_trial
    return tune.Tuner(
        tune.with_resources(TrialActor, tune.PlacementGroupFactory([bundle])),
        tune_config=tune.TuneConfig(
            num_samples=10**9,  # the core ends the search
            search_alg=searcher,
            scheduler=TuneScheduler(searcher),
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


def allowed_ahead(workers: int, is_capped: bool, seen: int) -> int:
    """How many trials may be handed out when `seen` different workers have answered.

    Tune cancels a starting worker when its trial finds a free one: until all have been seen, each
    worker has a trial in reserve. After that one in reserve is enough, proposed on fresh results.
    """
    if is_capped:
        return workers
    return 2 * workers if seen < workers else workers + 1


def dotted_name(function: RunTrial) -> str:
    """`module:name`, by which a worker finds the function. Raises ValueError if it would not."""
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if getattr(sys.modules.get(module), name, None) is not function:
        raise ValueError(f"{function!r} must stand at the top of a module that workers can import")
    return f"{module}:{name}"


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """The first Ctrl-C ends Tune's loop, the second raises KeyboardInterrupt.

    Tune's own handler does the same in silence; it also listens to SIGUSR1, which we use.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, untouched = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    is_ending = False

    def end(number: int, frame: object) -> None:
        nonlocal is_ending
        if is_ending or signal.getsignal(signal.SIGUSR1) is untouched:  # Tune is not listening yet
            raise KeyboardInterrupt
        is_ending = True
        log.warning("interrupted: stopping the workers; Ctrl-C again ends at once")
        signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGUSR1, untouched)


class TuneSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Tune asks it for trials. State: which of Tune's trials is which of ours."""

    def __init__(
        self, search: Search, address: Mapping[str, str | float], limit: Callable[[int], int]
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.search, self.address, self.limit = search, address, limit
        self.handouts: dict[str, Handout] = {}  # Tune's id -> ours
        self.workers: set[tuple[str, int]] = set()  # node and process of those that answered

    def suggest(self, trial_id: str) -> Any:
        if len(self.search.live) >= self.limit(len(self.workers)):
            return None
        handout = self.search.next()
        if handout is None:  # a live trial may still be lost and come back
            return Searcher.FINISHED if self.search.is_finished else None
        self.handouts[trial_id] = handout
        return {"tid": handout.id, "attempt": handout.attempt, **self.address}

    def on_row(self, trial_id: str, result: Mapping[str, Any]) -> str:
        """The core's verdict on a result, `continue` where it brings no row."""
        self.workers.add((result["node_ip"], result["pid"]))
        handout, verdict = self.handouts[trial_id], "continue"
        if not self.search.is_current(handout):
            return "stop"
        for row in result["rows"]:  # one, or none
            verdict = self.search.on_row(handout.id, row)
        return verdict

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        handout = self.handouts[trial_id]
        if not self.search.is_current(handout):
            return
        if error:
            self.search.on_lost(handout.id)
            return
        if result:
            self.on_row(trial_id, result)  # Tune shows a last row to nobody else
        self.search.on_end(handout.id, (result or {}).get("problem", ""))

    def reconcile(self, trials: Mapping[str, Any]) -> None:
        """Take back trials that Tune has dropped without a word."""
        for trial_id, trial in trials.items():
            handout = self.handouts[trial_id]
            if trial.is_finished() and self.search.is_current(handout):
                self.search.on_lost(handout.id)

    def save(self, checkpoint_path: str) -> None: ...  # the store is the record

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("start a new search on the same store instead of restoring")

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TuneScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Passes every row to the core and its verdict back. State: Tune's unfinished trials."""

    _supports_buffered_results = False

    def __init__(self, searcher: TuneSearcher) -> None:
        super().__init__()
        self.searcher = searcher
        self._metric = "score"  # else Tune demands one
        self.trials: dict[str, Any] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials[trial.trial_id] = trial

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Tune starts trials in order by itself; this is called at each turn of its loop."""
        self.searcher.reconcile(self.trials)
        self.trials = {i: t for i, t in self.trials.items() if not t.is_finished()}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        verdict = self.searcher.on_row(trial.trial_id, result)
        return TrialScheduler.STOP if verdict == "stop" else TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        return {}


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
