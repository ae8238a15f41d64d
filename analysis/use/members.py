"""From trials on record to one network: which members, how they are joined, their weights.

The only module of this package, with `network.py`, that needs torch and the training code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from analysis.groups import ended_folds, folds_of, is_whole, wanted_folds
from analysis.use import folder as files
from analysis.use.network import Member, Network
from trainables.config import TrialConfig
from trainables.data import cache, listing, tables
from trainables.features import network as frozen
from trainables.heads import Components
from trainables.model import build_model
from trainables.store import RunStore, TrialStore
from trainables.views import FLIP, PLAIN

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Facts:
    """What a network is built for."""

    class_names: tuple[str, ...]
    au_names: tuple[str, ...]
    basic_names: tuple[str, ...]
    components: Components

    @property
    def shape(self) -> tuple[int, int, Components, int]:
        """As the builders of networks take it."""
        return len(self.class_names), len(self.au_names), self.components, len(self.basic_names)


@dataclass(frozen=True)
class Source:
    """A member: a trial of a run or all its folds, its weight in the mean, its temperature."""

    run: Path
    trials: tuple[str, ...]  # the folds of one configuration: their mean is the member
    weight: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What is exported."""

    kind: str  # best, trial or ensemble
    title: str
    sources: tuple[Source, ...]
    coefficients: tuple[tuple[float, ...], ...] = ()  # of stacking, (m K + 1, K)
    shift: tuple[float, ...] = ()  # of the adjustment, (K,)
    is_flipped: bool = False  # whether members see the mirror image too

    @property
    def views(self) -> list[str]:
        """What the members see of an image."""
        return [PLAIN, FLIP] if self.is_flipped else [PLAIN]


def facts_of(meta: Mapping[str, Any]) -> Facts:
    """Names and components of the data of a run: as recorded, else as its prepared data or, where
    that is gone, the known compound classes have them."""
    data = meta["data"]
    names, units = tuple(data["class_names"]), tuple(data.get("au_names") or ())
    if "components" in data:
        pairs = data["components"]
        basics = tuple(data.get("basic_names") or ())
        return Facts(names, units, basics, pairs and tuple((a, b) for a, b in pairs))
    path = Path(data.get("cache") or "")
    if data.get("cache") and (path / "meta.json").is_file():
        bundle = cache.load(path)
        return Facts(names, units, bundle.basic_names, bundle.components)
    found = listing.components_of(names)
    return Facts(names, units, tables.BASIC_NAMES if found else (), found)


def source_of(run: Path, trial: str, weight: float = 1.0, temperature: float = 1.0) -> Source:
    """The trial as a member; of a trial that is one fold of several, all of them.

    Raises LookupError where the run has no such trial, ValueError where a fold is missing.
    """
    for own in folds_of(RunStore.open(run).records()).values():
        names = tuple(record.id for record in own)
        if trial in names:
            if len(names) > 1 and not is_whole(own):
                raise ValueError(
                    f"trial {trial} is one of {wanted_folds(own[0])} folds, of which "
                    f"{len(ended_folds(own))} are completed: their mean cannot be exported yet"
                )
            return Source(run, names, weight, temperature)
    raise LookupError(f"run '{run}' has no trial '{trial}'")


def config_of(source: Source) -> TrialConfig:
    """The settings of a member. Raises ValueError, saying why, where it has left no weights."""
    for name in source.trials:
        trial = RunStore.open(source.run).trial(name)
        if not (trial.path / WEIGHTS).is_file():
            result = trial.result()
            ended = f"was {result.status} after epoch {result.epoch}" if result else "has not ended"
            raise ValueError(
                f"trial {name} of '{source.run}' has no {WEIGHTS} on the disk: it {ended}, and "
                "only trials that ran to their end keep their weights"
            )
    return RunStore.open(source.run).trial(source.trials[0]).config()


def trained(source: Source, facts: Facts) -> list[nn.Module]:
    """The networks of a member, with their weights. Raises ValueError for what is no network."""
    return [_trained(RunStore.open(source.run).trial(name), facts) for name in source.trials]


def _trained(trial: TrialStore, facts: Facts) -> nn.Module:
    tensors, config = load_file(trial.path / WEIGHTS), trial.config()
    try:
        if config.features.name == "none":
            model = _bare(config, facts)
            model.load_state_dict(tensors)
        else:
            model = frozen.build(config, *facts.shape)
            assert isinstance(model, frozen.FrozenNetwork)
            frozen.load_fitted(model, tensors)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"the weights of trial {trial.id} do not fit it: {error}") from error
    except ValueError as error:
        raise ValueError(
            f"trial {trial.id} cannot be exported: {error}. The training code can still use it "
            "(trainables.features.trial)"
        ) from error
    return model.eval().requires_grad_(False)


def _bare(config: TrialConfig, facts: Facts) -> nn.Module:
    """The network of a configuration, with whatever weights."""
    config = replace(config, weights="none")  # its own come from the folder
    if config.features.name == "none":
        return build_model(config, *facts.shape)
    return frozen.build(config, *facts.shape)


def joined(models: Sequence[Sequence[nn.Module]], recipe: Recipe) -> Network:
    """The members as one network."""
    total = sum(source.weight for source in recipe.sources)
    return Network(
        [
            Member(m, s.temperature, recipe.is_flipped)
            for m, s in zip(models, recipe.sources, strict=True)
        ],
        [source.weight / total for source in recipe.sources],
        torch.tensor(recipe.coefficients) if recipe.coefficients else None,
        torch.tensor(recipe.shift) if recipe.shift else None,
    ).eval()


def rebuild(folder: str | Path) -> Network:
    """The exported network in PyTorch, from model.json and the files of weights alone."""
    folder = Path(folder)
    about = files.about(folder)
    names = [name for member in about["members"] for name in member["files"]]
    files.check(folder, files.MODEL, *names)
    pairs = about["components"]
    facts = Facts(
        tuple(about["class_names"]),
        tuple(about["au_vocabulary"]),
        tuple(about["basic_names"]),
        pairs and tuple((a, b) for a, b in pairs),
    )
    models, sources = [], []
    for member in about["members"]:
        config, folds = TrialConfig.from_flat(member["config"]), []
        for name in member["files"]:
            model = _bare(config, facts)
            model.load_state_dict(load_file(folder / name))
            folds.append(model.eval().requires_grad_(False))
        models.append(folds)
        sources.append(Source(folder, (), member["weight"], member["temperature"]))
    how = about["combination"]
    rows = tuple(map(tuple, how["coefficients"] or ()))
    shift, is_flipped = tuple(how["shift"] or ()), FLIP in how["views"]
    recipe = Recipe(about["kind"], "", tuple(sources), rows, shift, is_flipped)
    return joined(models, recipe)
