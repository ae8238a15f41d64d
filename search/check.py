"""What is refused before the first trial: settings that no trial can be built from.

K classes, A action units. Torch and timm are imported only when something is built.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from search.options import MOST_EPOCHS
from spaces.space import Choice, Space, Value
from trainables.config import (
    Part,
    TrialConfig,
    drives_size,
)
from trainables.contradictions import check_config
from trainables.data.bundle import DataBundle
from trainables.registry import Registry, unknown

OF_BACKBONES = ("none", "frozen")  # features that a backbone gives
WIDTH = 64  # of the maps on which parts are tried
RANGES = {  # of the plain settings: the least, the most, and whether the least is itself too little
    "mix_off": (0, 1, False),
    "soft_labels": (0, 1, False),
    "au_weight": (0, 1000, False),
    "region_weight": (0, 1000, False),
    "epochs": (1, MOST_EPOCHS, False),
    "batch_size": (1, 65_536, False),
    "lr": (0, 1000, True),
    "head_lr_multiplier": (0, 10_000, True),
    "weight_decay": (0, 1000, False),
    "warmup_epochs": (0, MOST_EPOCHS, False),
    "ema": (0, 0.9999999, False),
    "clip": (0, 1e12, True),
    "sam": (0, 10, False),
    "dropout": (0, 0.99, False),
    "drop_path": (0, 0.99, False),
    "seed": (0, 2**40, False),
}
PROBLEMS = (  # what a part that cannot be built raises; timm asserts
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    OSError,
    RuntimeError,
)
Build = Callable[[Part], object]


def registries() -> dict[str, Registry[Any]]:
    """The plug-ins of each part but the backbone, which has timm's besides."""
    from trainables.attention import ATTENTIONS
    from trainables.augment import AUGMENTS, MIXERS
    from trainables.averages import AVERAGES
    from trainables.balance import BALANCES
    from trainables.basics import BASICS
    from trainables.features.plugins import CLASSIFIERS, EXTRACTORS, SYNTHESES
    from trainables.fusion import FUSIONS
    from trainables.heads import HEADS
    from trainables.local import LOCALS
    from trainables.losses import AU_LOSSES, LOSSES, REBALANCE
    from trainables.prototypes import PRIORS
    from trainables.reading import READINGS
    from trainables.schedules import SCHEDULES
    from trainables.synthetic import SYNTHETIC

    return {
        "attention": ATTENTIONS,
        "fusion": FUSIONS,
        "local": LOCALS,
        "head": HEADS,
        "loss": LOSSES,
        "rebalance": REBALANCE,
        "au_loss": AU_LOSSES,
        "au_balance": BALANCES,
        "au_prior": PRIORS,
        "au_reading": READINGS,
        "curriculum": SCHEDULES,
        "basics": BASICS,
        "augment": AUGMENTS,
        "mix": MIXERS,
        "average": AVERAGES,
        "features": EXTRACTORS,
        "classifier": CLASSIFIERS,
        "synthesis": SYNTHESES,
        "synthetic": SYNTHETIC,
    }


def check_conditions(space: Space) -> None:
    """Raise LookupError for a condition on a plug-in that does not exist: it would never hold."""
    known = registries()
    for name, dim in space.dimensions.items():
        needs = dim.needs.values() if isinstance(dim, Choice) else ()
        for other, values in chain(dim.when.items(), *(when.items() for when in needs)):
            for value in values:
                if other in known and value not in known[other]:
                    raise LookupError(
                        f"space '{space.name}', in the condition of '{name}': "
                        + unknown(other, str(value), known[other])
                    )


def check_space(space: Space) -> None:
    """Check every corner of the space as a configuration. Raises LookupError or ValueError."""
    for flat in corners(space):
        check_settings(flat)


def corners(space: Space) -> Iterator[dict[str, Value]]:
    yield space.defaults()
    yield from space.corners()


def check_settings(flat: Mapping[str, Value]) -> None:
    """Raise LookupError, TypeError or ValueError unless all settings are known and in range."""
    from trainables.backbones import check_backbone
    from trainables.metrics import OBJECTIVES
    from trainables.orders import ORDERS
    from trainables.pacing import DRIVERS

    config = TrialConfig.from_flat(flat)
    for name, (least, most, is_open) in RANGES.items():
        value = getattr(config, name)
        if not least <= value <= most or (is_open and value == least):  # NaN is not either
            wanted = f"above {least}" if is_open else f"{least} or more"
            told = f"{value:g}" if isinstance(value, float) else value
            raise ValueError(
                f"setting '{name}' cannot be {told}: it must be {wanted}, and {most} at most"
            )
    check_backbone(config.backbone.name, config.backbone.args)
    for name, registry in registries().items():
        part: Part = getattr(config, name)
        registry.check(part.name, part.args)
    for what, chosen, known in (
        ("curriculum driver", config.curriculum_drives, DRIVERS),
        ("curriculum order", config.curriculum_order, ORDERS),
        ("metric", config.metric, OBJECTIVES),
    ):
        if chosen not in known:
            raise LookupError(unknown(what, chosen, known))
    check_config(config)


def check_on_data(space: Space, bundle: DataBundle) -> None:
    """Build each part of every corner for this data, and each backbone at its image size.

    Raises ValueError saying which part it is and why it cannot be built.
    """
    check_parts(corners(space), bundle)


def check_parts(flats: Iterable[Mapping[str, Value]], bundle: DataBundle) -> None:
    """Build each part of the configurations for this data, every part once. Raises ValueError."""
    builds, seen = _builders(bundle), set[tuple[str, str]]()
    for flat in flats:
        config = TrialConfig.from_flat(flat)
        for kind, build in {**_of_images(config, bundle), **builds}.items():
            part: Part = getattr(config, kind)
            key = (kind, repr(part))
            if key not in seen:
                seen.add(key)
                _try(build, part, f"{kind} {shown(part)} at {config.image_size} px")


def _try(build: Build, part: Part, what: str) -> None:
    try:
        build(part)
    except PROBLEMS as error:
        raise ValueError(f"{what} cannot be used: {reason(error)}") from error


def shown(part: Part) -> str:
    arguments = ", ".join(f"{name} {value!r}" for name, value in part.args.items())
    return f"'{part.name}'" + (f" with {arguments}" if arguments else "")


def reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _of_images(config: TrialConfig, bundle: DataBundle) -> dict[str, Build]:
    """How what looks at the images is built: the network, or what else gives features."""
    from trainables.backbones import build_backbone
    from trainables.features.plugins import EXTRACTORS

    builds: dict[str, Build] = {
        "features": lambda p: EXTRACTORS[p.name](config, bundle, **p.args),
    }
    if config.features.name in OF_BACKBONES:
        size, drop_path, is_driven = config.image_size, config.drop_path, drives_size(config)
        builds["backbone"] = lambda p: build_backbone(p.name, size, drop_path, is_driven, **p.args)
    return builds


def _builders(bundle: DataBundle) -> dict[str, Build]:
    """How each part is built for this data, and called where that needs no network."""
    import numpy as np
    import torch

    from trainables.au_task import make_prior

    counts, known = bundle.class_counts(), (bundle.train.aus >= 0).sum(0)
    classes, units = len(bundle.class_names), len(bundle.au_names)
    of = registries()
    logits, targets = torch.zeros(1, classes), torch.eye(classes)[:1]
    unit_logits, positives = torch.zeros(1, units), (bundle.train.aus == 1).sum(0)
    emotions = (bundle.components, len(bundle.basic_names))
    compounds = (WIDTH, bundle.components, classes, len(bundle.basic_names))
    builds: dict[str, Build] = {
        "attention": lambda p: of["attention"][p.name](WIDTH, units, **p.args),
        "fusion": lambda p: of["fusion"][p.name]((WIDTH, WIDTH, WIDTH), **p.args),
        "local": lambda p: of["local"][p.name](0, **p.args),
        "head": lambda p: of["head"][p.name](*compounds, **p.args),
        "loss": lambda p: of["loss"][p.name](counts, **p.args)(logits, targets),
        "rebalance": lambda p: of["rebalance"][p.name](counts, **p.args).class_weights(0.5),
        "curriculum": lambda p: of["curriculum"][p.name](**p.args)(0.5),
        "au_balance": lambda p: of["au_balance"][p.name](**p.args),
        "au_prior": lambda p: make_prior(p, bundle),
        "au_reading": lambda p: of["au_reading"][p.name](units, classes, **p.args),
        "augment": lambda p: of["augment"][p.name](counts, bundle.au_names, **p.args),
        "mix": lambda p: of["mix"][p.name](counts, **p.args),
        "classifier": lambda p: of["classifier"][p.name](**p.args),
        "synthesis": lambda p: of["synthesis"][p.name](**p.args),
        "synthetic": lambda p: of["synthetic"][p.name](**p.args),
        "average": lambda p: of["average"][p.name](**p.args),
        "basics": lambda p: of["basics"][p.name](*emotions, np.random.default_rng(0), **p.args),
    }
    if units:
        builds["au_loss"] = lambda p: of["au_loss"][p.name](positives, known, **p.args)(
            unit_logits, unit_logits
        )
    return builds


def build(flat: Mapping[str, Value], bundle: DataBundle) -> None:
    """Build the whole network of a configuration, weights loaded; look at its generated images.

    Of a trial on features, what gives them and what is fitted on them. Raises one of PROBLEMS.
    """
    from trainables.features.plugins import CLASSIFIERS, EXTRACTORS
    from trainables.generation.synthetic_set import set_for
    from trainables.model import build_model

    config = TrialConfig.from_flat(flat)
    if config.synthetic.name == "generated":
        set_for(Path(config.synthetic_set), bundle)
    if config.features.name != "none":
        EXTRACTORS[config.features.name](config, bundle, **config.features.args)
        CLASSIFIERS[config.classifier.name](**config.classifier.args)
        return
    build_model(
        config,
        len(bundle.class_names),
        len(bundle.au_names),
        bundle.components,
        len(bundle.basic_names),
    )


def constants_of(space: Space, name: str) -> tuple[Value, ...]:
    """The values that a setting can take, where they can be counted; () where it is not set."""
    dim = space.settings.get(name)
    if isinstance(dim, Choice):
        return dim.options
    return () if dim is None or not isinstance(dim, Value) else (dim,)
