"""What a curriculum drives, and the settings that are in force at a progress of the training.

The schedule gives a share in [0, 1] of a full value: of the data, or of one setting. In force is
the share times that value, and all else of a trial is made of the settings in force.
DRIVERS: (settings, share, strides of the backbone's maps) -> Pace.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from trainables.augment import MIXERS
from trainables.config import Part, TrialConfig
from trainables.losses import LOSSES, REBALANCE
from trainables.model import FERModel
from trainables.registry import Registry
from trainables.schedules import SCHEDULES

Strides = tuple[int, ...]


class Pace(NamedTuple):
    """What is in force."""

    settings: TrialConfig
    value: float | None = None  # of what is driven; None without a curriculum
    data: float = 1.0  # the share of the training images, from the easy end


DRIVERS: Registry[Callable[[TrialConfig, float, Strides], Pace]] = Registry("curriculum driver")


@DRIVERS.register
def data(config: TrialConfig, share: float, strides: Strides) -> Pace:
    """The easiest share of the images (Bengio et al. 2009, 10.1145/1553374.1553380)."""
    return Pace(config, share, data=share)


@DRIVERS.register
def sampler(config: TrialConfig, share: float, strides: Strides) -> Pace:
    """The exponent of the sampler: classes as they are first, levelled later (after Wang et al.
    2019, 1901.06783, whose curriculum of the sampling works likewise)."""
    return _grown(config, share, "rebalance", "exponent", REBALANCE)


@DRIVERS.register
def tau(config: TrialConfig, share: float, strides: Strides) -> Pace:
    """The strength of the logit adjustment."""
    return _grown(config, share, "loss", "tau", LOSSES)


@DRIVERS.register
def au_weight(config: TrialConfig, share: float, strides: Strides) -> Pace:
    """The weight lambda of the AU task."""
    weight = share * config.au_weight
    return Pace(replace(config, au_weight=weight), weight)


@DRIVERS.register
def mix(config: TrialConfig, share: float, strides: Strides) -> Pace:
    """The chance that a batch is mixed: clean images first."""
    return _grown(config, share, "mix", "probability", MIXERS)


@DRIVERS.register
def size(config: TrialConfig, share: float, strides: Strides) -> Pace:
    """The side of the training images: small and cheap first (Tan & Le 2021, 2104.00298).

    Down to a map of one pixel, in steps of the finest map's stride, which are patches in a vision
    transformer; scores are always of images at full size.
    """
    full, grain, least = config.image_size, min(strides), max(strides)
    side = full if share >= 1 else min(full, max(least, grain * round(share * full / grain)))
    return Pace(replace(config, image_size=side), side)


def pace(config: TrialConfig, progress: float, strides: Strides) -> Pace:
    """What is in force at a progress from 0 to 1."""
    drive = DRIVERS[config.curriculum_drives]
    if config.curriculum.name == "none":
        return Pace(config)
    schedule = SCHEDULES[config.curriculum.name](**config.curriculum.args)
    return drive(config, schedule(progress), strides)


def check_sizes(model: FERModel, config: TrialConfig) -> None:
    """Raise ValueError unless the network works at each size that it will be trained at."""
    strides = model.backbone.strides
    paces = (pace(config, epoch / config.epochs, strides) for epoch in range(config.epochs))
    was_training, images = model.training, model.backbone.mean
    model.eval()  # so that no batch statistic moves and no random number is drawn
    for side in sorted({found.settings.image_size for found in paces}):
        try:
            with torch.no_grad():
                model(images.new_zeros(1, 3, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error) or "it gives no reason"
            raise ValueError(
                f"curriculum_drives 'size' would train at {side} px, and with backbone "
                f"'{config.backbone.name}' that does not work: {reason}. Raise curriculum.start, "
                "or drive 'data'"
            ) from error
    model.train(was_training)


def _grown(
    config: TrialConfig, share: float, name: str, argument: str, registry: Registry[Any]
) -> Pace:
    """One argument of a part at a share of its value, which is its builder's where none is given.

    Raises ValueError for a part without that argument.
    """
    part: Part = getattr(config, name)
    known: dict[str, Any] = {**registry.arguments(part.name), **part.args}
    if argument not in known:
        raise ValueError(
            f"curriculum_drives '{config.curriculum_drives}' makes '{argument}' of {name} grow, "
            f"and '{part.name}' has none: take another {name}, or drive 'data'"
        )
    value = share * float(known[argument])
    grown: dict[str, Any] = {name: Part(part.name, {**part.args, argument: value})}
    return Pace(replace(config, **grown), value)
