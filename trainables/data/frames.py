"""Image sequences: the frames that precede the labelled image of a row. N images, F frames in all.

A manifest names them in its column `frames`, in order of time, parted by semicolons. They are kept
beside the images as uint8 (F, 3, S, S), in the order in which the images lie in their file: those
of the image at place p are starts[p] to starts[p + 1].
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data import images, ingest, known
from trainables.data.listing import Listing, Row, several
from trainables.data.parallel import Progress, in_threads
from trainables.data.pixels import Ints, PixelFile

REMEDY = "Restore them, or take them out of the column frames"


def are_in(listing: Listing) -> bool:
    return any(row.frames for row in listing.rows)


def digests(rows: Sequence[Row], record: Path, progress: Progress | None) -> list[list[str]]:
    """Hashes of the content of each row's frames; empty text where there is none to read."""
    flat = [path for row in rows for path in row.frames]
    found = iter(known.hashes(flat, record, "read frames", progress))
    return [[next(found) for _ in row.frames] for row in rows]


def shared(image_digests: Sequence[str], frame_digests: Sequence[Sequence[str]]) -> Ints:
    """(P, 2) pairs of rows that are of one sequence: a frame of the one is a frame, or the image,
    of the other. They belong in one split."""
    first: dict[str, int] = {}
    pairs = []
    for k, own in enumerate(frame_digests):
        for digest in (image_digests[k], *own):
            if digest and first.setdefault(digest, k) != k:
                pairs.append((first[digest], k))
    of_frames = [p for p in dict.fromkeys(pairs) if frame_digests[p[0]] or frame_digests[p[1]]]
    return np.array(of_frames, np.int64).reshape(-1, 2)


def look_over(rows: Sequence[Row], progress: Progress | None = None) -> tuple[str, list[str]]:
    """How many images have frames, in a sentence, and what stops a run; both empty for stills."""
    owned = _owned(rows)
    if not owned:
        return "", []
    told = [f for f in in_threads(_fault_of, owned, "check frames", progress) if f]
    with_frames = sum(bool(row.frames) for row in rows)
    note = f"{with_frames} of {len(rows)} images have frames before them, {len(owned)} in all."
    if not told:
        return note, []
    return note, [f"{len(told)} of {len(owned)} frames cannot be used: {several(told)}. {REMEDY}"]


def _owned(rows: Sequence[Row]) -> list[tuple[Row, Path]]:
    return [(row, path) for row in rows for path in row.frames]


def _fault_of(item: tuple[Row, Path]) -> str:
    row, path = item
    try:
        read(row, path)
    except images.Unreadable as error:
        return f"{path.name} of {row.id} ({error})"
    return ""


def read(row: Row, path: Path) -> images.Pixels:
    """One frame of a row, (height, width, 3). Raises Unreadable, too, where it is not of the size
    of the image: motion from one to the other would be that of the frame around them."""
    frame = ingest.read_row(replace(row, path=path))
    try:
        size = ingest.read_row(row).shape
    except images.Unreadable:
        return frame  # said of the image itself
    if frame.shape != size:
        one, other = (f"{shape[1]} x {shape[0]}" for shape in (frame.shape, size))
        raise images.Unreadable(f"{one} pixels, its image {other}")
    return frame


def decode(
    listing: Listing, order: Ints, size: int, path: Path, progress: Progress | None
) -> Ints | None:
    """Decode all frames into a file, as the images lie in theirs; where those of each start
    (N + 1,), None where there are none.

    Raises one ValueError for all the frames that cannot be used.
    """
    rows = [listing.rows[k] for k in order]
    owned = _owned(rows)
    if not owned:
        return None
    into = PixelFile.create(path, len(owned), size)
    with into.open() as file:

        def work(item: tuple[int, tuple[Row, Path]]) -> str:
            number, (row, path) = item
            try:
                pixels = images.planes(read(row, path), size)
            except images.Unreadable as error:
                return f"{path.name} of {row.id} ({error})"
            into.put(file, pixels, number)
            return ""

        results = in_threads(work, list(enumerate(owned)), "decode frames", progress)
    bad = [fault for fault in results if fault]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(owned)} frames of '{listing.name}' cannot be used: "
            f"{several(bad)}. {REMEDY}"
        )
    return np.cumsum([0, *(len(row.frames) for row in rows)])
