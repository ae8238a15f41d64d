"""The settings of one trial: frozen, flat on disk, known by the hash of its content."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from trainables.registry import unknown

Value = str | int | float | bool
Flat = dict[str, Value]


REPEATED = ("seed", "folds", "fold", "fold_seed")  # how a configuration is tried, not what it is
MOST_FOLDS = 20
NAMED_WEIGHTS = ("none", "package", "hub")  # of `weights`: all else is a path


@dataclass(frozen=True)
class Part:
    """A plug-in by name, with its hyper-parameters."""

    name: str = "none"
    args: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialConfig:
    """Every setting of a trial, seed and fold included; parts first, then plain values."""

    backbone: Part = Part("resnet10t")
    attention: Part = Part()
    fusion: Part = Part()
    local: Part = Part()
    head: Part = Part("flat")
    loss: Part = Part("cross_entropy")
    rebalance: Part = Part()
    au_loss: Part = Part()
    au_balance: Part = Part("fixed")  # of the emotion and the AU task
    au_prior: Part = Part()  # from the AU prototypes of the classes
    au_reading: Part = Part()  # how emotion logits read the AU probabilities
    curriculum: Part = Part()  # a schedule, of what `curriculum_drives` names
    basics: Part = Part()  # whether basic emotions are learned before their compounds
    augment: Part = Part("light")
    mix: Part = Part()
    features: Part = Part()  # of a frozen extractor, on which a classifier is fitted
    classifier: Part = Part()  # what is fitted on features
    synthesis: Part = Part()  # of feature vectors for classes of few images
    synthetic: Part = Part()  # what is added to the training images
    average: Part = Part("ema")  # of the weights over the training: what is scored

    weights: str = "none"  # none, package, hub, or the path of a file
    synthetic_set: str = "none"  # the folder of generated images, or none
    attention_stage: str = "last"  # which feature map it works on: middle or last
    curriculum_drives: str = "data"
    curriculum_order: str = "class_count"  # of the images, where it drives the data
    curriculum_reversed: bool = False  # hard images first
    metric: str = "macro_f1"  # of metrics.OBJECTIVES: what its score is
    mix_off: float = 0.0  # share of the training, its last, that is without mixing
    soft_labels: float = 0.0  # share of the target that crowd votes make; the rest is one-hot
    au_weight: float = 0.0  # lambda in L = L_emotion + lambda L_AU
    region_weight: float = 0.0  # of the loss that draws AU attention to the AU's region
    image_size: int = 64
    epochs: int = 12
    batch_size: int = 32
    lr: float = 1e-3
    head_lr_multiplier: float = 1.0
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    ema: float = 0.98
    clip: float = 2.0
    sam: float = 0.0  # rho, how far sharpness-aware minimisation climbs before it looks; 0: not
    dropout: float = 0.0
    drop_path: float = 0.0
    seed: int = 0
    folds: int = 1  # of training and validation images together; 1: the split of the data set
    fold: int = 0  # that validates, 0 to folds - 1
    fold_seed: int = 0  # another one deals other folds

    @classmethod
    def from_flat(cls, flat: Mapping[str, Value]) -> "TrialConfig":
        """Read {"loss": "focal", "loss.gamma": 2.0, "lr": 1e-3, ...}.

        Raises LookupError for an unknown setting, TypeError for a value of the wrong type.
        """
        types = _types()
        values: dict[str, Any] = {}
        for name, value in flat.items():
            part, dot, argument = name.partition(".")
            if part not in types or (dot and types[part] is not Part):
                raise LookupError(unknown("setting", name, types))
            if dot and part not in flat:
                raise LookupError(f"'{name}' is an argument of '{part}', which is not set")
            if not dot:
                values[name] = (
                    Part(str(value)) if types[name] is Part else _typed(name, value, types)
                )
        for name in [n for n in flat if "." in n]:
            part, _, argument = name.partition(".")
            values[part] = Part(values[part].name, {**values[part].args, argument: flat[name]})
        return cls(**values)

    def flat(self) -> Flat:
        """The flat form, defaults included; `from_flat` reads it back."""
        out: Flat = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Part):
                out[f.name] = value.name
                out |= {f"{f.name}.{k}": v for k, v in sorted(value.args.items())}
            else:
                out[f.name] = value
        return out

    @property
    def trial_id(self) -> str:
        """Ten hex digits of all settings: equal settings, equal folder."""
        return _digest(self.flat())

    @property
    def group_id(self) -> str:
        """The same without REPEATED: trials of one group are repeats of one configuration."""
        return group_of(self.flat())


def group_of(flat: Mapping[str, Value], but: tuple[str, ...] = REPEATED) -> str:
    """Ten hex digits of all settings but some; of a record too whose settings are of another
    version, and can no longer be read."""
    return _digest({name: value for name, value in flat.items() if name not in but})


@cache
def _types() -> dict[str, type]:
    """The type of each setting."""
    return {f.name: type(f.default) for f in fields(TrialConfig)}


CURRICULUM_FULL_AT, DEFERRED_START, BASICS_SHARE = 0.5, 0.7, 0.1  # of the builders of those names

# Each of these changes how much a class weighs; two at once multiply (methods 2.4 and 5.2).
LOSSES_THAT_REBALANCE = ("class_balanced", "balanced_softmax", "ldam")

AU_EXTRAS = {  # parts of AU supervision, and their names when off
    "au_balance": "fixed",
    "au_prior": "none",
    "au_reading": "none",
}

SHORTCUTS = {  # (part, name): what a network can learn there in place of the expression
    ("augment", "minority_only"): "only pictures of rare classes are distorted strongly, so that "
    "the distortion itself tells the class: a control, not a technique",
    ("synthetic.classes", "tail"): "only rare classes have generated images, so that whatever "
    "gives these away tells the class: 'all' is the honest choice",
}


def has_au_task(config: TrialConfig) -> bool:
    """Whether AUs are supervised: there is a loss on them, and it weighs something."""
    return config.au_weight > 0 and config.au_loss.name != "none"


def drives_data(config: TrialConfig) -> bool:
    """Whether images are withheld at first."""
    return config.curriculum.name != "none" and config.curriculum_drives == "data"


def drives_size(config: TrialConfig) -> bool:
    """Whether training images are smaller at first."""
    return config.curriculum.name != "none" and config.curriculum_drives == "size"


def pacing_horizon(config: TrialConfig) -> int:
    """The epoch until which a trial is behind by design: before it, its score says little.

    Ends of the curriculum (whatever it drives), of the warm-up and of the wait for deferred
    re-weighting; one epoch of real compounds where basic emotions come first. Not the start of
    stochastic weight averaging: until then the trial is scored by its exponential average.
    """
    shares = [0.0]
    if config.curriculum.name != "none":
        shares.append(float(config.curriculum.args.get("full_at", CURRICULUM_FULL_AT)))
    if config.rebalance.name == "deferred":
        shares.append(float(config.rebalance.args.get("start", DEFERRED_START)))
    epochs = [config.warmup_epochs, max(shares) * config.epochs]
    if config.basics.name != "none":
        epochs.append(basics_ends(config.basics, config.epochs)[1] + 1)
    return min(config.epochs, math.ceil(max(epochs) - 1e-9))


def basics_ends(basics: Part, epochs: int) -> tuple[int, int]:
    """The epochs that have passed when basic emotions, and then virtual compounds, are done.

    A stage asked for has one epoch at least, however short the training, if the classes have one.
    """
    stages = {"two_stage": ("first",), "three_stage": ("first", "second")}.get(basics.name, ())
    ends, share = [0], 0.0
    for left, name in zip(range(len(stages), 0, -1), stages, strict=True):
        own = float(basics.args.get(name, BASICS_SHARE))
        share += own
        whole = max(math.ceil(share * epochs - 1e-9), ends[-1] + (own > 0))
        ends.append(max(ends[-1], min(whole, epochs - left)))
    return ends[min(1, len(stages))], ends[-1]


def _typed(name: str, value: Value, types: Mapping[str, type]) -> Value:
    wanted = types[name]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise TypeError(f"setting '{name}' wants {wanted.__name__}, not {value!r}")
    return value


def _digest(flat: Mapping[str, Value]) -> str:
    text = json.dumps(flat, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
