"""From a source to all that the cache stores. N images, B basic emotions, A AUs, S pixels a side.

Pixels never pile up: each image goes from its file to its place on disk.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainables import metrics
from trainables.data import aus, decoding, faces, images, leaks, splits
from trainables.data.content import Content
from trainables.data.decoding import Decoded
from trainables.data.listing import (
    SPLITS,
    Listing,
    Row,
    components_of,
    same_subject,
    several,
)
from trainables.data.parallel import Progress
from trainables.data.pixels import PixelFile
from trainables.data.tables import BASIC_NAMES, CLASS_NAMES


def read_row(row: Row) -> images.Pixels:
    """The (height, width, 3) image of a row. Raises Unreadable."""
    return images.read(images.content(row.path))


def decode_all(
    listing: Listing, places: splits.Ints, into: PixelFile, progress: Progress | None
) -> Decoded:
    """Decode every image into its place.

    Raises one ValueError for all the images that cannot be used.
    """
    found = _decode(listing, places, into, progress)
    if found.faults:
        raise ValueError(
            f"{len(found.faults)} of {len(listing.rows)} images of '{listing.name}' cannot be "
            f"used: {several(_told(listing, found))}. Restore them, or remove them with their "
            "label lines; `python -m trainables.data.doctor` lists them all"
        )
    return found


def _decode(
    listing: Listing, places: splits.Ints, into: PixelFile, progress: Progress | None
) -> Decoded:
    paths = [row.path for row in listing.rows]
    return decoding.decode(paths, places, into, "decode", progress)


def _told(listing: Listing, found: Decoded) -> list[str]:
    """What is wrong with each image that cannot be read."""
    return [f"{listing.rows[k].id} ({fault})" for k, fault in sorted(found.faults.items())]


def unlabelled(listing: Listing, into: PixelFile, progress: Progress | None) -> Content:
    """What the cache stores of images without labels: all of them training images.

    Those that cannot be read are left out and named in a note: a large folder has a few.
    """
    found = _decode(listing, np.arange(len(listing.rows)), into, progress)
    bad, count = _told(listing, found), len(listing.rows)
    if len(bad) == count:
        raise ValueError(f"none of the {count} images can be read: {several(bad)}")
    left_out = f"{len(bad)} of {count} images cannot be read, left out: {several(bad)}."
    return Content(
        name=listing.name,
        class_names=listing.class_names,
        ids=tuple(row.id for row in listing.rows),
        labels=np.zeros(count, np.int64),
        splits=tuple("" if k in found.faults else "train" for k in range(count)),
        aus=np.empty((count, 0), np.int8),
        au_names=(),
        groups=np.arange(count),
        is_synthetic=listing.is_synthetic,
        notes=(left_out,) if bad else (),
    )


def from_listing(
    listing: Listing,
    digests: Sequence[str],
    looks: Decoded,
    policy: aus.Policy,
    joined: splits.Ints | None = None,
) -> Content:
    """What the cache stores of a data set on disk; images without a split are given one.

    Pairs of images that are `joined` (by a frame of one sequence) go to one split.
    """
    joined = np.empty((0, 2), np.int64) if joined is None else joined
    rows = listing.rows
    labels = np.array([row.label for row in rows], np.int64)
    exact, near = splits.alike(digests, looks.hashes, looks.thumbs)
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
