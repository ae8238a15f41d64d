"""Tiers: how large a search is. A space names families; the tier says which network each one is.

tiny   from scratch at 64 px, minutes on a laptop without a GPU; on embedded data by default
mid    fine-tuning at 224 px on one GPU a trial
large  fine-tuning at 224 px with bigger networks
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from spaces.space import Choice, Dimension, LogUniform, Space, Value, prune

BASELINE: dict[str, Value] = {  # the plan's starting point: one task, cross-entropy, nothing added
    "attention": "none",
    "fusion": "none",
    "local": "none",
    "head": "flat",
    "loss": "cross_entropy",
    "loss.smoothing": 0.0,
    "soft_labels": 0.0,
    "rebalance": "none",
    "au_loss": "none",
    "au_weight": 0.0,
    "curriculum": "none",
    "augment": "light",
    "mix": "none",
    "synthetic": "none",
    "basics": "none",
    "average": "ema",
    "sam": 0.0,
}


@dataclass(frozen=True)
class Tier:
    """Sizes of a search, and the network that stands for each family."""

    name: str
    image_size: int
    epochs: int
    trials: int
    first_rung: int  # epochs before a trial may be stopped: a third, which covers curricula
    backbones: Mapping[str, str]
    extra: tuple[str, ...] = ()  # networks beside the families
    settings: Mapping[str, Dimension | Value] = field(default_factory=dict)
    gpus: float = 1.0  # a trial of its networks, where there are any

    @property
    def networks(self) -> frozenset[str]:
        """All that its searches may have."""
        return frozenset({*self.backbones.values(), *self.extra})


# Families that are nothing without the weights their authors trained on faces, given by path.
FACE_FAMILIES = {
    "facenet": "inception_resnet_v1",
    "arcface": "iresnet50",
}
NEEDS_WEIGHTS = frozenset({*FACE_FAMILIES.values(), "hsemotion_b0", "hsemotion_b2"})

FINE_TUNING: dict[str, Dimension | Value] = {
    "lr": LogUniform(1e-5, 1e-3, 1e-4),
    "weight_decay": LogUniform(1e-3, 0.2, 0.05),
    "head_lr_multiplier": Choice((1.0, 5.0, 10.0, 20.0), 10.0),
    "batch_size": Choice((16, 32, 64), 32),
    "ema": Choice((0.99, 0.995, 0.998), 0.995),
    "warmup_epochs": 2.0,
}

TIERS = {
    "tiny": Tier(
        "tiny",
        image_size=64,
        epochs=9,
        trials=20,
        first_rung=3,
        backbones={
            "resnet": "test_resnet",
            "efficientnet": "test_efficientnet",
            "convnext": "test_convnext",
            "mobilenet": "mobilenetv3_small_050",
            "vit": "test_vit",
        },
        extra=("small_resnet",),
        gpus=0.25,  # these networks keep one busy for a tenth of the time
    ),
    "mid": Tier(
        "mid",
        image_size=224,
        epochs=30,
        trials=100,
        first_rung=10,
        backbones={
            "resnet": "resnet50.a1_in1k",
            "efficientnet": "tf_efficientnet_b2.ns_jft_in1k",
            "convnext": "convnextv2_nano.fcmae_ft_in22k_in1k",
            "mobilenet": "mobilenetv4_conv_medium.e500_r224_in1k",
            "vit": "vit_small_patch16_224.augreg_in21k_ft_in1k",
            "dinov2": "vit_small_patch14_dinov2.lvd142m",
            "tinyvit": "tiny_vit_5m_224.dist_in22k_ft_in1k",
            **FACE_FAMILIES,
            "hsemotion": "hsemotion_b0",
        },
        settings=FINE_TUNING,
    ),
    "large": Tier(
        "large",
        image_size=224,
        epochs=42,
        trials=100,
        first_rung=14,
        backbones={
            "resnet": "resnet50.a1_in1k",
            "efficientnet": "tf_efficientnetv2_s.in21k_ft_in1k",
            "convnext": "convnext_tiny.in12k_ft_in1k",
            "mobilenet": "mobilenetv4_conv_large.e500_r256_in1k",
            "vit": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
            "dinov2": "vit_base_patch14_dinov2.lvd142m",
            "tinyvit": "tiny_vit_21m_224.dist_in22k_ft_in1k",
            **FACE_FAMILIES,
            "hsemotion": "hsemotion_b2",
        },
        settings=FINE_TUNING,
    ),
}


FAMILIES = frozenset(family for tier in TIERS.values() for family in tier.backbones)


def at_tier(space: Space, tier: Tier) -> Space:
    """The space at a tier's size: families become networks, ranges and sizes are the tier's.

    A family that the tier has no network for is left out of a choice.
    Raises ValueError when nothing is left.
    """
    settings: dict[str, Dimension | Value] = {**space.settings}
    settings["image_size"], settings["epochs"] = tier.image_size, tier.epochs
    settings |= overruled(space, tier)
    if "backbone" in settings:
        settings["backbone"] = _networks(settings["backbone"], tier)
    sized = {name: _in_networks(value, tier) for name, value in settings.items()}
    return replace(space, settings=prune(sized))


def overruled(space: Space, tier: Tier) -> dict[str, Dimension | Value]:
    """What the tier says of settings of the space: they are of networks in training."""
    if not trains_networks(space):
        return {}
    return {name: dim for name, dim in tier.settings.items() if name in space.settings}


def trains_networks(space: Space) -> bool:
    """Whether any trial of the space trains a network, rather than a classifier on features."""
    features = space.settings.get("features", "none")
    return features.contains("none") if isinstance(features, Dimension) else features == "none"


def _networks(backbone: Dimension | Value, tier: Tier) -> Dimension | Value:
    """The families asked for as networks of the tier; a choice has the tier's extra ones too."""
    asked = backbone.options if isinstance(backbone, Choice) else (str(backbone),)
    held = [
        tier.backbones.get(str(o), o) for o in asked if o in tier.backbones or o not in FAMILIES
    ]
    if not held:
        raise ValueError(
            f"tier {tier.name} has no network for backbone {' or '.join(map(str, asked))}; it has: "
            f"{', '.join(tier.backbones)}. Take a larger --tier"
        )
    if not isinstance(backbone, Choice):
        return held[0]
    default = tier.backbones.get(str(backbone.default), backbone.default)
    options = (*held, *tier.extra)
    return replace(backbone, options=options, default=default if default in held else held[0])


def _in_networks(value: Dimension | Value, tier: Tier) -> Dimension | Value:
    """The dimension with conditions on families turned into conditions on networks."""
    if not isinstance(value, Dimension) or "backbone" not in value.when:
        return value
    networks = tuple(tier.backbones.get(str(f), f) for f in value.when["backbone"])
    return replace(value, when={**value.when, "backbone": networks})


def baseline(space: Space, tier: Tier) -> dict[str, Value]:
    """The plan's baseline at this tier: its ResNet, with the space's default optimiser settings.

    Where no network is trained, a linear head on the features that are the space's default.
    """
    plain = {n: v for n, v in space.defaults().items() if "." not in n and not _is_of_lacking(n)}
    if not trains_networks(space):
        args = {n: v for n, v in space.defaults().items() if n.startswith("features.")}
        return {**plain, **args, **BASELINE, "classifier": "linear", "synthesis": "none"}
    return {**plain, "backbone": tier.backbones["resnet"], **BASELINE}


def _is_of_lacking(name: str) -> bool:
    """Whether the setting is of a part that the baseline lacks."""
    others = ("region_weight", "attention_stage")
    return name.startswith(("au_", "curriculum_")) or name in others
