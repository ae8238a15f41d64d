"""Cropping and erasing that spare the places of active AUs. N batch, A action units, S pixels,
T tries.

Faces are aligned, so an AU's boxes are those of the region table (methods 3.4), moved as the
picture is. The idea is KeepAugment's (Gong et al. 2021, 2011.11778), with labelled AUs in place of
saliency. An AU's box is one, or one on each side of the face, spared each by itself; a kept side
(L12) has its own only. An unknown AU is not spared: no loss speaks of it, so nothing it could
contradict, and images without labels are augmented as by the blind control.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from trainables.batch import AUGMENTS, Batch, Counts, Transform, partners, uniform
from trainables.data.tables import au_boxes
from trainables.device import bring
from trainables.geometry import cut, drawn, flip, followed, hulls, move, squares
from trainables.photometric import ERASED, photometric

AREA = 0.1  # of the picture that is erased, as in `medium`
TRIES = 16  # places for a square; when all cover too much, nothing is erased
PROTECTED = ("own", "others")


@AUGMENTS.register
def au_safe(
    class_counts: Counts,
    au_names: Sequence[str],
    *,
    share: float = 0.3,
    crop: float = 0.8,
    probability: float = 0.25,
    protect: str = "own",
) -> Transform:
    """`medium` and cropping, where erasing covers at most `share` of a box of any active AU, and a
    crop, of `crop` of the side at least, contains all of them.

    Controls: `protect` "others" spares the AUs of another image, so that crops and squares are as
    large and as many; `erase_crop` spares none. What it costs: a square tells that the AUs under it
    are not active, which no test image will.
    """
    boxes = _two_boxes(au_names)
    if not len(boxes):
        raise ValueError("augment 'au_safe' needs AU labels, and the data has none")
    if protect not in PROTECTED:
        raise ValueError(f"protect '{protect}' of au_safe is not {' or '.join(PROTECTED)}")
    _check(share=share, crop=crop, probability=probability)

    def apply(batch: Batch, generator: Generator) -> Batch:
        batch = flip(batch, generator)
        active = batch.aus > 0.5
        if protect == "others":
            active = active[partners(batch, generator)]
        return _erase_and_crop(batch, generator, active, boxes, (share, crop, probability))

    return apply


@AUGMENTS.register
def erase_crop(
    class_counts: Counts,
    au_names: Sequence[str],
    *,
    crop: float = 0.8,
    probability: float = 0.25,
) -> Transform:
    """The control of `au_safe`: the same crops and squares, anywhere."""
    _check(crop=crop, probability=probability)

    def apply(batch: Batch, generator: Generator) -> Batch:
        batch = flip(batch, generator)
        none = torch.zeros(len(batch.images), 1, dtype=torch.bool, device=batch.images.device)
        return _erase_and_crop(batch, generator, none, torch.zeros(1, 2, 4), (1, crop, probability))

    return apply


def _check(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1 or (name == "crop" and value == 0):
            raise ValueError(f"{name} {value} is not a share between 0 and 1")


def _two_boxes(au_names: Sequence[str]) -> Tensor:
    """(A, 2, 4): one box twice where it has one; an empty one in the middle where it has none."""
    found = [au_boxes(name) or [(0.5, 0.5, 0.5, 0.5)] for name in au_names]
    return torch.tensor([[boxes[0], boxes[-1]] for boxes in found])


def _erase_and_crop(
    batch: Batch,
    generator: Generator,
    active: Tensor,
    boxes: Tensor,
    settings: tuple[float, float, float],
) -> Batch:
    """`medium`, but for the flip, with crops; every picture is read from the old one once."""
    (share, crop, probability), images = settings, batch.images
    places = bring(boxes.flatten(0, 1), images.device)
    spared = active.repeat_interleave(2, 1)  # (N, 2A), as the places
    turn = drawn(images, generator, degrees=15, scale=0.12, shift=0.06)
    window = windows(hulls(places, turn)[0], spared, crop, generator)
    theta = followed(turn, cut(window))
    batch = photometric(light=0.35, contrast=0.35, grey=0.15)(move(batch, theta), generator)
    around, area = hulls(places, theta)
    limit = torch.where(spared, share * area, math.inf)
    square = beside(around, limit, images.shape[-1], generator)
    chosen = (uniform(0, 1, images, generator) < probability)[:, None, None, None]
    return replace(batch, images=torch.where(square & chosen, ERASED, batch.images))


def windows(around: Tensor, spared: Tensor, least: float, generator: Generator) -> Tensor:
    """Crops (N, 3), x0, y0 and side, that contain all boxes (N, M, 4) that are spared (N, M), as
    far as they are in the picture. A side is drawn between `least` and 1; boxes can make it larger.
    """
    inside = around.clamp(0, 1)
    low = torch.where(spared[..., None], inside[..., :2], 1.0).amin(1)
    high = torch.where(spared[..., None], inside[..., 2:], 0.0).amax(1)  # below low: none is spared
    side = uniform(least, 1, around, generator)[:, None]
    side = torch.maximum(side, (high - low).amax(1, keepdim=True))
    first, last = (high - side).clamp_min(0), torch.minimum(low, 1 - side)
    draws = torch.stack([uniform(0, 1, around, generator) for _ in range(2)], 1)
    return torch.cat([first + draws * (last - first), side], 1)


def beside(around: Tensor, limit: Tensor, size: int, generator: Generator) -> Tensor:
    """Masks (N, 1, S, S) of squares of whole pixels, each at the first place tried where it covers
    of no box (N, M, 4) more than its limit (N, M), an area; empty where no place does.

    Of a turned box the covered area is that of the upright box around it, so never less.
    """
    pixels = max(1, round(math.sqrt(AREA) * size))
    shape = (len(around), TRIES, 2)
    draws = torch.rand(shape, generator=generator, device=generator.device)
    places = bring(draws, around.device) * (size - pixels + 1)
    corner = places.floor()[:, :, None] / size  # (N, T, 1, 2)
    end = corner + pixels / size
    lengths = torch.minimum(end, around[:, None, :, 2:]) - torch.maximum(
        corner, around[:, None, :, :2]
    )
    fits = (lengths.clamp_min(0).prod(3) <= limit[:, None]).all(2)  # (N, T)
    first = fits.to(torch.uint8).argmax(1)
    x0, y0 = corner[torch.arange(len(first), device=first.device), first, 0].unbind(1)
    side = torch.where(fits.any(1), pixels / size, 0.0)
    return squares(x0, y0, side, size)
