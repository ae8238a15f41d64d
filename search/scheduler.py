"""What Tune asks when results come and workers are free: the core's verdict, and who is next."""

import pickle
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.searcher import TuneSearcher

STALE_SECONDS = 60.0  # a trial waits for a worker of its own this long at the most
KEEP_SECONDS = 30.0  # an idle worker is kept so long, about what another takes to start


class Ended(BaseException):
    """Leaves Tune's loop, which wraps every Exception in its own."""


class TuneScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Passes every row to the core and its verdict back. State: Tune's unfinished trials."""

    _supports_buffered_results = False

    def __init__(self, searcher: TuneSearcher) -> None:
        super().__init__()
        self.searcher = searcher
        self._metric = "score"  # else Tune demands one
        self.trials: dict[str, tuple[float, Any]] = {}  # since when it is known, and the trial
        self.controller: Any = None
        self.group: Any = None  # what every trial asks for
        self.idle_since: float | None = None  # a worker that is kept for a trial to come
        self.kept = 0  # how many may be kept so

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials[trial.trial_id] = (time.monotonic(), trial)
        self.group = trial.placement_group_factory

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
        self._keep_workers()
        return first_waiting(self.controller, self.trials)

    def _keep_workers(self) -> None:
        """Let idle workers wait a while for the next trials, as long as it takes to start others.

        Left alone, Tune ends all but one that no trial waits for: those that come next, as the
        folds that a configuration has just earned, would wait for workers to start.
        """
        if self.group is None:
            return
        cache, now = self.controller._actor_cache, time.monotonic()
        is_idle = cache.num_cached_objects > 0
        self.idle_since = (self.idle_since or now) if is_idle else None
        waited = now - (self.idle_since or now)
        wanted = self.searcher.nodes.workers if waited <= KEEP_SECONDS else 1
        if self.searcher.search.is_over:
            wanted = 0
        cache.increase_max(self.group, wanted - self.kept)
        self.kept = wanted

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
