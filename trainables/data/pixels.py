"""Pixels of many images: their file, and arrays of some of them that hold no copy.

Images are uint8 RGB (N, 3, S, S), of S pixels a side.
"""

import errno
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PixelFile:
    """An .npy file of so many images, whose places any process may fill in any order."""

    path: Path
    size: int  # pixels a side
    begin: int  # bytes before the first image

    @classmethod
    def create(cls, path: Path, count: int, size: int) -> "PixelFile":
        """A new file; an image that is not put into it is black."""
        shape = (count, 3, size, size)
        with path.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            begin = file.tell()
            file.truncate(begin + math.prod(shape))
        return cls(path, size, begin)

    def open(self) -> BinaryIO:
        return self.path.open("r+b")

    def put(self, file: BinaryIO, pixels: Pixels, place: int) -> None:
        """Write (3, S, S) or (n, 3, S, S), contiguous. Raises OSError where the disk is full."""
        start = self.begin + place * 3 * self.size**2
        if os.pwrite(file.fileno(), pixels.data, start) < pixels.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def mapped(path: Path, rows: Ints) -> Pixels:
    """Some images of a file, read-only: a map where they follow one another, else a view of it."""
    whole: np.memmap[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="r", allow_pickle=False)
    if not len(rows):
        return whole[:0]
    if (np.diff(rows) != 1).any():
        return view(whole, rows)
    begin = whole.offset + int(rows[0]) * whole[0].nbytes  # a slice of a map forgets its own
    return np.memmap(path, np.uint8, "r", begin, (len(rows), *whole.shape[1:]))


@dataclass(frozen=True)
class Chosen:
    """Some images of two arrays, one after the other, in the order of `rows`; holds no pixels.

    Either array may be such a view in turn: a fold to which generated images are added. It is
    indexed, measured and turned into an array as an array of them would be, and no more.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    rows: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.first.shape[1:])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return self.first.dtype

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """A copy of the images of a slice or of indices; of one image for a number.

        Slices of channels and pixels may follow, as in `images[:, :, ::2, ::2]`.
        """
        key, *rest = key if isinstance(key, tuple) else (key,)
        if key is Ellipsis:
            key, rest = slice(None), [Ellipsis, *rest]
        wanted = self.rows[key]
        rows, border = np.atleast_1d(wanted), self.first.shape[0]
        is_first = rows < border
        if is_first.all() and np.ndim(wanted):
            return np.asarray(self.first[rows, *rest])  # indices copy
        one = self.first[rows[is_first], *rest]
        out = np.empty((len(rows), *one.shape[1:]), np.uint8)
        out[is_first] = one
        out[~is_first] = self.second[rows[~is_first] - border, *rest]
        return out if np.ndim(wanted) else out[0]

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def view(
    first: NDArray[np.uint8], rows: Ints, second: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Those rows of one array, or of two one after the other, read like an array; no copy."""
    return cast(NDArray[np.uint8], Chosen(first, first[:0] if second is None else second, rows))


def sources(images: Pixels, rows: Ints) -> Iterator[tuple[Pixels, Ints]]:
    """The arrays that images are views of, always the same ones, and where in each the rows lie."""
    if not isinstance(images, Chosen):
        yield images, rows
        return
    places, border = images.rows[rows], len(images.first)
    yield from sources(images.first, places[places < border])
    yield from sources(images.second, places[places >= border] - border)
