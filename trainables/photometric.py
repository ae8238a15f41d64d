"""What happens to pixels where they are: light, blur, erasing. (N, 3, S, S) images in [0, 1].

No hue anywhere: it would change the skin.
"""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainables.batch import Batch, Transform, befallen, uniform
from trainables.geometry import squares
from trainables.jpeg import compressed

ERASED = 0.5  # the grey of an erased square
BLUR = 0.025  # of the side, the most standard deviation of a blur: 1.6 of 64 pixels
POOREST = 30  # quality of JPEG
COARSE = 0.4  # of the side, the fewest pixels: 90 of 224, as small as faces in the wild come


def photometric(light: float, contrast: float, grey: float = 0.0) -> Transform:
    """Brightness (added), contrast (about the image's mean) and, with a chance, grey."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        images = batch.images
        gain = 1 + uniform(-contrast, contrast, images, generator)[:, None, None, None]
        offset = uniform(-light, light, images, generator)[:, None, None, None]
        rest = images.mean((1, 2, 3), keepdim=True) * (1 - gain) + offset
        images = torch.addcmul(rest, images, gain).clamp_(0, 1)
        if grey:
            chosen = (uniform(0, 1, images, generator) < grey)[:, None, None, None]
            images = torch.where(chosen, images.mean(1, keepdim=True), images)
        return replace(batch, images=images)

    return apply


def erase(probability: float, area: float) -> Transform:
    """Paint one grey square of a share `area` of the image over it, with a probability."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        images = batch.images
        side = torch.full((len(images),), math.sqrt(area), device=images.device)
        x0 = uniform(0, 1, images, generator) * (1 - side)
        y0 = uniform(0, 1, images, generator) * (1 - side)
        box = squares(x0, y0, side, images.shape[-1])
        chosen = (uniform(0, 1, images, generator) < probability)[:, None, None, None]
        return replace(batch, images=torch.where(box & chosen, ERASED, images))

    return apply


def degrade(blur: float, low_resolution: float, jpeg: float) -> Transform:
    """A worse camera: blur, fewer pixels, compression, each with its chance, as strong as drawn."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        images = batch.images
        for chance, worsen in (
            (blur, blurred),
            (low_resolution, pixelated),
            (jpeg, squeezed),
        ):
            if chance:
                strength = uniform(0, 1, images, generator)
                rows = befallen(chance, images, generator)
                if len(rows):
                    images = images.index_copy(0, rows, worsen(images[rows], strength[rows]))
        return replace(batch, images=images)

    return apply


def squeezed(images: Tensor, strength: Tensor) -> Tensor:
    """As if saved as JPEG, of quality 95 at strength 0 down to POOREST at 1."""
    return compressed(images, (95 + (POOREST - 95) * strength).round())


def blurred(images: Tensor, strength: Tensor) -> Tensor:
    """Gaussian blur of up to BLUR at strength 1, nearly none at 0; one (N,) strength an image."""
    size = images.shape[-1]
    reach = max(1, round(2.5 * BLUR * size))
    at = torch.arange(-reach, reach + 1, device=images.device)
    sigma = (strength * BLUR * size).clamp_min(0.1)[:, None]
    kernel = (-0.5 * (at / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.dtype)
    rows = images.transpose(0, 1)  # (3, N, S, S): every image is a channel with its own kernel
    for shape in ((-1, 1, 1, len(at)), (-1, 1, len(at), 1)):
        padding = (reach, reach, 0, 0) if shape[3] > 1 else (0, 0, reach, reach)
        padded = functional.pad(rows, padding, mode="replicate")
        rows = functional.conv2d(padded, kernel.view(shape), groups=len(images))
    return rows.transpose(0, 1)


def pixelated(images: Tensor, strength: Tensor) -> Tensor:
    """As if taken with fewer pixels, down to COARSE of the side at strength 1, and enlarged.

    Pixels are averaged over cells of a grid with as many, then read between the cells' centres.
    """
    size = images.shape[-1]
    cells = (size * (1 - (1 - COARSE) * strength)).round()
    edges = torch.arange(size + 1, device=images.device)
    lattice = torch.arange(size, device=images.device)
    pitch = (size / cells)[:, None, None]
    shared = torch.minimum(edges[1:], (lattice[:, None] + 1) * pitch) - torch.maximum(
        edges[:-1], lattice[:, None] * pitch
    )  # (N, cell, pixel): how much of a pixel lies in a cell
    shrink = shared.clamp_min(0) / pitch
    where = (edges[:-1, None] + 0.5) / pitch - 0.5
    where = torch.minimum(where.clamp_min(0), cells[:, None, None] - 1)
    enlarge = (1 - (where - lattice).abs()).clamp_min(0)  # (N, pixel, cell)
    filtered = (enlarge @ shrink).to(images.dtype)[:, None]
    return filtered @ images @ filtered.mT
