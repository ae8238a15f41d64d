"""What a data set says of its images before any is decoded: the one thing every loader returns.

A loader raises ValueError where it cannot tell what it sees, and lists everything else that is
wrong under `problems`: `cache.prepare` refuses such a listing, the doctor shows all of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data import tables

SPLITS = ("train", "val", "test")
RAF_DB_NAMES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
_SHOWN = 5  # examples an error names


@dataclass(frozen=True)
class Row:
    """One image: where it is and what is said of it."""

    id: str
    path: Path
    label: int
    split: str | None = None  # None: the data set does not say
    aus: str | None = None  # None: nobody coded this image
    distribution: tuple[float, ...] | None = None  # crowd votes, one for each basic emotion
    frames: tuple[Path, ...] = ()  # of its sequence, before it, in order of time
    subject: str | None = None  # who is shown, where the data set says


@dataclass(frozen=True)
class Listing:
    """All images of a data set, undecoded."""

    name: str
    layout: str  # which loader read it, in words
    rows: tuple[Row, ...]
    class_names: tuple[str, ...]
    basic_names: tuple[str, ...] = ()
    components: tuple[tuple[int, int], ...] | None = None
    is_synthetic: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # each stops a run

    def splits_given(self) -> set[str]:
        return {row.split for row in self.rows if row.split is not None}

    def counts(self, split: str | None = None) -> Counter[int]:
        """Images per class, of one split or of all."""
        return Counter(row.label for row in self.rows if split in (None, row.split))


def image_folder(root: Path, places: Sequence[tuple[str, str]], held: str) -> tuple[Path, str]:
    """The first of the places (folder, form of a file name) that exists below the root.

    Raises ValueError, saying what the root holds instead, when none does.
    """
    for folder, form in places:
        if (root / folder).is_dir():
            return root / folder, form
    known = " or ".join(folder for folder, _ in places)
    raise ValueError(f"'{root}' has {held} but no images: put them in {known}")


def several(items: Sequence[str]) -> str:
    """The first few items, and how many more there are."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def same_subject(rows: Sequence[Row]) -> NDArray[np.int64]:
    """(P, 2) pairs of images of one person, each paired with the first of that person."""
    first: dict[str, int] = {}
    named = [(k, row.subject) for k, row in enumerate(rows) if row.subject is not None]
    pairs = [(first.setdefault(who, k), k) for k, who in named]
    return np.array([p for p in pairs if p[0] != p[1]], np.int64).reshape(-1, 2)


def components_of(class_names: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
    """Per class its two basic emotions; None unless every class is a compound known by name."""
    known = dict(zip(tables.CLASS_NAMES, tables.CLASS_PAIRS, strict=True))
    spoken = [name.lower().replace("_", " ").replace("-", " ") for name in class_names]
    return tuple(known[name] for name in spoken) if set(spoken) <= set(known) else None


def check(listing: Listing) -> None:
    """Raise ValueError, once and for all, when the listing cannot be used."""
    refuse(listing, [*listing.problems, *faults(listing)])


def refuse(listing: Listing, found: Sequence[str]) -> None:
    """Raise one ValueError for all that was found, if anything."""
    if found:
        more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        listed = "\n  ".join([*found[:_SHOWN], *more])
        raise ValueError(f"data set '{listing.name}' ({listing.layout}):\n  {listed}")


def faults(listing: Listing) -> list[str]:
    """What is wrong with a listing of whatever layout, a sentence each."""
    if not listing.rows:
        return ["it lists no image: is this the right folder?"]
    found = list(_contradictions(listing))
    counts = listing.counts()
    if len(counts) < 2:
        only = listing.class_names[next(iter(counts))]
        found.append(f"all images are of one class, '{only}': there is nothing to tell apart")
    given = listing.splits_given()
    without = sum(row.split is None for row in listing.rows)
    if given and without:
        found.append(f"{without} images have no split, others do: give all of them one, or none")
    if given and "train" not in given:
        found.append(f"it has the splits {', '.join(sorted(given))} but none named 'train'")
    if not given:
        single = [listing.class_names[k] for k in sorted(counts) if counts[k] == 1]
        if single:
            found.append(
                f"classes with a single image cannot be split: {several(single)}. "
                "Add images, or remove these classes"
            )
    return found


def _contradictions(listing: Listing) -> Iterable[str]:
    seen: dict[str, Row] = {}
    for row in listing.rows:
        first = seen.setdefault(row.id, row)
        if first.label != row.label:
            names = listing.class_names
            yield (
                f"'{row.id}' is listed twice, as '{names[first.label]}' and as "
                f"'{names[row.label]}': remove one of the two lines"
            )
        elif first != row:
            what = "splits" if first.split != row.split else "AUs, votes, frames or paths"
            yield f"'{row.id}' is listed twice, with different {what}: remove one of the two lines"


def once(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows without plain repeats, and a warning of these."""
    counts = Counter(rows)
    repeats = [row.id for row, n in counts.items() if n > 1]
    told = f"listed more than once, read once: {several(repeats)}" if repeats else ""
    return tuple(counts), (told,) if told else ()


def is_synthetic(root: Path) -> bool:
    """Whether the folder says that its faces are rendered (faces.py leaves this file)."""
    return (root / "SYNTHETIC.md").is_file()


def natural(name: str) -> tuple[bool, int, str]:
    """Sorting key of class names: numbers first, by value."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def read_pairs(path: Path) -> tuple[list[tuple[int, str, str]], list[str]]:
    """(line number, first word, the rest) of each line, and a problem for each line of one word."""
    pairs, problems = [], []
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(None, 1)
        if len(words) == 2:
            pairs.append((number, words[0], words[1].strip()))
        elif words:
            problems.append(f"{path.name}, line {number}: {words[0][:40]!r} has no value after it")
    return pairs, problems


def read_codes(
    path: Path, known: Mapping[str, str] | Sequence[str], meaning: str
) -> tuple[dict[str, list[str]], list[str]]:
    """File name -> the codes its lines give it, and a problem for each line with another code."""
    pairs, problems = read_pairs(path)
    codes: dict[str, list[str]] = {}
    for number, name, code in pairs:
        if code not in known:
            problems.append(
                f"{path.name}, line {number}: {meaning} {code[:20]!r} of {name[:40]!r} is none of "
                f"{', '.join(known)}"
            )
        elif Path(name).name != name:
            problems.append(f"{path.name}, line {number}: {name[:40]!r} is not a plain file name")
        else:
            codes.setdefault(name, []).append(code)
    return codes, problems
