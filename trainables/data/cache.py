"""The decoded cache: a data set becomes memory-mapped arrays, once for all trials and all time.

`prepare` finds or builds the entry of a data set, `load` opens it; entry.py knows its files.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data import (
    aus,
    claims,
    faces,
    folders,
    frames,
    ingest,
    known,
    leaks,
    listing,
    loaders,
    splits,
)
from trainables.data.content import Content
from trainables.data.entry import (
    FORMAT,
    FRAMES,
    IMAGES,
    CacheDamaged,
    content_hash,
    is_sound,
    load,
    unseal,
    write,
)
from trainables.data.parallel import Progress, in_threads
from trainables.data.pixels import Ints, PixelFile, Pixels

__all__ = ["CacheDamaged", "default_root", "load", "prepare", "prepare_unlabelled", "unseal"]

SMALLEST, LARGEST = 16, 1024  # pixels a side
_MARGIN = 64 << 20  # bytes of disk to leave free


CONTENT = 2  # part of the fingerprint: raise it when a change alters pixels or targets
_PIECE = 16  # images that are copied at a time
Built = tuple[Content, Ints, Ints | None]  # places of images in their file, starts of their frames


@dataclass(frozen=True)
class _Plan:
    """How to build an entry, and what it will hold."""

    name: str
    count: int  # of images and frames
    fingerprint: str
    build: Callable[[Path, Progress | None], Built]
    is_in_memory: bool  # all pixels, while they are made; else each goes to the disk at once

    @property
    def key(self) -> str:
        return content_hash([FORMAT, self.name, self.fingerprint])[:32]


def prepare(
    source: str,
    image_size: int,
    progress: Progress | None = None,
    cache_root: Path | None = None,
    policy: aus.Policy | None = None,
) -> Path:
    """The cache entry of a data set, built if need be; any number of processes may ask at once.

    Raises ValueError for data that cannot be used, naming all that is wrong, and OSError or
    MemoryError where there is no room.
    """
    if not SMALLEST <= image_size <= LARGEST:
        raise ValueError(f"image size {image_size} is not within {SMALLEST} to {LARGEST}")
    root, policy = cache_root or default_root(), policy or aus.Policy()
    if loaders.is_faces(source):
        plan = _faces_plan(source, image_size, policy, progress)
    else:
        plan = _listing_plan(source, image_size, policy, root, progress)
    return _entry(plan, image_size, progress, root)


def prepare_unlabelled(
    folder: Path, image_size: int, progress: Progress | None = None, cache_root: Path | None = None
) -> Path:
    """The cache entry of the images at or below a folder; all are training images of one class.

    Raises ValueError where there is none, OSError where there is no room.
    """
    if not SMALLEST <= image_size <= LARGEST:
        raise ValueError(f"image size {image_size} is not within {SMALLEST} to {LARGEST}")
    root = cache_root or default_root()
    plan = _unlabelled_plan(folder, image_size, root, progress)
    return _entry(plan, image_size, progress, root)


def _entry(plan: _Plan, image_size: int, progress: Progress | None, root: Path) -> Path:
    path = root / plan.key
    if not is_sound(path):
        _make(root)
        claims.sweep(root)
        _room(root, plan, image_size)
        with claims.building(root, plan.key) as folder:
            if not is_sound(path):  # it was built while we waited
                _build(folder, path, plan, progress)
    return path


def default_root() -> Path:
    """$XDG_CACHE_HOME/fer-search, or ~/.cache/fer-search."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if given and Path(given).is_absolute() else Path.home() / ".cache"
    return base / "fer-search"  # the XDG standard has relative paths ignored


def _listing_plan(
    source: str, size: int, policy: aus.Policy, root: Path, progress: Progress | None
) -> _Plan:
    found = loaders.read(source)
    listing.check(found)
    record = _record(root, source)
    digests = known.hashes([row.path for row in found.rows], record, "read", progress)
    listing.refuse(found, leaks.contradictions(found, digests))
    of_frames = record.with_stem(f"{record.stem}-frames")
    frame_digests = frames.digests(found.rows, of_frames, progress) if frames.are_in(found) else []
    joined = frames.shared(digests, frame_digests)

    def build(folder: Path, progress: Progress | None) -> Built:
        order = splits.ordered([row.split for row in found.rows], digests)
        places, into = np.argsort(order), PixelFile.create(folder / IMAGES, len(order), size)
        looks = ingest.decode_all(found, places, into, progress)
        content = ingest.from_listing(found, digests, looks, policy, joined)
        return content, places, frames.decode(found, order, size, folder / FRAMES, progress)

    rows: list[list[object]] = [
        [row.id, row.label, row.split, row.aus, row.distribution, row.subject, content]
        for row, content in zip(found.rows, digests, strict=True)
    ]
    for row, own in zip(rows, frame_digests, strict=False):  # stills keep the keys they had
        row += [own]
    said = [found.class_names, found.basic_names, found.is_synthetic, rows]
    return _Plan(
        found.name,
        len(rows) + sum(map(len, frame_digests)),
        content_hash([CONTENT, splits.VERSION, "listing", size, policy.content(), said]),
        build,
        is_in_memory=False,
    )


def _unlabelled_plan(folder: Path, size: int, root: Path, progress: Progress | None) -> _Plan:
    found, record = folders.unlabelled(folder), _record(root, str(folder))
    digests = known.hashes([row.path for row in found.rows], record, "read", progress)

    def build(folder: Path, progress: Progress | None) -> Built:
        into = PixelFile.create(folder / IMAGES, len(digests), size)
        return ingest.unlabelled(found, into, progress), np.arange(len(digests)), None

    rows = [[row.id, content] for row, content in zip(found.rows, digests, strict=True)]
    said = content_hash([CONTENT, "unlabelled", size, found.is_synthetic, rows])
    return _Plan(found.name, len(rows), said, build, is_in_memory=False)


def _record(root: Path, source: str) -> Path:
    """Where the hashes of the files of a source are kept."""
    return root / f"hashes-{content_hash(str(Path(source).resolve()))[:32]}.npz"


def _faces_plan(source: str, size: int, policy: aus.Policy, progress: Progress | None) -> _Plan:
    spec = faces.FacesSpec.parse(source, size=size)

    def build(folder: Path, progress: Progress | None) -> Built:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress("render", done, total)

        content = ingest.from_faces(spec, policy)
        order = splits.ordered(content.splits, content.ids)
        _save(folder / IMAGES, faces.render_all(spec, progress=report), order)
        return content, np.argsort(order), None

    name = f"faces:{spec.count}:{spec.difficulty}"
    said = [spec.count, spec.size, spec.seed, spec.difficulty, _generator()]
    fingerprint = content_hash([CONTENT, "faces", policy.content(), said])
    return _Plan(name, spec.count, fingerprint, build, is_in_memory=True)


def _save(path: Path, pixels: Pixels, order: Ints) -> None:
    """Write pixels[order], a few images at a time."""
    into = PixelFile.create(path, len(order), pixels.shape[-1])
    with into.open() as file:

        def put(start: int) -> None:
            piece = np.ascontiguousarray(pixels[order[start : start + _PIECE]])
            into.put(file, piece, start)

        in_threads(put, range(0, len(order), _PIECE), "write", None)


def _generator() -> str:
    """The version of the generator is its source: no number that one could forget to raise."""
    folder = Path(faces.__file__).parent
    names = ["faces.py", "mesh.py", "render.py", "tables.py"]
    files = [folder / name for name in names] + sorted((folder / "assets").glob("*.[nj][ps]*"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _make(root: Path) -> None:
    """Make the cache folder. Raises OSError where it cannot be written to."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(
            f"cannot write to the cache '{root}' ({error.strerror}): set XDG_CACHE_HOME to a "
            "folder that you may write to",
        ) from error


def _room(root: Path, plan: _Plan, size: int) -> None:
    """Raise OSError or MemoryError unless the arrays fit."""
    pixels = plan.count * 3 * size**2
    if plan.is_in_memory and pixels > 0.8 * _memory():
        raise MemoryError(
            f"'{plan.name}' at {size} px needs {pixels / 2**30:.1f} GiB of memory, "
            f"this machine has {_memory() / 2**30:.1f}: ask for fewer or smaller images"
        )
    need = pixels + _MARGIN
    free = shutil.disk_usage(root).free
    if need > free:
        raise OSError(
            f"'{plan.name}' at {size} px needs {need / 2**30:.1f} GiB of disk, "
            f"'{root}' has {free / 2**30:.1f}: make room, set XDG_CACHE_HOME, or lower the size",
        )


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _build(folder: Path, path: Path, plan: _Plan, progress: Progress | None) -> None:
    """Build the entry in the folder beside its place, then move it there."""
    try:
        content, places, starts = plan.build(folder, progress)
        write(folder, content, places, plan.fingerprint, starts)
        folder.chmod(0o755)  # a cache may be shared, whatever the umask
        _install(folder, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of the cache '{path.parent}' ran full while '{plan.name}' was built: make "
            "room, or set XDG_CACHE_HOME",
        ) from error


def _install(folder: Path, path: Path) -> None:
    """Move a built entry to its place, unless another process was first with the same content."""
    root = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network disk may know no locks: then a rare race
            fcntl.flock(root, fcntl.LOCK_EX)  # mending must not remove what others just mended
        if is_sound(path):
            return
        if path.exists():  # damaged: readers that have it open keep their files
            aside = folder.with_name(folder.name + "-old")
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        folder.rename(path)
    except OSError:
        if not is_sound(path):
            raise
    finally:
        os.close(root)
