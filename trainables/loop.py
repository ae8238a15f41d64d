"""The innermost loops: one epoch of training, one pass of prediction.

N images, K classes, A action units, S pixels, R region-map size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from trainables.augment import Batch, Transform
from trainables.data.bundle import Split
from trainables.losses import region_loss
from trainables.model import FERModel
from trainables.optim import Average, Stepper

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Objective:
    """L = L_emotion + lambda L_AU + mu L_region, and what each needs."""

    emotion: Callable[[Tensor, Tensor], Tensor]  # (N, K) logits and targets -> (N,)
    au: Callable[[Tensor, Tensor], Tensor]  # (N, A) logits and targets -> (N,)
    au_weight: float
    region_weight: float
    class_weights: Tensor  # (K,), of the deferred re-weighting; ones before it sets in

    def __call__(self, model: FERModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of the batch and its detached parts."""
        out = model(batch.images.contiguous(memory_format=torch.channels_last))
        weights = (batch.targets * self.class_weights).sum(1)
        parts = {"emotion_loss": (self.emotion(out.logits, batch.targets) * weights).mean()}
        total = parts["emotion_loss"] + out.penalty
        if self.au_weight and out.au_logits is not None:
            known = (batch.aus >= 0).any(1).sum().clamp_min(1)  # images without labels do not count
            parts["au_loss"] = self.au(out.au_logits, batch.aus).sum() / known
            total = total + self.au_weight * parts["au_loss"]
        if self.region_weight and out.au_maps is not None and batch.regions is not None:
            parts["region_loss"] = region_loss(out.au_maps, batch.regions, batch.aus)
            total = total + self.region_weight * parts["region_loss"]
        return total, {name: value.detach() for name, value in parts.items()}


@dataclass(frozen=True)
class Feed:
    """Training images as batches: whole on the device when they fit, else from the memory map."""

    images: Tensor | NDArray[np.uint8]  # (N, 3, S, S): on the device, or memory-mapped
    targets: Tensor  # (N, K)
    aus: Tensor  # (N, A)
    regions: Tensor | None  # (A, R, R), the same template for every image
    transforms: tuple[Transform, ...]
    batch_size: int
    device: torch.device

    def batches(self, order: NDArray[np.int64], generator: Generator) -> Iterator[Batch]:
        """The images in this order, augmented; a last batch of one is left out (batch norm)."""
        rows = torch.from_numpy(order)
        for chosen in rows.split(self.batch_size):
            if len(chosen) == 1:
                return
            at = chosen.to(self.device)
            images = self._take(chosen, at)
            regions = self.regions
            if regions is not None:
                regions = regions.expand(len(at), *regions.shape)
            batch = Batch(images.float() / 255, self.targets[at], self.aus[at], regions)
            for transform in self.transforms:
                batch = transform(batch, generator)
            yield batch

    def _take(self, chosen: Tensor, at: Tensor) -> Tensor:
        """uint8 images (N, 3, S, S) on the device; `at` is `chosen` on the device."""
        if isinstance(self.images, Tensor):
            return self.images[at]
        return torch.from_numpy(self.images[chosen.numpy()]).to(self.device, non_blocking=True)


def train_epoch(
    model: FERModel,
    average: Average,
    batches: Iterator[Batch],
    objective: Objective,
    stepper: Stepper,
    learning_rate: Callable[[], None],
) -> dict[str, float]:  # six arguments, each a thing the epoch drives
    """Train on the batches; the mean of each part of the loss. Raises FloatingPointError on NaN."""
    model.train()
    sums: dict[str, float] = {}
    images = 0
    for batch in batches:
        learning_rate()
        parts: dict[str, Tensor] = {}

        def loss(piece: Batch, parts: dict[str, Tensor] = parts) -> Tensor:
            total, found = objective(model, piece)
            parts.update(found)
            return total

        value = stepper.step(batch, loss)
        if not np.isfinite(value):
            detail = ", ".join(f"{name} {float(part):g}" for name, part in parts.items())
            raise FloatingPointError(f"the training loss is {value} ({detail})")
        average.update(model)
        images += len(batch.images)
        for name, number in {
            "train_loss": value,
            **{n: float(p) for n, p in parts.items()},
        }.items():
            sums[name] = sums.get(name, 0.0) + number * len(batch.images)
    return {name: total / max(1, images) for name, total in sums.items()}


@torch.inference_mode()
def predict(
    model: nn.Module, split: Split, device: torch.device, dtype: torch.dtype
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Class probabilities (N, K) and AU probabilities (N, A), or (N, 0) without an AU head."""
    model.eval()
    probs, au_probs = [], []
    for start in range(0, len(split), EVALUATION_BATCH):
        images = torch.from_numpy(np.array(split.images[start : start + EVALUATION_BATCH]))
        with torch.autocast(device.type, dtype, enabled=device.type == "cuda"):
            pixels = images.to(device).float() / 255
            out = model(pixels.contiguous(memory_format=torch.channels_last))
        probs.append(out.logits.float().softmax(1).cpu())
        found = out.au_logits
        au_probs.append(
            images.new_zeros((len(images), 0), dtype=torch.float32)
            if found is None
            else found.float().sigmoid().cpu()
        )
    return torch.cat(probs).numpy(), torch.cat(au_probs).numpy()
