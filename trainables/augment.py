"""Augmentation, batched on the device. N batch, K classes, A action units, S pixels, R map size.

A transform takes a Batch and a generator and returns a Batch. Every image gets its own draw, and
region maps and boxes move with the pixels, which is why this is written out: torchvision v2 draws
one set of parameters for a whole batch, and kornia draws from the global generator.
The distribution is the same for all classes: a minority-only one would be a label in itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from trainables.registry import Registry


@dataclass(frozen=True)
class Batch:
    """What a training step sees."""

    images: Tensor  # (N, 3, S, S) float in [0, 1]
    targets: Tensor  # (N, K) float, rows sum to 1
    aus: Tensor  # (N, A) float in [0, 1], or -1 where unknown
    regions: Tensor | None = None  # (N, A, R, R) float in [0, 1]: where each AU acts
    boxes: Tensor | None = None  # (N, B, 4) x0, y0, x1, y1 in [0, 1]: what a local branch looks at
    mirror: Tensor | None = None  # (A,) which AU each becomes in a mirror, where sides are kept


Transform = Callable[[Batch, Generator], Batch]

AUGMENTS: Registry[Callable[..., Transform]] = Registry("augmentation")
MIXERS: Registry[Callable[..., Transform]] = Registry("mixing rule")


@AUGMENTS.register
@MIXERS.register
def none_() -> Transform:
    """The batch as it is."""
    return lambda batch, _: batch


@AUGMENTS.register
def light() -> Transform:
    """Flip, small affine, brightness and contrast."""
    return _chain(
        flip, _affine(degrees=8, scale=0.08, shift=0.04), _photometric(light=0.2, contrast=0.2)
    )


@AUGMENTS.register
def medium() -> Transform:
    """Flip, affine, brightness, contrast, grey and erasing."""
    return _chain(
        flip,
        _affine(degrees=15, scale=0.12, shift=0.06),
        _photometric(light=0.35, contrast=0.35, grey=0.15),
        _erase(probability=0.25, area=0.1),
    )


def _chain(*transforms: Transform) -> Transform:
    def apply(batch: Batch, generator: Generator) -> Batch:
        for transform in transforms:
            batch = transform(batch, generator)
        return batch

    return apply


def _uniform(low: float, high: float, like: Tensor, generator: Generator) -> Tensor:
    """(N,) draws on the device of `like`."""
    draws = torch.rand(len(like), generator=generator, device=generator.device)
    return (low + (high - low) * draws).to(like.device)


def flip(batch: Batch, generator: Generator) -> Batch:
    """Mirror half of the images, their maps and boxes, and AUs of the left and the right side."""
    chosen = (_uniform(0, 1, batch.images, generator) < 0.5)[:, None, None, None]
    aus, regions, boxes = batch.aus, batch.regions, batch.boxes
    turned = None if regions is None else regions.flip(3)
    if batch.mirror is not None:
        aus = torch.where(chosen[:, :, 0, 0], aus[:, batch.mirror], aus)
        turned = None if turned is None else turned[:, batch.mirror]
    if regions is not None and turned is not None:
        regions = torch.where(chosen, turned, regions)
    if boxes is not None:  # a box stays with what it is around: the left eye is now on the left
        x0, y0, x1, y1 = boxes.unbind(2)
        boxes = torch.where(chosen[..., 0], torch.stack([1 - x1, y0, 1 - x0, y1], 2), boxes)
    images = torch.where(chosen, batch.images.flip(3), batch.images)
    return replace(batch, images=images, aus=aus, regions=regions, boxes=boxes)


def _affine(degrees: float, scale: float, shift: float) -> Transform:
    """Rotation, zoom and shift (as a share of the side), one draw an image."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        images = batch.images
        angle = _uniform(-degrees, degrees, images, generator) * math.pi / 180
        zoom = 1 / (1 + _uniform(-scale, scale, images, generator))
        moves = [2 * _uniform(-shift, shift, images, generator) for _ in range(2)]
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        theta = torch.stack(
            [torch.stack([cos, -sin, moves[0]], 1), torch.stack([sin, cos, moves[1]], 1)], 1
        )
        regions = batch.regions
        if regions is not None:
            regions = _warp(regions, theta, "zeros")
        boxes = None if batch.boxes is None else _warp_boxes(batch.boxes, theta)
        images = _warp(images, theta, "reflection")
        return replace(batch, images=images, regions=regions, boxes=boxes)

    return apply


def _warp(maps: Tensor, theta: Tensor, padding: str) -> Tensor:
    grid = F.affine_grid(theta.to(maps.dtype), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode=padding, align_corners=False)


def _warp_boxes(boxes: Tensor, theta: Tensor) -> Tensor:
    """The boxes around where their centres went, larger or smaller as the image; still upright.

    theta is from output to input, as in affine_grid: a rotation times a zoom, and a shift.
    """
    turn, shift = theta[:, :, :2], theta[:, None, :, 2]
    zoom = torch.linalg.det(turn).sqrt()[:, None, None]
    centre = boxes[..., :2] + boxes[..., 2:] - 1  # in [-1, 1]
    half = (boxes[..., 2:] - boxes[..., :2]) / zoom
    centre = (centre - shift) @ turn / zoom**2  # by the inverse: its transpose over zoom squared
    return (torch.cat([centre - half, centre + half], 2).clamp(-1, 1) + 1) / 2


def _photometric(light: float, contrast: float, grey: float = 0.0) -> Transform:
    """Brightness (added), contrast (about the image's mean) and, with a chance, grey. No hue."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        images = batch.images
        gain = 1 + _uniform(-contrast, contrast, images, generator)[:, None, None, None]
        offset = _uniform(-light, light, images, generator)[:, None, None, None]
        mean = images.mean((1, 2, 3), keepdim=True)
        images = ((images - mean) * gain + mean + offset).clamp(0, 1)
        if grey:
            chosen = (_uniform(0, 1, images, generator) < grey)[:, None, None, None]
            images = torch.where(chosen, images.mean(1, keepdim=True), images)
        return replace(batch, images=images)

    return apply


def _erase(probability: float, area: float) -> Transform:
    """Paint one grey square of a share `area` of the image over it, with a probability."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        images = batch.images
        side = torch.full((len(images),), math.sqrt(area), device=images.device)
        box = _boxes(images, side, generator)
        chosen = (_uniform(0, 1, images, generator) < probability)[:, None, None, None]
        return replace(batch, images=torch.where(box & chosen, 0.5, images))

    return apply


def _boxes(like: Tensor, side: Tensor, generator: Generator) -> Tensor:
    """(N, 1, S, S) boolean masks of squares with sides (N,) in [0, 1], wholly inside the image."""
    x0 = _uniform(0, 1, like, generator) * (1 - side)
    y0 = _uniform(0, 1, like, generator) * (1 - side)
    return _inside(x0, y0, side, like.shape[-1], like.device)


def _inside(x0: Tensor, y0: Tensor, side: Tensor, size: int, device: torch.device) -> Tensor:
    at = (torch.arange(size, device=device) + 0.5) / size  # pixel centres
    columns = (at >= x0[:, None]) & (at < (x0 + side)[:, None])
    rows = (at >= y0[:, None]) & (at < (y0 + side)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _beta(alpha: float, generator: Generator) -> float:
    """One draw of Beta(alpha, alpha); by numpy, as torch's takes no generator."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


@MIXERS.register
def mixup(*, alpha: float = 0.2, probability: float = 0.5) -> Transform:
    """Blend with another image of the batch (Zhang et al. 2018, 1710.09412).

    AU targets blend where both images know the AU and are unknown elsewhere.
    """

    def apply(batch: Batch, generator: Generator) -> Batch:
        if not _happens(probability, generator):
            return batch
        share, order = _beta(alpha, generator), _partners(batch, generator)
        regions = batch.regions
        if regions is not None:
            regions = torch.lerp(regions[order], regions, share)
        known = (batch.aus >= 0) & (batch.aus[order] >= 0)
        return replace(
            batch,
            images=torch.lerp(batch.images[order], batch.images, share),
            targets=torch.lerp(batch.targets[order], batch.targets, share),
            aus=torch.where(known, torch.lerp(batch.aus[order], batch.aus, share), -1.0),
            regions=regions,
        )

    return apply


@MIXERS.register
def cutmix(*, alpha: float = 1.0, probability: float = 0.5) -> Transform:
    """Paste a square of another image of the batch (Yun et al. 2019, 1905.04899).

    An AU's target is that of the image which owns most of the AU's region.
    """

    def apply(batch: Batch, generator: Generator) -> Batch:
        if not _happens(probability, generator):
            return batch
        order, images = _partners(batch, generator), batch.images
        side = torch.full((len(images),), math.sqrt(1 - _beta(alpha, generator)))
        side = side.to(images.device)
        x0 = _uniform(0, 1, images, generator) * (1 - side)
        y0 = _uniform(0, 1, images, generator) * (1 - side)
        box = _inside(x0, y0, side, images.shape[-1], images.device)
        kept = 1 - box.float().mean((1, 2, 3))[:, None]  # (N, 1), from the pixels really pasted
        aus, regions = batch.aus, batch.regions
        if regions is not None:
            moved = _inside(x0, y0, side, regions.shape[-1], images.device)
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


def _happens(probability: float, generator: Generator) -> bool:
    return bool(torch.rand(1, generator=generator, device=generator.device) < probability)


def _partners(batch: Batch, generator: Generator) -> Tensor:
    order = torch.randperm(len(batch.images), generator=generator, device=generator.device)
    return order.to(batch.images.device)
