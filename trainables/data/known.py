"""Hashes of image files, kept, so that one that has not changed is not read again.

As in git's index, a file with the size and the times of the record has its content too; one that
had changed less than SETTLED before it was hashed is not put on record, as it may change again
within one tick of the file system's clock. Without the record, or with a damaged one, all is read.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables import npz
from trainables.data import images
from trainables.data.parallel import Progress, in_threads
from trainables.store import replace_file

SETTLED = 2 * 10**9  # nanoseconds


class Stamp(NamedTuple):
    """What changes with a file's content: bytes, and when content and entry changed (ns)."""

    size: int
    content: int
    entry: int


Known = dict[str, tuple[Stamp, str]]  # path -> what it was like, and its hash


def hashes(paths: Sequence[Path], record: Path, stage: str, progress: Progress | None) -> list[str]:
    """SHA-256 of the content of each file; empty text where there is none to read."""
    began, before = time.time_ns(), read(record)
    names, stamps = [str(path) for path in paths], in_threads(stamp, paths, stage, None)
    nothing = None, ""
    found = [
        mark if now is not None and now == then else ""
        for now, (then, mark) in zip(
            stamps, (before.get(name, nothing) for name in names), strict=True
        )
    ]
    new = [k for k, mark in enumerate(found) if not mark]
    for k, mark in zip(
        new, in_threads(hashed, [paths[k] for k in new], stage, progress), strict=True
    ):
        found[k] = mark
    if new:
        every = zip(names, stamps, found, strict=True)
        settled = [
            (name, (now, mark))
            for name, now, mark in every
            if now is not None and mark and max(now[1:]) < began - SETTLED
        ]
        with suppress(OSError):  # a full or read-only disk: then all is read again
            write(record, settled)
    return found


def hashed(path: Path) -> str:
    """Hash of the file's content; empty where there is none to read."""
    try:
        return hashlib.sha256(images.content(path)).hexdigest()
    except images.Unreadable:
        return ""


def stamp(path: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        about = path.stat()
    except (OSError, ValueError):  # ValueError: a zero byte in a name
        return None
    return Stamp(about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def read(record: Path) -> Known:
    """What is on record; nothing where it cannot be read."""
    try:
        found = npz.read(record.read_bytes())
        names = found["names"].tobytes().decode(errors="surrogateescape").split("\0")
        stamps = (Stamp(*each) for each in found["stamps"].tolist())
        marks = (mark.tobytes().hex() for mark in found["hashes"])
        return dict(zip(names, zip(stamps, marks, strict=True), strict=True))
    except Exception:  # whatever a torn file may look like
        return {}


def write(record: Path, known: Iterable[tuple[str, tuple[Stamp, str]]]) -> None:
    """Raises OSError."""
    found = list(known)
    if not found:
        return
    names = "\0".join(name for name, _ in found).encode(errors="surrogateescape")
    marks = b"".join(bytes.fromhex(mark) for _, (_, mark) in found)
    data = npz.pack(
        names=np.frombuffer(names, np.uint8),
        stamps=np.array([stamp for _, (stamp, _) in found], np.int64),
        hashes=np.frombuffer(marks, np.uint8).reshape(-1, 32),
    )
    record.parent.mkdir(parents=True, exist_ok=True)
    replace_file(record, data)
