"""How fast the cache is built and opened; part of data.py."""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import data_images

from trainables.data import cache, faces, images
from trainables.data.cores import usable_cores
from trainables.data.faces import FacesSpec
from trainables.data.parallel import in_chunks

Row = dict[str, Any]
OPEN = """
import json, sys, time
from pathlib import Path
from trainables.data import cache
def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
path, before, times = Path(sys.argv[1]), private(), []
for _ in range(7):
    began = time.perf_counter()
    bundle = cache.load(path)
    times.append(1000 * (time.perf_counter() - began))
grown = (private() - before) / 1024
print(json.dumps({"first": times[0], "median": sorted(times)[3], "grown": grown}))
"""


def best(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds by the clock and of all cores' work, each the least of the repeats."""
    walls, cpus = [], []
    for _ in range(repeats):
        began, cpu = time.perf_counter(), _cpu()
        work()
        walls.append(time.perf_counter() - began)
        cpus.append(_cpu() - cpu)
    return min(walls), min(cpus)


def _cpu() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _decode(paths: Sequence[Path], size: int) -> None:
    for path in paths:
        images.decode(path.read_bytes(), size)


def decoding(folder: Path, count: int, side: int, size: int, repeats: int) -> Row:
    """A whole `prepare` of JPEG files against the mere decoding of them, spread alike."""
    source = data_images.write(folder / f"files-{side}", count, side)
    paths = sorted((source / "train").rglob("*.jpg")) + sorted((source / "val").rglob("*.jpg"))
    root = folder / "cache"

    def limit() -> None:
        for _ in in_chunks(partial(_decode, size=size), paths, "decode"):
            pass

    def ours() -> None:
        shutil.rmtree(root, ignore_errors=True)
        cache.prepare(str(source), size, cache_root=root)

    walls, cpus = zip(*(best(work, repeats) for work in (limit, ours)), strict=True)
    shutil.rmtree(source)
    shutil.rmtree(root)
    return {
        "images": count,
        "JPEG px": side,
        "cache px": size,
        "limit images/s": count / walls[0],
        "prepare images/s": count / walls[1],
        "share of the limit": walls[0] / walls[1],
        "the same by CPU seconds": cpus[0] / cpus[1],
    }


def rendering(count: int, repeats: int) -> Row:
    """The embedded faces on all cores against one."""
    spec = FacesSpec(count, 64)
    one = best(lambda: faces.render_all(spec, workers=1), repeats)[0]
    every = best(lambda: faces.render_all(spec), repeats)[0]
    return {
        "faces": count,
        "cores": usable_cores(),
        "one core images/s": count / one,
        "all cores images/s": count / every,
        "share of the limit": one / (every * usable_cores()),
    }


def opening(folder: Path, count: int) -> Row:
    """Milliseconds to open an entry in a process that has imported all; what memory it takes."""
    path = entry_of(folder, count, 64 if count <= 20_000 else 16)
    said = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)], check=True, capture_output=True, text=True
    )
    found = json.loads(said.stdout)
    pixels = (path / "images.npy").stat().st_size
    shutil.rmtree(path)
    return {
        "images": count,
        "first ms": found["first"],
        "median of 7 ms": found["median"],
        "pixels MiB": pixels / 2**20,
        "private MiB after 7": found["grown"],
    }


def entry_of(folder: Path, count: int, size: int) -> Path:
    """A cache entry of noise, written as `prepare` writes it."""
    import numpy as np

    from trainables.data import entry, splits
    from trainables.data.content import Content
    from trainables.data.pixels import PixelFile

    path = folder / f"entry-{count}-{size}"
    path.mkdir()
    rng, names = np.random.default_rng(0), tuple(data_images.TRAIN)
    content = Content(
        name="noise",
        class_names=names,
        ids=tuple(f"train/{names[k % 8]}/{k:06d}.jpg" for k in range(count)),
        labels=np.arange(count) % len(names),
        splits=tuple("train" if k % data_images.VALIDATION else "val" for k in range(count)),
        aus=np.zeros((count, 0), np.int8),
        au_names=(),
        groups=np.arange(count),
    )
    order = splits.ordered(content.splits, [""] * count)
    into = PixelFile.create(path / entry.IMAGES, count, size)
    with into.open() as file:
        for start in range(0, count, 4096):
            shape = (min(4096, count - start), 3, size, size)
            into.put(file, rng.integers(0, 256, shape, np.uint8), start)
    entry.write(path, content, np.argsort(order), "noise")
    return path
