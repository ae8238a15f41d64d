"""A small conditional GAN: faces of a class that show given action units.

N batch, K classes, B basic emotions, A action units, S pixels a side, C channels, W style width.
A condition is labels (N,) and AUs (N, A) in {1, 0, -1 unknown}; images (N, 3, S, S) in [-1, 1].
Few images allow few parameters: residual blocks as in SNGAN (Miyato et al. 2018, 1802.05957), with
adaptive group norm in the generator (Dhariwal & Nichol 2021, 2105.05233), which unlike batch norm
leaves nothing behind that an average of weights would have to carry.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.heads import Components, pair_matrix

SMALLEST, LARGEST = 4, 7  # pixels a side of the coarsest map
WIDEST = 8  # times `width`: the most channels
SLOPE = 0.2  # of the leaky ReLUs
GROUP = 4  # images whose spread the discriminator is told of (Karras et al. 2018, 1710.10196)


@dataclass(frozen=True)
class Shape:
    """What the data asks of the networks."""

    size: int
    classes: int
    aus: int
    components: Components = None  # per class, its two basic emotions
    basics: int = 0


def halvings(size: int) -> int:
    """How often the side is halved down to the coarsest map. Raises ValueError for odd sides."""
    count = 0
    while size > LARGEST and size % 2 == 0:
        size, count = size // 2, count + 1
    if not SMALLEST <= size <= LARGEST or not count:
        raise ValueError(
            f"cannot generate images of {size << count} px: the side must be 4, 5, 6 or 7 times a "
            "power of two, such as 48, 64, 80, 96, 112 or 128"
        )
    return count


class Condition(nn.Module):
    """A condition as one vector (N, W): what a class owns, its basic emotions and its AUs, added.

    AUs and basic emotions are shared by the classes: a class of six images is told by what
    hundreds of others show. Each AU is a pair, its value and whether it is known.
    """

    pairs: Tensor

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.label = nn.Embedding(shape.classes, width)
        self.units = nn.Linear(2 * shape.aus, width, bias=False) if shape.aus else None
        pairs = torch.zeros(shape.classes, 0)
        if shape.components is not None:
            pairs = pair_matrix(shape.components, shape.classes, shape.basics)
        self.register_buffer("pairs", pairs, persistent=False)
        self.basics = nn.Linear(pairs.shape[1], width, bias=False) if pairs.shape[1] else None

    def forward(self, labels: Tensor, aus: Tensor) -> Tensor:
        out: Tensor = self.label(labels)
        if self.basics is not None:
            out = out + self.basics(self.pairs[labels])
        if self.units is not None:
            out = out + self.units(known_pairs(aus))
        return out


def known_pairs(aus: Tensor) -> Tensor:
    """(N, 2A): values as -1 or 1, and 0 where unknown; then 1 where known."""
    known = (aus >= 0).float()
    return torch.cat([(2 * aus.float() - 1) * known, known], 1)


def scaled(net: nn.Module) -> None:
    """Begin with weights that keep the size of what passes (He et al. 2015, 1502.01852): with
    torch's own the discriminator was blind for the first 600 steps, and noise changed nothing."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, a=SLOPE, nonlinearity="leaky_relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in net.modules():
        if isinstance(part, Modulated):
            nn.init.normal_(part.affine.weight, std=0.5 / math.sqrt(part.affine.in_features))
        if isinstance(part, Condition):
            nn.init.normal_(part.label.weight, std=0.3)
            for layer in (part.units, part.basics):
                if layer is not None:
                    nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))


def channels(width: int, levels: int) -> list[int]:
    """Of the maps from fine to coarse: doubling, up to WIDEST times the width."""
    return [width * min(WIDEST, 2**level) for level in range(levels + 1)]


class Generator(nn.Module):
    """(N, Z) noise and a condition -> images."""

    def __init__(self, shape: Shape, width: int = 16, noise: int = 64) -> None:
        super().__init__()
        levels, style = halvings(shape.size), WIDEST * width
        self.noise, self.side = noise, shape.size >> levels
        self.condition = Condition(shape, style)
        self.mapping = nn.Sequential(
            *(nn.Linear(noise + style, style), nn.LeakyReLU(SLOPE)),
            *(nn.Linear(style, style), nn.LeakyReLU(SLOPE)),
        )
        wide = channels(width, levels)[::-1]
        self.start = nn.Linear(noise + style, wide[0] * self.side**2)
        self.blocks = nn.ModuleList(Grow(wide[k], wide[k + 1], style) for k in range(len(wide) - 1))
        self.last = Modulated(wide[-1], style)
        self.colours = nn.Conv2d(wide[-1], 3, 3, padding=1)
        scaled(self)
        nn.init.xavier_normal_(self.colours.weight, gain=0.5)

    def forward(self, noise: Tensor, labels: Tensor, aus: Tensor) -> Tensor:
        condition = self.condition(labels, aus)
        whole = torch.cat([noise, F.normalize(condition, dim=1) * math.sqrt(self.noise)], 1)
        style = self.mapping(whole)
        x = self.start(whole).view(len(noise), -1, self.side, self.side)
        for block in self.blocks:
            x = block(x, style)
        out: Tensor = self.colours(F.leaky_relu(self.last(x, style), SLOPE))
        return torch.tanh(out)


class Modulated(nn.Module):
    """Group norm, then scale and shift by the style (N, W)."""

    def __init__(self, width: int, style: int) -> None:
        super().__init__()
        self.groups = max(1, width // 8)
        self.affine = nn.Linear(style, 2 * width)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.affine(style)[:, :, None, None].chunk(2, 1)
        out: Tensor = F.group_norm(x, self.groups) * (1 + scale) + shift
        return out


class Grow(nn.Module):
    """Twice the side, beside a short cut."""

    def __init__(self, width_in: int, width_out: int, style: int) -> None:
        super().__init__()
        self.first, self.second = Modulated(width_in, style), Modulated(width_out, style)
        self.grow = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.refine = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.short = nn.Conv2d(width_in, width_out, 1, bias=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        change = twice(self.grow(F.leaky_relu(self.first(x, style), SLOPE)))
        change = self.refine(F.leaky_relu(self.second(change, style), SLOPE))
        both: Tensor = change + twice(self.short(x))
        return both / math.sqrt(2)


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Discriminator(nn.Module):
    """Images and a condition -> (N,) how real they look as images of that condition, and (N, A)
    logits of the AUs they show.

    By projection (Miyato & Koyama 2018, 1802.05637): its score is linear in the condition.
    """

    def __init__(self, shape: Shape, width: int = 16) -> None:
        super().__init__()
        levels = halvings(shape.size)
        wide = channels(width, levels)
        self.first = nn.Conv2d(3, wide[0], 3, padding=1)
        self.blocks = nn.ModuleList(Shrink(wide[k], wide[k + 1]) for k in range(len(wide) - 1))
        self.mixed = nn.Conv2d(wide[-1] + 1, wide[-1], 3, padding=1)
        side = shape.size >> levels
        self.embed = nn.Linear(wide[-1] * side**2, wide[-1])
        self.score = nn.Linear(wide[-1], 1)
        self.condition = Condition(shape, wide[-1])
        self.units = nn.Linear(wide[-1], shape.aus) if shape.aus else None
        scaled(self)
        for layer in (self.score, self.units):
            if layer is not None:
                nn.init.normal_(layer.weight, std=1 / math.sqrt(wide[-1]))

    def forward(self, images: Tensor, labels: Tensor, aus: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(images)
        for block in self.blocks:
            x = block(x)
        x = F.leaky_relu(self.mixed(torch.cat([F.leaky_relu(x, SLOPE), spread(x)], 1)), SLOPE)
        seen = F.leaky_relu(self.embed(x.flatten(1)), SLOPE)
        agreement = (self.condition(labels, aus) * seen).sum(1) / math.sqrt(seen.shape[1])
        units = seen[:, :0] if self.units is None else self.units(seen)
        return self.score(seen)[:, 0] + agreement, units


class Shrink(nn.Module):
    """Half the side, beside a short cut."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.refine = nn.Conv2d(width_in, width_in, 3, padding=1)
        self.shrink = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.short = nn.Conv2d(width_in, width_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        change = F.avg_pool2d(self.refine(F.leaky_relu(x, SLOPE)), 2)
        both: Tensor = self.shrink(F.leaky_relu(change, SLOPE)) + self.short(F.avg_pool2d(x, 2))
        return both / math.sqrt(2)


def spread(x: Tensor) -> Tensor:
    """(N, 1, h, w): the mean standard deviation among every GROUP images of the batch, so that a
    generator that repeats itself is found out; all images in one group where they do not divide."""
    count = len(x) // GROUP if len(x) % GROUP == 0 else 1
    groups = x.float().reshape(count, -1, *x.shape[1:])
    mean = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    each = mean.repeat_interleave(len(x) // count).to(x.dtype)
    return each[:, None, None, None].expand(-1, 1, *x.shape[2:])
