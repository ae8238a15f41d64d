"""A step's forward and backward pass as one CUDA graph (https://pytorch.org/blog, 2021).

Python launches the kernels of a small network ten times as slowly as a GPU runs them. A graph is
recorded once an epoch, from one batch, and launches all of them at once. Clipping, optimiser and
averages stay outside: they are few kernels. What cannot be recorded trains as without.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables.batch import Batch

log = logging.getLogger(__name__)

WAITING = {  # their results have a size or a value that only the device knows
    *("aten._local_scalar_dense", "aten.is_nonzero", "aten.equal"),
    *("aten.nonzero", "aten.masked_select", "aten._unique2"),
}
SWITCH = "FER_SEARCH_CUDA_GRAPHS"  # 1: on
LAUNCHING = 0.8  # share of a step from which on a GPU waits for its kernels

Numbers = dict[str, Tensor]
Differentiate = Callable[[Batch], Numbers]  # sets the gradients of a batch; its losses
Replay = Callable[[], None]
Record = Callable[[Callable[[], Numbers]], tuple[Numbers, Replay]]


def are_wanted(device: torch.device, ranks: int) -> bool:
    """Whether a trial of one process there shall record its steps."""
    return device.type == "cuda" and ranks == 1 and os.environ.get(SWITCH) == "1"


def record_on_gpu(work: Callable[[], Numbers]) -> tuple[Numbers, Replay]:
    """What `work` asks of the GPU is recorded and not done; where its results will be."""
    graph = torch.cuda.CUDAGraph()
    # Only this thread's calls count: another may be sending the next images.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        numbers = work()
    return numbers, graph.replay


class Recorder:
    """Gradients of the batches of an epoch: by its second or third batch as a graph.

    The first is differentiated as usual and watched: whatever goes to or comes from the CPU would
    not be in a graph. The first of all after that is timed: a GPU that is busy gains nothing. Then
    one is recorded, and it and all of its shape are replayed. State: none that a resume needs.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], record: Record = record_on_gpu) -> None:
        self.parameters, self.record = parameters, record
        self.pays: bool | None = None  # None: not known yet
        self._loss: object = None
        self._tape: Tape | None = None
        self._shapes: list[torch.Size] = []
        self._next = self._plain

    def __call__(self, batch: Batch, loss: object, differentiate: Differentiate) -> Numbers:
        """Set the gradients of the batch to those of `loss`, an object that is new each epoch."""
        if loss is not self._loss:
            self._loss, self._tape, self._shapes = loss, None, shapes(batch)
            self._next = self._plain if self.pays is False else self._watched
        if shapes(batch) != self._shapes:  # the last batch of an epoch is smaller
            return differentiate(batch)
        return self._next(batch, differentiate)

    def _plain(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        return differentiate(batch)

    def _watched(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        with Watch() as seen:
            found = differentiate(batch)
        self._next = self._plain if seen.noticed else self._timed
        return found

    def _timed(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        if self.pays is None:
            device = batch.images.device
            began = finished(device)
            found = differentiate(batch)
            launched = time.perf_counter() - began
            self.pays = launched > LAUNCHING * (finished(device) - began)
            self._next = self._recorded if self.pays else self._plain
            return found
        return self._recorded(batch, differentiate)

    def _recorded(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        try:
            self._tape = Tape(batch, differentiate, self.parameters, self.record)
        except RuntimeError as error:  # short of memory, or what the watch does not know
            log.warning("steps are not recorded as a CUDA graph: %s", error)
            self.pays, self._next = False, self._plain
            return differentiate(batch)
        self._next = self._played
        return self._tape.play(batch)

    def _played(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        assert self._tape is not None
        return self._tape.play(batch)


class Tape:
    """What is done with a batch, recorded; a batch to be played is copied to where that one was."""

    def __init__(
        self,
        batch: Batch,
        differentiate: Differentiate,
        parameters: Sequence[nn.Parameter],
        record: Record,
    ) -> None:
        own = {name: value.clone() for name, value in tensors(batch)}
        self.batch, self.parameters = replace(batch, **own), parameters
        self.numbers, self.replay = record(lambda: differentiate(self.batch))
        self.gradients = [p.grad for p in parameters]

    def play(self, batch: Batch) -> Numbers:
        """The numbers are overwritten by the next play."""
        own, given = ([value for _, value in tensors(b)] for b in (self.batch, batch))
        torch._foreach_copy_(own, given)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # a batch that was not played has put others there
        return self.numbers


class Watch(TorchDispatchMode):
    """Notes what goes from the CPU to another device or back, and what has to be waited for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.noticed = list[str]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        name = str(function)
        devices = {value.device for value in (*given, *made) if value.dim() or "copy" in name}
        picks = "aten.index" in name and any(value.dtype is torch.bool for value in given)
        if len(devices) > 1 or picks or name.partition(".default")[0] in WAITING:
            self.noticed.append(name)
        return found


def tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    """Name and value of what a batch has."""
    found = [(field.name, getattr(batch, field.name)) for field in fields(batch)]
    return [(name, value) for name, value in found if value is not None]


def shapes(batch: Batch) -> list[torch.Size]:
    return [value.shape for _, value in tensors(batch)]


def finished(device: torch.device) -> float:
    """The time once the device has done all it was asked."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()
