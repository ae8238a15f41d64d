"""A space in the words of ConfigSpace, which SMAC3 and DEHB read."""

from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    InCondition,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from ConfigSpace.hyperparameters import Hyperparameter

from spaces.space import Choice, Dimension, IntRange, Space, is_log


def range_of(name: str, dim: Dimension) -> Hyperparameter:
    if isinstance(dim, Choice):
        return CategoricalHyperparameter(name, dim.options)
    kind = UniformIntegerHyperparameter if isinstance(dim, IntRange) else UniformFloatHyperparameter
    return kind(name, dim.low, dim.high, log=is_log(dim))


def config_space(space: Space, seed: int, has_conditions: bool = True) -> ConfigurationSpace:
    """The space in the words of ConfigSpace, for conditions on one other setting."""
    own = {name: range_of(name, dim) for name, dim in space.dimensions.items()}
    found = ConfigurationSpace(seed=seed)
    found.add(list(own.values()))
    conditions = [
        InCondition(own[name], own[parent], list(values))
        for name, dim in space.dimensions.items()
        for parent, values in dim.when.items()
    ]
    if has_conditions and conditions:
        found.add(conditions)
    return found
