"""A space as numbers. N configurations, P dimensions, F feature columns.

A point is a row (P,): a number in [0, 1], the index of an option, or NaN where the dimension does
not apply.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spaces.space import Choice, Dimension, IntRange, Space, Value, is_log

Array = NDArray[np.float64]
STEPS = (0.02, 0.06, 0.2)  # standard deviations of a mutation, in parts of the range
SQRT_HALF = math.sqrt(0.5)  # two different options are then at distance 1, as are two ends


class Encoder:
    """Configurations of one space to points and back, at random and by small changes."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.dims = list(space.dimensions.items())
        self.index = {name: i for i, (name, _) in enumerate(self.dims)}
        self.is_choice = np.array([isinstance(dim, Choice) for _, dim in self.dims], dtype=bool)
        self.options = [len(d.options) if isinstance(d, Choice) else 0 for _, d in self.dims]
        self._codes: dict[tuple[str, tuple[Value, ...]], Array] = {}  # of values in conditions
        self.groups = np.concatenate(
            [np.full(self._width(i), i) for i in range(len(self.dims))] or [np.zeros(0)]
        ).astype(int)  # feature column -> dimension

    def _width(self, i: int) -> int:
        return (self.options[i] or 1) + bool(self.dims[i][1].when)

    def point(self, flat: Mapping[str, Value]) -> Array:
        """The point (P,) of a configuration of this space."""
        row = np.full(len(self.dims), np.nan)
        for i, (name, dim) in enumerate(self.dims):
            if name in flat:
                row[i] = _to_unit(dim, flat[name])
        row[~self._active(row[None])[0]] = np.nan
        return row

    def flat(self, row: Array) -> dict[str, Value]:
        """The configuration of a point."""
        return self.space.draw(lambda name, dim: _from_unit(dim, row[self.index[name]]))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Points (N, P) drawn uniformly at random."""
        return self._settle(self._raw(n, rng))

    def mutate(self, parents: Array, rng: np.random.Generator) -> Array:
        """Each parent (N, P) with some dimensions changed, at least one; numbers a little."""
        n, p = parents.shape
        fresh = self._raw(n, rng)
        filled = np.where(np.isnan(parents), fresh, parents)
        few = min(1.0, 1.5 / max(p, 1))
        rate = rng.choice([few, 0.5, 1.0], size=(n, 1), p=[0.4, 0.4, 0.2])
        if self.is_choice.all():  # a redrawn choice is no small step: change few
            rate = np.full((n, 1), min(1.0, 2.0 / max(p, 1)))
        changes = rng.random((n, p)) < rate
        changes[np.arange(n), rng.integers(p, size=n)] = True
        near = filled + rng.choice(STEPS, size=(n, 1)) * rng.normal(size=(n, p))
        near = np.clip(near, 0, 1)  # what is best often lies at an end
        return self._settle(np.where(changes, np.where(self.is_choice, fresh, near), filled))

    def features(self, points: Array) -> Array:
        """(N, P) -> (N, F): options one-hot; not applying is an option, or a column of its own."""
        columns = []
        for i, options in enumerate(self.options):
            column, is_off = points[:, i], np.isnan(points[:, i])
            if options:
                codes = np.where(is_off, options, column).astype(int)
                columns.append(np.eye(options + 1)[codes][:, : self._width(i)] * SQRT_HALF)
            else:
                columns.append(np.where(is_off, 0.5, column)[:, None])
                if self.dims[i][1].when:
                    columns.append(is_off[:, None] * 1.0)
        return np.hstack(columns) if columns else np.zeros((len(points), 0))

    def _raw(self, n: int, rng: np.random.Generator) -> Array:
        """Uniform draws (N, P) as if every dimension applied."""
        points = rng.random((n, len(self.dims)))
        for i, (_, dim) in enumerate(self.dims):
            if isinstance(dim, Choice):
                points[:, i] = np.floor(points[:, i] * len(dim.options))
            elif isinstance(dim, IntRange):  # each whole number has its share, the ends too
                low, high = _bounds(dim)
                wide = _scale(dim, dim.high + 1) - low
                drawn = _unscale(dim, low + points[:, i] * wide)
                whole = np.minimum(np.floor(drawn + 1e-9), dim.high)
                points[:, i] = (_scale(dim, whole) - low) / (high - low)
        return points

    def _settle(self, points: Array) -> Array:
        """The points with whole numbers rounded and what does not apply blanked."""
        for i, (_, dim) in enumerate(self.dims):
            if isinstance(dim, IntRange):
                low, high = _bounds(dim)
                near = np.round(_unscale(dim, low + points[:, i] * (high - low)))
                points[:, i] = (_scale(dim, np.clip(near, dim.low, dim.high)) - low) / (high - low)
        self._meet_needs(points)
        return np.where(self._active(points), points, np.nan)

    def _meet_needs(self, points: Array) -> None:
        """Put the default in place of options whose needs are not met, as `Space.settled` does."""
        for i, (_, dim) in enumerate(self.dims):
            if not isinstance(dim, Choice) or not dim.needs:
                continue
            active = self._active(points)
            for option, when in dim.needs.items():
                met = [self._holds(parent, v, points, active) for parent, v in when.items()]
                is_unmet = (points[:, i] == _to_unit(dim, option)) & ~np.all(met, axis=0)
                points[is_unmet, i] = _to_unit(dim, dim.default)

    def _active(self, points: Array) -> NDArray[np.bool_]:
        active = np.ones(points.shape, dtype=bool)
        for i, (_, dim) in enumerate(self.dims):
            for parent, values in dim.when.items():
                active[:, i] &= self._holds(parent, values, points, active)
        return active

    def _holds(
        self,
        parent: str,
        values: tuple[Value, ...],
        points: Array,
        active: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Where (N,) the setting has one of the values."""
        if parent not in self.index:
            return np.full(len(points), self.space.settings[parent] in values)
        j = self.index[parent]
        if (parent, values) not in self._codes:
            dim = self.dims[j][1]
            codes = [_to_unit(dim, value) for value in values if dim.contains(value)]
            self._codes[parent, values] = np.array(codes)
        hits = np.abs(points[:, j, None] - self._codes[parent, values][None]) < 1e-9
        return np.asarray(active[:, j] & hits.any(1))


def _scale(dim: Dimension, value: Array | float) -> Array:
    return np.log(value) if is_log(dim) else np.asarray(value, dtype=float)


def _unscale(dim: Dimension, value: Array | float) -> Array:
    return np.exp(value) if is_log(dim) else np.asarray(value, dtype=float)


def _bounds(dim: Dimension) -> tuple[float, float]:
    assert not isinstance(dim, Choice)
    return float(_scale(dim, dim.low)), float(_scale(dim, dim.high))


def _to_unit(dim: Dimension, value: Value) -> float:
    if isinstance(dim, Choice):
        same = [i for i, o in enumerate(dim.options) if o == value and type(o) is type(value)]
        return float(same[0] if same else dim.options.index(value))
    low, high = _bounds(dim)
    return (float(_scale(dim, float(value))) - low) / (high - low)


def _from_unit(dim: Dimension, unit: float) -> Value:
    if isinstance(dim, Choice):
        return dim.options[int(unit)]
    low, high = _bounds(dim)
    value = float(np.clip(_unscale(dim, low + unit * (high - low)), dim.low, dim.high))
    return round(value) if isinstance(dim, IntRange) else value
