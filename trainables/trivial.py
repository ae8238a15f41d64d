"""TrivialAugment for faces (Müller & Hutter 2021, 2103.10158). N batch, n images of one operation,
S pixels.

Each image gets one operation, all equally likely, at a strength drawn uniformly, without anything
to tune. From the paper's list are left out what destroys the evidence on a face: solarise,
posterise and equalise (skin, shadows and wrinkles become other ones), shear (it changes the shape
of brows and mouth); hue and vertical flip are not in the list and not in ours. Added are zoom, as
detectors frame faces differently, and blur, low resolution and JPEG, as pictures in the wild have
them. Strengths are drawn from a range, not from its 31 steps.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainables.batch import AUGMENTS, Batch, Counts, Transform, take, uniform
from trainables.device import bring, constant
from trainables.geometry import flip, move, theta
from trainables.photometric import blurred, pixelated, squeezed

Operation = Callable[[Tensor, Tensor], Tensor]  # images (n, 3, S, S), strengths (n,) in [-1, 1]

MOVES = {"rotate": 30 * math.pi / 180, "zoom": 0.25, "shift_x": 0.15, "shift_y": 0.15}  # the most


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    return images * (1 + 0.6 * _wide(strength))


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + 0.7 * _wide(strength))


def colour(images: Tensor, strength: Tensor) -> Tensor:
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * (1 + 0.9 * _wide(strength))


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    kernel = constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], images) / 13
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = functional.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)
    return smooth + (images - smooth) * (1 + 0.9 * _wide(strength))


def auto_contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Darkest to 0 and lightest to 1, all channels alike, so that the skin keeps its hue."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1 / 255)


def blur(images: Tensor, strength: Tensor) -> Tensor:
    return blurred(images, strength.abs())


def low_resolution(images: Tensor, strength: Tensor) -> Tensor:
    return pixelated(images, strength.abs())


def jpeg(images: Tensor, strength: Tensor) -> Tensor:
    return squeezed(images, strength.abs())


PIXELS: Mapping[str, Operation] = {
    f.__name__: f
    for f in (brightness, contrast, colour, sharpness, auto_contrast, blur, low_resolution, jpeg)
}
OPERATIONS = ("identity", *MOVES, *PIXELS)


@AUGMENTS.register
def trivial(class_counts: Counts, au_names: Sequence[str]) -> Transform:
    """Flip, then one of thirteen operations an image, as strong as it is drawn."""

    def apply(batch: Batch, generator: Generator) -> Batch:
        batch = flip(batch, generator)
        return operate(batch, *draws(batch.images, generator))

    return apply


def draws(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The operation (N,) of each image, by its place in OPERATIONS, and its strength (N,).

    The operations stay where they are drawn, so that a GPU is not asked how many there are of one.
    """
    device, count = generator.device, len(images)
    drawn = torch.randint(len(OPERATIONS), (count,), generator=generator, device=device)
    return drawn, uniform(-1, 1, images, generator)


def operate(batch: Batch, drawn: Tensor, strength: Tensor) -> Batch:
    """Each image changed by its operation; maps and boxes go along."""
    moves = 1 + torch.arange(len(MOVES), device=drawn.device)
    rows = torch.isin(drawn, moves).nonzero()[:, 0]
    which, there = drawn[rows, None] == moves, bring(rows, strength.device)
    batch = _moved(batch, there, bring(which, strength.device), strength[there])
    images = batch.images.clone()
    for k, operation in enumerate(PIXELS.values(), 1 + len(MOVES)):
        rows = bring((drawn == k).nonzero()[:, 0], strength.device)
        if len(rows):
            images[rows] = operation(images[rows], strength[rows]).clamp(0, 1)
    return replace(batch, images=images)


def _moved(batch: Batch, rows: Tensor, which: Tensor, strength: Tensor) -> Batch:
    """The images in these rows (n,) moved, each by the one of MOVES that `which` (n, 4) says."""
    if not len(rows):
        return batch
    most = constant(list(MOVES.values()), strength)
    angle, zoom, right, down = (which * most * strength[:, None]).unbind(1)
    there = move(take(batch, rows), theta(angle, 1 / (1 + zoom), 2 * right, 2 * down))

    def put(old: Tensor | None, new: Tensor | None) -> Tensor | None:
        return None if old is None or new is None else old.index_copy(0, rows, new)

    return replace(
        batch,
        images=batch.images.index_copy(0, rows, there.images),
        regions=put(batch.regions, there.regions),
        boxes=put(batch.boxes, there.boxes),
    )


def _wide(strength: Tensor) -> Tensor:
    return strength[:, None, None, None]
