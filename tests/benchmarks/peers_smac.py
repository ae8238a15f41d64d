"""SMAC3 multi-fidelity (Hyperband with a random forest), asked and told, one trial at a time."""

import logging
import tempfile
from pathlib import Path

from peers_course import Course, Replay, lowest_of
from peers_space import config_space
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue

from search.pruners import ETA

NAMES = ["multifidelity"]
MOST_WORKERS = 1
TRIALS = 100_000  # more than any budget here starts
RANDOM_STARTS = 10


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    logging.disable(logging.WARNING)
    replay, problem = Replay(course), course.problem
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            config_space(problem.space, seed), deterministic=True, n_trials=TRIALS, seed=seed,
            min_budget=lowest_of(problem, first_rung), max_budget=problem.max_epochs,
            output_directory=Path(folder),
        )  # fmt: skip
        facade = MultiFidelityFacade(
            scenario, lambda config, seed=0, budget=0: 0.0, overwrite=True, logging_level=50,
            intensifier=MultiFidelityFacade.get_intensifier(scenario, eta=ETA),
            initial_design=MultiFidelityFacade.get_initial_design(
                scenario, n_configs=RANDOM_STARTS
            ),
        )  # fmt: skip
        while not course.is_over:
            asked = facade.ask()
            before = course.seconds
            error = replay.train(dict(asked.config), max(1, round(float(asked.budget))))
            facade.tell(asked, TrialValue(cost=error, time=course.seconds - before))
