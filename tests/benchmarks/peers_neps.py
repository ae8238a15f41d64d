"""NePS: Hyperband, and PriorBand with the centre of the space as its weak prior; one at a time."""

import logging
import random
from math import floor
from typing import Any

import neps
import numpy as np
import torch
from neps import HPOCategorical, HPOFloat, HPOInteger, SearchSpace
from peers_course import Course, Replay, lowest_of

from search.pruners import ETA
from spaces.space import Choice, Dimension, IntRange, is_log

NAMES = ["priorband", "hyperband"]
MOST_WORKERS = 1
EPOCH = "epoch"


def range_of(dim: Dimension, has_prior: bool) -> Any:
    prior = {"prior": dim.default, "prior_confidence": "low"} if has_prior else {}
    if isinstance(dim, Choice):
        return HPOCategorical(list(dim.options), **prior)
    kind = HPOInteger if isinstance(dim, IntRange) else HPOFloat
    return kind(dim.low, dim.high, log=is_log(dim), **prior)


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    logging.disable(logging.WARNING)
    random.seed(seed)  # it draws from all three global generators
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    replay, problem = Replay(course), course.problem
    has_prior = name == "priorband"
    space = {n: range_of(dim, has_prior) for n, dim in problem.space.dimensions.items()}
    lowest = max(1, floor(lowest_of(problem, first_rung)))  # rungs are counted down, and rounded
    space[EPOCH] = HPOInteger(lowest, problem.max_epochs, is_fidelity=True)
    search = neps.AskAndTell(getattr(neps.algorithms, name)(SearchSpace(space), eta=ETA))
    while not course.is_over:
        asked = search.ask()
        settings = dict(asked.config)
        epoch = round(float(settings.pop(EPOCH)))
        error = replay.train(settings, epoch)
        search.tell(asked, {"objective_to_minimize": error, "cost": float(epoch)})
