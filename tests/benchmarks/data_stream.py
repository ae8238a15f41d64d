"""Training from the memory map against training from memory; part of data.py.

One small network, one set of images, the same batches in the same order. `resident`: the pixels are
a tensor. `mapped`: they are read from the map, all in the page cache. `evicted`: a thread tells the
system a few times a second to forget the file, as if the set were far larger than the memory.
"""

import ctypes
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_build import entry_of

from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.trial import Training

Row = dict[str, Any]
IMAGES = 2048  # that one measurement trains on


@contextmanager
def forgotten(file: Path, images: np.ndarray) -> Iterator[list[float]]:
    """Meanwhile the file is put out of the page cache again and again; MiB that were in it."""
    found: list[float] = []
    ends = threading.Event()
    libc = ctypes.CDLL(None, use_errno=True)
    address, length = ctypes.c_void_p(images.ctypes.data & -4096), ctypes.c_size_t(images.nbytes)
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)  # what is not yet written cannot be forgotten

    def forget() -> None:
        while True:
            libc.madvise(
                address, length, 4
            )  # MADV_DONTNEED: unmaps, as the cache keeps mapped pages
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            if ends.wait(0.2):
                return
            found.append(_resident(libc, images))

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield found
    finally:
        ends.set()
        thread.join()
        os.close(descriptor)


def _resident(libc: ctypes.CDLL, images: np.ndarray) -> float:
    """MiB of the array's file in the page cache."""
    start = images.ctypes.data & -4096
    pages = -(-(images.ctypes.data + images.nbytes - start) // 4096)
    marks = (ctypes.c_ubyte * pages)()
    libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * 4096), marks)
    return int((np.frombuffer(marks, np.uint8) & 1).sum()) * 4096 / 2**20


def measure(folder: Path, count: int, repeats: int) -> list[Row]:
    """Images a second of each way, interleaved, the best of the repeats; ratios to `resident`."""
    torch.set_num_threads(1)  # as a trial beside others has it
    path = entry_of(folder, count, 64)
    bundle = cache.load(path)
    config = TrialConfig(
        backbone=Part("small_resnet"), weights="none", augment=Part("light"), image_size=64
    )
    training = Training(config, bundle)
    mapped = training.plan
    held = torch.from_numpy(np.array(bundle.train.images))
    resident = replace(mapped, feed=replace(mapped.feed, images=held))
    order = np.random.default_rng(0).permutation(len(bundle.train))
    kept: dict[str, list[float]] = {"resident": [], "mapped": [], "evicted": []}
    in_cache: list[float] = []
    for _ in range(repeats + 1):  # the first warms up
        order = np.roll(order, -IMAGES)  # others each time, as an epoch would bring
        for name, seconds in kept.items():
            training.plan = resident if name == "resident" else mapped
            if name == "evicted":
                with forgotten(path / "images.npy", bundle.train.images) as found:
                    seconds.append(_seconds(training, order[:IMAGES]))
                in_cache += found
            else:
                seconds.append(_seconds(training, order[:IMAGES]))
    shutil.rmtree(path)
    size = bundle.train.images.nbytes / 2**20
    least = {name: min(seconds[1:]) for name, seconds in kept.items()}
    return [
        {
            "pixels": name,
            "images/s": IMAGES / seconds,
            "share of resident": least["resident"] / seconds,
            "set MiB": size,
            "in the page cache, most MiB": max(in_cache, default=0.0)
            if name == "evicted"
            else size,
        }
        for name, seconds in least.items()
    ]


def _seconds(training: Training, rows: np.ndarray) -> float:
    from trainables.loop import train_epoch

    batches = training.plan.batches(0.5, rows, torch.Generator().manual_seed(0))
    objective = training.plan.objective(0.5)
    began = time.perf_counter()
    train_epoch(
        training.model, training.average, batches, objective, training.stepper, lambda: None
    )
    return time.perf_counter() - began
