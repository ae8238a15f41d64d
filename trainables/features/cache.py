"""Features, computed once for all trials of a node. V views (plain, mirrored), N images, D wide.

<root>/features-<key>/   {train,val,test}.npy   float32 (V, N, D)
                         meta.json              where they come from, and what an image costs
beside the prepared data; the key is of all that the features depend on. No label is in there.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.cost import median_ms
from trainables.data.bundle import DataBundle, Split
from trainables.data.entry import content_hash
from trainables.features.extractors import Extractor, Floats

log = logging.getLogger(__name__)

FORMAT = 1  # part of the key: raise it when the features of an extractor change
CHUNK = 128  # images at a time
SPLITS = ("train", "val", "test")
WARM_UP, REPEATS = 1, 5  # single images, to see what one costs
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Features:
    """What an extractor sees of each split, memory-mapped, and what it costs in use."""

    train: Floats  # (V, N, D)
    val: Floats
    test: Floats
    parameters: int
    latency_ms: float  # of one image


def features_of(
    config: TrialConfig,
    data: Path,
    bundle: DataBundle,
    extractor: Extractor,
    progress: Progress | None = None,
) -> Features:
    """The features of a prepared data set, computed if need be; any number of processes may ask.

    The first computes while the others wait. Raises ValueError for features that are not finite,
    and OSError where there is no room.
    """
    said = [FORMAT, config.features.name, dict(config.features.args), extractor.content]
    said += [bundle.fingerprint, bundle.image_size]
    path = data.parent / f"features-{content_hash(said)[:32]}"
    found = _open(path)
    if found is None:
        with _alone(path):
            found = _open(path)  # another process may have been first
            if found is None:
                _build(path, said, bundle, extractor, progress)
                found = _open(path)
    if found is None:
        raise OSError(f"the features in '{path}' cannot be read right after they were written")
    return found


def _open(path: Path) -> Features | None:
    """The features, if all of them are there and whole."""
    try:
        meta = json.loads((path / "meta.json").read_text())
        arrays = [np.load(path / f"{name}.npy", mmap_mode="r") for name in SPLITS]
        if [list(array.shape) for array in arrays] != meta["shapes"]:
            return None
        train, val, test = arrays
        return Features(train, val, test, meta["parameters"], meta["latency_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of these features; where the disk knows no locks, the first to finish wins."""
    try:
        file = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise OSError(
            f"cannot keep features beside the data in '{path.parent}' ({error.strerror}): set "
            "XDG_CACHE_HOME to a folder that you may write to"
        ) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield
    finally:
        os.close(file)


def _build(
    path: Path, said: list[Any], bundle: DataBundle, extractor: Extractor, progress: Progress | None
) -> None:
    """Compute into a folder of its own, then move it into place whole."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f".building-{path.name}-", dir=path.parent))
    try:
        shapes = []
        for name in SPLITS:
            array = _views(extractor, getattr(bundle, name), f"features of {name}", progress)
            shapes.append(list(array.shape))
            np.save(folder / f"{name}.npy", array)
        one = hidden(bundle.val, slice(0, 1))
        meta = {
            "of": said,
            "shapes": shapes,
            "parameters": extractor.parameters(),
            "latency_ms": median_ms(lambda: extractor.see(one), REPEATS, WARM_UP),
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1))
        folder.chmod(0o755)
        if path.exists():  # torn, or of a process that no lock could hold back
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # another was first, with the same content
            folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    log.info("features %s: %s in %.1f s, kept in %s", said[1], shapes, seconds, path)


def _views(extractor: Extractor, split: Split, stage: str, progress: Progress | None) -> Floats:
    """(V, N, D): each image as it is and, where that is another image, mirrored."""
    views = []
    total = len(split) * (1 + extractor.has_mirror)
    for is_mirrored in (False, True)[: 1 + extractor.has_mirror]:
        rows = []
        for start in range(0, len(split), CHUNK):
            part = hidden(split, slice(start, start + CHUNK))
            if is_mirrored:
                part = mirrored(part)
            rows.append(np.asarray(extractor.see(part), np.float32))
            if progress is not None:
                progress(stage, len(split) * is_mirrored + start + len(part), total)
        views.append(np.concatenate(rows) if rows else np.zeros((0, 0), np.float32))
    array = np.stack(views)
    if not np.isfinite(array).all():
        raise ValueError(f"the {stage} are not finite")
    return array


def hidden(split: Split, rows: slice) -> Split:
    """Some images with their ids, in memory; labels and AUs are hidden."""
    images: NDArray[np.uint8] = np.array(split.images[rows])
    none = np.full(len(images), -1, np.int64)
    aus = np.full((len(images), split.aus.shape[1]), -1, np.int8)
    whole = slice(*rows.indices(len(split))[:2])
    sequences = split.sequences.of(whole) if split.sequences is not None else None
    return Split(images, none, aus, split.ids[rows], sequences=sequences)


def mirrored(part: Split) -> Split:
    """The images, and the frames before them, seen in a mirror."""
    images = np.ascontiguousarray(part.images[..., ::-1])
    sequences = part.sequences.mirrored() if part.sequences is not None else None
    return replace(part, images=images, sequences=sequences)
