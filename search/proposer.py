"""Which configuration next: given ones first, then what a model of the space draws.

Common to every sampler: nothing twice, nothing that cannot run, the record reopened after a crash.
A model's seed is a hash of (seed, trials asked, attempt): without it, a restart would draw its
first points again.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Protocol, runtime_checkable

from search.protocols import Proposal
from spaces.space import Choice, Dimension, IntRange, Space, Value
from trainables.config import Flat, TrialConfig
from trainables.store import Row, Status

log = logging.getLogger(__name__)
Validate = Callable[[Flat], None]
Anchor = tuple[str, Mapping[str, Value]]  # role and configuration of a trial that is given
INVALID = (ValueError, LookupError, TypeError)  # what a configuration that cannot run raises
RE_ASKS = 30  # questions in a row that may bring nothing new
REPEATS = 3  # seeds of one configuration; a further proposal of it is asked anew


class Model(Protocol):
    """Draws points of a space and learns how they did. It knows only trials that it was given.

    What it draws must follow from its seed and from what it was told, in whatever order.
    """

    def draw(self, seed: int) -> dict[str, Value]:
        """A flat configuration; the next call says whether it becomes a trial."""

    def keep(self, trial: str) -> None:
        """What was drawn last is this trial."""

    def drop(self) -> None:
        """What was drawn last cannot be used."""

    def reopen(self, trial: str, params: Mapping[str, Value], seed: int) -> None:
        """A trial that did not come from `draw`; `params` has the dimensions that apply."""

    def observe(self, trial: str, epoch: int, score: float) -> None:
        """A finite score of an open trial."""

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        """The end of an open trial."""


@runtime_checkable
class Leader(Model, Protocol):
    """A model that also says which of the waiting trials go on."""

    def prefer(self, paused: Mapping[str, int], seed: int) -> str | None:
        """The trial waiting at its epoch that is worth more than the next draw; None if none is."""


class SpaceProposer:
    """Proposals from a space. State: what was asked, what is open, and the model."""

    def __init__(
        self,
        space: Space,
        model: Model,
        seed: int = 0,
        anchors: Sequence[Anchor] = (),
        validate: Validate = lambda flat: None,
    ) -> None:
        self.space, self.model, self.seed, self.validate = space, model, seed, validate
        self.anchors = list(anchors)
        self.asked = 0
        self.invalid = 0  # configurations proposed that could not have run
        self._known: set[str] = set()
        self._strange: set[str] = set()  # of these, what the model is not told of
        self._open: set[str] = set()

    def ask(self) -> Proposal | None:
        """A configuration never given before; None when many questions bring nothing new."""
        given = self._given()
        if given is not None:
            self.reopen(given.config.flat())
            return given
        for attempt in range(RE_ASKS):
            config = self._unseen(self.model.draw(self._seed(attempt)))
            if config is not None:
                self.model.keep(config.trial_id)
                self._register(config.trial_id, is_open=True)
                return Proposal("proposed", config)
            self.model.drop()
        return None

    def prefer(self, paused: Mapping[str, int]) -> str | None:
        """The waiting trial that the model wants to see more of than of anything new."""
        assert isinstance(self.model, Leader)  # `strategy` lets no other lead
        if self._given() is not None:
            return None  # it comes first
        if strange := [trial for trial in self._strange if trial in paused]:
            return min(strange)  # nothing is known of it: it is trained to its end
        return self.model.prefer(paused, self._seed(f"{sum(paused.values())}/{len(paused)}"))

    def reopen(self, config: Flat) -> None:
        """Take back a configuration of the record. One outside the space is kept from the model."""
        wanted = TrialConfig.from_flat(config)
        params = params_of(self.space, wanted)
        if params is not None:
            self.model.reopen(wanted.trial_id, params, self._seed(0))
        self._register(wanted.trial_id, is_open=params is not None)

    def observe(self, trial: str, epoch: int, score: float) -> None:
        if trial in self._open and isfinite(score):
            self.model.observe(trial, epoch, score)

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None:
        if trial in self._open:
            self._open.remove(trial)
            self.model.tell(trial, history, status)

    def _given(self) -> Proposal | None:
        """The first configuration that is given and not yet known; known ones are forgotten."""
        while self.anchors:
            role, flat = self.anchors[0]
            config = self._checked(flat, must_run=role == "baseline")
            if config is not None and config.trial_id not in self._known:
                return Proposal(role, config)
            del self.anchors[0]
        return None

    def _seed(self, attempt: object) -> int:
        text = f"{self.seed}/{self.asked}/{attempt}"
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

    def _register(self, trial: str, is_open: bool) -> None:
        self._known.add(trial)
        self.asked += 1
        (self._open if is_open else self._strange).add(trial)

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
