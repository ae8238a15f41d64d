"""Mixing the images of a batch (MIXERS). N batch, K classes, A action units.

Images and their targets are blended or pasted together; AU targets stay in [0, 1], or -1 where
unknown. Chance decides once a batch, not once an image.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from trainables.batch import (
    MIXERS,
    Batch,
    Counts,
    Transform,
    happens,
    join,
    none_,
    partners,
    take,
    uniform,
)
from trainables.config import Part
from trainables.device import bring
from trainables.geometry import squares


def mixing(
    part: Part, class_counts: Counts, off: float, epochs: int
) -> Callable[[float], Transform]:
    """Progress -> the mixing in force: the part, and none in the last share `off` of training, in
    whole epochs: those that begin within it, and at least the last."""
    mixer, still = MIXERS[part.name](class_counts, **part.args), none_(class_counts)
    ends = 1 - max(off, 1 / epochs) if off else math.inf
    return lambda progress: still if progress >= ends - 1e-9 else mixer


def blend(batch: Batch, other: Batch, share: float) -> Batch:
    """`share` of each image, the rest of the other batch's image. An AU stays known where both know
    it."""
    regions = batch.regions
    if regions is not None and other.regions is not None:
        regions = torch.lerp(other.regions, regions, share)
    known = (batch.aus >= 0) & (other.aus >= 0)
    return replace(
        batch,
        images=torch.lerp(other.images, batch.images, share),
        targets=torch.lerp(other.targets, batch.targets, share),
        aus=torch.where(known, torch.lerp(other.aus, batch.aus, share), -1.0),
        regions=regions,
    )


@MIXERS.register
def mixup(class_counts: Counts, *, alpha: float = 0.2, probability: float = 0.5) -> Transform:
    """Blend with another image of the batch (Zhang et al. 2018, 1710.09412).

    AU targets blend where both images know the AU and are unknown elsewhere.
    """
    _check(alpha, probability)

    def apply(batch: Batch, generator: Generator) -> Batch:
        if not happens(probability, generator):
            return batch
        share, order = beta(alpha, generator), partners(batch, generator)
        return blend(batch, take(batch, order), share)

    return apply


@MIXERS.register
def remix(
    class_counts: Counts,
    *,
    alpha: float = 0.2,
    probability: float = 0.5,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> Transform:
    """MixUp whose label is the rarer class alone, where that has 1/kappa of the other's images or
    fewer, and where more than 1 - tau of the picture is of it (Chou et al. 2020, 2007.03943).

    The class of a soft target is its largest. AU targets follow the pixels, as under MixUp. It
    moves weight to rare classes: with a rebalancing loss both act (the paper does so, with DRW).
    """
    _check(alpha, probability)
    if kappa < 1:
        raise ValueError(f"kappa {kappa} is below 1: no class is rarer than itself")
    counts = torch.as_tensor(np.maximum(class_counts, 1), dtype=torch.float64)

    def apply(batch: Batch, generator: Generator) -> Batch:
        if not happens(probability, generator):
            return batch
        share, order = beta(alpha, generator), partners(batch, generator)
        other = take(batch, order)
        own = torch.full((len(order),), share, device=order.device)
        of_class = bring(counts, order.device)
        ratio = of_class[batch.targets.argmax(1)] / of_class[other.targets.argmax(1)]
        own = torch.where((ratio >= kappa) & (own < tau), 0.0, own)
        own = torch.where((ratio <= 1 / kappa) & (1 - own < tau), 1.0, own)
        targets = torch.lerp(other.targets, batch.targets, own[:, None].to(batch.targets))
        return replace(blend(batch, other, share), targets=targets)

    return apply


@MIXERS.register
def mixaugment(class_counts: Counts, *, alpha: float = 0.2, probability: float = 1.0) -> Transform:
    """Blended and real images together: L(mixed) + L(real_i) + L(real_j) (Psaroudakis & Kollias
    2022, 2205.04442).

    The batch is dealt into pairs and grows by half, by the blend of each pair, in random order; its
    mean loss is a third of the paper's sum. A step costs 1.5 times as much. Control: `repeated`.
    """
    _check(alpha, probability)
    return _with_pairs(probability, alpha)


@MIXERS.register
def repeated(class_counts: Counts, *, probability: float = 1.0) -> Transform:
    """The control of `mixaugment`: one real image of each pair again, in place of the blend."""
    _check(1.0, probability)
    return _with_pairs(probability, None)


def _with_pairs(probability: float, alpha: float | None) -> Transform:
    """The batch with one more image for each pair: blended, or without `alpha` the first again."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        if not happens(probability, generator):
            return batch
        order, half = partners(batch, generator), len(batch.images) // 2
        more = take(batch, order[:half])
        if alpha is not None:
            more = blend(more, take(batch, order[half : 2 * half]), beta(alpha, generator))
        grown = join(more, batch)
        return take(grown, partners(grown, generator))  # so that every micro-batch has of both

    return apply


@MIXERS.register
def cutmix(class_counts: Counts, *, alpha: float = 1.0, probability: float = 0.5) -> Transform:
    """Paste a square of another image of the batch (Yun et al. 2019, 1905.04899).

    An AU's target is that of the image which owns most of the AU's region.
    """
    _check(alpha, probability)

    def apply(batch: Batch, generator: Generator) -> Batch:
        if not happens(probability, generator):
            return batch
        order, images = partners(batch, generator), batch.images
        length = math.sqrt(1 - beta(alpha, generator))
        side = torch.full((len(images),), length, device=images.device)
        x0 = uniform(0, 1, images, generator) * (1 - side)
        y0 = uniform(0, 1, images, generator) * (1 - side)
        box = squares(x0, y0, side, images.shape[-1])
        kept = 1 - box.float().mean((1, 2, 3))[:, None]  # (N, 1), from the pixels really pasted
        aus, regions = batch.aus, batch.regions
        if regions is not None:
            moved = squares(x0, y0, side, regions.shape[-1])
            aus = _owner_aus(batch, order, moved)
            regions = torch.where(moved, regions[order], regions)
        return replace(
            batch,
            images=torch.where(box, images[order], images),
            targets=kept * batch.targets + (1 - kept) * batch.targets[order],
            aus=aus,
            regions=regions,
        )

    return apply


def _owner_aus(batch: Batch, order: Tensor, moved: Tensor) -> Tensor:
    """AU targets (N, A) after pasting: the partner's where it brings more of the region."""
    assert batch.regions is not None
    brought = (batch.regions[order] * moved).sum((2, 3))
    left = (batch.regions * ~moved).sum((2, 3))
    return torch.where(brought > left, batch.aus[order], batch.aus)


def _check(alpha: float, probability: float) -> None:
    if alpha <= 0:
        raise ValueError(f"alpha {alpha} of the Beta distribution must be above 0")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability} of mixing must be within 0 and 1")


def beta(alpha: float, generator: Generator) -> float:
    """One draw of Beta(alpha, alpha); by numpy, as torch's takes no generator."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
