"""The files of one cache entry: written once, checked whenever they are opened.

<root>/<key>/   images.npy, frames.npy   uint8 (N, 3, S, S); frames where there are sequences
                {train,val,test}_rows.npy   which of the images, in their order
                {train,val,test}_{labels,aus}.npy, {train,val}_{groups,distributions}.npy
                {train,val,test}_{moments,starts}.npy   which of the frames, and whose
                ids.json, meta.json           meta.json: sizes and checksums of the others
                reference_losses-*.npz        derived later (reference.py), and not checked here
The labels and AUs of test are sealed: `load` does not read them, `unseal` does.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.bundle import DataBundle, Sequences, Split
from trainables.data.content import Content
from trainables.data.listing import SPLITS
from trainables.data.pixels import Ints, mapped

log = logging.getLogger(__name__)

FORMAT = 3  # part of the key: raise it when a change here changes the files
IMAGES, FRAMES = "images.npy", "frames.npy"
_SEALED = ("test_labels.npy", "test_aus.npy")
_BLOCKS, _BLOCK = 64, 4096  # of an image file, what its checksum covers


class CacheDamaged(RuntimeError):
    """A file of the cache is not what was written; `prepare` builds it anew."""


def load(path: Path) -> DataBundle:
    """The data set of a cache entry, pixels memory-mapped read-only, test sealed.

    Raises FileNotFoundError where there is no entry and CacheDamaged where it is not whole.
    """
    meta = _meta(path)
    for name, stamp in meta["files"].items():
        _verify(path / name, stamp, is_sealed=name in _SEALED)
    if IMAGES not in meta["files"]:
        raise CacheDamaged(
            f"'{path}' was written by an earlier version: prepare the data "
            "again; runs made on it want the version that made them"
        )
    ids = json.loads((path / "ids.json").read_text())
    parts = {split: _split(path, split, ids[split], len(meta["au_names"])) for split in ids}
    components = meta["components"]
    return DataBundle(
        name=meta["name"],
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        class_names=tuple(meta["class_names"]),
        au_names=tuple(meta["au_names"]),
        fingerprint=meta["fingerprint"],
        basic_names=tuple(meta["basic_names"]),
        components=None if components is None else tuple((a, b) for a, b in components),
        is_synthetic=meta["is_synthetic"],
        notes=tuple(meta["notes"]),
        ceiling=meta["ceiling"],
        folder=path,
    )


def unseal(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Labels (N,) and AUs (N, A) of test. Only `analysis.report --final` may call this."""
    files = _meta(path)["files"]
    for name in _SEALED:
        _verify(path / name, files[name], is_sealed=False)
    labels, units = (np.load(path / name, allow_pickle=False) for name in _SEALED)
    return labels, units


def is_sound(path: Path) -> bool:
    """Whether there is a whole entry."""
    try:
        load(path)
        for name in _SEALED:
            _verify(path / name, _meta(path)["files"][name], is_sealed=False)
    except FileNotFoundError:
        return False
    except CacheDamaged as error:
        log.warning("the cache is damaged and will be built anew: %s", error)
        return False
    return True


def write(
    folder: Path, content: Content, places: Ints, fingerprint: str, starts: Ints | None = None
) -> None:
    """Write all files of an entry into a folder that holds the pixels already.

    `places`: where each image lies in their file; `starts`: where the frames of that place begin.
    """
    ids = {}
    of = np.array(content.splits)
    for split in SPLITS:
        rows = np.flatnonzero(of == split)
        ids[split] = [content.ids[k] for k in rows]
        np.save(folder / f"{split}_rows.npy", places[rows])
        if starts is not None:
            _save_frames(folder, split, starts, places[rows])
        np.save(folder / f"{split}_labels.npy", content.labels[rows])
        np.save(folder / f"{split}_aus.npy", content.aus[rows])
        if split == "test":  # votes tell the label, and so may a group with a training image
            continue
        np.save(folder / f"{split}_groups.npy", content.groups[rows])
        if content.distributions is not None:
            np.save(folder / f"{split}_distributions.npy", content.distributions[rows])
    (folder / "ids.json").write_text(json.dumps(ids))
    stamps = {path.name: _stamp(path) for path in sorted(folder.iterdir())}
    names = ("name", "class_names", "au_names", "basic_names", "components", "is_synthetic")
    body = {name: getattr(content, name) for name in (*names, "notes")}
    body |= {"ceiling": dict(content.ceiling), "fingerprint": fingerprint, "files": stamps}
    (folder / "meta.json").write_text(
        json.dumps({"sha256": content_hash(body), "body": body}, indent=1)
    )


def _save_frames(folder: Path, split: str, starts: Ints, places: Ints) -> None:
    owned = [np.arange(starts[place], starts[place + 1]) for place in places]
    np.save(folder / f"{split}_moments.npy", np.concatenate([np.zeros(0, np.int64), *owned]))
    np.save(folder / f"{split}_starts.npy", np.cumsum([0, *map(len, owned)]).astype(np.int64))


def _sequences(path: Path, split: str, count: int) -> Sequences | None:
    if not (path / FRAMES).exists():
        return None
    moments, starts = (
        np.load(path / f"{split}_{name}.npy", allow_pickle=False) for name in ("moments", "starts")
    )
    if len(starts) != count + 1 or starts[-1] != len(moments):
        raise CacheDamaged(f"'{path}': the frames of {split} are not those of its images")
    return Sequences(mapped(path / FRAMES, moments), starts)


def _split(path: Path, split: str, ids: list[str], au_count: int) -> Split:
    rows = np.load(path / f"{split}_rows.npy", allow_pickle=False)
    if len(rows) != len(ids):
        raise CacheDamaged(f"'{path}': the images of {split} are not those of its names")
    images = mapped(path / IMAGES, rows)
    sequences = _sequences(path, split, len(ids))
    if split == "test":
        labels = np.full(len(ids), -1, np.int64)
        aus = np.full((len(ids), au_count), -1, np.int8)
        return Split(images, labels, aus, tuple(ids), sequences=sequences)
    votes = path / f"{split}_distributions.npy"
    groups = np.load(path / f"{split}_groups.npy", allow_pickle=False)
    part = Split(
        images,
        np.load(path / f"{split}_labels.npy", allow_pickle=False),
        np.load(path / f"{split}_aus.npy", allow_pickle=False),
        tuple(ids),
        np.load(votes, allow_pickle=False) if votes.exists() else None,
        sequences,
        groups=groups,
    )
    if not len(part.labels) == len(part.aus) == len(groups) == len(ids):
        raise CacheDamaged(f"'{path}': the arrays of {split} differ in length")
    return part


def _meta(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise FileNotFoundError(
            f"no prepared data at '{path}': cache.prepare(source, size) makes it"
        )
    try:
        meta = json.loads((path / "meta.json").read_text())
        body: dict[str, Any] = meta["body"]
        if content_hash(body) != meta["sha256"]:
            raise ValueError("its checksum is wrong")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheDamaged(f"'{path / 'meta.json'}' cannot be read: {error}") from error
    return body


def _stamp(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _checksum(path)}


def _verify(path: Path, stamp: Mapping[str, Any], *, is_sealed: bool) -> None:
    """Raise CacheDamaged unless the file is as written; of a sealed one, look at its size."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CacheDamaged(f"'{path}' is gone") from error
    if size != stamp["bytes"]:
        raise CacheDamaged(f"'{path}' has {size} bytes and had {stamp['bytes']}")
    if not is_sealed and _checksum(path) != stamp["sha256"]:
        raise CacheDamaged(f"'{path}' has changed since it was written")


def _checksum(path: Path) -> str:
    """Of all of a file; of pixels, blocks all over them, so that opening is quick."""
    size = path.stat().st_size
    if path.name not in (IMAGES, FRAMES) or size <= _BLOCKS * _BLOCK:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()
    with path.open("rb") as file:
        for k in range(_BLOCKS):
            file.seek(k * (size - _BLOCK) // (_BLOCKS - 1))
            total.update(file.read(_BLOCK))
    return total.hexdigest()


def file_hash(path: Path) -> str:
    """Hash of a whole file; it is read again only where its size or its time has changed."""
    about = path.stat()
    return _file_hash(path, about.st_size, about.st_mtime_ns)


@lru_cache(32)
def _file_hash(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(value: object) -> str:
    """Hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
