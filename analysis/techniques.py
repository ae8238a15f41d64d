"""What a technique is: a part with its arguments and all that depends on it, as far as two
configurations differ there; switched off it is what the other one has.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from trainables.config import Flat, Part, TrialConfig

PARTS = tuple(f.name for f in fields(TrialConfig) if isinstance(f.default, Part))
OPTIMISER = "optimiser settings"  # no technique: tuned in every run, switched off together
OPTIMISERS = (
    *("lr", "head_lr_multiplier", "weight_decay", "batch_size", "warmup_epochs", "ema", "clip"),
)
ONE_FOR_ALL = ("image_size", "epochs", "metric", "fold")  # of all that is compared
AU_TASK = "au_loss"  # without it there is no AU supervision at all
TIED = {"au_weight": AU_TASK, "region_weight": "attention"}  # setting -> the part that it needs
NEEDED_BY = {  # technique -> the settings that are nothing, or of another network, without it
    "backbone": ("weights",),
    "features": ("classifier", "synthesis"),
}
DRIVEN = {"au_weight": AU_TASK, "tau": "loss", "sampler": "rebalance", "mix": "mix"}  # by curricula


def group_of(setting: str) -> str:
    """The technique that a setting is part of."""
    base = setting.partition(".")[0]
    if base in PARTS:
        return base
    if base in OPTIMISERS:
        return OPTIMISER
    owners = [part for part in PARTS if base.startswith(f"{part}_")]  # attention_stage, mix_off
    return TIED.get(base) or max(owners, key=len, default=base)


def goes_with(technique: str, setting: str) -> bool:
    """Whether the setting is switched off with the technique: as its own, or as it needs it."""
    base = setting.partition(".")[0]
    needs_aus = base.startswith("au_") or base == "region_weight"
    return (
        group_of(setting) == technique
        or (technique == AU_TASK and needs_aus)
        or base in NEEDED_BY.get(technique, ())
    )


def techniques(winner: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """Where the two differ, in the order of the configuration, the optimiser last."""
    names = [n for n in {**baseline, **winner} if n not in (*ONE_FOR_ALL, "seed")]
    missing = object()
    found = [group_of(n) for n in names if winner.get(n, missing) != baseline.get(n, missing)]
    order = list(dict.fromkeys(found))
    return sorted(order, key=lambda technique: technique == OPTIMISER)


def without(winner: Flat, baseline: Flat, technique: str) -> Flat:
    """The winner with one technique as the baseline has it."""
    is_driven = DRIVEN.get(str(winner["curriculum_drives"])) == technique  # then it goes too

    def goes(name: str) -> bool:
        return goes_with(technique, name) or (is_driven and group_of(name) == "curriculum")

    kept = {n: v for n, v in winner.items() if not goes(n)}
    back = {n: v for n, v in baseline.items() if goes(n)}
    return unseeded(TrialConfig.from_flat({**kept, **back}).flat())


def unseeded(config: Mapping[str, Any]) -> Flat:
    return {n: v for n, v in config.items() if n != "seed"}


def told(config: Mapping[str, Any], technique: str, other: Mapping[str, Any]) -> str:
    """The technique's settings in words, as far as the other configuration has them otherwise."""
    own = {n: v for n, v in config.items() if group_of(n) == technique and n != "seed"}
    missing = object()
    shown = [
        f"{n.removeprefix(technique + '.')} {shown_value(v)}" if n != technique else shown_value(v)
        for n, v in own.items()
        if n == technique or other.get(n, missing) != v
    ]
    return ", ".join(shown) or "none"


def shown_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
