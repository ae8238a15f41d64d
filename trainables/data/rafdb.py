"""RAF-DB basic (7 classes) and compound (11): EmoLabel/list_patition_label.txt, Image/aligned.

Li, Deng, Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild", CVPR 2017. The train/test re-pack with class folders is folders.py's.
"""

from pathlib import Path

from trainables.data.listing import (
    RAF_DB_NAMES,
    Listing,
    Row,
    components_of,
    image_folder,
    is_synthetic,
    once,
    read_codes,
)
from trainables.data.tables import BASIC_NAMES

COMPOUND_NAMES = (
    "happily surprised",
    "happily disgusted",
    "sadly fearful",
    "sadly angry",
    "sadly surprised",
    "sadly disgusted",
    "fearfully angry",
    "fearfully surprised",
    "angrily surprised",
    "angrily disgusted",
    "disgustedly surprised",
)
_LABELS = ("list_patition_label.txt", "list_partition_label.txt")  # the first is its real name
_PARTS = ("", "basic", "compound")
_IMAGES = (("Image/aligned", "{}_aligned.jpg"), ("Image/original", "{}.jpg"))


def label_files(root: Path) -> list[Path]:
    """The label files of RAF-DB in a folder or in its parts basic and compound."""
    places = [root / part / "EmoLabel" / name for part in _PARTS for name in _LABELS]
    return [place for place in places if place.is_file()]


def is_here(root: Path) -> bool:
    return bool(label_files(root))


def read(root: Path) -> Listing:
    """RAF-DB as its authors distribute it; compound where a label is above 7 or the folder says so.

    Raises ValueError where the folder holds both parts, or no images.
    """
    files = label_files(root)
    if len(files) > 1:
        raise ValueError(
            f"'{root}' holds several label files: "
            + ", ".join(file.relative_to(root).as_posix() for file in files)
            + ". Name the folder of the part that you mean, basic or compound"
        )
    home = files[0].parent.parent
    folder, form = image_folder(home, _IMAGES, "labels")
    codes, problems = read_codes(files[0], [str(k) for k in range(1, 12)], "class")
    is_compound = home.name == "compound" or any(int(c) > 7 for cs in codes.values() for c in cs)
    names = COMPOUND_NAMES if is_compound else RAF_DB_NAMES
    odd = [name for name in codes if not name.startswith(("train_", "test_"))]
    problems += [f"{files[0].name}: '{name}' begins neither with train_ nor test_" for name in odd]
    rows, warnings = once(
        [
            Row(name, folder / form.format(Path(name).stem), int(code) - 1, name.split("_")[0])
            for name, found in codes.items()
            for code in found
            if name not in odd
        ]
    )
    return Listing(
        name="RAF-DB compound" if is_compound else "RAF-DB basic",
        layout="RAF-DB",
        rows=rows,
        class_names=names,
        basic_names=BASIC_NAMES if is_compound else (),
        components=components_of(names) if is_compound else None,
        is_synthetic=is_synthetic(root),
        notes=("RAF-DB carries no action units.",),
        warnings=warnings,
        problems=tuple(problems),
    )
