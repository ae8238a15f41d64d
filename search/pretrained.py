"""Pretrained weights, tried on every backbone of a space before the search starts."""

from collections.abc import Sequence

from spaces.space import Choice, Space


def fit_to_weights(space: Space, weights: str, image_size: int) -> tuple[Space, list[str]]:
    """The space without the backbones that these weights do not fit, and a sentence for each.

    Raises ValueError when they fit none: nothing is ever left random in silence.
    """
    if weights == "none" or "backbone" not in space.settings:
        return space, []
    fitted, refused = _try_all(_names(space), weights, image_size)
    if not fitted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ValueError(f"weights '{weights}' fit no backbone of space '{space.name}': {reasons}")
    notes = [f"{name}: {summary}" for name, summary in fitted.items()]
    notes += [f"{name} is left out, for want of weights: {why}" for name, why in refused.items()]
    return space.without("backbone", tuple(refused)), notes


def _names(space: Space) -> Sequence[str]:
    dim = space.settings["backbone"]
    return [str(o) for o in dim.options] if isinstance(dim, Choice) else [str(dim)]


def _try_all(
    names: Sequence[str], weights: str, image_size: int
) -> tuple[dict[str, str], dict[str, str]]:
    """What matched for each backbone that the weights fit, and why not for each other."""
    from trainables.backbones import build_backbone
    from trainables.weights import load_weights

    fitted, refused = {}, {}
    for name in names:
        try:
            fitted[name] = load_weights(build_backbone(name, image_size), name, weights).summary()
        except (LookupError, ValueError, OSError) as error:
            refused[name] = str(error)
    return fitted, refused
