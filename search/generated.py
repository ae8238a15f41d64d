"""The set of generated images that a search may train on, tried before it starts."""

from dataclasses import replace
from pathlib import Path

from search.check import constants_of
from spaces.space import Space
from trainables.data.bundle import DataBundle

SETTING, NAME = "synthetic", "generated"


def set_path(text: str) -> str:
    """The folder as every worker can open it. Raises OSError or ValueError where no set is."""
    from trainables.generation.synthetic_set import read_set

    read_set(Path(text))
    return str(Path(text).resolve())


def set_folders(folder: str | None) -> tuple[Path, ...]:
    """What every node must see for `--synthetic`, besides the run folder and the data."""
    return () if folder is None else (Path(folder),)


def name_set(space: Space, folder: str | None) -> tuple[Space, list[str]]:
    """The space with the folder that its generated images come from, or without such images; a
    sentence where something changes. Raises ValueError for a space that insists on them."""
    if NAME not in constants_of(space, SETTING):
        unused = f"--synthetic {folder} is not used: space '{space.name}' generates no images"
        return space, [unused] if folder else []
    if folder is not None:
        return replace(space, settings={**space.settings, "synthetic_set": folder}), []
    if constants_of(space, SETTING) == (NAME,):
        raise ValueError(
            f"space '{space.name}' trains on generated images: give --synthetic FOLDER "
            "(python -m trainables.generation makes one)"
        )
    note = "generated images are left out, for want of a set of them (--synthetic FOLDER)"
    return space.without(SETTING, (NAME,)), [note]


def check_set(space: Space, bundle: DataBundle) -> list[str]:
    """A sentence on the set of a space that has one. Raises ValueError or OSError unless it was
    made from the training images of this data, and from no others."""
    from trainables.generation.synthetic_set import set_for

    if NAME not in constants_of(space, SETTING):
        return []
    folder = str(space.settings["synthetic_set"])
    made = set_for(Path(folder), bundle)
    shown = bundle.class_counts().astype(bool)
    missing = [n for k, n in enumerate(bundle.class_names) if shown[k] and k not in made.labels]
    if missing:
        raise ValueError(f"the synthetic set at '{folder}' has no image of {', '.join(missing)}")
    return [f"generated images: {len(made)} from {folder}, made from these training images alone"]
