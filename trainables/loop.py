"""The innermost loops: one epoch of training, one pass of prediction.

With several ranks each trains on its share of every batch, and normalises by the whole batch.
N images, K classes, A action units, S pixels, R region-map size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from trainables.augment import AUGMENTS, Batch, Transform
from trainables.averages import Average
from trainables.balance import Losses
from trainables.basics import basic_loss
from trainables.batch import take
from trainables.config import TrialConfig
from trainables.data import aus
from trainables.data.bundle import DataBundle, Split
from trainables.data.tables import region_maps
from trainables.local import local_of
from trainables.losses import region_loss
from trainables.mixing import mixing
from trainables.model import Output
from trainables.optim import Stepper
from trainables.prototypes import Prior
from trainables.ranks import ALONE, Ranks
from trainables.targets import training_targets

EVALUATION_BATCH = 256
CARRIED = 1024  # images at a time to the device
REGION_SIZE = 16  # region maps are supervision for feature maps, which are no finer


@dataclass(frozen=True)
class Objective:
    """L = L_emotion + lambda L_AU + mu L_region + L_prior, and what each needs."""

    emotion: Callable[[Tensor, Tensor], Tensor]  # (N, K) logits and targets -> (N,)
    au: Callable[[Tensor, Tensor], Tensor]  # (N, A) logits and targets -> (N,)
    au_weight: float
    region_weight: float
    class_weights: Tensor  # (K,), of the deferred re-weighting; ones before it sets in
    prior: Prior | None = None  # of the AUs, its weight included
    ranks: Ranks = ALONE
    members: Tensor | None = None  # (K, B) while basic emotions are taught in place of classes

    def __call__(self, model: nn.Module, batch: Batch, whole: Batch | None = None) -> Losses:
        """The mean losses of the batch; those of ranks, whose mean they are, add up to them.

        Of a piece of a `whole` batch they are such that the mean over its pieces is that of the
        whole, however the AU labels are spread over these.
        """
        rows, factor = self.ranks.share(len(batch.images))
        own = take(batch, rows)
        out = model(own.images.contiguous(memory_format=torch.channels_last), own.boxes)
        weights = (own.targets * self.class_weights).sum(1)
        emotion = (self._of_emotion(out, own.targets) * weights).sum()
        parts = {"emotion_loss": factor * emotion / len(batch.images)}
        au = None
        for name, weight, value in self._au_parts(out, own, batch, whole or batch):
            parts[name] = factor * value
            au = weight * parts[name] + (0 if au is None else au)
        detached = {name: value.detach() for name, value in parts.items()}
        return Losses(parts["emotion_loss"] + out.penalty, au, detached)

    def _of_emotion(self, out: Output, targets: Tensor) -> Tensor:
        """(N,) of the classes or of the basic emotions; the logits of the others weigh nothing,
        and are there because ranks expect a gradient on every parameter."""
        if out.basic_logits is None:
            return self.emotion(out.logits, targets)
        if self.members is None:
            return self.emotion(out.logits, targets) + 0 * out.basic_logits.float().sum()
        return basic_loss(out.basic_logits, targets, self.members) + 0 * out.logits.float().sum()

    def _au_parts(
        self, out: Output, own: Batch, batch: Batch, whole: Batch
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of each loss on AUs, as this rank's part of the batch.

        A weight of 0 has its part too: ranks expect a gradient on every parameter.
        """
        share = len(batch.images) / len(whole.images)
        if out.au_logits is not None:
            known = (whole.aus >= 0).any(1).sum().clamp_min(1)  # images without labels do not count
            value = self.au(out.au_logits, own.aus).sum() / (share * known)
            yield "au_loss", self.au_weight, value
        if self.prior is not None and out.au_logits is not None:
            each = self.prior(out.logits, out.au_logits, own.targets, own.aus)
            yield "prior_loss", 1.0, each.sum() / len(batch.images)
        if self.region_weight and out.au_maps is not None and own.regions is not None:
            of_own, of_all = ((b.aus > 0.5).sum().clamp_min(1) for b in (own, whole))
            mean = region_loss(out.au_maps, own.regions, own.aus)
            yield "region_loss", self.region_weight, (of_own / (share * of_all)) * mean


@dataclass(frozen=True)
class Feed:
    """Training images as batches: whole on the device when they fit, else from the memory map."""

    images: Tensor | NDArray[np.uint8]  # (N, 3, S, S): on the device, or memory-mapped
    targets: Tensor  # (N, K)
    aus: Tensor  # (N, A)
    regions: Tensor | None  # (A, R, R), the same template for every image
    boxes: Tensor | None  # (B, 4), likewise
    mirror: Tensor | None  # (A,) which AU each becomes in a mirror, where sides are kept
    augment: Transform
    mixing: Callable[[float], Transform]  # by progress
    batch_size: int
    device: torch.device
    size: int = 0  # to which images are made smaller; 0: as they are

    def batches(
        self, order: NDArray[np.int64], generator: Generator, progress: float = 0.0
    ) -> Iterator[Batch]:
        """The images in this order, augmented; a last batch of one is left out (batch norm)."""
        rows, mix = torch.from_numpy(order), self.mixing(progress)
        for chosen in rows.split(self.batch_size):
            if len(chosen) == 1:
                return
            at = chosen.to(self.device)
            images = self._take(chosen, at)
            regions, boxes = (
                None if template is None else template.expand(len(at), *template.shape)
                for template in (self.regions, self.boxes)
            )
            pixels = self._resized(images.float() / 255)
            batch = Batch(pixels, self.targets[at], self.aus[at], regions, boxes, self.mirror)
            yield mix(self.augment(batch, generator), generator)

    def _resized(self, pixels: Tensor) -> Tensor:
        if self.size in (0, pixels.shape[-1]):
            return pixels
        small = functional.interpolate(pixels, (self.size,) * 2, mode="bilinear", antialias=True)
        return small.clamp(0, 1)

    def _take(self, chosen: Tensor, at: Tensor) -> Tensor:
        """uint8 images (N, 3, S, S) on the device; `at` is `chosen` on the device."""
        if isinstance(self.images, Tensor):
            return self.images[at]
        return torch.from_numpy(self.images[chosen.numpy()]).to(self.device, non_blocking=True)


def on_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The images there, brought piece by piece: the host may have no room for them all."""
    out = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), CARRIED):
        piece = np.array(images[start : start + CARRIED])
        out[start : start + CARRIED] = torch.from_numpy(piece)
    return out


def make_feed(config: TrialConfig, bundle: DataBundle, device: torch.device) -> Feed:
    """The training images of a trial, ready to be indexed."""
    train = bundle.train
    targets = training_targets(bundle, config.soft_labels)
    pastes = "cutmix" in (config.mix.name, config.basics.args.get("mixing"))
    uses_regions = bool(bundle.au_names) and (config.region_weight > 0 or pastes)
    regions = torch.from_numpy(region_maps(bundle.au_names, REGION_SIZE)) if uses_regions else None
    boxes = local_of(config).boxes.to(device)
    mirror = aus.mirror(bundle.au_names)
    images: Tensor | NDArray[np.uint8] = train.images
    if device.type == "cuda" and train.images.nbytes < 0.5 * _free_bytes():
        images = on_device(train.images, device)
    counts, augment = bundle.class_counts(), config.augment
    return Feed(
        images,
        targets.to(device),
        torch.from_numpy(train.aus.astype(np.float32)).to(device),
        None if regions is None else regions.to(device),
        boxes if len(boxes) else None,
        None if mirror is None else torch.tensor(mirror, device=device),
        AUGMENTS[augment.name](counts, bundle.au_names, **augment.args),
        mixing(config.mix, counts, config.mix_off),
        config.batch_size,
        device,
    )


def _free_bytes() -> float:
    """Of the GPU, as far as a process that has only a share of it may count on them."""
    return torch.cuda.mem_get_info()[0] * torch.cuda.get_per_process_memory_fraction()


def train_epoch(
    model: nn.Module,
    average: Average,
    batches: Iterator[Batch],
    objective: Objective,
    stepper: Stepper,
    learning_rate: Callable[[], None],
) -> dict[str, float]:  # six arguments, each a thing the epoch drives
    """Train on the batches; the mean of each part of the loss. Raises FloatingPointError on NaN.

    One batch that has AU labels is taken task by task, so that `stepper.norms` tells of the epoch.
    """
    model.train()
    stepper.norms = None
    sums: dict[str, float] = {}
    images = 0
    for batch in batches:
        learning_rate()
        is_measured = objective.au_weight > 0 and stepper.norms is None and has_aus(batch)
        own = stepper.step(batch, partial(objective, model, whole=batch), is_measured)
        found = objective.ranks.mean(own)
        if not np.isfinite(found["train_loss"]):
            detail = ", ".join(f"{name} {part:g}" for name, part in list(found.items())[1:])
            raise FloatingPointError(f"the training loss is {found['train_loss']} ({detail})")
        average.update(model)
        images += len(batch.images)
        for name, number in found.items():
            sums[name] = sums.get(name, 0.0) + number * len(batch.images)
    return {name: total / max(1, images) for name, total in sums.items()}


def has_aus(batch: Batch) -> bool:
    """Whether an AU of any of the images is known."""
    return bool((batch.aus >= 0).any())


@torch.inference_mode()
def predict(
    model: nn.Module,
    split: Split,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Class probabilities (N, K) and AU probabilities (N, A), or (N, 0) without an AU head.

    Each rank looks at its share of the images and all get the whole.
    """
    model.eval()
    probs, au_probs = [], []
    rows, _ = ranks.share(len(split))
    for start in range(rows.start, rows.stop, EVALUATION_BATCH):
        stop = min(start + EVALUATION_BATCH, rows.stop)
        images = torch.from_numpy(np.array(split.images[start:stop]))
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
    own = torch.cat(probs).numpy(), torch.cat(au_probs).numpy()
    return ranks.gather(own[0], len(split)), ranks.gather(own[1], len(split))
