"""The averaged weights, and optimiser steps that fit into memory."""

import copy
import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainables.augment import Batch
from trainables.replica import Replica

log = logging.getLogger(__name__)

BatchLoss = Callable[[Batch], Tensor]


class Average(nn.Module):
    """Exponential moving average of a model's weights and buffers (Polyak averaging).

    Early on the decay is lower, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        share = 1 - min(self.decay, self.updates / (10 + self.updates))
        old, new = _floats(self.model), _floats(model)
        torch._foreach_lerp_(old, new, share)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            if not mine.is_floating_point():
                mine.copy_(theirs)


def _floats(model: nn.Module) -> list[Tensor]:
    tensors: Iterable[Tensor] = (*model.parameters(), *model.buffers())
    return [t for t in tensors if t.is_floating_point()]


class Stepper:
    """Optimiser steps with mixed precision, clipping, and smaller pieces when memory is short.

    Keeps the number of parts a batch is cut into: it doubles at each out-of-memory error. Ranks
    must agree on it, and one that stops in the middle of a step leaves the others waiting: they
    rehearse the first step on a GPU, each by itself. State: `replica`, set where there are ranks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float, device: torch.device) -> None:
        self.optimizer, self.clip, self.device, self.parts = optimizer, clip, device, 1
        self.replica: Replica | None = None
        self.is_rehearsed = device.type != "cuda"  # elsewhere memory does not run out in this way
        half = device.type == "cuda"
        bf16 = half and torch.cuda.is_bf16_supported(including_emulation=False)
        self.dtype = torch.bfloat16 if bf16 else torch.float16 if half else torch.float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def step(self, batch: Batch, loss: BatchLoss) -> float:
        """One update on the batch; its mean loss. A single image out of memory raises."""
        if self.replica is not None:
            if not self.is_rehearsed:
                self.rehearse(self.replica, batch, loss)
            return self._step(batch, loss)
        while True:
            try:
                return self._step(batch, loss)
            except torch.OutOfMemoryError:
                if self.parts >= len(batch.images):
                    raise
                self.parts *= 2
                self._forget_scaling()
                self._free(batch)

    def rehearse(self, replica: Replica, batch: Batch, loss: BatchLoss) -> None:
        """Find the number of parts with which a step fits into the memory of every rank.

        Raises OutOfMemoryError, on every rank, when on one of them not even one image fits.
        """
        most = len(batch.images)
        state = [torch.empty_like(p) for p in replica.parameters() for _ in range(2)]  # Adam's
        with torch.random.fork_rng(), replica.alone():
            while self.parts <= most:
                try:
                    piece, _ = next(iter(micro_batches(batch, self.parts)))
                    self._loss(piece, loss).backward()
                    break
                except torch.OutOfMemoryError:
                    self.parts *= 2
                    self._free(batch)
        self.optimizer.zero_grad(set_to_none=True)
        del state
        (parts,) = replica.ranks.most(self.parts)
        if parts > most:
            raise torch.OutOfMemoryError("out of memory: not even one image a rank fits")
        self.parts, self.is_rehearsed = int(parts), True

    def _free(self, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "out of memory: each batch of %d is now cut into %d micro-batches",
            len(batch.images),
            self.parts,
        )

    def _forget_scaling(self) -> None:
        """Let the scaler begin its step anew: it refuses to unscale twice."""
        if self.scaler.is_enabled():
            scale = self.scaler.get_scale()
            self.scaler = torch.amp.GradScaler(self.device.type, init_scale=scale)

    def _step(self, batch: Batch, loss: BatchLoss) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        pieces = list(micro_batches(batch, self.parts))
        for number, (part, share) in enumerate(pieces, 1):
            is_last = number == len(pieces)  # ranks exchange gradients once a step
            with nullcontext() if is_last or self.replica is None else self.replica.hold():
                value = self._loss(part, loss) * share
                self.scaler.scale(value).backward()
            total += float(value.detach())
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total

    def _loss(self, batch: Batch, loss: BatchLoss) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.device.type == "cuda"):
            return loss(batch)


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


def take(batch: Batch, rows: slice) -> Batch:
    """These images of the batch, and all that goes with them."""
    regions = None if batch.regions is None else batch.regions[rows]
    boxes = None if batch.boxes is None else batch.boxes[rows]
    return replace(
        batch,
        images=batch.images[rows],
        targets=batch.targets[rows],
        aus=batch.aus[rows],
        regions=regions,
        boxes=boxes,
    )
