"""Image files -> pixels on disk, on all cores. N images, S pixels a side.

Light to import, as each of the processes that decode does it.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.data import images, likeness
from trainables.data.parallel import Progress, in_chunks
from trainables.data.pixels import Ints, PixelFile


class Picture(NamedTuple):
    """One image file, as far as it could be read."""

    digest: str = ""
    fault: str = ""
    width: int = 0
    height: int = 0
    look: tuple[likeness.Hashes, likeness.Thumbs] | None = None


class Decoded(NamedTuple):
    """What is known of N images whose pixels lie on disk."""

    hashes: likeness.Hashes
    thumbs: likeness.Thumbs
    faults: dict[int, str]  # what is wrong with those that could not be read, by number


def decode(
    paths: Sequence[Path], places: Ints, into: PixelFile, stage: str, progress: Progress | None
) -> Decoded:
    """Decode each image file into its place. Raises OSError where the disk is full."""
    items = list(zip(range(len(paths)), paths, places.tolist(), strict=True))
    parts = list(in_chunks(partial(_decode_some, into=into), items, stage, progress))
    return Decoded(
        np.concatenate([np.zeros((0, 2), np.uint64), *(part.hashes for part in parts)]),
        np.concatenate([np.zeros((0, 8, 8, 3), np.uint8), *(part.thumbs for part in parts)]),
        {number: fault for part in parts for number, fault in part.faults.items()},
    )


def _decode_some(files: Sequence[tuple[int, Path, int]], into: PixelFile) -> Decoded:
    size = into.size
    greys = np.zeros((len(files), 8, 9), np.uint8)
    thumbs = np.zeros((len(files), 8, 8, 3), np.uint8)
    faults, planes = {}, np.empty((3, size, size), np.uint8)
    with into.open() as file:
        for k, (number, path, place) in enumerate(files):
            try:
                image = images.read(images.content(path))
            except images.Unreadable as error:
                faults[number] = str(error)
                continue
            square = images.square(image, size)
            planes[:] = square.transpose(2, 0, 1)
            into.put(file, planes, place)
            half = likeness.halved(image)  # a size must not move an image to another split
            if size != likeness.LOOK_PIXELS or half is not image:
                square = images.square(half, likeness.LOOK_PIXELS)
            greys[k], thumbs[k] = likeness.reduced(square)
    return Decoded(likeness.difference_hashes(greys), thumbs, faults)


def examine(paths: Sequence[Path], stage: str, progress: Progress | None) -> list[Picture]:
    """What can be told of each file, its pixels aside."""
    return [
        picture for some in in_chunks(_examine_some, paths, stage, progress) for picture in some
    ]


def _examine_some(paths: Sequence[Path]) -> list[Picture]:
    return [_examine(path) for path in paths]


def _examine(path: Path) -> Picture:
    digest = ""
    try:
        content = images.content(path)
        digest = hashlib.sha256(content).hexdigest()
        image = images.read(content)
    except images.Unreadable as error:
        return Picture(digest, str(error))
    return Picture(digest, "", image.shape[1], image.shape[0], likeness.look(image))
