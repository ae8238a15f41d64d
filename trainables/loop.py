"""The innermost loops: one epoch of training, one pass of prediction.

With several ranks each trains on its share of every batch, and normalises by the whole batch.
N images, K classes, A action units, S pixels, R region-map size.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.augment import Batch
from trainables.averages import Average
from trainables.balance import Losses
from trainables.basics import basic_loss
from trainables.batch import take
from trainables.data.bundle import Split
from trainables.device import mixed_precision, streamed
from trainables.losses import region_loss
from trainables.model import Output
from trainables.optim import Stepper
from trainables.prototypes import Prior
from trainables.ranks import ALONE, Ranks
from trainables.store import Predictions

EVALUATION_BATCH = 128  # of 256 images, maps are larger than the blocks that a CPU keeps
LOOK = 50  # steps after which the losses are looked at: looking makes a GPU, and all ranks, wait


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

    def __call__(self, model: nn.Module, batch: Batch, whole: Batch) -> Losses:
        """The mean losses of the batch; those of ranks, whose mean they are, add up to them.

        Of a piece of a `whole` batch they are such that the mean over its pieces is that of the
        whole, however the AU labels are spread over these.
        """
        rows, factor = self.ranks.share(len(batch.images))
        own = take(batch, rows)
        out = model(own.images, own.boxes)
        weights = (own.targets * self.class_weights).sum(1)
        emotion = (self._of_emotion(out, own.targets) * weights).sum()
        parts = {"emotion_loss": factor * emotion / len(batch.images)}
        au = None
        for name, weight, value in self._au_parts(out, own, batch, whole):
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
            value = self.au(out.au_logits, own.aus).sum() / known / share
            yield "au_loss", self.au_weight, value
        if self.prior is not None and out.au_logits is not None:
            each = self.prior(out.logits, out.au_logits, own.targets, own.aus)
            yield "prior_loss", 1.0, each.sum() / len(batch.images)
        if self.region_weight and out.au_maps is not None and own.regions is not None:
            of_own, of_all = ((b.aus > 0.5).sum().clamp_min(1) for b in (own, whole))
            mean = region_loss(out.au_maps, own.regions, own.aus)
            yield "region_loss", self.region_weight, mean * of_own / of_all / share


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
    stepper.norms, loss = None, partial(objective, model)
    sums: dict[str, Tensor] = {}
    steps = images = 0
    try:
        for batch in batches:
            learning_rate()
            is_measured = objective.au_weight > 0 and stepper.norms is None and has_aus(batch)
            found = stepper.step(batch, loss, is_measured)
            average.update(model)
            steps, images = steps + 1, images + len(batch.images)
            for name, value in found.items():
                sums[name] = len(batch.images) * value + sums.get(name, 0.0)
            if steps % LOOK == 0:
                means_of(sums, images, objective.ranks)
    finally:
        stepper.forget()
    return means_of(sums, images, objective.ranks)


def means_of(sums: Mapping[str, Tensor], images: int, ranks: Ranks) -> dict[str, float]:
    """The mean losses of so many images on all ranks. Raises FloatingPointError on NaN."""
    if not sums:
        return {}
    found = ranks.mean({name: float(total) / images for name, total in sums.items()})
    if not np.isfinite(found["train_loss"]):
        detail = ", ".join(f"{name} {part:g}" for name, part in list(found.items())[1:])
        raise FloatingPointError(f"the training loss is {found['train_loss']} ({detail})")
    return found


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
    """Logits (N, K) and AU probabilities (N, A), or (N, 0) without an AU head.

    Each rank looks at its share of the images and all get the whole.
    """
    logits, au_probs = [], []
    for out in outputs(model, split, device, dtype, ranks):
        none = out.logits.new_zeros((len(out.logits), 0))
        logits.append(out.logits.float())
        au_probs.append((none if out.au_logits is None else out.au_logits).float().sigmoid())
    own = [torch.cat(found).cpu().numpy() for found in (logits, au_probs)]
    return ranks.gather(own[0], len(split)), ranks.gather(own[1], len(split))


def predictions(
    split: Split, logits: NDArray[np.float32], au_probs: NDArray[np.float32]
) -> Predictions:
    """The record of what `predict` has found."""
    probs = torch.from_numpy(logits).softmax(1).numpy()
    return Predictions(split.ids, split.labels, probs, split.aus, au_probs)


@torch.inference_mode()
def outputs(
    model: nn.Module,
    split: Split,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks,
    view: Callable[[Tensor], Tensor] = lambda images: images,
) -> Iterator[Output]:  # six: the five of `predict`, and how the images are looked at
    """What the model says of a view of this rank's share of the images, batch by batch."""
    model.eval()
    share, _ = ranks.share(len(split))
    places = np.arange(share.start, share.stop)
    pieces = [places[at : at + EVALUATION_BATCH] for at in range(0, len(places), EVALUATION_BATCH)]
    for images in streamed(split.images, pieces, device):
        pixels = view(images.float().div_(255))
        with mixed_precision(device, dtype):
            out: Output = model(pixels)
        yield out
