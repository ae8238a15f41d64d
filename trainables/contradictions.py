"""Settings of one trial that contradict each other. Light: no torch."""

from trainables.config import (
    LEARNED_BALANCES,
    Part,
    TrialConfig,
    check_au_settings,
    check_folds,
    check_rebalancing,
    check_synthetic,
    has_au_task,
)
from trainables.features.settings import check_features


def check_config(config: TrialConfig) -> None:
    """Raise ValueError for settings that contradict each other."""
    check_rebalancing(config)
    check_au_settings(config)
    check_curriculum(config)
    check_features(config)
    check_synthetic(config)
    check_folds(config)


NEEDED_BY_DRIVER = {  # curriculum_drives -> the setting it grows, and which values of it can grow
    "sampler": ("rebalance", ("sampler",)),
    "tau": ("loss", ("balanced_softmax",)),
    "mix": ("mix", None),  # any but none
}


def check_curriculum(config: TrialConfig) -> None:
    """Raise ValueError for a curriculum that drives what is not there, or sets what it ignores."""
    drives = config.curriculum_drives
    if config.curriculum.name == "none":
        return
    said = f"curriculum '{config.curriculum.name}' drives '{drives}'"
    if drives in NEEDED_BY_DRIVER:
        name, allowed = NEEDED_BY_DRIVER[drives]
        found: Part = getattr(config, name)
        if found.name == "none" or (allowed and found.name not in allowed):
            wanted = " or ".join(f"'{n}'" for n in allowed or ()) or "a mixing rule"
            raise ValueError(
                f"{said}, which needs {name} {wanted}, not '{found.name}': set {name}, or "
                "curriculum_drives to 'data'"
            )
    if drives == "au_weight":
        _check_driven_lambda(config, said)
    if drives != "data" and (config.curriculum_order, config.curriculum_reversed) != (
        TrialConfig.curriculum_order,
        TrialConfig.curriculum_reversed,
    ):
        raise ValueError(
            f"{said}, and an order of the images is for 'data' only: leave curriculum_order and "
            "curriculum_reversed as they are by default"
        )


def _check_driven_lambda(config: TrialConfig, said: str) -> None:
    if not has_au_task(config):
        raise ValueError(
            f"{said}, which needs AU supervision, and this trial has none: set au_loss and an "
            "au_weight above 0, or curriculum_drives to 'data'"
        )
    if config.au_balance.name in LEARNED_BALANCES:
        raise ValueError(
            f"{said}, and au_balance '{config.au_balance.name}' learns that weight: set "
            "curriculum_drives to 'data', or au_balance to 'fixed' or 'pcgrad'"
        )
