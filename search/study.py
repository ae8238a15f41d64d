"""Optuna's samplers: an in-memory study as a cache of the record. The only module with Optuna in it
besides `journal`.

A sampler is made afresh for every question, its seed a hash of what the proposer counts: what is
drawn follows from the record, not from the life of a process.
"""

import random as chance
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import isfinite

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from search.outcome import score
from spaces.space import Choice, Dimension, IntRange, LogUniform, Space, Value
from trainables.store import Row, Status

Sampler = Callable[[int, int], BaseSampler]  # (seed, random trials before it models) -> sampler
STATES = {  # how a trial ended, in Optuna's words
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def tpe(seed: int, startup: int) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011) over all settings jointly."""
    return TPESampler(
        seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
    )


def random(seed: int, startup: int) -> BaseSampler:
    """Independent draws."""
    return RandomSampler(seed=seed)


def gp(seed: int, startup: int) -> BaseSampler:
    """Gaussian process on the settings that every trial has; conditional ones by `_each`."""
    return GPSampler(
        seed=seed,
        n_startup_trials=startup,
        independent_sampler=_each(seed, startup),
        warn_independent_sampling=False,
    )


def cmaes(seed: int, startup: int) -> BaseSampler:
    """CMA-ES on the numbers that every trial has; choices and conditional settings by `_each`.

    Stopped trials count with their last score: pruning leaves too few others to learn from.
    """
    return CmaEsSampler(
        seed=seed,
        n_startup_trials=startup,
        independent_sampler=_each(seed, startup),
        warn_independent_sampling=False,
        consider_pruned_trials=True,
    )


def nsga2(seed: int, startup: int) -> BaseSampler:
    """Evolution (Deb et al. 2002), in small generations; for one objective or several."""
    return NSGAIISampler(seed=seed, population_size=max(4, startup))


def _each(seed: int, startup: int) -> BaseSampler:
    """One setting at a time, for the samplers that cannot model them all."""
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=False, constant_liar=True)


class Given(BaseSampler):  # type: ignore[misc]  # optuna is not followed by mypy
    """Answers with given values, and leaves in the study what the real sampler would have left.

    `Study.enqueue_trial` does not: CMA-ES and NSGA-II keep their generations in the study, and
    would go another way after a restart.
    """

    def __init__(self, params: Mapping[str, Value], sampler: BaseSampler) -> None:
        self.params, self.sampler = params, sampler
        self.leaves_marks = isinstance(sampler, (CmaEsSampler, NSGAIISampler))

    def infer_relative_search_space(
        self, study: optuna.study.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial) if self.leaves_marks else {}

    def sample_relative(
        self,
        study: optuna.study.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Value]:
        if self.leaves_marks:
            self.sampler.sample_relative(study, trial, search_space)
        return {}

    def sample_independent(
        self, study: optuna.study.Study, trial: FrozenTrial, param_name: str, _: BaseDistribution
    ) -> Value:
        return self.params[param_name]


class Study:
    """A model of the space by one of Optuna's samplers.

    State: Optuna's study, and which of its trials is which of ours. With several `objectives` the
    first is maximised and the others, read from a trial's last row, are minimised.
    """

    def __init__(
        self, space: Space, sampler: Sampler, budget: int, objectives: Sequence[str] = ("score",)
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.sampler, self.objectives = space, sampler, objectives
        self.startup = min(10, max(4, budget // 4))
        self.study = optuna.create_study(
            directions=["maximize"] + ["minimize"] * (len(objectives) - 1), sampler=RandomSampler()
        )
        self._open: dict[str, Trial] = {}
        self._drawn: Trial | None = None

    def draw(self, seed: int) -> dict[str, Value]:
        sampler = self._fresh(seed)
        if self.space.has_priors and len(self.study.get_trials(deepcopy=False)) < self.startup:
            sampler = Given(self.space.sample(chance.Random(seed)), sampler)
        self.study.sampler = sampler
        self._drawn = self.study.ask()
        return self._suggest(self._drawn)

    def keep(self, trial: str) -> None:
        assert self._drawn is not None
        self._open[trial], self._drawn = self._drawn, None

    def drop(self) -> None:
        self.study.tell(self._drawn, state=TrialState.FAIL)
        self._drawn = None

    def reopen(self, trial: str, params: Mapping[str, Value], seed: int) -> None:
        self.study.sampler = Given(params, self._fresh(seed))
        self._open[trial] = self.study.ask()
        self._suggest(self._open[trial])

    def observe(self, trial: str, epoch: int, score: float) -> None:
        if len(self.objectives) == 1:  # Optuna takes no steps of several objectives
            self._open[trial].report(score, epoch)

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """COMPLETE, PRUNED or FAIL, as it was; a score that is not finite is a failure."""
        asked = self._open.pop(trial)
        scores = [score(row) for row in history]
        state = STATES[status] if scores and all(map(isfinite, scores)) else TrialState.FAIL
        values = None
        if state is TrialState.COMPLETE:
            values = [scores[-1], *(float(history[-1][name]) for name in self.objectives[1:])]
        self.study.tell(asked, values, state=state)

    def _fresh(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():  # `group` and `consider_pruned_trials` are experimental
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self.sampler(seed, self.startup)

    def _suggest(self, trial: Trial) -> dict[str, Value]:
        return self.space.draw(lambda name, dim: suggest(trial, name, dim))


def suggest(trial: Trial, name: str, dim: Dimension) -> Value:
    """The study's value for one dimension."""
    value: Value
    if isinstance(dim, Choice):
        value = trial.suggest_categorical(name, dim.options)
    elif isinstance(dim, IntRange):
        value = trial.suggest_int(name, dim.low, dim.high, log=dim.log)
    else:
        value = trial.suggest_float(name, dim.low, dim.high, log=isinstance(dim, LogUniform))
    return value
