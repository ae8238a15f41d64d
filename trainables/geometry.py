"""Where things are in a picture, and moving it. N batch, A action units, S pixels, R map size.

Places are shares of the side, x to the right and y down. A move theta (N, 2, 3) leads from places
in the new picture to places in the old one, both in [-1, 1], as in `affine_grid`: a rotation times
a zoom, maybe mirrored, and a shift.
"""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainables.batch import Batch, Transform, uniform


def flip(batch: Batch, generator: Generator) -> Batch:
    """Mirror half of the images, their maps and boxes, and AUs of the left and the right side."""
    batch, chosen = exchanged(batch, generator)
    regions, boxes, wide = batch.regions, batch.boxes, chosen[:, None, None, None]
    if regions is not None:
        regions = torch.where(wide, regions.flip(3), regions)
    if boxes is not None:  # a box stays with what it is around: the left eye is now on the left
        x0, y0, x1, y1 = boxes.unbind(2)
        boxes = torch.where(wide[..., 0], torch.stack([1 - x1, y0, 1 - x0, y1], 2), boxes)
    images = torch.where(wide, batch.images.flip(3), batch.images)
    return replace(batch, images=images, regions=regions, boxes=boxes)


def exchanged(batch: Batch, generator: Generator) -> tuple[Batch, Tensor]:
    """The batch with the AUs of left and right exchanged in half of the images, and which (N,)."""
    chosen = uniform(0, 1, batch.images, generator) < 0.5
    if batch.mirror is None:
        return batch, chosen
    regions, aus = batch.regions, batch.aus
    aus = torch.where(chosen[:, None], aus[:, batch.mirror], aus)
    if regions is not None:
        regions = torch.where(chosen[:, None, None, None], regions[:, batch.mirror], regions)
    return replace(batch, aus=aus, regions=regions), chosen


def flip_and_affine(degrees: float, scale: float, shift: float) -> Transform:
    """Mirror half of the images; rotation, zoom and shift (as a share of the side), one draw an
    image. Every picture is read once."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        batch, chosen = exchanged(batch, generator)
        moves = drawn(batch.images, generator, degrees, scale, shift)
        return move(batch, mirrored(moves, chosen))

    return apply


def drawn(
    images: Tensor, generator: Generator, degrees: float, scale: float, shift: float
) -> Tensor:
    """Random moves (N, 2, 3), each part up to so much."""
    angle = uniform(-degrees, degrees, images, generator) * math.pi / 180
    zoom = 1 / (1 + uniform(-scale, scale, images, generator))
    moves = [2 * uniform(-shift, shift, images, generator) for _ in range(2)]
    return theta(angle, zoom, moves[0], moves[1])


def theta(angle: Tensor, zoom: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """The moves (N, 2, 3) with these angles (radian), zooms and shifts (halves of the side)."""
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    return torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)


def cut(window: Tensor) -> Tensor:
    """The moves (N, 2, 3) that enlarge windows (N, 3), x0, y0 and side, to the whole picture."""
    x0, y0, side = window.unbind(1)
    return theta(torch.zeros_like(side), side, 2 * x0 + side - 1, 2 * y0 + side - 1)


def mirrored(theta: Tensor, chosen: Tensor) -> Tensor:
    """The moves (N, 2, 3), those of chosen images (N,) in a picture that is mirrored before."""
    signs = torch.stack([1 - 2 * chosen.to(theta.dtype), torch.ones_like(theta[:, 0, 0])], 1)
    return signs[:, :, None] * theta


def followed(first: Tensor, second: Tensor) -> Tensor:
    """One move (N, 2, 3) for two."""
    turn = first[:, :, :2] @ second[:, :, :2]
    shift = first[:, :, :2] @ second[:, :, 2:] + first[:, :, 2:]
    return torch.cat([turn, shift], 2)


def move(batch: Batch, theta: Tensor) -> Batch:
    """The batch moved: pixels, maps and boxes. What comes from outside is mirrored."""
    regions = batch.regions
    if regions is not None:
        regions = warp(regions, theta, "zeros")
    boxes = None if batch.boxes is None else _warp_boxes(batch.boxes, theta)
    images = warp(batch.images, theta, "reflection")
    return replace(batch, images=images, regions=regions, boxes=boxes)


def warp(maps: Tensor, theta: Tensor, padding: str) -> Tensor:
    """Square maps (N, C, S, S) moved; `padding`: what is beyond the edge, as in `grid_sample`."""
    grid = grid_of(theta.to(maps.dtype), maps.shape[-1])
    return functional.grid_sample(maps, grid, padding_mode=padding, align_corners=False)


def grid_of(theta: Tensor, size: int) -> Tensor:
    """Where the centres of the pixels lead (N, S, S, 2).

    torch's `affine_grid` is the same and takes seven times as long on a CPU.
    """
    at = (torch.arange(size, device=theta.device, dtype=theta.dtype) + 0.5) * (2 / size) - 1
    turn, shift = theta[:, :, :2], theta[:, :, 2]
    by_row = turn[:, :, 1, None] * at + shift[:, :, None]  # (N, 2, S)
    places = torch.addcmul(by_row[..., None], turn[:, :, 0, None, None], at)
    return places.permute(0, 2, 3, 1)


def _warp_boxes(boxes: Tensor, theta: Tensor) -> Tensor:
    """The boxes around where their centres went, larger or smaller as the image; still upright."""
    turn, shift = theta[:, :, :2], theta[:, None, :, 2]
    zoom = torch.linalg.det(turn).abs().sqrt()[:, None, None]
    centre = boxes[..., :2] + boxes[..., 2:] - 1  # in [-1, 1]
    half = (boxes[..., 2:] - boxes[..., :2]) / zoom
    centre = (centre - shift) @ turn / zoom**2  # by the inverse: its transpose over zoom squared
    return (torch.cat([centre - half, centre + half], 2).clamp(-1, 1) + 1) / 2


def hulls(boxes: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Where boxes (M, 4) of the old picture are in the new ones: the least upright boxes (N, M, 4)
    around them, which may reach beyond the picture, and their own areas (N, M)."""
    turn, shift = theta[:, :, :2], theta[:, None, :, 2]
    squared = torch.linalg.det(turn).abs()[:, None]
    corners = 2 * boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]] - 1
    there = (corners.view(1, -1, 2) - shift) @ turn / squared[..., None]
    places = (there.view(len(theta), -1, 4, 2) + 1) / 2
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return torch.cat([places.amin(2), places.amax(2)], 2), area / squared


def squares(x0: Tensor, y0: Tensor, side: Tensor, size: int) -> Tensor:
    """(N, 1, size, size) boolean masks: which pixels have their centre in the square."""
    at = (torch.arange(size, device=x0.device) + 0.5) / size
    columns = (at >= x0[:, None]) & (at < (x0 + side)[:, None])
    rows = (at >= y0[:, None]) & (at < (y0 + side)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
