"""Before a search starts: the space fitted to the data, checked, sized, and its time estimated."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spaces.space import Choice, Space, Value
from spaces.tiers import TIERS, Tier, at_tier
from trainables.config import Part, TrialConfig, check_rebalancing
from trainables.data.bundle import DataBundle
from trainables.registry import Registry, unknown

AU_ATTENTION = ("au_spatial", "au_cross")
COMPOUND_HEADS = ("additive", "additive_residual")


def fit_to_data(space: Space, bundle: DataBundle) -> tuple[Space, list[str]]:
    """The space without what this data cannot feed, and a sentence for each thing left out."""
    notes = []
    if not bundle.au_names:
        space = space.without("attention", AU_ATTENTION)
        if "au_loss" in space.settings:
            space = space.fixed({"au_loss": "none"})
        notes.append("the data has no AU labels: AU loss and AU-guided attention are off")
    if bundle.components is None:
        space = space.without("head", COMPOUND_HEADS)
        notes.append("the classes are not compounds of basic emotions: additive heads are off")
    return space, notes


def with_constants(space: Space, constants: Mapping[str, Value]) -> Space:
    """The space with the command line's constants, which do not overrule a space that says more."""
    return Space(space.name, {**constants, **space.settings})


def check_space(space: Space) -> None:
    """Build every corner of the space as a configuration. Raises LookupError or ValueError."""
    for flat in (space.defaults(), *space.corners()):
        check_settings(flat)


def check_settings(flat: Mapping[str, Value]) -> None:
    """Raise LookupError, TypeError or ValueError unless a trial can be built from the settings."""
    from trainables.attention import ATTENTIONS
    from trainables.augment import AUGMENTS, MIXERS
    from trainables.backbones import check_backbone
    from trainables.fusion import FUSIONS
    from trainables.heads import HEADS
    from trainables.losses import AU_LOSSES, LOSSES, REBALANCE
    from trainables.schedules import ORDERS, SCHEDULES

    config = TrialConfig.from_flat(flat)
    registries: dict[str, Registry[Any]] = {
        "attention": ATTENTIONS,
        "fusion": FUSIONS,
        "head": HEADS,
        "loss": LOSSES,
        "rebalance": REBALANCE,
        "au_loss": AU_LOSSES,
        "curriculum": SCHEDULES,
        "augment": AUGMENTS,
        "mix": MIXERS,
    }
    check_backbone(config.backbone.name, config.backbone.args)
    for name, registry in registries.items():
        part: Part = getattr(config, name)
        registry.check(part.name, part.args)
    if config.curriculum_order not in ORDERS:
        raise LookupError(unknown("curriculum order", config.curriculum_order, ORDERS))
    check_rebalancing(config)


@dataclass(frozen=True)
class Sizes:
    """What the command line may override of a tier."""

    tier: Tier
    image_size: int
    epochs: int
    trials: int
    first_rung: int

    def space(self, space: Space) -> Space:
        sized = at_tier(space, self.tier)
        return sized.fixed({"image_size": self.image_size, "epochs": self.epochs})


def choose_sizes(
    tier: str | None,
    source: str,
    gpus: int,
    image_size: int | None,
    epochs: int | None,
    trials: int | None,
) -> Sizes:  # six: one a flag
    """The tier asked for, or tiny on embedded data and on machines without a GPU, mid elsewhere."""
    name = tier or ("tiny" if gpus == 0 or source.startswith("faces") else "mid")
    if name not in TIERS:
        raise LookupError(unknown("tier", name, TIERS))
    chosen = TIERS[name]
    length = epochs or chosen.epochs
    scaled = max(1, round(chosen.first_rung * length / chosen.epochs))
    for flag, value, low in (
        ("--image-size", image_size, 32),
        ("--epochs", epochs, 1),
        ("--trials", trials, 1),
    ):
        if value is not None and value < low:
            raise ValueError(f"{flag} {value} is too small: give {low} or more")
    return Sizes(chosen, image_size or chosen.image_size, length, trials or chosen.trials, scaled)


def combinations(space: Space) -> int:
    """How many different choices of parts there are, ranges not counted."""
    return math.prod(
        len(d.options) for n, d in space.dimensions.items() if isinstance(d, Choice) and not d.when
    )


def space_table(space: Space) -> Table:
    """Every setting with its values, its default and when it applies."""
    table = Table("setting", "values", "default", "only when", title=f"space {space.name}")
    for name, dim in space.settings.items():
        if isinstance(dim, (str, int, float, bool)):
            table.add_row(name, str(dim), "", "")
            continue
        values = (
            ", ".join(map(str, dim.options))
            if isinstance(dim, Choice)
            else f"{dim.low:g} … {dim.high:g}"
        )
        scale = " (log)" if type(dim).__name__ == "LogUniform" or getattr(dim, "log", False) else ""
        when = "; ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in dim.when.items())
        table.add_row(
            name,
            values + scale,
            f"{dim.default:g}" if isinstance(dim.default, float) else str(dim.default),
            when,
        )
    return table


def measure_epoch(flat: Mapping[str, Value], data: Path, steps: int = 4) -> float:
    """Seconds an epoch of this configuration takes on one worker, from a few measured steps."""
    import torch

    from trainables.data import cache
    from trainables.trial import Training

    torch.set_num_threads(1)
    training = Training(TrialConfig.from_flat(flat), cache.load(data))
    images = len(training.bundle.train)
    training.train_on(min(images, training.config.batch_size))  # warm up: allocators, kernels
    started = time.perf_counter()
    trained = training.train_on(min(images, steps * training.config.batch_size))
    step = (time.perf_counter() - started) / trained
    validation = len(training.bundle.val) / 3  # a forward pass costs about a third of a step
    return step * (images + validation)


def describe_plan(
    console: Console,
    space: Space,
    sizes: Sizes,
    rungs: list[int],
    epoch_seconds: float,
    epochs: float,
    workers: int,
) -> None:
    """Print the plan of trials and rungs with the time it will take."""
    seconds = epoch_seconds * epochs / workers
    console.print(space_table(space))
    console.print(
        f"{len(space.dimensions)} dimensions; {combinations(space):,} combinations of parts, "
        f"each with its continuous arguments\n"
        f"{sizes.trials} trials of up to {sizes.epochs} epochs at {sizes.image_size} px, "
        f"judged after epochs {', '.join(map(str, rungs)) or 'none'}; "
        f"about {epochs:.0f} epochs in all\n"
        f"one epoch of the default configuration: {epoch_seconds:.1f} s on one of {workers} "
        f"workers (measured); about {seconds / 60:.1f} minutes in all. Nothing was started."
    )
