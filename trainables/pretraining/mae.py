"""Masked autoencoder for plain vision transformers. N images, L patches, D and W widths.

Encoder and weights are timm's own: what is learnt goes back into the backbone by name.
"""

from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Generator, Tensor, nn

from trainables.backbones import Backbone
from trainables.pretraining.masks import (
    Size,
    draw_mask,
    masked_mean,
    over_pixels,
    patchify,
    unpatchify,
)
from trainables.pretraining.pretext import (
    METHODS,
    Found,
    Picture,
    Pretext,
    check_share,
)

VARIANCE_FLOOR = 1e-6


@METHODS.register
def mae(
    backbone: Backbone,
    image_size: int,
    *,
    mask_ratio: float = 0.75,
    decoder_depth: int = 2,
    decoder_width: int = 128,
    norm_pixels: bool = True,
) -> Pretext:
    """Masked autoencoder (He et al. 2022, 2111.06377): of each image the encoder sees a quarter of
    the patches, and a light decoder the rest's pixels, normalised patch by patch.

    Raises ValueError for a network that is no plain vision transformer.
    """
    check_share("mask_ratio", mask_ratio)
    net = _vision_transformer(backbone)
    if decoder_depth < 0:
        raise ValueError(f"decoder_depth {decoder_depth} is below 0")
    model = MaskedAutoencoder(net, decoder_depth, decoder_width)

    def loss(images: Tensor, generator: Generator) -> Found:
        values = backbone.normalised(images)
        mask = draw_mask(len(images), model.patches, mask_ratio, generator, images)
        target = patchify(values, model.patch)
        if norm_pixels:
            target = normalise_patches(target)
        return {"loss": masked_mse(model(values, mask).float(), target, mask)}

    def picture(images: Tensor, generator: Generator) -> Picture:
        values = backbone.normalised(images)
        mask = draw_mask(len(images), model.patches, mask_ratio, generator, images)
        target, made = patchify(values, model.patch), model(values, mask).float()
        if norm_pixels:  # mean and spread of a hidden patch are not learnt: lent for the eye
            mean, spread = _moments(target)
            made = made * spread + mean
        made = torch.where(mask[..., None], made, target)
        whole = backbone.as_pixels(unpatchify(made, model.grid, model.patch))
        seen = images[:, :, : whole.shape[2], : whole.shape[3]]
        hidden = over_pixels(mask, model.grid, model.patch)
        return seen, torch.where(hidden, 0.5, seen), whole

    return Pretext(model, loss, picture=picture)


class MaskedAutoencoder(nn.Module):
    """timm's transformer as encoder, and a small one as decoder."""

    positions: Tensor

    def __init__(self, net: Any, depth: int, width: int) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"decoder_width {width} is no multiple of 4")
        self.net = net
        rows, columns = net.patch_embed.grid_size
        high, wide = net.patch_embed.patch_size
        self.grid, self.patch = (int(rows), int(columns)), (int(high), int(wide))
        self.patches = self.grid[0] * self.grid[1]
        if self.patches < 4:
            raise ValueError(
                f"the images have {self.patches} patches of {high} x {wide} pixels: too few to "
                "hide some, take a larger --size"
            )
        self.prefix = int(net.num_prefix_tokens)
        self.enter = nn.Linear(net.embed_dim, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.token, std=0.02)
        self.register_buffer("positions", sine_positions(self.grid, width), persistent=False)
        heads = max(1, width // 32)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, self.patch[0] * self.patch[1] * 3)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """What the patches (N, L, p * q * 3) look like to one who sees only the unmasked."""
        return self.decode(self.encode(values, mask), mask)

    def encode(self, values: Tensor, mask: Tensor) -> Tensor:
        """(N, prefix + seen, D): what the blocks make of the prefix tokens and the seen patches."""
        net = self.net
        tokens = net._pos_embed(net.patch_embed(values))
        prefix, tokens = tokens[:, : self.prefix], tokens[:, self.prefix :]
        seen = tokens[~mask].view(len(tokens), -1, tokens.shape[2])  # as many in every image
        encoded: Tensor = net.norm(net.blocks(net.norm_pre(torch.cat([prefix, seen], 1))))
        return encoded

    def decode(self, encoded: Tensor, mask: Tensor) -> Tensor:
        entered = self.enter(encoded)
        prefix, seen = entered[:, : self.prefix], entered[:, self.prefix :]
        tokens = self.token.to(seen.dtype).repeat(*mask.shape, 1)
        tokens[~mask] = seen.flatten(0, 1)
        tokens = tokens + self.positions
        decoded = self.norm(self.blocks(torch.cat([prefix, tokens], 1)))
        made: Tensor = self.leave(decoded[:, self.prefix :])
        return made


def masked_mse(made: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error (N, L, P) by patch, its mean over the masked patches."""
    return masked_mean((made - target).square().mean(2), mask)


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch with mean 0 and variance 1 (unbiased, as in the authors' code)."""
    mean, spread = _moments(patches)
    return (patches - mean) / spread


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    return patches.mean(2, keepdim=True), (patches.var(2, keepdim=True) + VARIANCE_FLOOR).sqrt()


def sine_positions(grid: Size, width: int) -> Tensor:
    """(1, L, width): half of the sines and cosines tell the row, half the column."""
    frequencies = 10000 ** (-torch.arange(width // 4) / (width / 4))
    at = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()  # (L, 2)
    angles = at[:, :, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)[None]


def _vision_transformer(backbone: Backbone) -> Any:
    """The network, if hiding patches from it is only a matter of leaving their tokens out."""
    net: Any = backbone.net
    if isinstance(net, VisionTransformer) and type(net.patch_embed) is PatchEmbed:
        return net
    raise ValueError(
        f"method 'mae' leaves tokens out, which a {type(net).__name__} cannot do without: it is "
        "for timm's plain vision transformers (test_vit, vit_small_patch16_224, …); take method "
        "'masked_conv', 'simclr' or 'byol'"
    )
