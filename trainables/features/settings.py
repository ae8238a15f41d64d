"""Which settings go with features, and with which classifier. No torch."""

from trainables.config import AU_EXTRAS, LOSSES_THAT_REBALANCE, Part, TrialConfig

OF_NETWORKS = {  # parts that only a network in training has, and their names when off
    "attention": "none",
    "fusion": "none",
    "local": "none",
    "curriculum": "none",
    "basics": "none",
    "mix": "none",
    "average": "ema",
    "synthetic": "none",
    **AU_EXTRAS,
}
OF_FEATURES = ("classifier", "synthesis")  # parts that only a trial on features has
HEADED = ("linear", "crt")  # classifiers that train the configured head; others have their own
DESCENDING = (*HEADED, "tau_norm", "lws")  # those that train by the configured loss
BALANCING = ("crt", "tau_norm", "lws")  # those that correct the class imbalance by themselves
SOFT = (*DESCENDING, "prototypes")  # those that know soft targets


def check_features(config: TrialConfig) -> None:
    """Raise ValueError for settings of features that contradict each other or the rest.

    What a trial on features has no use for, and is on in the defaults, is not looked at: augment
    (both views stand in for it), ema, clip and the like.
    """
    on = config.features.name != "none"
    if not on:
        _refuse(config, dict.fromkeys(OF_FEATURES, "none"), "works on features, which are 'none'")
        return
    of = f"features '{config.features.name}' are fixed"
    if config.classifier.name == "none":
        raise ValueError(f"{of} and need a classifier: set one, or features to 'none'")
    _refuse(config, OF_NETWORKS, f"is of a network in training, and {of}")
    name = config.classifier.name
    own = f"is not what classifier '{name}' is trained by"
    if name not in HEADED:
        _refuse(config, {"head": "flat"}, f"is not for classifier '{name}', which has its own")
    if name not in DESCENDING:
        _refuse(config, {"loss": "cross_entropy"}, own)
    if name not in SOFT and config.soft_labels:
        raise ValueError(f"classifier '{name}' knows no soft labels: set soft_labels to 0")
    if name != "linear":
        _refuse(config, {"rebalance": "none"}, own)
    if name in BALANCING and config.loss.name in LOSSES_THAT_REBALANCE:
        raise ValueError(
            f"loss '{config.loss.name}' corrects the class imbalance, and so does classifier "
            f"'{name}': two corrections multiply. Take loss 'cross_entropy' or 'focal'"
        )


def _refuse(config: TrialConfig, off: dict[str, str], why: str) -> None:
    """Raise ValueError for the first of these parts that is not off."""
    for name, plain in off.items():
        part: Part = getattr(config, name)
        if part.name != plain:
            raise ValueError(f"{name} '{part.name}' {why}: set {name} to '{plain}'")
