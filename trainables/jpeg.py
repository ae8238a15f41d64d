"""What JPEG does to pictures, batched. (n, 3, S, S) images in [0, 1], (n,) qualities.

The baseline codec of ITU-T T.81 without its lossless part: colours as YCbCr in full resolution,
blocks of 8 x 8, cosine transform, rounding to multiples of the tables of its annex K, which
libjpeg scales by the quality. Faces in the wild come compressed, often twice.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from trainables.device import bring, constant

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """The images after saving and loading, each with its quality in 1 to 100."""
    size = images.shape[-1]
    colours, cosines = torch.tensor(TO_YCBCR, dtype=images.dtype), _cosines(images)
    back = bring(torch.linalg.inv(colours), images.device)  # a GPU would wait for an inverse
    grey = constant([128, 0, 0], images)[:, None, None]
    ycc = torch.einsum("ij,njhw->nihw", bring(colours, images.device), (images * 255).round())
    ycc = ycc - grey
    padding = (0, -size % 8, 0, -size % 8)
    padded = functional.pad(ycc, padding, mode="replicate")
    blocks = padded.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
    steps = _steps(images, quality)[:, :, None, :, None, :]
    found = torch.einsum("uy,niaybx,vx->niaubv", cosines, blocks.round(), cosines)
    kept = (found / steps).round() * steps
    blocks = torch.einsum("uy,niaubv,vx->niaybx", cosines, kept, cosines)
    ycc = blocks.flatten(4, 5).flatten(2, 3)[:, :, :size, :size]
    ycc = ycc + grey
    rgb = torch.einsum("ij,njhw->nihw", back, ycc.round())
    return rgb.round().clamp(0, 255) / 255


def _cosines(like: Tensor) -> Tensor:
    """(8, 8) the orthonormal cosine transform, frequency by place."""
    at = torch.arange(8, device=like.device, dtype=like.dtype)
    waves = ((2 * at + 1) * at[:, None] * math.pi / 16).cos() / 2
    waves[0] /= math.sqrt(2)
    return waves


def _steps(like: Tensor, quality: Tensor) -> Tensor:
    """(n, 3, 8, 8) what each frequency is rounded to a multiple of, as libjpeg scales it."""
    tables = constant([LUMINANCE, CHROMINANCE, CHROMINANCE], like)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((tables * scale[:, None, None, None] + 50) / 100).floor().clamp(1, 255)
