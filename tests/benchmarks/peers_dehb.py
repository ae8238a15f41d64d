"""DEHB (differential evolution with Hyperband), asked and told, one trial at a time.

It never asks for the same configuration again, so every trial is charged from its first epoch.
"""

import tempfile

from dehb import DEHB
from loguru import logger
from peers_course import Course, Replay, lowest_of
from peers_space import config_space

from search.pruners import ETA

NAMES = ["dehb"]
MOST_WORKERS = 1


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    logger.remove()
    replay, problem = Replay(course), course.problem
    with tempfile.TemporaryDirectory() as folder:
        search = DEHB(
            cs=config_space(problem.space, seed, has_conditions=False), eta=ETA, seed=seed,
            min_fidelity=lowest_of(problem, first_rung), max_fidelity=problem.max_epochs,
            n_workers=1, output_path=folder, save_freq="end",
        )  # fmt: skip
        while not course.is_over:
            job = search.ask()
            epoch = max(1, round(float(job["fidelity"])))
            error = replay.train(dict(job["config"]), epoch, resumes=False)
            search.tell(job, {"fitness": error, "cost": float(epoch)})
