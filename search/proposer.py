"""Configurations from an in-memory Optuna study: a cache, for the run folder is the record.

A sampler is made afresh for every question, its seed a hash of (seed, trials asked, attempt): what
is proposed follows from the record, not from the life of a process.
"""

import hashlib
import logging
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
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.core import Proposal, score
from spaces.space import Choice, Dimension, IntRange, LogUniform, Space, Value
from trainables.config import Flat, TrialConfig
from trainables.registry import Registry
from trainables.store import Row, Status

log = logging.getLogger(__name__)
Sampler = Callable[[int, int], BaseSampler]  # (seed, random trials before it models) -> sampler
Validate = Callable[[Flat], None]
SAMPLERS: Registry[Sampler] = Registry("sampler")
STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
INVALID = (ValueError, LookupError, TypeError)  # what a configuration that cannot run raises
RE_ASKS = 30  # questions in a row that may bring nothing new
REPEATS = 3  # seeds of one configuration; a further proposal of it is asked anew


@SAMPLERS.register
def tpe(seed: int, startup: int) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011) over all settings jointly."""
    return TPESampler(
        seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
    )


@SAMPLERS.register
def random(seed: int, startup: int) -> BaseSampler:
    """Independent draws."""
    return RandomSampler(seed=seed)


@SAMPLERS.register
def gp(seed: int, startup: int) -> BaseSampler:
    """Gaussian process on the settings that every trial has; conditional ones by `_each`."""
    return GPSampler(
        seed=seed,
        n_startup_trials=startup,
        independent_sampler=_each(seed, startup),
        warn_independent_sampling=False,
    )


@SAMPLERS.register
def cmaes(seed: int, startup: int) -> BaseSampler:
    """CMA-ES on the numbers that every trial has; choices and conditional settings by `_each`.

    Stopped trials count with their last score: ASHA leaves too few others to learn from.
    """
    return CmaEsSampler(
        seed=seed,
        n_startup_trials=startup,
        independent_sampler=_each(seed, startup),
        warn_independent_sampling=False,
        consider_pruned_trials=True,
    )


@SAMPLERS.register
def nsga2(seed: int, startup: int) -> BaseSampler:
    """Evolution (Deb et al. 2002), here with one objective and small generations."""
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
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.sampler.infer_relative_search_space(study, trial) if self.leaves_marks else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Value]:
        if self.leaves_marks:
            self.sampler.sample_relative(study, trial, search_space)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, _: BaseDistribution
    ) -> Value:
        return self.params[param_name]


class OptunaProposer:
    """Anchors first, then what the sampler proposes. State: the study, and what was asked."""

    def __init__(
        self,
        space: Space,
        sampler: str = "tpe",
        seed: int = 0,
        budget: int = 100,
        anchors: Sequence[tuple[str, Mapping[str, Value]]] = (),
        validate: Validate = lambda flat: None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.seed, self.validate = space, seed, validate
        self.sampler = SAMPLERS[sampler]
        self.startup = min(10, max(4, budget // 4))
        self.anchors = list(anchors)
        self.asked = 0
        self.invalid = 0  # configurations proposed that could not have run
        self.study = optuna.create_study(direction="maximize", sampler=self._fresh_sampler(0))
        self._known: set[str] = set()
        self._open: dict[str, Trial] = {}

    def ask(self) -> Proposal | None:
        """A configuration never given before; None when many questions bring nothing new."""
        while self.anchors:
            role, flat = self.anchors.pop(0)
            config = self._checked(flat, must_run=role == "baseline")
            if config is not None and config.trial_id not in self._known:
                self.reopen(config.flat())
                return Proposal(role, config)
        for attempt in range(RE_ASKS):
            self.study.sampler = self._fresh_sampler(attempt)
            trial = self.study.ask()
            config = self._unseen(self._suggest(trial))
            if config is not None:
                self._register(config, trial)
                return Proposal("proposed", config)
            self.study.tell(trial, state=TrialState.FAIL)
        return None

    def reopen(self, config: Flat) -> None:
        """Take back a configuration of the record. One outside the space is kept from the study."""
        wanted, trial = TrialConfig.from_flat(config), None
        params = params_of(self.space, wanted)
        if params is not None:
            self.study.sampler = Given(params, self._fresh_sampler(0))
            trial = self.study.ask()
            self._suggest(trial)
        self._register(wanted, trial)

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """Report every score at its epoch, then the end: COMPLETE, PRUNED or FAIL, as it was."""
        asked = self._open.pop(trial, None)
        if asked is None:
            return
        scores = {row["epoch"]: score(row) for row in history}
        for epoch, value in sorted(scores.items()):
            if isfinite(value):
                asked.report(value, epoch)
        sound = bool(scores) and all(map(isfinite, scores.values()))
        state = STATES[status] if sound else TrialState.FAIL
        final = scores[max(scores)] if state is TrialState.COMPLETE else None
        self.study.tell(asked, final, state=state)

    def _fresh_sampler(self, attempt: int) -> BaseSampler:
        text = f"{self.seed}/{self.asked}/{attempt}"
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        with warnings.catch_warnings():  # `group` and `consider_pruned_trials` are experimental
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self.sampler(seed, self.startup)

    def _suggest(self, trial: Trial) -> dict[str, Value]:
        return self.space.draw(lambda name, dim: suggest(trial, name, dim))

    def _register(self, config: TrialConfig, trial: Trial | None) -> None:
        self._known.add(config.trial_id)
        self.asked += 1
        if trial is not None:
            self._open[config.trial_id] = trial

    def _unseen(self, flat: Mapping[str, Value]) -> TrialConfig | None:
        """The configuration, or it under the next seed if it was given before; None if neither."""
        config = self._checked(flat)
        if config is None:
            return None
        for seed in range(config.seed, config.seed + REPEATS):
            repeat = TrialConfig.from_flat({**flat, "seed": seed})
            if repeat.trial_id not in self._known:
                return repeat
        return None

    def _checked(self, flat: Mapping[str, Value], must_run: bool = False) -> TrialConfig | None:
        """The configuration, None if it cannot run (an error where it must)."""
        try:
            config = TrialConfig.from_flat(flat)
            self.validate(config.flat())
        except INVALID as error:
            if must_run:
                raise
            self.invalid += 1
            log.debug("a configuration that cannot run: %s", error)
            return None
        return config


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


def params_of(space: Space, config: TrialConfig) -> dict[str, Value] | None:
    """The values of the dimensions that apply, if the configuration is a point of the space."""
    flat, params = config.flat(), dict[str, Value]()

    def pick(name: str, dim: Dimension) -> Value:
        params[name] = own_value(dim, flat[name])
        return params[name]

    try:
        drawn = TrialConfig.from_flat(space.draw(pick))
    except INVALID:
        return None
    return params if drawn.group_id == config.group_id else None


def own_value(dim: Dimension, value: Value) -> Value:
    """The dimension's own form of a value (1 for 1.0). Raises ValueError if it has none."""
    forms: list[Value] = list(dim.options) if isinstance(dim, Choice) else [value]
    if isinstance(dim, IntRange) and isinstance(value, float) and value.is_integer():
        forms = [int(value)]
    for form in forms:
        if (
            form == value
            and isinstance(form, bool) == isinstance(value, bool)
            and dim.contains(form)
        ):
            return form
    raise ValueError(f"{value!r} is not in {dim}")
