"""Ray Tune as people start with it: OptunaSearch under ASHAScheduler.

Its own classes are driven as its controller drives them (`_process_trial_result`, `stop_trial`),
without a cluster. A configuration is asked for when a worker is free: Tune does so under
`max_concurrent_trials`; without that, it asks for one ahead.
"""

import logging
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from peers_course import Course, Flat, race
from peers_optuna import SAMPLERS
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from search.problems import Problem
from search.pruners import ETA
from search.study import suggest

NAMES = [f"{sampler}+asha" for sampler in SAMPLERS]
MOST_WORKERS = 10_000
METRIC, TIME = "score", "training_iteration"


class Tune:
    """Searcher and scheduler as a peer. State: theirs, and how many trials were started."""

    def __init__(self, problem: Problem, sampler: BaseSampler, first_rung: int) -> None:
        def space(trial: Any) -> Flat:
            return problem.space.draw(lambda name, dim: suggest(trial, name, dim))

        self.searcher = OptunaSearch(space, metric=METRIC, mode="max", sampler=sampler)
        self.scheduler = ASHAScheduler(
            TIME, METRIC, "max", problem.max_epochs, first_rung, reduction_factor=ETA
        )
        self.started = 0

    def start(self) -> tuple[str, Flat]:
        trial = f"{self.started:06d}"
        self.started += 1
        flat = self.searcher.suggest(trial)
        self.scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial))
        return trial, flat

    def report(self, trial: str, epoch: int, score: float) -> bool:
        result, own = {METRIC: score, TIME: epoch}, SimpleNamespace(trial_id=trial)
        if self.scheduler.on_trial_result(None, own, result) == ASHAScheduler.STOP:
            self.scheduler.on_trial_complete(None, own, result)
            self.searcher.on_trial_complete(trial, result)  # COMPLETE, wherever it was stopped
            return False
        self.searcher.on_trial_result(trial, result)
        return True


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    sampler = SAMPLERS[name.removesuffix("+asha")](seed)
    race(Tune(course.problem, sampler, first_rung), course, workers)
