"""How things reach a device: read ahead in order, and without making it wait.

The meta device stands for a GPU: it is not the CPU, and it has no values, so that whatever asks it
for one raises. What is drawn and counted on the CPU stays real.
"""

import os
import platform
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import augment, losses
from trainables.config import Flat, TrialConfig
from trainables.data import cache
from trainables.data.pixels import mapped, view
from trainables.device import (
    AHEAD,
    bring,
    constant,
    full_precision,
    mixed_precision,
    streamed,
    training_dtype,
)
from trainables.trial import Training

CPU, META = torch.device("cpu"), torch.device("meta")
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), np.uint8)
ROWS = [np.array([3, 1, 3]), np.array([19]), np.array([0, 7]), np.arange(20), np.array([5, 5])]


@pytest.mark.parametrize("images", [IMAGES, view(IMAGES[:9], np.arange(20), IMAGES[9:])])
def test_batches_come_in_order_and_are_their_own(images) -> None:
    found = list(streamed(images, ROWS, CPU))
    assert [batch.dtype for batch in found] == [torch.uint8] * len(ROWS)
    for batch, rows in zip(found, ROWS, strict=True):
        np.testing.assert_array_equal(batch.numpy(), IMAGES[rows])
    found[0].zero_()
    assert IMAGES[3].any()
    assert list(streamed(images, [], CPU)) == []


@pytest.mark.parametrize("is_view", [False, True])
def test_the_system_is_told_which_parts_of_a_file_are_read(tmp_path, monkeypatch, is_view) -> None:
    np.save(tmp_path / "images.npy", np.concatenate([IMAGES[:3], IMAGES]))
    images = mapped(tmp_path / "images.npy", np.arange(3, 23))
    if is_view:
        images = view(images[:9], np.arange(20), mapped(tmp_path / "images.npy", np.arange(12, 23)))
    told: list[bytes] = []

    def note(file: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        told.append(os.pread(file, length, start))

    monkeypatch.setattr(os, "posix_fadvise", note)
    for batch, rows in zip(streamed(images, ROWS, CPU), ROWS, strict=True):
        np.testing.assert_array_equal(batch.numpy(), IMAGES[rows])
    each = [sorted(rows, key=lambda row: is_view and row >= 9) for rows in ROWS]
    assert told == [IMAGES[row].tobytes() for row in np.concatenate(each)]
    (tmp_path / "images.npy").unlink()  # the map holds what was there
    np.testing.assert_array_equal(next(streamed(images, ROWS, CPU)).numpy(), IMAGES[ROWS[0]])
    assert len(told) == sum(map(len, ROWS))


class Slow:
    """Images that tell when they are read."""

    def __init__(self) -> None:
        self.begun = [threading.Event() for _ in range(6)]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.begun[int(rows[0])].set()
        if rows[0] == 5:
            raise OSError("the disk is gone")
        return IMAGES[rows]


def test_the_next_batches_are_read_while_one_is_in_use() -> None:
    images: Any = Slow()
    batches = streamed(images, [np.array([k]) for k in range(5)], CPU)
    next(batches)
    assert images.begun[AHEAD].wait(30)  # by nobody's asking
    batches.close()
    assert not images.begun[AHEAD + 1].is_set()


def test_what_fails_in_reading_fails_where_it_is_wanted() -> None:
    images: Any = Slow()
    batches = streamed(images, [np.array([k]) for k in (4, 5)], CPU)
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_cpu_computes_in_full_precision() -> None:
    assert training_dtype(CPU) is torch.float32
    square = torch.ones(2, 2)
    with mixed_precision(CPU, torch.bfloat16):
        assert (square @ square).dtype is torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert (square @ square).dtype is torch.bfloat16
        with full_precision(CPU):
            assert (square @ square).dtype is torch.float32


# --- a training step makes nothing wait ----------------------------------------------------------


class Watched(TorchDispatchMode):
    """Notes plain copies from the CPU to another device: a GPU's queue would run empty."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = list[str]()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = kwargs or {}
        goes = "_to_copy" in str(function) and given.get("device") not in (None, CPU)
        if goes and args[0].device == CPU and not given.get("non_blocking"):
            self.plain.append(f"{function} of {tuple(args[0].shape)}")
        return function(*args, **given)


AU: Flat = {"au_loss": "bce", "au_weight": 0.3}
GUIDED: Flat = {**AU, "attention": "au_spatial", "attention_stage": "middle", "region_weight": 0.1}
TRIALS: dict[str, Flat] = {
    "plain": {},
    "guided": {**GUIDED, "local": "face", "mix": "cutmix", "mix.probability": 1.0},
    "crossed": {**AU, "attention": "au_cross", "fusion": "attention_pool", "head": "additive"},
    "reading": {**AU, "au_prior": "distribution_matching", "au_reading": "linear"},
    "co-annotated": {"au_loss": "asymmetric", "au_weight": 0.3, "au_prior": "co_annotation"},
    "worse cameras": {"augment": "medium", "augment.blur": 0.5, "augment.low_resolution": 0.5,
                      "augment.jpeg": 0.5},
    "basics": {"basics": "three_stage", "basics.first": 0.1, "basics.second": 0.8},
    "smaller": {"curriculum": "linear", "curriculum_drives": "size", "curriculum.start": 0.5,
                "curriculum.full_at": 0.9},
    "vit": {"backbone": "test_vit", "fusion": "gated", "local": "anywhere"},
}  # fmt: skip
TRIALS |= {f"augment {name}": {"augment": name} for name in augment.AUGMENTS}
TRIALS |= {f"mix {name}": {"mix": name} for name in augment.MIXERS}
TRIALS |= {f"loss {name}": {"loss": name} for name in losses.LOSSES}


@pytest.mark.parametrize("name", TRIALS)
def test_a_step_neither_reads_from_a_device_nor_copies_plainly_to_it(
    faces, elsewhere, name: str
) -> None:
    flat: Flat = {"backbone": "test_resnet", "image_size": 48, "batch_size": 8, **TRIALS[name]}
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    assert training.plan.feed.images.device == META
    with Watched() as watched:
        training.train_on(16)
    assert watched.plain == []
    assert training.average.updates >= 2


@pytest.mark.parametrize("wait", [bool, float, torch.Tensor.nonzero, torch.Tensor.numpy])
def test_what_would_wait_is_noticed(wait) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        wait(bring(torch.ones(1), META))


def test_a_plain_copy_is_noticed() -> None:
    with Watched() as watched:
        constant([1.0, 2.0], torch.ones(1, device=META))
        assert watched.plain == []
        torch.ones(2).to(META)
    assert len(watched.plain) == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    """In a process of its own, as it is for good: no page of a block is asked for twice."""
    program = """
import resource, torch
from trainables.device import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**21) for _ in range(16)]  # a step: 16 of 8 MiB, gone at once
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(keep_freed_memory(), *(faults() for _ in range(8)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    is_kept, first, *_, last = done.stdout.split()
    assert is_kept == "True"
    assert int(first) > 30_000  # pages of 4 KiB
    assert int(last) < 1000
