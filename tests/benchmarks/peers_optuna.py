"""Optuna alone, its samplers and pruners with the package's own defaults, asked and told."""

from collections.abc import Callable

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from peers_course import Course, Flat, race

from search.problems import Problem
from search.pruners import ETA
from search.study import suggest

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {  # (first rung, epochs) -> pruner
    "none": lambda first, last: NopPruner(),
    "median": lambda first, last: MedianPruner(n_warmup_steps=first),
    "hyperband": lambda first, last: HyperbandPruner(first, last, ETA),
    "sha": lambda first, last: SuccessiveHalvingPruner(first, ETA),
}
NAMES = [f"{sampler}+{pruner}" for sampler in SAMPLERS for pruner in PRUNERS]
MOST_WORKERS = 10_000


class Study:
    """A study as a peer. State: the study, and its trials that have not ended."""

    def __init__(
        self, problem: Problem, sampler: BaseSampler, pruner: BasePruner, name: str
    ) -> None:
        self.problem = problem
        self.study = optuna.create_study(  # its name decides who is in which bracket of Hyperband
            direction="maximize", sampler=sampler, pruner=pruner, study_name=name
        )
        self.open: dict[str, optuna.Trial] = {}

    def start(self) -> tuple[str, Flat]:
        trial = self.study.ask()
        self.open[str(trial.number)] = trial
        return str(trial.number), self.problem.space.draw(lambda n, dim: suggest(trial, n, dim))

    def report(self, trial: str, epoch: int, score: float) -> bool:
        asked = self.open[trial]
        asked.report(score, epoch)
        if epoch == self.problem.max_epochs:
            self.study.tell(asked, score)
        elif asked.should_prune():
            self.study.tell(asked, state=TrialState.PRUNED)
        else:
            return True
        del self.open[trial]
        return False


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler, _, pruner = name.partition("+")
    rule = PRUNERS[pruner](first_rung, course.problem.max_epochs)
    label = f"{name} {course.problem.name} {seed}"
    race(Study(course.problem, SAMPLERS[sampler](seed), rule, label), course, workers)
