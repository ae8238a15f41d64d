"""A search space is data: name -> dimension or constant. Standard library only.

"loss.gamma" is an argument of the part "loss"; `when` says for which choices an argument exists.
`default` is also a belief about where good values lie: a random draw stays near it with the chance
`confidence`, 0 unless the space says otherwise.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

Value = str | int | float | bool
When = Mapping[str, tuple[Value, ...]]  # all named settings must have one of the listed values
NEAR = 0.15  # standard deviation of a draw near the default, as a share of the range


@dataclass(frozen=True)
class Choice:
    """One of `options`, without order."""

    options: tuple[Value, ...]
    default: Value
    when: When = field(default_factory=dict)
    confidence: float = 0.0

    def contains(self, value: Value) -> bool:
        return any(value == option and type(value) is type(option) for option in self.options)

    def ends(self) -> tuple[Value, ...]:
        """The values a corner test tries: here, all."""
        return self.options

    def sample(self, rng: random.Random) -> Value:
        return rng.choice(self.options)


@dataclass(frozen=True)
class IntRange:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int
    default: int
    log: bool = False
    when: When = field(default_factory=dict)
    confidence: float = 0.0

    def contains(self, value: Value) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def sample(self, rng: random.Random) -> Value:
        if not self.log:
            return rng.randint(self.low, self.high)
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(self.high, int(drawn))


@dataclass(frozen=True)
class Uniform:
    """A number from `low` to `high`."""

    low: float
    high: float
    default: float
    when: When = field(default_factory=dict)
    confidence: float = 0.0

    def contains(self, value: Value) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def sample(self, rng: random.Random) -> Value:
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """A positive number from `low` to `high`, uniform in its logarithm."""

    low: float
    high: float
    default: float
    when: When = field(default_factory=dict)
    confidence: float = 0.0

    def contains(self, value: Value) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def sample(self, rng: random.Random) -> Value:
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))


Dimension = Choice | IntRange | Uniform | LogUniform
Pick = Callable[[str, Dimension], Value]


@dataclass(frozen=True)
class Space:
    """What may be tried. Order matters: a setting stands before the arguments that depend on it.

    `anchors` are configurations to try first, by name; each says where it leaves the defaults.
    """

    name: str
    settings: Mapping[str, Dimension | Value]
    anchors: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

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
        """One flat configuration: `pick` is asked, in order, for every dimension that applies."""
        flat: dict[str, Value] = {}
        for name, dim in self.settings.items():
            if not isinstance(dim, Dimension):
                flat[name] = dim
            elif applies(dim, flat):
                flat[name] = pick(name, dim)
        return flat

    def sample(self, rng: random.Random) -> dict[str, Value]:
        """One configuration at random: uniform, but for the share that stays near the defaults."""
        return self.draw(lambda _, dim: _believed(dim, rng))

    def defaults(self) -> dict[str, Value]:
        return self.draw(lambda _, dim: dim.default)

    def nearest(self, wanted: Mapping[str, Value]) -> dict[str, Value]:
        """The configuration with the wanted values where they apply and the defaults elsewhere."""
        return self.draw(lambda name, dim: wanted.get(name, dim.default))

    def corners(self) -> Iterator[dict[str, Value]]:
        """The defaults with each dimension in turn at each end, its conditions made true first."""
        for name, dim in self.dimensions.items():
            for end in dim.ends():
                wanted = {**self.enabling(name), name: end}
                flat = self.nearest(wanted)
                if name in flat:
                    yield flat

    def enabling(self, name: str) -> dict[str, Value]:
        """Values of other settings under which dimension `name` exists."""
        dim = self.settings[name]
        wanted: dict[str, Value] = {}
        for other, values in (dim.when if isinstance(dim, Dimension) else {}).items():
            allowed = self.settings[other]
            if isinstance(allowed, Dimension):
                wanted[other] = (
                    allowed.default
                    if allowed.default in values
                    else next(v for v in values if allowed.contains(v))
                )
                wanted = {**self.enabling(other), **wanted}
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
        default = dim.default if dim.default in left else left[0]
        kept: Dimension | Value = (
            left[0] if len(left) == 1 else replace(dim, options=left, default=default)
        )
        return replace(self, settings=prune({**self.settings, name: kept}))

    def union(self, other: "Space", name: str) -> "Space":
        """Both spaces; where they share a setting, the other's stands."""
        anchors = {**self.anchors, **other.anchors}
        return Space(name, {**self.settings, **other.settings}, anchors)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON data: what a run records. Anchors are no part: they are trials of the run."""
        return {
            name: _as_dict(dim) if isinstance(dim, Dimension) else dim
            for name, dim in self.settings.items()
        }

    def digest(self) -> str:
        """Ten hex digits of the content: equal spaces, equal digest."""
        text = json.dumps(list(self.as_dict().items()), default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def applies(dim: Dimension, flat: Mapping[str, Value]) -> bool:
    """Whether the settings drawn so far call for this dimension."""
    return all(name in flat and flat[name] in values for name, values in dim.when.items())


def prune(settings: Mapping[str, Dimension | Value]) -> dict[str, Dimension | Value]:
    """Settings without the dimensions whose condition can no longer hold."""
    kept: dict[str, Dimension | Value] = {}
    for name, dim in settings.items():
        if not isinstance(dim, Dimension) or all(
            _reachable(kept.get(o), v) for o, v in dim.when.items()
        ):
            kept[name] = dim
    return kept


def _as_dict(dim: Dimension) -> dict[str, object]:
    """The dimension as data; a confidence of 0 is left out, as older runs know none."""
    data = {"type": type(dim).__name__, **asdict(dim)}
    return data if dim.confidence else {n: v for n, v in data.items() if n != "confidence"}


def is_log(dim: Dimension) -> bool:
    """Whether the dimension is a range on a logarithmic scale."""
    return isinstance(dim, LogUniform) or (isinstance(dim, IntRange) and dim.log)


def _believed(dim: Dimension, rng: random.Random) -> Value:
    """Near the default with the chance of its confidence; without one nothing more is drawn."""
    is_near = dim.confidence > 0 and rng.random() < dim.confidence
    return _near(dim, rng) if is_near else dim.sample(rng)


def _near(dim: Dimension, rng: random.Random) -> Value:
    """A value near the default, on the scale of the range, reflected at its ends."""
    if isinstance(dim, Choice):
        return dim.default
    to, back = (math.log, math.exp) if is_log(dim) else (float, float)
    first, last = to(dim.low), to(dim.high)
    share = (to(dim.default) - first) / (last - first) + rng.gauss(0.0, NEAR)
    share = min(1.0, max(0.0, -share if share < 0 else 2 - share if share > 1 else share))
    value = min(dim.high, max(dim.low, back(first + share * (last - first))))
    return round(value) if isinstance(dim, IntRange) else value


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
    if missing := set(dim.when) - seen:
        raise ValueError(
            f"{where}: its condition names {sorted(missing)}, which must stand before it"
        )
