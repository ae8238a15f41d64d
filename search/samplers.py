"""Every sampler by its name: a builder of a model of the space."""

from collections.abc import Callable, Sequence
from functools import wraps

from search import study
from search.proposer import Model
from spaces.space import Space
from trainables.registry import Registry

# (space, trials of the run, columns of a row: maximised, then minimised ones) -> model
ModelBuilder = Callable[[Space, int, Sequence[str]], Model]
ONE = ("score",)
SAMPLERS: Registry[ModelBuilder] = Registry("sampler")


def of_optuna(sampler: study.Sampler) -> ModelBuilder:
    """The builder of a model by one of Optuna's samplers, under its name."""

    @wraps(sampler)
    def build(space: Space, budget: int, objectives: Sequence[str] = ONE) -> Model:
        return study.Study(space, sampler, budget, objectives)

    return build


for sampler in (study.tpe, study.random, study.gp, study.cmaes, study.nsga2):
    SAMPLERS.register(of_optuna(sampler))


@SAMPLERS.register
def mfgp(space: Space, budget: int, objectives: Sequence[str] = ONE) -> Model:
    """Our Gaussian process over configuration and training length; for one objective."""
    from search.mfgp import FidelityModel

    epochs = space.settings.get("epochs")
    if not isinstance(epochs, int) or len(objectives) > 1:
        raise ValueError(f"mfgp wants one objective and a fixed number of epochs, not {epochs!r}")
    return FidelityModel(space, epochs, budget)
