"""The dimensions of a space: what one setting may be. Standard library only.

`when` says for which choices an argument exists; `needs`, which settings an option goes with.
`default` is also a belief about where good values lie: a random draw stays near it with the chance
`confidence`, 0 unless the space says otherwise.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

Value = str | int | float | bool
When = Mapping[str, tuple[Value, ...]]  # all named settings must have one of the listed values
NEAR = 0.15  # standard deviation of a draw near the default, as a share of the range


@dataclass(frozen=True)
class Choice:
    """One of `options`, without order; any but the default may go with certain settings only."""

    options: tuple[Value, ...]
    default: Value
    when: When = field(default_factory=dict)
    confidence: float = 0.0
    needs: Mapping[Value, When] = field(default_factory=dict)

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


def as_dict(dim: Dimension) -> dict[str, object]:
    """The dimension as data; what is empty is left out, as older runs do not know of it."""
    data = {"type": type(dim).__name__, **asdict(dim)}
    return {n: v for n, v in data.items() if v or n not in ("confidence", "needs")}


def is_log(dim: Dimension) -> bool:
    """Whether the dimension is a range on a logarithmic scale."""
    return isinstance(dim, LogUniform) or (isinstance(dim, IntRange) and dim.log)


def believed(dim: Dimension, rng: random.Random) -> Value:
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
