"""Masks over a grid, and patches. N images, L patches of p x q pixels, S pixels a side.

A mask is (N, L) boolean, True where hidden; patches go row by row.
"""

import torch
from torch import Generator, Tensor

Size = tuple[int, int]


def draw_mask(count: int, patches: int, ratio: float, generator: Generator, like: Tensor) -> Tensor:
    """(count, patches): in every image the same number hidden, one at least, and one seen."""
    hidden = min(patches - 1, max(1, round(ratio * patches)))
    noise = torch.rand(count, patches, generator=generator, device=generator.device)
    ranks = noise.argsort(1).argsort(1)
    return (ranks < hidden).to(like.device)


def patchify(images: Tensor, patch: Size) -> Tensor:
    """(N, L, p * q * 3); pixels beyond the last whole patch are left out."""
    rows, columns = images.shape[2] // patch[0], images.shape[3] // patch[1]
    images = images[:, :, : rows * patch[0], : columns * patch[1]]
    cut = images.reshape(len(images), 3, rows, patch[0], columns, patch[1])
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)


def unpatchify(patches: Tensor, grid: Size, patch: Size) -> Tensor:
    """(N, 3, rows * p, columns * q): the inverse of `patchify`."""
    cut = patches.reshape(len(patches), *grid, *patch, 3).permute(0, 5, 1, 3, 2, 4)
    return cut.reshape(len(patches), 3, grid[0] * patch[0], grid[1] * patch[1])


def over_pixels(mask: Tensor, grid: Size, patch: Size) -> Tensor:
    """(N, 1, rows * p, columns * q) boolean: the mask of each pixel."""
    cells = mask.view(len(mask), 1, *grid)
    return cells.repeat_interleave(patch[0], 2).repeat_interleave(patch[1], 3)


def masked_mean(errors: Tensor, mask: Tensor) -> Tensor:
    """Mean of the errors where the mask is True; both of one shape."""
    return (errors * mask).sum() / mask.sum()
