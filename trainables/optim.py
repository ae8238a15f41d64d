"""The optimiser, its learning rate, the averaged weights, and steps that fit into memory."""

import copy
import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from trainables.augment import Batch

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

    Keeps the number of parts a batch is cut into: it doubles at each out-of-memory error.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float, device: torch.device) -> None:
        self.optimizer, self.clip, self.device, self.parts = optimizer, clip, device, 1
        half = device.type == "cuda"
        bf16 = half and torch.cuda.is_bf16_supported(including_emulation=False)
        self.dtype = torch.bfloat16 if bf16 else torch.float16 if half else torch.float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def step(self, batch: Batch, loss: BatchLoss) -> float:
        """One update on the batch; its mean loss. A single image out of memory raises."""
        while True:
            try:
                return self._step(batch, loss)
            except torch.OutOfMemoryError:
                if self.parts >= len(batch.images):
                    raise
                self.parts *= 2
                self.optimizer.zero_grad(set_to_none=True)
                self._forget_scaling()
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
        for part, share in micro_batches(batch, self.parts):
            with torch.autocast(self.device.type, self.dtype, enabled=self.device.type == "cuda"):
                value = loss(part) * share
            self.scaler.scale(value).backward()
            total += float(value.detach())
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total


def micro_batches(batch: Batch, parts: int) -> Iterable[tuple[Batch, float]]:
    """The batch in up to `parts` pieces, each with its share of the images."""
    if parts == 1:
        yield batch, 1.0
        return
    count = len(batch.images)
    for rows in torch.arange(count, device=batch.images.device).chunk(min(parts, count)):
        regions = None if batch.regions is None else batch.regions[rows]
        piece = Batch(batch.images[rows], batch.targets[rows], batch.aus[rows], regions)
        yield piece, len(rows) / count
