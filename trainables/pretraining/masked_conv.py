"""Masked image modelling for networks of convolutions. N images, S pixels a side, h map height."""

import torch
from torch import Generator, Tensor, nn

from trainables.backbones import Backbone
from trainables.pretraining.masks import draw_mask, masked_mean, over_pixels
from trainables.pretraining.pretext import (
    METHODS,
    Found,
    Picture,
    Pretext,
    check_share,
)


@METHODS.register
def masked_conv(
    backbone: Backbone, image_size: int, *, mask_ratio: float = 0.6, patch: int = 8
) -> Pretext:
    """Masked regions painted with one learnt colour, and their pixels told from the last map by
    one layer, at the cost of |error| (SimMIM, Xie et al. 2022, 2111.09886).

    Of ConvNeXt V2's form (Woo et al. 2023, 2301.00808) it has the ratio, not the sparse
    convolutions, which would need kernels of their own: here masked regions are seen as painted.
    """
    check_share("mask_ratio", mask_ratio)
    model = MaskedConv(backbone, image_size, patch)

    def draw(images: Tensor, generator: Generator) -> Tensor:
        mask = draw_mask(len(images), model.cells**2, mask_ratio, generator, images)
        return over_pixels(mask, (model.cells, model.cells), (patch, patch))

    def loss(images: Tensor, generator: Generator) -> Found:
        values, hidden = backbone.normalised(images), draw(images, generator)
        return {"loss": masked_l1(model(values, hidden).float(), values, hidden)}

    def picture(images: Tensor, generator: Generator) -> Picture:
        values, hidden = backbone.normalised(images), draw(images, generator)
        made = torch.where(hidden, model(values, hidden).float(), values)
        return images, torch.where(hidden, 0.5, images), backbone.as_pixels(made)

    return Pretext(model, loss, picture=picture)


class MaskedConv(nn.Module):
    """The backbone, the colour of what is hidden, and one layer that paints the last map."""

    def __init__(self, backbone: Backbone, size: int, patch: int) -> None:
        super().__init__()
        if patch < 1 or size % patch or size // patch < 2:
            raise ValueError(
                f"patch {patch} does not divide an image of {size} pixels into two or more: give "
                f"one of {', '.join(str(p) for p in range(2, size // 2 + 1) if size % p == 0)}"
            )
        self.backbone, self.cells = backbone, size // patch
        self.colour = nn.Parameter(torch.zeros(1, 3, 1, 1))
        stride = -(-size // _height(backbone, size))
        self.paint = nn.Sequential(
            nn.Conv2d(backbone.channels[-1], 3 * stride**2, 1), nn.PixelShuffle(stride)
        )

    def forward(self, values: Tensor, hidden: Tensor) -> Tensor:
        """(N, 3, S, S) as told from what is not hidden."""
        seen = torch.where(hidden, self.colour.to(values.dtype), values)
        made: Tensor = self.paint(self.backbone(seen)[-1])
        return made[:, :, : values.shape[2], : values.shape[3]]


def masked_l1(made: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """|error| of (N, 3, S, S), its mean over the hidden pixels (N, 1, S, S) and the channels."""
    return masked_mean((made - target).abs().mean(1, keepdim=True), hidden)


@torch.no_grad()
def _height(backbone: Backbone, size: int) -> int:
    """Of the last map."""
    backbone.eval()  # so that no batch statistic moves
    maps = backbone(torch.zeros(1, 3, size, size))
    backbone.train()
    return int(maps[-1].shape[2])
