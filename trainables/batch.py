"""A training batch, and what the transforms of one share. N batch, K classes, A action units,
S pixels, R map size.

A transform takes a Batch and a generator and returns a Batch; it changes nothing in place. Every
image gets its own draw, and AUs, region maps and boxes move with the pixels.
AUGMENTS: builder(class counts (K,), AU names (A), *, hyper-parameters) -> transform, of images one
by one. MIXERS: builder(class counts (K,), *, hyper-parameters) -> transform that blends images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from trainables.device import bring
from trainables.registry import Registry

Counts = NDArray[np.integer]


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
def none_(class_counts: Counts, au_names: Sequence[str] = ()) -> Transform:
    """The batch as it is."""
    return lambda batch, _: batch


def chain(*transforms: Transform) -> Transform:
    """One after the other."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        for transform in transforms:
            batch = transform(batch, generator)
        return batch

    return apply


def uniform(low: float, high: float, like: Tensor, generator: Generator) -> Tensor:
    """(N,) draws on the device of `like`."""
    draws = torch.rand(len(like), generator=generator, device=generator.device)
    return bring(low + (high - low) * draws, like.device)


def befallen(probability: float, like: Tensor, generator: Generator) -> Tensor:
    """Places (n,) of the images to which something of this probability happens, on their device."""
    draws = torch.rand(len(like), generator=generator, device=generator.device)
    return bring((draws < probability).nonzero()[:, 0], like.device)


def happens(probability: float, generator: Generator) -> bool:
    """One draw for the whole batch."""
    return bool(torch.rand(1, generator=generator, device=generator.device) < probability)


def partners(batch: Batch, generator: Generator) -> Tensor:
    """(N,) another order of the images."""
    order = torch.randperm(len(batch.images), generator=generator, device=generator.device)
    return bring(order, batch.images.device)


def take(batch: Batch, rows: slice | Tensor) -> Batch:
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


def join(first: Batch, second: Batch) -> Batch:
    """The images of both, and all that goes with them."""

    def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if one is None or other is None else torch.cat([one, other])

    return replace(
        second,
        images=torch.cat([first.images, second.images]),
        targets=torch.cat([first.targets, second.targets]),
        aus=torch.cat([first.aus, second.aus]),
        regions=both(first.regions, second.regions),
        boxes=both(first.boxes, second.boxes),
    )
