"""A step's forward and backward pass as one CUDA graph (torch.cuda.CUDAGraph).

Python launches the kernels of a small network ten times as slowly as a GPU runs them. A graph is
recorded once an epoch, from one batch, and launches all of them at once. Clipping, optimiser and
averages stay outside: they are few kernels. What cannot be recorded trains as without.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables.batch import Batch

log = logging.getLogger(__name__)

SWITCH = "FER_SEARCH_CUDA_GRAPHS"  # 0: none
LAUNCHING = 0.8  # share of a step from which on a GPU waits for its kernels
WATCHES = 2  # batches of an epoch: in the first, constants are sent
WAITING = {  # their results have a size or a value that only the device knows
    *("aten._local_scalar_dense", "aten.is_nonzero", "aten.equal", "aten.bincount"),
    *("aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_dim"),
    *("aten.unique_consecutive", "aten.repeat_interleave.Tensor", "aten.multinomial"),
}

Numbers = dict[str, Tensor]  # scalars on the device
Differentiate = Callable[[Batch], Numbers]  # sets the gradients of a batch; its losses
Replay = Callable[[], None]
Record = Callable[[Callable[[], Numbers]], tuple[Numbers, Replay]]


class NotRecorded(RuntimeError):
    """A recording broke off, which leaves a process in which no more can be trained."""

    def __init__(self, problem: str) -> None:
        super().__init__(  # "CUDA error" has Ray's workers replaced
            f"CUDA error while a step was recorded as a graph ({problem}); {SWITCH}=0 in the "
            "environment trains without"
        )


def are_wanted(device: torch.device, ranks: int) -> bool:
    """Whether a trial of so many processes there shall record its steps."""
    return device.type == "cuda" and ranks == 1 and os.environ.get(SWITCH) != "0"


def record_on_gpu(work: Callable[[], Numbers]) -> tuple[Numbers, Replay]:
    """What `work` asks of the GPU is recorded and not done; where its results will be.

    Raises OutOfMemoryError, after which all is as before, and NotRecorded.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        # Only this thread's calls count: another may be sending the next images.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            numbers = work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NotRecorded(str(error).partition("\n")[0]) from error
    return numbers, graph.replay


class Stage(Enum):
    """What is done with the next batch of an epoch."""

    WATCH = "watch"
    TIME = "time"
    RECORD = "record"
    PLAY = "play"
    PLAIN = "plain"


class Recorder:
    """Gradients of the batches of an epoch, from an early one on as a graph.

    The first is differentiated as usual and, in the first epoch, watched: what goes to or comes
    from the CPU would not be in a graph. Another is timed: a GPU that is busy gains nothing. The
    next is recorded, and it and all of its shape are played. State: none that a resume needs.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], record: Record = record_on_gpu) -> None:
        self.parameters, self.record = parameters, record
        self.pays: bool | None = None  # None: not known yet
        self.plays = 0  # batches that were played
        self._is_clean = False  # whether a batch was watched and nothing seen
        self.forget()

    def forget(self) -> None:
        """Let go of the graph and its memory: the epoch has ended, or memory is short."""
        self._loss: object = None
        self._tape: Tape | None = None
        self._shapes: list[torch.Size] = []
        self._stage, self._watched = Stage.PLAIN, 0

    def __call__(self, batch: Batch, loss: object, differentiate: Differentiate) -> Numbers:
        """Set the gradients of the batch to those of `loss`, an object that is new each epoch."""
        if loss is not self._loss:
            self.forget()
            self._loss, self._shapes = loss, shapes(batch)
            if self.pays is not False:
                self._stage = Stage.WATCH
        if shapes(batch) != self._shapes:  # the last batch of an epoch is smaller
            return differentiate(batch)
        match self._stage:
            case Stage.WATCH:
                return self._watch(batch, differentiate)
            case Stage.TIME:
                return self._time(batch, differentiate)
            case Stage.RECORD:
                return self._begin(batch, differentiate)
            case Stage.PLAY:
                return self._play(batch)
        return differentiate(batch)

    def _watch(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        after = Stage.TIME if self.pays is None else Stage.RECORD
        if self._is_clean:  # the constants of this epoch's loss are sent
            self._stage = after
            return differentiate(batch)
        with Watch() as seen:
            found = differentiate(batch)
        self._watched += 1
        if not seen.noticed:
            self._is_clean, self._stage = True, after
        elif self._watched == WATCHES:
            log.info("steps are not recorded as a CUDA graph: %s", seen.noticed[0])
            self.pays, self._stage = False, Stage.PLAIN
        return found

    def _time(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        began = finished(batch.images.device)
        found = differentiate(batch)
        launched = time.perf_counter() - began
        self.pays = launched > LAUNCHING * (finished(batch.images.device) - began)
        self._stage = Stage.RECORD if self.pays else Stage.PLAIN
        return found

    def _begin(self, batch: Batch, differentiate: Differentiate) -> Numbers:
        try:
            self._tape = Tape(batch, differentiate, self.parameters, self.record)
        except torch.OutOfMemoryError as error:
            log.warning("steps are not recorded as a CUDA graph: %s", error)
            self.pays, self._stage = False, Stage.PLAIN
        if self._tape is None:  # out of the block above, which holds what was recorded
            return differentiate(batch)
        self._stage = Stage.PLAY
        return self._play(batch)

    def _play(self, batch: Batch) -> Numbers:
        assert self._tape is not None
        self.plays += 1
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
        own = replace(batch, **{name: value.clone() for name, value in tensors(batch)})
        self.batch, self.parameters = own, parameters
        self.numbers, self.replay = record(lambda: differentiate(own))  # and no circle to the tape
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
        name = str(function).removesuffix(".default")
        devices = {value.device for value in (*given, *made) if value.dim() or "copy" in name}
        picks = "aten.index" in name and any(value.dtype is torch.bool for value in given)
        if len(devices) > 1 or picks or name in WAITING:
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
