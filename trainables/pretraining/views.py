"""Views of images, for methods that compare them, and the control without any face.

N images, S pixels a side: (N, 3, S, S) in [0, 1] -> the same shape.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from trainables.augment import AUGMENTS, Batch
from trainables.geometry import warp

View = Callable[[Tensor, Generator], Tensor]

LEAST_CROP = 0.4  # of the area: tighter crops show no expression (methods 2.13)


def make_view(crop: float, augment: str) -> View:
    """A square crop of at least a share `crop` of the area, then an augmentation by name.

    Raises ValueError for tighter crops, LookupError for an unknown name.
    """
    if not LEAST_CROP <= crop <= 1:
        raise ValueError(
            f"crop {crop:g} is not within {LEAST_CROP:g} to 1: a tighter one shows no expression"
        )
    transform = AUGMENTS[augment](np.ones(1, np.int64), ())  # one class, no AUs

    def view(images: Tensor, generator: Generator) -> Tensor:
        pieces = random_crop(images, crop, generator)
        alike, unknown = pieces.new_ones(len(pieces), 1), pieces.new_zeros(len(pieces), 0)
        return transform(Batch(pieces, alike, unknown), generator).images

    return view


def random_crop(images: Tensor, least: float, generator: Generator) -> Tensor:
    """Of each image a square with a share of its area within [least, 1], enlarged to S pixels."""
    draws = torch.rand(3, len(images), generator=generator, device=generator.device)
    area, across, down = draws.to(images)
    side = (least + (1 - least) * area).sqrt()
    room = 1 - side
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = room * (2 * across - 1), room * (2 * down - 1)
    return warp(images, theta, "border")


def shuffle_pixels(images: Tensor, generator: Generator) -> Tensor:
    """Each image with its pixels in an order of its own: its colours, and nothing of a face."""
    flat = images.flatten(2)
    noise = torch.rand(len(flat), 1, flat.shape[2], generator=generator, device=generator.device)
    order = noise.argsort(2).to(images.device).expand_as(flat)
    return flat.gather(2, order).view_as(images)


def unchanged(images: Tensor, generator: Generator) -> Tensor:
    """The images as they are."""
    return images


CONTROLS: dict[str, View] = {"none": unchanged, "shuffled": shuffle_pixels}
