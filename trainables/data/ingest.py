"""From a source to all that the cache stores. N images, B basic emotions, A AUs, S pixels a side.

Pixels never pile up: each image goes from its file to its place on disk.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables import metrics
from trainables.data import aus, faces, images, leaks, splits
from trainables.data.cores import usable_cores
from trainables.data.listing import (
    SPLITS,
    Listing,
    Row,
    components_of,
    same_subject,
    several,
)
from trainables.data.tables import BASIC_NAMES, CLASS_NAMES

Progress = Callable[[str, int, int], None]  # what is done, how many of them, of how many
_MOST_BYTES = 256 << 20  # of an image file: a video put there by mistake is not read whole
Look = tuple[NDArray[np.uint64], NDArray[np.uint8]]  # what `splits.look` gives
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Content:
    """A whole data set but for its pixels."""

    name: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: tuple[str, ...]
    aus: NDArray[np.int8]
    au_names: tuple[str, ...]
    groups: NDArray[
        np.int64
    ]  # equal where images are one picture, as far as can be seen, or person
    distributions: NDArray[np.float32] | None = None  # (N, B); a row of zeros where there are none
    basic_names: tuple[str, ...] = ()
    components: tuple[tuple[int, int], ...] | None = None
    is_synthetic: bool = False
    notes: tuple[str, ...] = ()
    ceiling: Mapping[str, float] = field(default_factory=dict)


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], stage: str, progress: Progress | None
) -> list[Result]:
    """`work` of each item on all cores; decoding and hashing leave Python's lock alone."""
    results = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if progress is not None:
                progress(stage, len(results), len(items))
    return results


def digest(row: Row) -> str:
    """Hash of the file's content; empty where there is none to read."""
    try:
        return hashlib.sha256(_content(row.path)).hexdigest()
    except images.Unreadable:
        return ""


def read_row(row: Row) -> images.Pixels:
    """The (height, width, 3) image of a row. Raises Unreadable."""
    return images.read(_content(row.path))


def _content(path: Path) -> bytes:
    """The bytes of a file that may be an image. Raises Unreadable."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
            raise images.Unreadable("not a file")
        if not 0 < about.st_size <= _MOST_BYTES:
            raise images.Unreadable("too large for an image" if about.st_size else "empty file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise images.Unreadable("missing") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        raise images.Unreadable(str(error)) from error


def decode_all(
    listing: Listing, size: int, staging: Path, progress: Progress | None
) -> tuple[splits.Hashes, splits.Thumbs]:
    """Decode every image into the raw (N, 3, S, S) file `staging`; what to know them again by.

    Raises one ValueError for all the images that cannot be used.
    """
    results = _decode(listing, size, staging, progress)
    bad = [result for result in results if isinstance(result, str)]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(results)} images of '{listing.name}' cannot be used: "
            f"{several(bad)}. Restore them, or remove them with their label lines; "
            "`python -m trainables.data.doctor` lists them all"
        )
    looks = [result for result in results if not isinstance(result, str)]
    return np.stack([a for a, _ in looks]), np.stack([b for _, b in looks])


def _decode(
    listing: Listing, size: int, staging: Path, progress: Progress | None
) -> list[Look | str]:
    """Decode what can be into the raw file; of each image its look, or what is wrong with it."""
    with staging.open("wb") as file:
        file.truncate(len(listing.rows) * 3 * size**2)  # an image that is not written is black

        def work(item: tuple[int, Row]) -> Look | str:
            number, row = item
            try:
                image = read_row(row)
            except images.Unreadable as error:
                return f"{row.id} ({error})"
            pixels = images.planes(image, size)
            written = os.pwrite(file.fileno(), pixels.tobytes(), number * pixels.nbytes)
            if written < pixels.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return splits.look(image)  # not of `pixels`: a size must not move an image

        return in_threads(work, list(enumerate(listing.rows)), "decode", progress)


def unlabelled(listing: Listing, size: int, staging: Path, progress: Progress | None) -> Content:
    """What the cache stores of images without labels: all of them training images.

    Those that cannot be read are left out and named in a note: a large folder has a few.
    """
    results = _decode(listing, size, staging, progress)
    bad = [result for result in results if isinstance(result, str)]
    if len(bad) == len(results):
        raise ValueError(f"none of the {len(bad)} images can be read: {several(bad)}")
    left_out = f"{len(bad)} of {len(results)} images cannot be read, left out: {several(bad)}."
    return Content(
        name=listing.name,
        class_names=listing.class_names,
        ids=tuple(row.id for row in listing.rows),
        labels=np.zeros(len(results), np.int64),
        splits=tuple("" if isinstance(result, str) else "train" for result in results),
        aus=np.empty((len(results), 0), np.int8),
        au_names=(),
        groups=np.arange(len(results)),
        is_synthetic=listing.is_synthetic,
        notes=(left_out,) if bad else (),
    )


def from_listing(
    listing: Listing,
    digests: Sequence[str],
    looks: tuple[splits.Hashes, splits.Thumbs],
    policy: aus.Policy,
    joined: splits.Ints | None = None,
) -> Content:
    """What the cache stores of a data set on disk; images without a split are given one.

    Pairs of images that are `joined` (by a frame of one sequence) go to one split.
    """
    joined = np.empty((0, 2), np.int64) if joined is None else joined
    rows = listing.rows
    labels = np.array([row.label for row in rows], np.int64)
    exact, near = splits.alike(digests, *looks)
    same = np.concatenate([exact, near, joined, same_subject(rows)])
    groups = splits.group(len(rows), same)
    split_of = splits.assign(labels, groups, [row.split for row in rows], digests)
    codings = [aus.parse(row.aus) for row in rows]
    au_names, au_notes = _au_names(codings, split_of, policy)
    return Content(
        name=listing.name,
        class_names=listing.class_names,
        ids=tuple(row.id for row in rows),
        labels=labels,
        splits=split_of,
        aus=aus.encode(codings, au_names, policy.null),
        au_names=au_names,
        groups=groups,
        distributions=_distributions(rows, len(listing.basic_names)),
        basic_names=listing.basic_names,
        components=listing.components,
        is_synthetic=listing.is_synthetic,
        notes=(
            *listing.notes,
            *listing.warnings,
            *au_notes,
            *_split_notes(listing, labels, split_of),
            *leaks.notes(
                leaks.across(rows, exact, split_of, "="),
                leaks.across(rows, near, split_of, "~"),
                leaks.across(rows, joined, split_of, "&"),
            ),
            *splits.unsought(len(rows)),
        ),
    )


def _au_names(
    codings: Sequence[aus.Coding], split_of: Sequence[str], policy: aus.Policy
) -> tuple[tuple[str, ...], list[str]]:
    """The AU vocabulary, taken from the training images, and what to know of it."""
    if all(coding.is_unlabelled for coding in codings):
        return (), []
    aus.check_readable(codings)
    training = [c for c, split in zip(codings, split_of, strict=True) if split == "train"]
    names = aus.named_vocabulary(policy.vocabulary)
    if names is None:
        names = aus.vocabulary(training)
    if policy.sides == "keep":
        names = aus.keep_sides(names, training)
    notes = []
    unknown = [f"'{token}' ({n})" for token, n in aus.unknown_tokens(codings).most_common()]
    if unknown:
        notes.append(f"AU tokens that are no AU were left out: {several(unknown)}.")
    absent = aus.unseen(training, names)
    if absent:
        notes.append(f"No training image shows {', '.join(absent)}.")
    return names, notes


def _distributions(rows: Sequence[Row], width: int) -> NDArray[np.float32] | None:
    if width == 0 or all(row.distribution is None for row in rows):
        return None
    return np.array([row.distribution or (0.0,) * width for row in rows], np.float32)


def _split_notes(listing: Listing, labels: splits.Ints, split_of: Sequence[str]) -> list[str]:
    made = [split for split in SPLITS if split not in listing.splits_given()]
    of = np.array(split_of)
    if "val" not in split_of:
        raise ValueError(
            f"'{listing.name}' has too few different images for a validation split "
            f"({len(labels)} images): add images, or give a split to each"
        )
    notes = []
    if made:
        notes.append(f"The data set has no split {', '.join(made)}: made here, by class.")
    sizes = {split: int((of == split).sum()) for split in SPLITS}
    if not sizes["test"]:
        notes.append("There are too few images for a test split: nothing is held back.")
    for split in ("train", "val"):
        held = set(labels[of == split].tolist())
        absent = [n for k, n in enumerate(listing.class_names) if k not in held]
        if absent:
            notes.append(f"Without an image in {split}: {several(absent)}.")
    return notes


def from_faces(spec: faces.FacesSpec, policy: aus.Policy) -> Content:
    """What the cache stores of the embedded faces, in the order in which they are rendered."""
    people = faces.draw_people(spec)
    codings = [aus.parse(person.text) for person in people]
    split_of = tuple(person.split for person in people)
    au_names, notes = _au_names(codings, split_of, policy)
    labels = np.array([person.label for person in people], np.int64)
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    is_val = np.array(split_of) == "val"
    kept = np.flatnonzero(metrics.supported(labels[is_val], len(CLASS_NAMES)))
    return Content(
        name=f"faces:{spec.count}:{spec.difficulty}",
        class_names=CLASS_NAMES,
        ids=tuple(person.id for person in people),
        labels=labels,
        splits=split_of,
        aus=aus.encode(codings, au_names, policy.null),
        au_names=au_names,
        groups=np.arange(len(people)),  # each is another person
        basic_names=BASIC_NAMES,
        components=components_of(CLASS_NAMES),
        is_synthetic=True,
        notes=("These faces are rendered: scores say nothing of photographs.", *notes),
        ceiling=faces.bayes_ceiling(spec.difficulty, counts, classes=kept.tolist()),
    )
