"""Arrays as the bytes of an .npz file, and back without pickle, quickly where files are alike.

`numpy.load` spends most of its time on the table of the zip file. Files of predictions of one run
are alike byte for byte but for the numbers, so the places found in one hold for the next, if all
headers agree; the checksums of all members are verified then as numpy verifies them.
"""

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
LOCAL_HEADER = 30  # bytes, before name and extra field
CHECKSUM = slice(14, 18)  # of a local header
MOST_LAYOUTS = 64


@dataclass(frozen=True)
class Member:
    """Where an array lies in the file, and the bytes that say so."""

    name: str
    start: int  # of the local header
    data: int  # of the .npy file
    values: int
    end: int
    head: bytes  # the local header without its checksum
    described: bytes  # the header of the .npy file
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


_layouts: dict[int, tuple[Member, ...]] = {}  # by the size of the file; a cache, no state
_names: dict[int, tuple[NDArray[np.str_], tuple[str, ...]]] = {}  # a cache, no state


def pack(**arrays: NDArray[Any]) -> bytes:
    """The file of these arrays."""
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]  # `allow_pickle`, in numpy's own signature
    return data.getvalue()


def read(data: bytes) -> Arrays:
    """The arrays of the file by name. Raises what numpy raises for one that is damaged."""
    layout = _layouts.get(len(data))
    if layout is not None and (found := _at(data, layout)) is not None:
        return found
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if len(_layouts) >= MOST_LAYOUTS:
        _layouts.clear()
    if (found_layout := _layout(data)) is not None:
        _layouts[len(data)] = found_layout
    return arrays


def _at(data: bytes, layout: tuple[Member, ...]) -> Arrays | None:
    """The arrays at these places; None where the file is laid out otherwise, or damaged."""
    out: Arrays = {}
    for m in layout:
        head = data[m.start : m.data]
        if _without_checksum(head) != m.head or data[m.data : m.values] != m.described:
            return None
        if zlib.crc32(memoryview(data)[m.data : m.end]) != int.from_bytes(head[CHECKSUM], "little"):
            return None
        count = math.prod(m.shape)
        out[m.name] = np.frombuffer(data, m.dtype, count, m.values).reshape(m.shape)
    return out


def _layout(data: bytes) -> tuple[Member, ...] | None:
    """Where the arrays of a sound file lie; None if they are compressed or in Fortran's order."""
    members = []
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for info in file.infolist():
            start = info.header_offset
            sizes = (data[start + at : start + at + 2] for at in (26, 28))
            begin = start + LOCAL_HEADER + sum(int.from_bytes(s, "little") for s in sizes)
            end = begin + info.file_size
            if info.compress_type != zipfile.ZIP_STORED:
                return None
            stream = io.BytesIO(data[begin:end])
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                return None
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            if is_fortran and len(shape) > 1:
                return None
            values = begin + stream.tell()
            head = _without_checksum(data[start:begin])
            name = info.filename.removesuffix(".npy")
            described = data[begin:values]
            members.append(Member(name, start, begin, values, end, head, described, dtype, shape))
    return tuple(members)


def _without_checksum(head: bytes) -> bytes:
    return head[: CHECKSUM.start] + head[CHECKSUM.stop :]


def names(ids: NDArray[np.str_]) -> tuple[str, ...]:
    """The names of images, the same tuple for all files that name the same: they are many."""
    key = hash(ids.tobytes())
    known = _names.get(key)
    if known is None or known[0].dtype != ids.dtype or not np.array_equal(known[0], ids):
        if len(_names) >= MOST_LAYOUTS:
            _names.clear()
        known = _names[key] = ids, tuple(map(str, ids))
    return known[1]
