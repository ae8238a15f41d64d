"""Ray Tune as a front of the search: Tune places workers, the core decides, the store remembers.

Thin adapters. Tune gets a trial's address and no more; it retries nothing, saves nothing and prints
nothing. Why each of these: README.md of this package.
"""

import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.cluster import Cluster, Resources, count_workers, quiet, ray_in_background, start_ray
from search.core import Handout, Observer, RunTrial, Search
from search.nodes import Nodes, group_of, node_of
from search.vacancy import Occupied
from search.visibility import Blind, check_nodes, needs
from search.worker import TrialActor

log = logging.getLogger(__name__)

__all__ = ["Cluster", "Resources", "count_workers", "ray_in_background", "run_ray", "start_ray"]

GRACE_SECONDS = 30.0  # for the epoch in hand, once nothing more may be spent
STUCK_SECONDS = 10.0  # after Ctrl-C, until the loop is left where it stands
STALE_SECONDS = 60.0  # a trial waits for a worker of its own this long at the most
DOUBT_SECONDS = 60.0  # a worker's death is not held against its trial if its node dies this soon


class Ended(BaseException):
    """Leaves Tune's loop, which wraps every Exception in its own."""


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
    searcher: "TuneSearcher", resources: Resources, observer: Observer | None, scratch: Path | None
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
    searcher: "TuneSearcher",
    scheduler: "TuneScheduler",
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


class TuneSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Tune asks it for trials. State: which of Tune's trials is which of ours, and who was lost."""

    def __init__(
        self, search: Search, address: Mapping[str, Any], nodes: Nodes, is_asked: Callable[[], bool]
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.search, self.address, self.nodes, self.is_asked = search, address, nodes, is_asked
        self.handouts: dict[str, Handout] = {}  # Tune's id -> ours
        self.places: dict[str, str] = {}  # Tune's id -> the node that answered
        self.doubts: list[tuple[float, str, str]] = []  # when a trial lost its worker, and where
        self.failure: Exception | None = None  # of ours: the search cannot go on
        self._spent_at: float | None = None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A failure of ours ends the search as it is; Tune would file it as one of the trial's."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    @property
    def must_end(self) -> bool:
        """Whether what the workers have in hand is not waited for any more."""
        if self.search.is_spent() and self._spent_at is None:
            self._spent_at = time.monotonic()
        late = self._spent_at is not None and time.monotonic() - self._spent_at > GRACE_SECONDS
        return late or self.failure is not None or self.is_asked()

    def suggest(self, trial_id: str) -> Any:
        if self.must_end:
            return Searcher.FINISHED
        if len(self.search.live) >= self.nodes.allowed:
            return None
        with self.guarded():
            handout = self.search.next()
            if handout is not None:
                self.handouts[trial_id] = handout
                return {"tid": handout.id, "attempt": handout.attempt, **self.address}
        # a live trial may still be lost and come back
        return Searcher.FINISHED if self.failure or self.search.is_over else None

    def on_row(self, trial_id: str, result: Mapping[str, Any]) -> str:
        """The core's verdict on a result, `continue` where it brings no row."""
        self.places[trial_id] = result.get("node", "")
        if result["rows"]:
            self.nodes.welcome(result.get("node", ""))
        handout, verdict = self.handouts[trial_id], "continue"
        if not self.search.is_current(handout):
            return "stop"
        if result.get("halt"):
            self.failure = self.failure or OSError(result["halt"])
            return "stop"
        with self.guarded():
            for row in result["rows"]:  # one, or none
                verdict = self.search.on_row(handout.id, row)
        return verdict

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        handout = self.handouts[trial_id]
        if error:
            self.on_error(trial_id, None)
        if not self.search.is_current(handout):
            return
        if result:
            self.on_row(trial_id, result)  # Tune shows a last row to nobody else
        if self.failure is None:
            with self.guarded():
                self.search.on_end(handout.id, (result or {}).get("problem", ""))

    def on_error(self, trial_id: str, error: Exception | None) -> None:
        """The worker of a trial is gone: by its own death, with its node, or for want of a file."""
        handout = self.handouts[trial_id]
        if not self.search.is_current(handout):
            return
        cause = getattr(error, "cause", None) or error  # Tune's pickling may have bared it
        excuse = cause if isinstance(cause, Blind | Occupied) else None
        node = (excuse.node if excuse else "") or self.places.get(trial_id) or node_of(error)
        with self.guarded():
            is_unfit = isinstance(cause, Blind) or getattr(error, "actor_init_failed", False)
            if isinstance(cause, Occupied):
                is_unfit = self.nodes.refuse(node, str(cause))
            if is_unfit and not self.nodes.avoid(node, str(cause)):
                raise OSError(f"no node is left that could run a trial: {cause}")
            is_gone = excuse is not None or is_unfit or getattr(error, "preempted", False)
            is_gone = is_gone or self.nodes.is_gone(node)
            if not is_gone:
                self.doubts.append((time.monotonic(), handout.id, node))
            self.search.on_lost(handout.id, is_preempted=is_gone)

    def look(self) -> bool:
        """Whether more or fewer trials fit than before. Takes back losses that a node explains."""
        if not self.nodes.look():
            return False
        alive = {node["NodeID"] for node in self.nodes.alive}
        for doubt in list(self.doubts):
            since, trial, node = doubt
            if node not in alive:
                self.search.losses[trial] -= 1
            if node not in alive or time.monotonic() - since > DOUBT_SECONDS:
                self.doubts.remove(doubt)
        return True

    def reconcile(self, ended: Iterable[str]) -> None:
        """Take back trials that Tune has dropped without a word."""
        for trial_id in ended:
            self.on_error(trial_id, None)

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
        self.trials: dict[str, tuple[float, Any]] = {}  # since when it is known, and the trial
        self.controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials[trial.trial_id] = (time.monotonic(), trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Called at each turn of Tune's loop: the trial that a free worker is to take."""
        self.controller = tune_controller._tune_controller
        if self.searcher.must_end:
            raise Ended
        ended = [i for i, (_, trial) in self.trials.items() if trial.is_finished()]
        self.searcher.reconcile(ended)
        for trial_id in ended:
            del self.trials[trial_id]
        if self.searcher.look():
            self.controller.update_max_pending_trials(max(1, self.searcher.nodes.workers))
        return first_waiting(self.controller, self.trials)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        verdict = self.searcher.on_row(trial.trial_id, result)
        return TrialScheduler.CONTINUE if verdict == "continue" else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.searcher.on_error(trial.trial_id, error_of(trial))

    def end_workers(self) -> None:
        """Kill the workers where they stand: the record is whole at any moment."""
        self.controller._actor_manager.cleanup()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def error_of(trial: Any) -> Exception | None:
    """Why a trial of Tune's lost its worker; Tune's own getter looks where it is not yet copied."""
    with suppress(Exception):
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error if isinstance(error, Exception) else None
    return None


def first_waiting(controller: Any, waiting: Mapping[str, tuple[float, Any]]) -> Any:
    """The trial that a free worker is to take: the latest with no worker of its own on the way.

    Left alone, Tune takes any, and cancels the worker that was being started for it. The earlier
    ones are those for whom workers are starting: taking them would keep a new node idle for ever
    when trials are shorter than the start of a worker.
    """
    if not controller._actor_cache.num_cached_objects:
        return None
    free = []
    for since, trial in waiting.values():
        own = controller._trial_to_actor.get(trial)
        is_coming = own is not None and controller._actor_manager.is_actor_started(own)
        if trial.status == "PENDING" and not is_coming:
            free.append((since, trial))
    if not free:
        return None
    since, oldest = free[0]
    return oldest if time.monotonic() - since > STALE_SECONDS else free[-1][1]


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
