"""RAF-CE: RAFCE_{emolabel,partition,AUlabel}.txt, distribution.txt, aligned images.

Li, Deng, Li, Li, "Compound Expression Recognition In-the-Wild With AU-Assisted Meta Multi-Task
Learning", CVPRW 2023. K = 14 classes; votes are over 6 basic emotions.
"""

from collections import Counter
from collections.abc import Container
from pathlib import Path

from trainables.data.listing import (
    Listing,
    Row,
    image_folder,
    is_synthetic,
    once,
    read_codes,
    read_pairs,
    several,
)
from trainables.data.tables import BASIC_NAMES, CLASS_NAMES, CLASS_PAIRS

EMOTIONS, PARTITION = "RAFCE_emolabel.txt", "RAFCE_partition.txt"
AUS, VOTES = "RAFCE_AUlabel.txt", "distribution.txt"
SPLIT_OF = {"0": "train", "1": "test", "2": "val"}  # not a slip: 1 is test, 2 is val
_IMAGES = (  # the first of these folders that exists holds all images
    ("aligned", "{}_aligned.jpg"),
    ("RAF-AU/aligned", "{}_aligned.jpg"),
    ("original", "{}.jpg"),
    ("RAF-AU/original", "{}.jpg"),
)


def is_here(root: Path) -> bool:
    return (root / EMOTIONS).is_file()


def read(root: Path) -> Listing:
    """RAF-CE as its authors distribute it. Raises ValueError where a file of it is missing."""
    if not (root / PARTITION).is_file():
        raise ValueError(f"'{root}' has {EMOTIONS} but no {PARTITION}: copy it there")
    folder, form = image_folder(root, _IMAGES, EMOTIONS)
    labels, problems = read_codes(root / EMOTIONS, [str(k) for k in range(14)], "class")
    parts, more = read_codes(root / PARTITION, list(SPLIT_OF), "partition")
    aus, au_problems = _aus(root)
    votes, vote_problems = _votes(root, labels)
    rows = [
        Row(
            name,
            folder / form.format(Path(name).stem),
            int(label),
            SPLIT_OF[part],
            aus.get(name),
            votes.get(name),
        )
        for name, codes in labels.items()
        for label in codes
        for part in parts.get(name, [])
    ]
    unmatched = _unmatched(set(labels), set(parts))
    kept, warnings = once(rows)
    return Listing(
        name="RAF-CE (synthetic)" if is_synthetic(root) else "RAF-CE",
        layout="RAF-CE",
        rows=kept,
        class_names=CLASS_NAMES,
        basic_names=BASIC_NAMES,
        components=CLASS_PAIRS,
        is_synthetic=is_synthetic(root),
        notes=_notes(root, kept),
        warnings=(*warnings, *_warnings(kept, set(labels), set(aus))),
        problems=tuple(problems + more + au_problems + vote_problems + unmatched),
    )


def _aus(root: Path) -> tuple[dict[str, str], list[str]]:
    """File name -> AU string; a name without one is "null", as an empty string is."""
    if not (root / AUS).is_file():
        return {}, []
    found: dict[str, str] = {}
    problems = []
    text = (root / AUS).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        name, *rest = line.split(None, 1) or [""]
        units = rest[0].strip() if rest else ""
        if name and found.setdefault(name, units) != units:
            problems.append(
                f"{AUS}, line {number}: '{name}' has AUs '{units}' here and "
                f"'{found[name]}' above: remove one of the two lines"
            )
    return found, problems


def _votes(root: Path, wanted: Container[str]) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """File name -> share of votes for each basic emotion, summing to 1."""
    if not (root / VOTES).is_file():
        return {}, []
    pairs, problems = read_pairs(root / VOTES)
    votes = {}
    for number, name, rest in pairs:
        if name not in wanted:  # RAF-ML has more images than RAF-CE
            continue
        try:
            values = tuple(map(float, rest.split()))
        except ValueError:
            values = ()
        if len(values) != len(BASIC_NAMES) or min(values) < 0 or not 0 < sum(values) < 1e6:
            problems.append(
                f"{VOTES}, line {number}: {rest[:40]!r} is not {len(BASIC_NAMES)} shares of votes"
            )
        else:
            votes[name] = tuple(value / sum(values) for value in values)
    return votes, problems


def _unmatched(labels: set[str], parts: set[str]) -> list[str]:
    found = []
    if labels - parts:
        found.append(
            f"{len(labels - parts)} images of {EMOTIONS} are not in {PARTITION}: "
            f"{several(sorted(labels - parts))}. Take both files from one copy of RAF-CE"
        )
    if parts - labels:
        found.append(
            f"{len(parts - labels)} images of {PARTITION} are not in {EMOTIONS}: "
            f"{several(sorted(parts - labels))}. Take both files from one copy of RAF-CE"
        )
    return found


def _notes(root: Path, rows: tuple[Row, ...]) -> tuple[str, ...]:
    sizes = Counter(row.split for row in rows)
    notes = [f"Official splits: train {sizes['train']}, val {sizes['val']}, test {sizes['test']}."]
    if all(row.aus is None for row in rows):
        state = "knows none of the images" if (root / AUS).is_file() else "is not there"
        notes.append(f"{AUS} {state}: no action units.")
    return tuple(notes)


def _warnings(rows: tuple[Row, ...], labels: set[str], coded: set[str]) -> list[str]:
    sizes = Counter(row.split for row in rows)
    warnings = []
    if sizes and sizes["train"] < max(sizes.values()):
        warnings.append(
            "train is not the largest split: the codes of the partition file are 0 train, 1 test, "
            "2 val"
        )
    if coded and labels - coded:
        warnings.append(f"{len(labels - coded)} images are not in {AUS}: their AUs are unknown")
    if coded - labels:
        warnings.append(
            f"{len(coded - labels)} lines of {AUS} are of images without a label, left out: "
            f"{several(sorted(coded - labels))}"
        )
    return warnings
