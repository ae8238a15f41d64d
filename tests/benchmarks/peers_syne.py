"""Syne Tune 0.13 in its own simulator (`UserBlackboxBackend`), which has W workers and a clock."""

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from peers_course import Course, Flat, error_of
from syne_tune import Tuner
from syne_tune import config_space as ranges
from syne_tune.backend.simulator_backend.simulator_callback import SimulatorCallback
from syne_tune.blackbox_repository.blackbox import Blackbox
from syne_tune.blackbox_repository.simulated_tabular_backend import UserBlackboxBackend
from syne_tune.optimizer import baselines
from syne_tune.tuner_callback import TunerCallback

from search.problems import Problem
from search.pruners import ETA
from spaces.space import Choice, Dimension, IntRange, is_log

Builder = Callable[[dict[str, Any], dict[str, Any]], Any]  # (space, options) -> scheduler
SCHEDULERS: dict[str, Builder] = {
    "asha-promotion": lambda space, options: baselines.ASHA(space, type="promotion", **options),
    "asha-stopping": lambda space, options: baselines.ASHA(space, type="stopping", **options),
    "hyperband": lambda space, options: baselines.SyncHyperband(space, **options),
    "bohb": lambda space, options: baselines.BOHB(
        space, type="promotion", search_options={"debug_log": False}, **options
    ),
}
NAMES = list(SCHEDULERS)
MOST_WORKERS = 10_000
LOSS, ELAPSED, EPOCH, EPOCHS = "loss", "elapsed", "epoch", "epochs"


def range_of(dim: Dimension) -> Any:
    if isinstance(dim, Choice):
        return ranges.choice(list(dim.options))
    if isinstance(dim, IntRange):
        return (ranges.lograndint if is_log(dim) else ranges.randint)(dim.low, dim.high)
    return (ranges.loguniform if is_log(dim) else ranges.uniform)(dim.low, dim.high)


class Curves(Blackbox):  # theirs to inherit from
    """A problem as the table that their simulator reads."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(
            configuration_space={n: range_of(d) for n, d in problem.space.dimensions.items()},
            fidelity_space={EPOCH: ranges.randint(1, problem.max_epochs)},
            objectives_names=[LOSS, ELAPSED],
        )

    def flat(self, settings: Flat) -> Flat:
        return self.problem.space.nearest(settings)  # it knows no conditions

    def _objective_function(
        self, configuration: Flat, fidelity: object = None, seed: object = None
    ) -> Any:
        scores, elapsed = self.problem.curve(self.flat(configuration))
        return np.column_stack(([error_of(float(score)) for score in scores], elapsed))

    @property
    def fidelity_values(self) -> Any:
        return np.arange(1, self.problem.max_epochs + 1)


class Notes(TunerCallback):  # theirs to inherit from
    """Notes every epoch that the simulator reports."""

    def __init__(self, course: Course, backend: UserBlackboxBackend) -> None:
        self.course, self.backend = course, backend

    def on_trial_result(self, trial: Any, status: str, result: Any, decision: str) -> None:
        if not self.course.is_over:
            self.course.trials = max(self.course.trials, int(trial.trial_id) + 1)
            score = error_of(float(result[LOSS]))  # it is its own inverse
            self.course.note(score, self.backend.time_keeper.time())


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    logging.disable(logging.WARNING)
    np.random.seed(seed)  # noqa: NPY002  # it draws from the global generator as well
    curves, epochs = Curves(course.problem), course.problem.max_epochs
    options = {
        "metric": LOSS, "mode": "min", "random_seed": seed, "points_to_evaluate": [],
        "resource_attr": EPOCH, "max_resource_attr": EPOCHS,
        "grace_period": first_rung, "reduction_factor": ETA,
    }  # fmt: skip
    backend = UserBlackboxBackend(curves, ELAPSED, max_resource_attr=EPOCHS)
    scheduler = SCHEDULERS[name]({**curves.configuration_space, EPOCHS: epochs}, options)
    tuner = Tuner(
        trial_backend=backend,
        scheduler=scheduler,
        stop_criterion=lambda status: course.is_over,
        n_workers=workers,
        sleep_time=0,
        callbacks=[SimulatorCallback(), Notes(course, backend)],
        save_tuner=False,
        print_update_interval=1e9,
        tuner_name=f"{name}-{seed}-{os.getpid()}",
    )
    tuner.run()
