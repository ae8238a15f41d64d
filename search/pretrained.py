"""Pretrained weights, tried on every backbone of a space before the search starts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from spaces.space import Choice, Space, Value
from spaces.tiers import NEEDS_WEIGHTS
from trainables.config import NAMED_WEIGHTS, TrialConfig
from trainables.data.listing import several

DIVIDING = ("weights", "folds", "fold_seed")


def fit_to_weights(space: Space, weights: str, image_size: int) -> tuple[Space, list[str]]:
    """The space without the backbones that these weights do not fit, and a sentence for each.

    Raises ValueError when they fit none: nothing is ever left random in silence.
    """
    if weights == "none":
        space, notes = _without_random(space)
        if "backbone" not in space.settings:
            return space, notes
        space, more = _without_faces(space)
        return space, notes + more
    if "backbone" not in space.settings:
        return space, []
    fitted, refused = _try_all(networks_in(space), weights, image_size)
    if not fitted:
        raise ValueError(_refusal(space.name, weights, refused))
    notes = [f"{name}: {summary}" for name, summary in fitted.items()]
    notes += [f"{told} is left out, for want of weights: {why}" for told, why in _grouped(refused)]
    return space.without("backbone", tuple(refused)), notes


def _without_random(space: Space) -> tuple[Space, list[str]]:
    """The space without the features of networks that nobody has trained."""
    dim = space.settings.get("features")
    if not isinstance(dim, Choice) or "frozen" not in dim.options:
        return space, []  # a space of nothing else means it
    note = "features 'frozen': left out, being nothing without weights (--weights FILE)"
    return space.without("features", ("frozen",)), [note]


def _without_faces(space: Space) -> tuple[Space, list[str]]:
    """The space without the backbones that only their weights make worth a trial."""
    names = networks_in(space)
    bare = [name for name in names if name in NEEDS_WEIGHTS]
    if not bare or len(bare) == len(names):  # a space of nothing else means it
        return space, []
    note = f"{', '.join(bare)}: left out, being nothing without weights trained on faces"
    return space.without("backbone", tuple(bare)), [f"{note} (--weights FOLDER)"]


def networks_in(space: Space) -> list[str]:
    """The backbones that a space names."""
    dim = space.settings.get("backbone")
    if isinstance(dim, Choice):
        return [str(option) for option in dim.options]
    return [] if dim is None else [str(dim)]


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


def _refusal(space: str, weights: str, refused: Mapping[str, str]) -> str:
    """Why no backbone has weights: of a folder without a file of theirs, what it holds."""
    from trainables.weights import file_of

    folder = Path(weights)
    if not folder.is_dir() or any(file_of(weights, name).is_file() for name in refused):
        reasons = "; ".join(f"{names}: {why}" for names, why in _grouped(refused))
        return f"weights '{weights}' fit no backbone of space '{space}': {reasons}"
    held = several(sorted(path.name for path in folder.iterdir())) or "nothing"
    return (
        f"no weights for any backbone of space '{space}' in '{folder}', which holds {held}: name "
        f"a file itself, or call it BACKBONE.safetensors, with one of {', '.join(refused)}"
    )


def _grouped(refused: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each reason once, with the backbones that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        by_reason.setdefault(reason, []).append(name)
    return [(", ".join(names), reason) for reason, names in by_reason.items()]


def refuse_taught(flats: Iterable[Mapping[str, Value]], data_name: str) -> None:
    """Raise ValueError where a configuration begins with what was taught the images it scores."""
    from trainables.pretraining.leaks import refuse_leaks

    for flat in flats:
        refuse_leaks(TrialConfig.from_flat(flat), data_name)


def folded(space: Space, folds: int) -> Iterator[dict[str, Value]]:
    """The weights of every backbone on every fold, as configurations that say no more."""
    common = {n: v for n, v in space.settings.items() if n in DIVIDING and isinstance(v, Value)}
    for name, fold in product(networks_in(space), range(folds)):
        yield {**common, "backbone": name, "fold": fold}


def weights_path(text: str) -> str:
    """The path as every worker can open it. Raises FileNotFoundError where there is nothing."""
    path = Path(text).resolve()
    if not text or not path.exists():
        raise FileNotFoundError(
            f"no weights at '{text}'; give a file, a folder of <backbone>.safetensors, "
            "package, hub or none"
        )
    return str(path)


def weights_files(*weights: str | None) -> tuple[Path, ...]:
    """What every node must see of these sources, besides the run folder and the data."""
    paths = {name for name in weights if name is not None and name not in NAMED_WEIGHTS}
    return tuple(map(Path, sorted(paths)))
