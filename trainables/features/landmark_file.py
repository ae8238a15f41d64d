"""A file of landmarks: read strictly, written whole. N images, P landmarks (68, 468 or 478).

FILE.npz   ids (N,) text, points (N, P, 2) numbers; read without pickle
FILE.csv   id, x_0 … x_P-1, y_0 … y_P-1 in any order; other columns are not read
x runs right and y down, both in one unit, such as pixels. An image in which no face was found has
NaN for all its points (in a CSV: empty cells). Ids are those of the data set.
"""

import csv
import io
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.listing import several
from trainables.features.face_shape import SCHEMES
from trainables.store import replace_file

F32 = NDArray[np.float32]
_MOST_BYTES = 4 << 30  # unpacked: a small file must not unpack to more than a machine holds
_MOST_LOST = 0.5  # share of images without a face


@dataclass(frozen=True)
class Landmarks:
    """The landmarks of the images of a data set."""

    ids: tuple[str, ...]
    points: F32  # (N, P, 2); NaN where no face was found

    def rows_of(self, ids: Sequence[str]) -> F32:
        """(n, P, 2) of some images. Raises ValueError naming those that are not in the file."""
        number = {name: k for k, name in enumerate(self.ids)}
        absent = [name for name in ids if name not in number]
        if absent:
            raise ValueError(
                f"the landmark file lacks {len(absent)} of {len(ids)} images: {several(absent)}. "
                f"It has {len(self.ids)}, such as {several(self.ids[:2])}. Ids must be those of "
                "the data; an image without a face has a row of nan"
            )
        return np.asarray(self.points[[number[name] for name in ids]])

    def lost(self) -> tuple[str, ...]:
        """The images in which no face was found."""
        is_lost = ~np.isfinite(self.points).all((1, 2))
        return tuple(self.ids[k] for k in np.flatnonzero(is_lost))


def read(path: Path) -> Landmarks:
    """The landmarks of a file. Raises FileNotFoundError, or ValueError for what is none."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no landmark file at '{path}': `python -m trainables.features.landmarks DATA --out "
            "FILE.npz` writes one"
        )
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"'{path}' is no landmark file: give a .npz or a .csv")
    found = readers[path.suffix.lower()](path)
    _check(path, found)
    return found


def write(path: Path, found: Landmarks) -> None:
    """Write them to a .npz, whole. Raises ValueError for what `read` would refuse."""
    if path.suffix.lower() != ".npz":
        raise ValueError(f"landmarks are written to a .npz, not to '{path.name}'")
    _check(path, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = io.BytesIO()
    np.savez_compressed(memory, ids=np.array(found.ids, np.str_), points=found.points)
    replace_file(path, memory.getvalue())


def _check(path: Path, found: Landmarks) -> None:
    points = found.points
    if not found.ids:
        raise ValueError(f"'{path}' holds no image")
    if points.ndim != 3 or points.shape[1] not in SCHEMES or points.shape[2] != 2:
        raise ValueError(
            f"'{path}': points of shape {points.shape}; give (images, points, 2) with "
            f"{', '.join(map(str, SCHEMES))} points"
        )
    if len(points) != len(found.ids):
        raise ValueError(f"'{path}': {len(found.ids)} ids and {len(points)} rows of points")
    twice = [name for name, n in Counter(found.ids).items() if n > 1]
    if twice:
        raise ValueError(f"'{path}' has images twice: {several(twice)}")
    is_nan = np.isnan(points)
    partly = is_nan.any((1, 2)) & ~is_nan.all((1, 2))
    wrong = [found.ids[k] for k in np.flatnonzero(partly | np.isinf(points).any((1, 2)))]
    if wrong:
        raise ValueError(
            f"'{path}': some points of {several(wrong)} are not finite; an image without a face "
            "has nan for all"
        )
    flat = [found.ids[k] for k in np.flatnonzero(np.ptp(points, 1).max(1) == 0)]
    if flat:
        raise ValueError(
            f"'{path}': all points of {several(flat)} lie on one; an image without a face has nan "
            "for all"
        )
    if is_nan.all((1, 2)).mean() > _MOST_LOST:
        raise ValueError(f"'{path}': no face in {len(found.lost())} of {len(found.ids)} images")


def _read_npz(path: Path) -> Landmarks:
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(item.file_size for item in packed.infolist()) > _MOST_BYTES:
                raise ValueError("it unpacks to more than 4 GiB")
        with np.load(path, allow_pickle=False) as arrays:
            absent = [name for name in ("ids", "points") if name not in arrays]
            if absent:
                raise ValueError(f"no {' and no '.join(absent)} in it, but {list(arrays)}")
            ids, points = arrays["ids"], arrays["points"]
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"'{path}' is no landmark file: {error}") from error
    if ids.ndim != 1 or ids.dtype.kind != "U" or points.dtype.kind not in "fiu":
        raise ValueError(
            f"'{path}': ids of type {ids.dtype} and points of type {points.dtype}; give text (N,) "
            "and numbers (N, P, 2)"
        )
    return Landmarks(tuple(ids.tolist()), points.astype(np.float32))


def _read_csv(path: Path) -> Landmarks:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in lines.fieldnames or []]
        lines.fieldnames = columns
        count = sum(name.startswith("x_") for name in columns)
        names = [f"{axis}_{k}" for k in range(count) for axis in "xy"]
        absent = [name for name in ["id", *names] if name not in columns]
        if absent or not count:
            raise ValueError(f"'{path}' has no column {several(absent) or 'x_0'}: give {_COLUMNS}")
        try:
            rows = [(line["id"].strip(), _numbers(line, names)) for line in lines]
        except (ValueError, AttributeError, csv.Error) as error:  # a short line has None in it
            raise ValueError(f"'{path}', line {lines.line_num}: {error}") from error
    points = np.array([values for _, values in rows], np.float32).reshape(len(rows), count, 2)
    return Landmarks(tuple(name for name, _ in rows), points)


_COLUMNS = "id, x_0 … x_67, y_0 … y_67 (or to 477)"


def _numbers(line: Mapping[str, str | None], names: Sequence[str]) -> list[float]:
    values = []
    for name in names:
        cell = line[name]
        if cell is None:
            raise ValueError(f"it ends before {name}")
        values.append(float(cell) if cell.strip() else math.nan)
    return values
