"""Settings of one trial that contradict each other. Light: no torch."""

from trainables.config import (
    AU_EXTRAS,
    LOSSES_THAT_REBALANCE,
    MOST_FOLDS,
    Part,
    TrialConfig,
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


def check_rebalancing(config: TrialConfig) -> None:
    """Raise ValueError when a trial asks for more than one imbalance correction."""
    if config.loss.name in LOSSES_THAT_REBALANCE and config.rebalance.name != "none":
        raise ValueError(
            f"loss '{config.loss.name}' already corrects the class imbalance, and so does "
            f"rebalance '{config.rebalance.name}': two corrections multiply. "
            "Set rebalance to 'none' or take loss 'cross_entropy' or 'focal'"
        )


LEARNED_BALANCES = ("uncertainty", "gradnorm")  # they set the weight of the AU task themselves


def check_au_settings(config: TrialConfig) -> None:
    """Raise ValueError for settings of AU supervision that contradict each other or the rest.

    They do without AU supervision, and where LDAM meets an addition.
    """
    if config.au_reading.name != "none" and config.loss.name == "ldam":
        raise ValueError(
            f"au_reading '{config.au_reading.name}' adds to the logits, and loss 'ldam' is defined "
            "on cosines: set au_reading to 'none' or take another loss"
        )
    if has_au_task(config):
        return
    for name, off in AU_EXTRAS.items():
        part: Part = getattr(config, name)
        if part.name != off:
            raise ValueError(
                f"{name} '{part.name}' needs AU supervision, and this trial has none: set au_loss "
                f"and an au_weight above 0, or {name} to '{off}'"
            )


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
    if drives == "data" and config.curriculum.args.get("start") == 0:
        raise ValueError(f"{said} from 0 on, which is no image: set curriculum.start above 0")
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


def check_synthetic(config: TrialConfig) -> None:
    """Raise ValueError for generated images without a set that they come from."""
    if config.synthetic.name == "generated" and config.synthetic_set == "none":
        raise ValueError(
            "synthetic 'generated' needs a set of generated images, and synthetic_set is 'none': "
            "give --synthetic FOLDER or, of given configurations, that setting (python -m "
            "trainables.generation makes one), or set synthetic to 'none' or 'repeated'"
        )


def check_folds(config: TrialConfig) -> None:
    """Raise ValueError unless the fold is one of the folds."""
    if not 1 <= config.folds <= MOST_FOLDS:
        raise ValueError(f"folds {config.folds}: give 1 (the data set's own split) to {MOST_FOLDS}")
    if not 0 <= config.fold < config.folds:
        raise ValueError(
            f"fold {config.fold} is not among {config.folds} folds, which are 0 to "
            f"{config.folds - 1}: set folds, or fold to 0"
        )
    if config.folds > 1 and config.synthetic.name == "generated":
        raise ValueError(
            "synthetic 'generated' has learned from images of every fold, so that none would be "
            "held out: set synthetic to 'none' or 'repeated', or folds to 1"
        )
