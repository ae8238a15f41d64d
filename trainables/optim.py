"""Optimiser steps that fit into memory."""

import logging
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import nn

from trainables.balance import TASKS, Balance, Losses, Pair
from trainables.batch import Batch, take
from trainables.cuda_graphs import Numbers, Recorder
from trainables.device import mixed_precision, training_dtype
from trainables.replica import Replica
from trainables.sam import Ascent
from trainables.taskwise import TaskGradients

log = logging.getLogger(__name__)

BatchLoss = Callable[[Batch, Batch], Losses]  # of a piece, and the whole batch that it is of


class Stepper:
    """Optimiser steps with mixed precision, clipping, and smaller pieces when memory is short.

    Keeps the number of parts a batch is cut into: it doubles at each out-of-memory error. Ranks
    must agree on it, and one that stops in the middle of a step leaves the others waiting: they
    rehearse the first step on a GPU, and any on a larger batch, each by itself. With an `ascent` a
    step has two passes, its losses are of the first and `norms` of the second. State: `replica`,
    set where there are ranks; `recorder`, where plain steps may be replayed by a GPU; `norms`, of
    the last step whose gradients were taken task by task.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        clip: float,
        device: torch.device,
        balance: Balance | None = None,
        ascent: Ascent | None = None,
    ) -> None:
        self.optimizer, self.clip, self.device, self.parts = optimizer, clip, device, 1
        self.balance, self.ascent = balance or Balance(), ascent
        self.norms: Pair | None = None
        self.replica: Replica | None = None
        self.recorder: Recorder | None = None
        # Numbers in the largest batch tried; elsewhere memory does not run out in this way.
        self.rehearsed = 0.0 if device.type == "cuda" else math.inf
        self.dtype = training_dtype(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def step(self, batch: Batch, loss: BatchLoss, by_task: bool = False) -> Numbers:
        """One update on the batch; its mean loss, before balancing, and the parts of that.

        `by_task` shows the gradients of the tasks by themselves, in `norms`, for one more backward
        pass. A single image out of memory raises.
        """
        by_task = by_task or self.balance.rule.by_task
        if self.replica is not None:
            if batch.images.numel() > self.rehearsed:  # mixing and image sizes make batches grow
                rehearse(self, self.replica, batch, loss)
            return self._step(batch, loss, by_task)
        while True:
            try:
                return self._step(batch, loss, by_task)
            except torch.OutOfMemoryError:
                if self.recorder is None and self.parts >= len(batch.images):
                    raise
                self.scaler = begun_anew(self.scaler, self.device)
                self.cut(batch)

    def cut(self, batch: Batch) -> None:
        """After a step that was short of memory: let go of what it holds, and take smaller pieces;
        first, where there is one, do without the graph, which has memory of its own."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.recorder is not None:
            self.recorder.forget()
            self.recorder = None
            log.warning("out of memory: steps are no longer recorded as a CUDA graph")
        else:
            self.parts *= 2
            log.warning(
                "out of memory: each batch of %d is now cut into %d micro-batches",
                len(batch.images),
                self.parts,
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _step(self, batch: Batch, loss: BatchLoss, by_task: bool) -> Numbers:
        on_gpu = [self.device] if self.device.type == "cuda" else []
        if self.recorder is not None and not by_task and self._is_plain:
            sums = self.recorder(batch, loss, lambda b: self._differentiate(b, loss, by_task=False))
        elif self.ascent is None:
            sums = self._differentiate(batch, loss, by_task)
        else:
            with torch.random.fork_rng(on_gpu):  # both passes drop the same units
                sums = self._differentiate(batch, loss, by_task=False)  # up the slope of the whole
            with self.ascent.climbed(self.parameters):
                self._differentiate(batch, loss, by_task)
        self.scaler.unscale_(self.optimizer)
        foreach = True if self.device.type == "cpu" else None  # elsewhere it is torch's choice
        nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=foreach)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.balance.learns:
            self._learn(sums)
        return {name: value for name, value in sums.items() if name not in TASKS}

    def forget(self) -> None:
        """Let go of what served the steps of an epoch."""
        if self.recorder is not None:
            self.recorder.forget()

    @property
    def _is_plain(self) -> bool:
        """Whether a step is the same for each batch: no number of it is read in between."""
        is_split = self.parts > 1 or self.replica is not None or self.ascent is not None
        return not (is_split or self.balance.learns or self.scaler.is_enabled())

    def _differentiate(self, batch: Batch, loss: BatchLoss, by_task: bool) -> Numbers:
        """Set the gradients, still scaled, to those of the batch on all ranks; its losses."""
        self.optimizer.zero_grad(set_to_none=True)
        gradients = TaskGradients(self.parameters, by_task)
        sums: Numbers = {}
        pieces = list(micro_batches(batch, self.parts))
        for number, (part, share) in enumerate(pieces, 1):
            is_exchanged = number == len(pieces) and not by_task  # once a step
            with nullcontext() if is_exchanged or self.replica is None else self.replica.hold():
                found = self.backward(part, batch, loss, share, gradients)
            for name, value in found.items():
                sums[name] = share * value + sums.get(name, 0.0)
        if by_task:
            norms = gradients.join(self.balance.rule.join, self.replica)
            self.norms = finite_pair(norms, self.scaler.get_scale())
        return sums

    def backward(
        self, piece: Batch, whole: Batch, loss: BatchLoss, share: float, gradients: TaskGradients
    ) -> Numbers:  # six, with the stepper
        """Add the gradients of a piece, which is such a share of the whole batch; its losses."""
        with mixed_precision(self.device, self.dtype):
            found = loss(piece, whole)
        emotion, au = (
            None if task is None else self.scaler.scale(weight * share * task)
            for task, weight in zip((found.emotion, found.au), self.balance.weights, strict=True)
        )
        gradients.add(emotion, au)
        return found.numbers()

    def _learn(self, sums: Numbers) -> None:
        """Tell the balance what the step has shown, the same on every rank."""
        found = {name: float(sums[name]) for name in TASKS}
        if self.replica is not None:
            found = self.replica.ranks.mean(found)
        if self.norms is not None or not self.balance.rule.by_task:
            self.balance.learn((found[TASKS[0]], found[TASKS[1]]), self.norms or (0.0, 0.0))

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def rehearse(stepper: Stepper, replica: Replica, batch: Batch, loss: BatchLoss) -> None:
    """Find the number of parts with which a step fits into the memory of every rank.

    Raises OutOfMemoryError, on every rank, when on one of them not even one image fits.
    """
    most, parameters = len(batch.images), stepper.parameters
    copies = (0 if stepper.optimizer.state else 2) + (stepper.ascent is not None)
    state = [torch.empty_like(p) for p in parameters for _ in range(copies)]  # Adam's, the ascent's
    with torch.random.fork_rng(), replica.alone():
        while stepper.parts <= most:
            try:
                piece, _ = next(iter(micro_batches(batch, stepper.parts)))
                gradients = TaskGradients(parameters, by_task=True)  # the most that a step holds
                stepper.backward(piece, piece, loss, 1.0, gradients)
                break
            except torch.OutOfMemoryError:
                stepper.cut(batch)
    stepper.optimizer.zero_grad(set_to_none=True)
    del state
    (parts,) = replica.ranks.most(stepper.parts)
    if parts > most:
        raise torch.OutOfMemoryError("out of memory: not even one image a rank fits")
    stepper.parts, stepper.rehearsed = int(parts), batch.images.numel()


def begun_anew(scaler: torch.amp.GradScaler, device: torch.device) -> torch.amp.GradScaler:
    """A scaler that can begin its step again: the old one refuses to unscale twice."""
    if not scaler.is_enabled():
        return scaler
    return torch.amp.GradScaler(device.type, init_scale=scaler.get_scale())


def finite_pair(norms: Pair, scale: float) -> Pair | None:
    """Norms of scaled gradients as they are; None where one overflowed: that step is skipped."""
    return (norms[0] / scale, norms[1] / scale) if math.isfinite(sum(norms)) else None


def micro_batches(batch: Batch, parts: int) -> Iterable[tuple[Batch, float]]:
    """The batch in up to `parts` pieces, each with its share of the images."""
    if parts == 1:
        yield batch, 1.0
        return
    count = len(batch.images)
    size = -(-count // min(parts, count))
    for start in range(0, count, size):
        piece = take(batch, slice(start, start + size))
        yield piece, len(piece.images) / count
