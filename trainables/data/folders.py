"""Class folders: DIR/<class>/*, DIR/{train,val,test}/<class>/*, and the RAF-DB re-pack of that.

And folders of images without labels, as pretraining takes them.
"""

import os
from pathlib import Path

from trainables.data.images import EXTENSIONS, is_image_name
from trainables.data.listing import (
    RAF_DB_NAMES,
    Listing,
    Row,
    components_of,
    is_synthetic,
    natural,
    several,
)
from trainables.data.tables import BASIC_NAMES

LAYOUT = "class folders"
_SPLIT_OF = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_LITTER = {"thumbs.db", "desktop.ini"}  # what file managers leave behind


def base_of(root: Path) -> Path | None:
    """The folder that holds class or split folders: `root`, or the DATASET folder in it."""
    for base in (root, root / "DATASET"):
        if _split_folders(base) or any(_has_image(folder) for folder in _folders(base)):
            return base
    return None


def read(root: Path) -> Listing:
    """The images of class folders; RAF-DB names where the classes are named 1 to 7."""
    base = base_of(root) or root
    splits = _split_folders(base)
    parents: list[tuple[str | None, Path]] = [*splits] or [(None, base)]
    found = [(split, folder) for split, parent in parents for folder in _folders(parent)]
    files = [_files(folder) for _, folder in found]
    every = sorted({folder.name for _, folder in found}, key=natural)
    held = {folder.name for (_, folder), names in zip(found, files, strict=True) if names}
    empty = sorted(set(every) - held)
    is_raf_db = every == [str(k) for k in range(1, 8)]
    folder_names = every if is_raf_db else [name for name in every if name not in empty]
    problems = [p for _, folder in found for p in _nested(folder, base)]
    if splits:
        problems += _beside(base, [parent for _, parent in splits])
    label_of = {name: label for label, name in enumerate(folder_names)}
    rows = [
        Row(f"{place}/{name}", folder / name, label_of[folder.name], split)
        for (split, folder), names in zip(found, files, strict=True)
        for place in [folder.relative_to(base).as_posix()]
        for name in names
    ]
    names = RAF_DB_NAMES if is_raf_db else tuple(folder_names)
    components = components_of(names)
    return Listing(
        name=root.resolve().name,
        layout=LAYOUT + (" in split folders" if splits else ""),
        rows=tuple(rows),
        class_names=names,
        basic_names=BASIC_NAMES if components else (),
        components=components,
        is_synthetic=is_synthetic(root) or is_synthetic(base),
        notes=("Class folders carry no action units.",),
        warnings=(f"class folders without an image: {several(empty)}",) if empty else (),
        problems=tuple(problems),
    )


def unlabelled(root: Path) -> Listing:
    """All images at or below a folder, hidden ones left out; of one class, "unlabelled".

    Raises ValueError where there is no folder, or no image in it.
    """
    if not root.is_dir():
        raise ValueError(f"no images at '{root}': no such folder")
    paths = sorted(p for p in root.rglob("*") if is_image_name(p) and not _is_hidden(p, root))
    if not paths:
        raise ValueError(
            f"'{root}' holds no image, nor do the folders in it; known: "
            f"{', '.join(sorted(EXTENSIONS))}"
        )
    rows = tuple(Row(path.relative_to(root).as_posix(), path, 0, "train") for path in paths)
    name, layout, is_drawn = root.resolve().name, "unlabelled images", is_synthetic(root)
    return Listing(name, layout, rows, ("unlabelled",), is_synthetic=is_drawn)


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _folders(base: Path) -> list[Path]:
    if not base.is_dir():
        return []
    with os.scandir(base) as found:  # which asks the system for no more than the names
        names = [each.name for each in found if each.is_dir() and not each.name.startswith(".")]
    return [base / name for name in sorted(names)]


def _split_folders(base: Path) -> list[tuple[str, Path]]:
    """(split, folder) pairs, if these names are splits and not classes."""
    found = [(_SPLIT_OF[p.name.lower()], p) for p in _folders(base) if p.name.lower() in _SPLIT_OF]
    return found if any(_folders(parent) for _, parent in found) else []


def _files(folder: Path) -> list[str]:
    """All files a class folder holds: one that is no image is for the decoder to complain of."""
    with os.scandir(folder) as found:
        names = [each.name for each in found if not each.is_dir()]
    return sorted(n for n in names if not n.startswith(".") and n.lower() not in _LITTER)


def _has_image(folder: Path) -> bool:
    return any(is_image_name(p) for p in folder.iterdir() if p.is_file())


def _nested(folder: Path, base: Path) -> list[str]:
    """Images too deep to be read, which must not vanish in silence."""
    return [
        f"'{deep.relative_to(base).as_posix()}' lies a level too deep: move its files up, into the "
        "class folder"
        for deep in _folders(folder)
        if _has_image(deep)
    ]


def _beside(base: Path, parents: list[Path]) -> list[str]:
    """Class folders that stand beside split folders."""
    return [
        f"'{folder.name}' stands beside the split folders {several([p.name for p in parents])} and "
        "holds images: move it into one of them, or away"
        for folder in _folders(base)
        if folder not in parents and _has_image(folder)
    ]
