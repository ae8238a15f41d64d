"""The device of a trial: its switches, its precision, and how things get there.

A GPU works through a queue. Whatever reads a number from it, or copies plainly to it, waits until
the queue is empty, so a training step does neither (`test_device.py` proves it without a GPU).
"""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.pixels import sources

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, from glibc's malloc.h
LARGEST_BLOCK, KEPT_BYTES = 2**25, 2**31 - 1  # the most that each of them takes
AHEAD = 2  # batches that are read and sent while one is trained on


def default_device() -> torch.device:
    """The GPU where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_device() -> torch.device:
    """The default device, its switches set for a trial: many steps of few shapes."""
    device = default_device()
    if device.type == "cpu":
        keep_freed_memory()
        return device
    torch.cuda.reset_peak_memory_stats()  # the process may have run other trials before
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # what mixed precision leaves in float32: as TF32
    return device


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next step; whether it is there and does.

    By itself it gives large blocks back to the system and asks for them anew, which clears each
    page: a fifth of a step of the small networks. Blocks above 32 MiB it gives back all the same.
    The process stays as large as its largest step.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    is_kept = mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    return bool(is_kept)


def training_dtype(device: torch.device) -> torch.dtype:
    """In which forward passes compute: 16 bits on a GPU, with bfloat16's range where it has it."""
    if device.type != "cuda":
        return torch.float32
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float16


def mixed_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context of mixed precision on a GPU, of none on a CPU."""
    return torch.autocast("cuda", dtype) if device.type == "cuda" else nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context of none within one of mixed precision."""
    has_any = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if has_any else nullcontext()


def bring(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor there, without waiting for what the device still does."""
    return tensor.to(device, non_blocking=True)


def constant(values: Sequence[Any] | NDArray[Any] | Tensor, like: Tensor) -> Tensor:
    """Numbers of the type and on the device of a tensor, for nobody to change: sent there once."""
    found = torch.as_tensor(values, dtype=like.dtype)
    if found.device == like.device:
        return found
    return _constant(tuple(found.flatten().tolist()), found.shape, like.dtype, like.device)


@lru_cache(256)  # far more than an epoch needs: a graph of it reads them where they are
def _constant(
    values: tuple[float, ...], shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # where it may be wanted first, and by training then
        return bring(torch.tensor(values, dtype=dtype).reshape(shape), device)


@contextmanager
def foretold(images: NDArray[np.uint8]) -> Iterator[Callable[[NDArray[np.int64]], None]]:
    """A call that tells the system which images of a file are read next.

    A disk then fetches them at once, where a map asks for one page after the other. It is advice:
    without it all goes on as well, but slower.
    """
    with ExitStack() as opened:
        arrays = [array for array, _ in sources(images, np.arange(0))]
        files = [_file_of(array, opened) for array in arrays]

        def foretell(rows: NDArray[np.int64]) -> None:
            for file, (array, places) in zip(files, sources(images, rows), strict=True):
                if file is not None:
                    _advise(file, array, places)

        yield foretell


def _file_of(array: NDArray[np.uint8], opened: ExitStack) -> int | None:
    """The file that an array maps, to be closed with the others; None where there is none."""
    if isinstance(array, np.memmap) and hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # the cache was built anew, and the map holds the old file
            file = os.open(str(array.filename), os.O_RDONLY)
            opened.callback(os.close, file)
            return file
    return None


def _advise(file: int, array: Any, places: NDArray[np.int64]) -> None:
    size = array[:1].nbytes
    for place in places.tolist():
        os.posix_fadvise(file, array.offset + place * size, size, os.POSIX_FADV_WILLNEED)


def streamed(
    images: NDArray[np.uint8], batches: Iterable[NDArray[np.int64]], device: torch.device
) -> Iterator[Tensor]:
    """Images (N, 3, S, S) in memory or on disk, by their places, as batches on the device.

    The next ones are read by a thread and, for a GPU, sent from page-locked memory beside the
    training: neither a disk nor the bus keeps it waiting.
    """
    library: Any = torch.get_device_module(device)  # that of a CPU does nothing
    side, is_remote = library.Stream(), device.type != "cpu"

    def fetch(rows: NDArray[np.int64]) -> tuple[Tensor, Any]:
        foretell(rows)
        found = torch.from_numpy(images[rows])
        with library.stream(side):
            return bring(found.pin_memory() if is_remote else found, device), side.record_event()

    def arrived(fetched: Future[tuple[Tensor, Any]]) -> Tensor:
        found, sent = fetched.result()
        if is_remote:
            stream = library.current_stream()
            stream.wait_event(sent)
            found.record_stream(stream)  # the side stream gets its memory back no sooner
        return found

    with foretold(images) as foretell, ThreadPoolExecutor(1, "images") as pool:
        waiting = deque[Future[tuple[Tensor, Any]]]()
        for rows in batches:
            waiting.append(pool.submit(fetch, rows))
            if len(waiting) > AHEAD:
                yield arrived(waiting.popleft())
        while waiting:
            yield arrived(waiting.popleft())
