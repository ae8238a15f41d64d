"""Fusion. N batch, D embedding: maps [(N, C_i, h_i, w_i)], fine to coarse -> (N, D) and one map.

A builder takes the channels of the maps and its hyper-parameters by keyword. The module says its
`dim` D, and in `sees` which of the maps it uses, by index.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.attention import positions
from trainables.registry import Registry

FusionBuilder = Callable[..., "Fusion"]

FUSIONS: Registry[FusionBuilder] = Registry("fusion")


class Fusion(nn.Module):
    """What every fusion says of itself, around the layers that do it."""

    def __init__(self, inner: nn.Module, dim: int, sees: range) -> None:
        super().__init__()
        self.inner, self.dim, self.sees = inner, dim, sees

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        embedding, fused = self.inner(maps)
        return embedding, fused


@FUSIONS.register
def none_(channels: tuple[int, ...]) -> Fusion:
    """The mean of the coarsest map."""
    return Fusion(Last(), channels[-1], range(len(channels) - 1, len(channels)))


@FUSIONS.register
def concat(channels: tuple[int, ...], *, width: int = 128) -> Fusion:
    """The means of all maps, each brought to `width`, side by side."""
    return Fusion(Concat(channels, width), width * len(channels), range(len(channels)))


@FUSIONS.register
def fpn(channels: tuple[int, ...], *, width: int = 128) -> Fusion:
    """Top-down sums (Lin et al. 2017, 1612.03144), of which we take the mean over all levels."""
    return Fusion(TopDown(channels, width), width, range(len(channels)))


@FUSIONS.register
def gated(channels: tuple[int, ...], *, width: int = 128) -> Fusion:
    """A weighted mean of the scales, by weights that each image chooses."""
    return Fusion(ScaleGate(channels, width), width, range(len(channels)))


@FUSIONS.register
def attention_pool(channels: tuple[int, ...], *, width: int = 128, heads: int = 4) -> Fusion:
    """What a learned query a head reads from the cells of all maps (the pooling by attention of
    Lee et al. 2019, 1810.00825, whose values are here the cells themselves).
    """
    if width % heads or width % 4:
        raise ValueError(
            f"attention_pool: width {width} must be a multiple of 4 and of heads {heads}"
        )
    return Fusion(CellPool(channels, width, heads), width, range(len(channels)))


class Last(nn.Module):
    """The coarsest map alone."""

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        return maps[-1].mean((2, 3)), maps[-1]


class Concat(nn.Module):
    """See `concat`."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.bring = bring_to(channels, width)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        brought = [layer(x) for layer, x in zip(self.bring, maps, strict=True)]
        return torch.cat([x.mean((2, 3)) for x in brought], 1), brought[-1]


class TopDown(nn.Module):
    """See `fpn`."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.bring = bring_to(channels, width)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        brought = [layer(x) for layer, x in zip(self.bring, maps, strict=True)]
        for i in range(len(brought) - 2, -1, -1):
            coarse = functional.interpolate(brought[i + 1], size=brought[i].shape[-2:])
            brought[i] = brought[i] + coarse
        levels = [layer(x) for layer, x in zip(self.smooth, brought, strict=True)]
        return torch.stack([x.mean((2, 3)) for x in levels]).mean(0), levels[0]


class ScaleGate(nn.Module):
    """See `gated`."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.bring = bring_to(channels, width)
        self.weigh = nn.Linear(width * len(channels), len(channels))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        brought = [layer(x) for layer, x in zip(self.bring, maps, strict=True)]
        pooled = torch.stack([x.mean((2, 3)) for x in brought], 1)  # (N, scales, width)
        weights = self.weights(pooled)
        return (weights[..., None] * pooled).sum(1), brought[-1]

    def weights(self, pooled: Tensor) -> Tensor:
        """How much each scale counts (N, scales); a row sums to 1."""
        weights: Tensor = self.weigh(pooled.flatten(1)).softmax(1)
        return weights


class CellPool(nn.Module):
    """See `attention_pool`."""

    def __init__(self, channels: tuple[int, ...], width: int, heads: int) -> None:
        super().__init__()
        self.bring = bring_to(channels, width)
        self.scale = nn.Parameter(0.02 * torch.randn(len(channels), width))  # tells scales apart
        self.queries = nn.Parameter(0.02 * torch.randn(heads, width // heads))
        self.key = nn.Linear(width, width, bias=False)  # a bias would shift all scores alike

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        brought = [layer(x) for layer, x in zip(self.bring, maps, strict=True)]
        cells = torch.cat([x.flatten(2).transpose(1, 2) for x in brought], 1)  # (N, T, width)
        weights = self.weights(brought)
        values = cells.unflatten(2, self.queries.shape)  # (N, T, heads, width / heads)
        return torch.einsum("nth,nthd->nhd", weights, values).flatten(1), brought[-1]

    def weights(self, brought: list[Tensor]) -> Tensor:
        """How much each head reads of each cell (N, T, heads); over the T cells it sums to 1.

        All cells of a map weigh together what all of another do, but for what the keys say.
        """
        scores, areas = [], []
        for x, code in zip(brought, self.scale, strict=True):
            place = positions(x.shape[2], x.shape[3], x.shape[1], x.device).to(x.dtype)
            keys = self.key(x.flatten(2).transpose(1, 2) + code + place)
            keys = keys.unflatten(2, self.queries.shape)
            scores.append((keys * self.queries).sum(3) / self.queries.shape[1] ** 0.5)
            cells = x.shape[2] * x.shape[3]
            areas.append(scores[-1].new_full((cells, 1), 1 / cells).log())
        return (torch.cat(scores, 1) + torch.cat(areas)).softmax(1)


def bring_to(channels: tuple[int, ...], width: int) -> nn.ModuleList:
    """For each map, what brings it to `width` channels and to one scale of values."""
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(1, width), nn.GELU()) for c in channels
    )
