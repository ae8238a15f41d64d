"""How each step from files to batches grows with the number of images; part of data.py."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import data_images
import numpy as np
import torch

from trainables.config import Part, TrialConfig
from trainables.data import aus, cache, entry, folds, known, leaks, likeness, loaders, splits
from trainables.data.diagnosis import diagnose
from trainables.data.listing import check
from trainables.trial import Training

Row = dict[str, Any]
SIZE = 64
FITTED_FROM = 10_000  # below, what is the same for any number weighs most


class Clock:
    """Seconds of each step by the clock, and of this process's processors."""

    def __init__(self) -> None:
        self.walls: dict[str, float] = {}
        self.cpus: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.walls[step] = time.perf_counter() - began
        self.cpus[step] = time.process_time() - cpu


def measure(folder: Path, sizes: list[int]) -> list[Row]:
    """A row for each step: seconds for each number of images, and the exponent fitted to them."""
    clocks = {count: _steps(folder, count) for count in sizes}
    return [
        {
            "step": step,
            **{f"{n:,}": clock.walls[step] for n, clock in clocks.items()},
            "exponent": _exponent({n: clock.walls[step] for n, clock in clocks.items()}),
            "exponent of CPU": _exponent({n: clock.cpus[step] for n, clock in clocks.items()}),
        }
        for step in clocks[sizes[0]].walls
    ]


def _exponent(seconds: dict[int, float]) -> float:
    """Of the power law through the times; n log n has 1.09 between 10,000 and 300,000."""
    large = {n: s for n, s in seconds.items() if n >= FITTED_FROM} or seconds
    if len(large) < 2:
        large = seconds
    logs = np.log([[n, max(s, 1e-6)] for n, s in large.items()])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]) if len(logs) > 1 else float("nan")


def _steps(folder: Path, count: int) -> Clock:
    clock, root = Clock(), folder / "cache"
    source = data_images.write(folder / f"files-{count}", count)
    with clock("class folders: list"):
        loaders.read(source)
    with clock("manifest: read and check"):
        found = loaders.read(source / "listing.csv")
        check(found)
    with clock("fingerprints of the files"):
        paths = [row.path for row in found.rows]
        digests = known.hashes(paths, folder / "known.json", "read", None)
    with clock("contradictions"):
        leaks.contradictions(found, digests)
    with clock("prepare, whole (splits made)"):
        path = cache.prepare(str(source / "listing.csv"), SIZE, cache_root=root)
    with clock("prepare, warm"):
        cache.prepare(str(source / "listing.csv"), SIZE, cache_root=root)
    with clock("doctor"):
        pictures = diagnose(str(source / "listing.csv"))
    del pictures
    with clock("open"):
        bundle = cache.load(path)
    _compared(clock, bundle, digests, [row.label for row in found.rows])
    shutil.rmtree(source)
    _trained(clock, bundle)
    shutil.rmtree(root)
    return clock


def _compared(clock: Clock, bundle: Any, digests: list[str], labels: list[int]) -> None:
    looks = [likeness.look(np.ascontiguousarray(i.transpose(1, 2, 0))) for i in bundle.train.images]
    hashes, thumbs = np.stack([h for h, _ in looks]), np.stack([t for _, t in looks])
    with clock("pairs that look alike (train)"):
        pairs = likeness.near_pairs(hashes, thumbs)
    with clock("groups (train)"):
        groups = splits.group(len(hashes), pairs)
    with clock("splits made (train)"):
        some = np.array(labels)[: len(groups)]
        splits.assign(some, groups, [None] * len(groups), digests[: len(groups)])
    with clock("five folds"):
        folds.fold_of(bundle, TrialConfig(folds=5))
    with clock("class and AU statistics"):
        bundle.class_counts()
        bundle.au_counts()
    with clock("AU strings"):
        aus.encode([aus.parse("1+4+L12+25")] * len(groups), ("AU1", "AU4", "AU12", "AU25"))
    with clock("key of the entry"):
        entry.content_hash([[digest, label] for digest, label in zip(digests, labels, strict=True)])


def _trained(clock: Clock, bundle: Any) -> None:
    config = TrialConfig(
        backbone=Part("small_resnet", {"width": 4}),
        weights="none",
        rebalance=Part("sampler"),
        curriculum=Part("linear"),
        curriculum_order="class_count",
        epochs=1,
        batch_size=64,
        image_size=SIZE,
    )
    with clock("a trial is made"):
        training = Training(config, bundle)
    with clock("order of an epoch (sampler, curriculum)"):
        order = training.plan.order(0.9, np.random.default_rng(0))
    with clock("batches of an epoch, augmented"):
        for _ in training.plan.batches(0.9, order, torch.Generator().manual_seed(0)):
            pass
    with clock("training on an eighth (smallest network)"):
        training.train_on(len(bundle.train) // 8)
    with clock("scores of validation"):
        training.predict(bundle.val)
