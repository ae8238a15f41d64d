"""Hashes of image files, kept, so that one that has not changed is not read again.

As in git's index, a file with the size and the times of the record has its content too; one that
had changed less than SETTLED before it was hashed is not put on record, as it may change again
within one tick of the file system's clock. Without the record, or with a damaged one, all is read.
"""

import hashlib
import time
from collections.abc import Sequence
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


Key = tuple[str, Stamp | None]  # the path, and what the file is like; None where there is none
Known = dict[Key, str]  # -> hash of the content


def hashes(paths: Sequence[Path], record: Path, stage: str, progress: Progress | None) -> list[str]:
    """SHA-256 of the content of each file; empty text where there is none to read."""
    began, known = time.time_ns(), read(record)
    keys: list[Key] = list(zip(map(str, paths), in_threads(stamp, paths, stage, None), strict=True))
    new = [k for k, key in enumerate(keys) if key not in known]
    fresh = in_threads(hashed, [paths[k] for k in new], stage, progress)
    known |= {keys[k]: mark for k, mark in zip(new, fresh, strict=True)}
    settled = {key: known[key] for key in keys if known[key] and is_settled(key, began)}
    if new and settled:
        with suppress(OSError):  # a full or read-only disk: then all is read again
            write(record, settled)
    return [known[key] for key in keys]


def is_settled(key: Key, now: int) -> bool:
    """Whether a change from now on would show in the times of the file."""
    _, about = key
    return about is not None and max(about.content, about.entry) < now - SETTLED


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
        keys = zip(names, (Stamp(*each) for each in found["stamps"].tolist()), strict=True)
        return dict(zip(keys, (mark.tobytes().hex() for mark in found["hashes"]), strict=True))
    except Exception:  # whatever a torn file may look like
        return {}


def write(record: Path, known: Known) -> None:
    """Put this on record, and nothing else. Raises OSError."""
    names = "\0".join(name for name, _ in known).encode(errors="surrogateescape")
    marks = bytes.fromhex("".join(known.values()))
    data = npz.pack(
        names=np.frombuffer(names, np.uint8),
        stamps=np.array([stamp for _, stamp in known], np.int64),
        hashes=np.frombuffer(marks, np.uint8).reshape(-1, 32),
    )
    record.parent.mkdir(parents=True, exist_ok=True)
    replace_file(record, data)
