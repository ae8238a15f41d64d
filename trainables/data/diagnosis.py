"""What can be said of a data set, whatever state it is in: collected, never raised."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from trainables.data import aus, decoding, faces, frames, leaks, listing, loaders, splits
from trainables.data.decoding import Picture
from trainables.data.listing import SPLITS, Listing, Row, several
from trainables.data.parallel import Progress
from trainables.data.tables import BASIC_NAMES, CLASS_NAMES, CLASS_PAIRS

_SMALL_PIXELS = 32


@dataclass(frozen=True)
class AuFacts:
    """Counts of AU lines and of what they hold."""

    labelled: int
    nulls: int
    unlabelled: int
    unknown: dict[str, int]
    support: dict[str, dict[str, int]]  # AU -> images by split
    vocabulary: tuple[str, ...]  # what "auto" takes
    fault: str  # what is wrong when too few lines can be read, else empty


@dataclass(frozen=True)
class FileFacts:
    """Images by id."""

    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    exact_duplicates: list[tuple[str, str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)  # exact duplicates across official splits
    near_leaks: list[str] = field(default_factory=list)  # near-duplicates across official splits
    contradictions: list[str] = field(default_factory=list)
    near_contradictions: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # "100 x 100" -> images


@dataclass(frozen=True)
class Diagnosis:
    """All that the doctor tells."""

    name: str
    layout: str
    images: int
    splits: dict[str, int]
    is_official: dict[str, bool]  # by split: given by the data set, or made here
    classes: dict[str, dict[str, int]]  # class -> images by split
    majority_share: float  # of the largest training class
    aus: AuFacts | None
    files: FileFacts
    notes: list[str]
    warnings: list[str]
    problems: list[str]

    @property
    def is_sound(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "is_sound": self.is_sound}


def diagnose(source: str, progress: Progress | None = None) -> Diagnosis:
    """Everything found in a data set. Raises ValueError only for what is no data set at all."""
    pictures: list[Picture] = []
    if loaders.is_faces(source):
        found = _faces_listing(source)
    else:
        found = loaders.read(source)
        pictures = decoding.examine([row.path for row in found.rows], "read", progress)
    exact, near = _pairs(pictures)
    note, bad_frames = frames.look_over(found.rows, progress)
    facts = _file_facts(found, pictures, exact, near)
    labels = np.array([row.label for row in found.rows], np.int64)
    groups = splits.group(
        len(labels), np.concatenate([exact, near, listing.same_subject(found.rows)])
    )
    split_of = splits.assign(
        labels, groups, [row.split for row in found.rows], _digests(found.rows, pictures)
    )
    coded = _au_facts(found.rows, split_of)
    counts = Counter(zip(labels.tolist(), split_of, strict=True))
    classes = {
        name: {split: counts[number, split] for split in SPLITS}
        for number, name in enumerate(found.class_names)
    }
    training = [of["train"] for of in classes.values()]
    return Diagnosis(
        name=found.name,
        layout=found.layout,
        images=len(found.rows),
        splits=_by_split(split_of),
        is_official={split: split in found.splits_given() for split in SPLITS},
        classes=classes,
        majority_share=max(training, default=0) / max(1, sum(training)),
        aus=coded,
        files=facts,
        notes=[*found.notes, *([note] if note else []), *splits.unsought(len(pictures))],
        warnings=[*found.warnings, *_warnings(classes, coded, facts)],
        problems=[
            *found.problems,
            *listing.faults(found),
            *_problems(found, coded, facts),
            *bad_frames,
        ],
    )


def _faces_listing(source: str) -> Listing:
    spec = faces.FacesSpec.parse(source)
    return Listing(
        name=f"faces:{spec.count}:{spec.difficulty}",
        layout="embedded faces",
        rows=tuple(Row(p.id, Path(), p.label, p.split, p.text) for p in faces.draw_people(spec)),
        class_names=CLASS_NAMES,
        basic_names=BASIC_NAMES,
        components=CLASS_PAIRS,
        is_synthetic=True,
    )


def _digests(rows: Sequence[Row], pictures: Sequence[Picture]) -> list[str]:
    """The content of each image, or its id where there is none to read."""
    if not pictures:  # the embedded faces are no files
        return [row.id for row in rows]
    return [picture.digest or row.id for row, picture in zip(rows, pictures, strict=True)]


def _pairs(pictures: Sequence[Picture]) -> tuple[splits.Ints, splits.Ints]:
    """Pairs of the same content, and pairs that only look alike, numbered among all images."""
    digests = [p.digest or str(k) for k, p in enumerate(pictures)]
    read = [(k, p.look) for k, p in enumerate(pictures) if p.look is not None]
    if not read:
        return splits.exact_pairs(digests), np.empty((0, 2), np.int64)
    hashes = np.stack([look[0] for _, look in read])
    thumbs = np.stack([look[1] for _, look in read])
    number = np.array([k for k, _ in read])
    near = splits.alike([digests[k] for k in number], hashes, thumbs)[1]
    return splits.exact_pairs(digests), number[near]


def _file_facts(
    found: Listing, pictures: Sequence[Picture], exact: splits.Ints, near: splits.Ints
) -> FileFacts:
    rows, given = found.rows, [row.split for row in found.rows]
    faults = [(r.id, p.fault) for r, p in zip(rows, pictures, strict=False) if p.fault]
    sizes = Counter(f"{p.width} x {p.height}" for p in pictures if p.width)
    return FileFacts(
        missing=[name for name, fault in faults if fault == "missing"],
        unreadable=[f"{name} ({fault})" for name, fault in faults if fault != "missing"],
        exact_duplicates=[(rows[a].id, rows[b].id) for a, b in exact],
        near_duplicates=[(rows[a].id, rows[b].id) for a, b in near],
        leaks=leaks.across(rows, exact, given, "="),
        near_leaks=leaks.across(rows, near, given, "~"),
        contradictions=leaks.contradictions(found, [p.digest for p in pictures]),
        near_contradictions=[
            (rows[a].id, rows[b].id) for a, b in near if rows[a].label != rows[b].label
        ],
        sizes=dict(sizes.most_common()),
    )


def _au_facts(rows: Sequence[Row], split_of: Sequence[str]) -> AuFacts | None:
    codings = [aus.parse(row.aus) for row in rows]
    if all(coding.is_unlabelled for coding in codings):
        return None
    counts = {
        split: aus.support(c for c, s in zip(codings, split_of, strict=True) if s == split)
        for split in SPLITS
    }
    names = sorted(aus.support(codings), key=lambda name: int(name.removeprefix("AU")))
    training = [c for c, s in zip(codings, split_of, strict=True) if s == "train"]
    fault = ""
    try:
        aus.check_readable(codings)
    except ValueError as error:
        fault = str(error)
    return AuFacts(
        labelled=sum(not c.is_unlabelled for c in codings),
        nulls=sum(c.is_null for c in codings),
        unlabelled=sum(c.is_unlabelled for c in codings),
        unknown=dict(aus.unknown_tokens(codings).most_common()),
        support={name: {split: counts[split][name] for split in SPLITS} for name in names},
        vocabulary=aus.vocabulary(training),
        fault=fault,
    )


def _problems(found: Listing, coded: AuFacts | None, facts: FileFacts) -> list[str]:
    """What stops a run, beside what is wrong with the listing."""
    out = [coded.fault] if coded and coded.fault else []
    for what, names in (("missing", facts.missing), ("unreadable", facts.unreadable)):
        if names:
            out.append(
                f"{len(names)} of {len(found.rows)} images are {what}: {several(names)}. Restore "
                "them, or remove them with their label lines"
            )
    return out + facts.contradictions


def _warnings(
    classes: Mapping[str, Mapping[str, int]], coded: AuFacts | None, facts: FileFacts
) -> list[str]:
    """What a run survives, but its user should know."""
    out = []
    for split in ("train", "val"):
        absent = [name for name, counts in classes.items() if not counts[split]]
        if absent:
            out.append(f"without an image in {split}: {several(absent)}")
    if coded and coded.unknown:
        tokens = [f"'{token}' ({n})" for token, n in coded.unknown.items()]
        out.append(f"AU tokens that are no AU, left out: {several(tokens)}")
    out += leaks.notes(facts.leaks, facts.near_leaks)
    if facts.leaks or facts.near_leaks:
        will = "look" if facts.leaks else "may look"
        out.append(f"scores {will} better than they are: official splits are not changed")
    pairs = len(facts.exact_duplicates), len(facts.near_duplicates)
    if any(pairs):
        out.append(f"{pairs[0]} pairs of equal images, {pairs[1]} that look alike")
    if facts.near_contradictions:
        shown = [f"{a} = {b}" for a, b in facts.near_contradictions]
        out.append(f"pairs that look alike in different classes: {several(shown)}")
    small = [size for size in facts.sizes if min(map(int, size.split(" x "))) < _SMALL_PIXELS]
    if small:
        count = sum(facts.sizes[size] for size in small)
        out.append(f"{count} images are under {_SMALL_PIXELS} pixels: {several(small)}")
    return out


def _by_split(split_of: Sequence[str]) -> dict[str, int]:
    counts = Counter(split_of)
    return {split: counts[split] for split in SPLITS}
