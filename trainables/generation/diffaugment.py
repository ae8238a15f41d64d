"""DiffAugment: real and generated images are changed alike before they are judged.

Zhao et al. 2020 (2006.10738): what the discriminator sees is augmented, and so that the generator
does not learn the augmentation, it learns through it. Each image has draws of its own. Images
(N, 3, S, S) in [-1, 1]; all of it is differentiable.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from trainables.registry import unknown

SHIFT, CUT = 1 / 8, 1 / 2  # shares of the side, as published


def diffaugment(images: Tensor, policy: Sequence[str], generator: Generator) -> Tensor:
    """The images, changed by each part of the policy in turn."""
    for name in policy:
        images = PARTS[name](images, generator)
    return images


def read_policy(text: str) -> tuple[str, ...]:
    """ "color,translation,cutout" as names. Raises LookupError for one that does not exist."""
    names = tuple(name for name in text.split(",") if name not in ("", "none"))
    for name in names:
        if name not in PARTS:
            raise LookupError(unknown("part of DiffAugment", name, PARTS))
    return names


def color(images: Tensor, generator: Generator) -> Tensor:
    """Brightness by up to .5, saturation by a factor of 0 to 2, contrast by one of .5 to 1.5."""
    light, saturation, contrast = (_draw(images, generator) for _ in range(3))
    images = images + (light - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def translation(images: Tensor, generator: Generator) -> Tensor:
    """A move by up to an eighth of the side; zeros (grey) come in."""
    side = images.shape[-1]
    most = int(side * SHIFT + 0.5)
    moves = [_whole(images, 2 * most + 1, generator) for _ in range(2)]
    at = torch.arange(side, device=images.device)
    rows, columns = (at + move[:, None] for move in moves)  # (N, S), into the padded image
    padded = F.pad(images, (most,) * 4).permute(0, 2, 3, 1)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, generator: Generator) -> Tensor:
    """A square of half the side is zero; it may stick out at the edges."""
    side = images.shape[-1]
    cut = int(side * CUT + 0.5)
    at = torch.arange(side, device=images.device)
    starts = [_whole(images, side + 1 - cut % 2, generator) - cut // 2 for _ in range(2)]
    rows, columns = ((at >= s[:, None]) & (at < s[:, None] + cut) for s in starts)
    return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]


PARTS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def _draw(like: Tensor, generator: Generator) -> Tensor:
    """(N, 1, 1, 1) in [0, 1), on the device of `like`."""
    draws = torch.rand(len(like), 1, 1, 1, generator=generator, device=generator.device)
    return draws.to(like.device, like.dtype)


def _whole(like: Tensor, below: int, generator: Generator) -> Tensor:
    """(N,) whole numbers from 0, on the device of `like`."""
    draws = torch.randint(below, (len(like),), generator=generator, device=generator.device)
    return draws.to(like.device)
