"""A search space is data: name -> dimension or constant. Standard library only.

"loss.gamma" is an argument of the part "loss"; its dimension says when it exists (`dimensions.py`).
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from spaces.dimensions import Choice as Choice  # what a space is made of comes from one place
from spaces.dimensions import Dimension as Dimension
from spaces.dimensions import IntRange as IntRange
from spaces.dimensions import LogUniform as LogUniform
from spaces.dimensions import Uniform as Uniform
from spaces.dimensions import Value as Value
from spaces.dimensions import When as When
from spaces.dimensions import as_dict, believed
from spaces.dimensions import is_log as is_log

Pick = Callable[[str, Dimension], Value]


@dataclass(frozen=True)
class Space:
    """What may be tried. Order matters: a setting stands before the arguments that depend on it.

    `anchors` are configurations to try first, by name; each says where it leaves the defaults.
    `trials` is how many a search makes unless told otherwise, where a tier's number is not meant.
    """

    name: str
    settings: Mapping[str, Dimension | Value]
    anchors: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    trials: int | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name, dim in self.settings.items():
            if isinstance(dim, Dimension):
                _check(self.name, name, dim, seen)
            seen.add(name)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        return {n: d for n, d in self.settings.items() if isinstance(d, Dimension)}

    @property
    def has_priors(self) -> bool:
        """Whether any dimension is believed to be good near its default."""
        return any(dim.confidence > 0 for dim in self.dimensions.values())

    def draw(self, pick: Pick) -> dict[str, Value]:
        """One flat configuration: `pick` is asked, in order, for every dimension that applies.

        What it says stands, and may be an option whose needs are not met.
        """
        flat: dict[str, Value] = {}
        for name, dim in self.settings.items():
            if not isinstance(dim, Dimension):
                flat[name] = dim
            elif applies(dim, flat):
                flat[name] = pick(name, dim)
        return flat

    def settled(self, pick: Pick) -> dict[str, Value]:
        """The same, with the default in place of an option whose needs are not met."""
        flat: dict[str, Value] = {}
        for name, dim in self.settings.items():
            if not isinstance(dim, Dimension):
                flat[name] = dim
            elif applies(dim, flat):
                value = pick(name, dim)
                flat[name] = value if is_met(needs_of(dim, value), flat) else dim.default
        return flat

    def sample(self, rng: random.Random) -> dict[str, Value]:
        """One configuration at random: uniform, but for the share that stays near the defaults."""
        return self.settled(lambda _, dim: believed(dim, rng))

    def defaults(self) -> dict[str, Value]:
        return self.draw(lambda _, dim: dim.default)

    def nearest(self, wanted: Mapping[str, Value]) -> dict[str, Value]:
        """The configuration with the wanted values where they apply and the defaults elsewhere."""
        return self.draw(lambda name, dim: wanted.get(name, dim.default))

    def corners(self) -> Iterator[dict[str, Value]]:
        """The defaults with each dimension in turn at each end, its conditions made true first."""
        for name, dim in self.dimensions.items():
            for end in dim.ends():
                wanted = {**self.enabling(name), **self._meeting(needs_of(dim, end)), name: end}
                flat = self.nearest(wanted)
                if name in flat:
                    yield flat

    def enabling(self, name: str) -> dict[str, Value]:
        """Values of other settings under which dimension `name` exists."""
        dim = self.settings[name]
        return self._meeting(dim.when) if isinstance(dim, Dimension) else {}

    def _meeting(self, when: When) -> dict[str, Value]:
        """Values of settings that meet a condition, the defaults where they do."""
        wanted: dict[str, Value] = {}
        for other, values in when.items():
            allowed = self.settings[other]
            if isinstance(allowed, Dimension):
                own = allowed.default
                chosen = own if own in values else next(v for v in values if allowed.contains(v))
                further = self._meeting(needs_of(allowed, chosen))
                wanted = {**self.enabling(other), **further, **wanted, other: chosen}
        return wanted

    def fixed(self, values: Mapping[str, Value]) -> "Space":
        """The same space with some settings held constant."""
        if unknown := sorted(set(values) - set(self.settings)):
            known = ", ".join(self.settings)
            raise LookupError(f"space '{self.name}' has no setting {unknown}; it has: {known}")
        return replace(self, settings=prune({**self.settings, **values}))

    def without(self, name: str, options: tuple[Value, ...]) -> "Space":
        """The space with some options of a choice removed; a choice of one becomes constant."""
        dim = self.settings.get(name)
        if not isinstance(dim, Choice):
            return self
        left = tuple(o for o in dim.options if o not in options)
        if not left:
            raise ValueError(f"space '{self.name}': nothing is left of '{name}' without {options}")
        free = [o for o in left if o not in dim.needs]
        default = dim.default if dim.default in left else (free or left)[0]
        needs = {o: when for o, when in dim.needs.items() if o in left and o != default}
        kept: Dimension | Value = (
            left[0] if len(left) == 1 else replace(dim, options=left, default=default, needs=needs)
        )
        return replace(self, settings=prune({**self.settings, name: kept}))

    def union(self, other: "Space", name: str) -> "Space":
        """Both spaces; where they share a setting, the other's stands."""
        anchors = {**self.anchors, **other.anchors}
        return Space(name, {**self.settings, **other.settings}, anchors)

    def leaning(self, confidence: float, but: tuple[str, ...] = ()) -> dict[str, Dimension | Value]:
        """The settings, each believed to be good near its default, without those of some parts."""
        return {
            name: replace(dim, confidence=confidence) if isinstance(dim, Dimension) else dim
            for name, dim in self.settings.items()
            if name.partition(".")[0].partition("_")[0] not in but
        }

    def as_dict(self) -> dict[str, object]:
        """Plain JSON data: what a run records. Anchors are no part: they are trials of the run."""
        return {
            name: as_dict(dim) if isinstance(dim, Dimension) else dim
            for name, dim in self.settings.items()
        }

    def digest(self) -> str:
        """Ten hex digits of the content: equal spaces, equal digest."""
        text = json.dumps(list(self.as_dict().items()), default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def applies(dim: Dimension, flat: Mapping[str, Value]) -> bool:
    """Whether the settings drawn so far call for this dimension."""
    return is_met(dim.when, flat)


def is_met(when: When, flat: Mapping[str, Value]) -> bool:
    """Whether all the settings named have one of the values listed."""
    return all(name in flat and flat[name] in values for name, values in when.items())


def needs_of(dim: Dimension, value: Value) -> When:
    """The settings that a value goes with."""
    return dim.needs.get(value, {}) if isinstance(dim, Choice) else {}


def prune(settings: Mapping[str, Dimension | Value]) -> dict[str, Dimension | Value]:
    """Settings without the dimensions and options whose condition can no longer hold."""
    kept: dict[str, Dimension | Value] = {}
    for name, dim in settings.items():
        if not isinstance(dim, Dimension):
            kept[name] = dim
        elif _can_be_met(dim.when, kept):
            kept[name] = _without_unmet(dim, kept)
    return kept


def _without_unmet(dim: Dimension, kept: Mapping[str, Dimension | Value]) -> Dimension | Value:
    """The dimension without options whose needs cannot be met; the default has none."""
    if not isinstance(dim, Choice) or all(_can_be_met(w, kept) for w in dim.needs.values()):
        return dim
    needs = {option: when for option, when in dim.needs.items() if _can_be_met(when, kept)}
    options = tuple(o for o in dim.options if o in needs or o not in dim.needs)
    return replace(dim, options=options, needs=needs) if len(options) > 1 else dim.default


def _can_be_met(when: When, kept: Mapping[str, Dimension | Value]) -> bool:
    return all(_reachable(kept.get(other), values) for other, values in when.items())


def _reachable(dim: Dimension | Value | None, values: tuple[Value, ...]) -> bool:
    if dim is None:
        return False
    if isinstance(dim, Dimension):
        return any(dim.contains(v) for v in values)
    return dim in values


def _check(space: str, name: str, dim: Dimension, seen: set[str]) -> None:
    where = f"space '{space}', '{name}'"
    if isinstance(dim, Choice) and len(dim.options) < 2:
        raise ValueError(f"{where}: a choice needs two options or more; write a constant instead")
    if not isinstance(dim, Choice) and not dim.low < dim.high:
        raise ValueError(f"{where}: low {dim.low} must be below high {dim.high}")
    if not isinstance(dim, Choice) and is_log(dim) and dim.low <= 0:
        raise ValueError(f"{where}: a logarithmic range needs low > 0, not {dim.low}")
    if not 0 <= dim.confidence < 1:
        raise ValueError(f"{where}: confidence {dim.confidence} must be 0 or more and below 1")
    if not dim.contains(dim.default):
        raise ValueError(f"{where}: the default {dim.default!r} is not in the range")
    named = set(dim.when)
    if isinstance(dim, Choice) and dim.needs:
        if strange := [o for o in dim.needs if o not in dim.options or o == dim.default]:
            raise ValueError(f"{where}: needs are for options but the default, not {strange}")
        named |= {other for when in dim.needs.values() for other in when}
    if missing := named - seen:
        raise ValueError(
            f"{where}: its condition names {sorted(missing)}, which must stand before it"
        )
