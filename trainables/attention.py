"""Attention. N batch, C channels, h x w map, A action units: (N, C, h, w) -> `Attended`.

A builder takes (channels, aus) and its hyper-parameters by keyword. Each starts near identity (a
residual with a gate of 0.1), else it would spoil a pretrained backbone, and its features depend on
each of its parameters, so that every one learns from the first step, with or without an AU loss.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional

from trainables.registry import Registry

GATE = 0.1


class Attended(NamedTuple):
    """What attention makes of a map; an AU-aware one says which AUs it sees, and where."""

    features: Tensor  # (N, C, h, w)
    au_logits: Tensor | None = None  # (N, A)
    au_maps: Tensor | None = None  # (N, A, h, w), logits


AttentionBuilder = Callable[..., nn.Module]

ATTENTIONS: Registry[AttentionBuilder] = Registry("attention")
AU_AWARE = ("au_spatial", "au_cross")


@ATTENTIONS.register
def none_(channels: int, aus: int) -> nn.Module:
    """The map as it is."""
    return Plain()


@ATTENTIONS.register
def se(channels: int, aus: int, *, reduction: int = 16) -> nn.Module:
    """Squeeze-and-excitation (Hu et al. 2018, 1709.01507)."""
    return Gated(SEModule(channels, rd_ratio=1 / reduction), neutral=0.5)


@ATTENTIONS.register
def eca(channels: int, aus: int, *, kernel: int = 0) -> nn.Module:
    """Efficient channel attention (Wang et al. 2020, 1910.03151); kernel 0: set by the channels."""
    inner = EcaModule(None, kernel_size=kernel) if kernel else EcaModule(channels)
    return Gated(inner, neutral=0.5)


@ATTENTIONS.register
def cbam(channels: int, aus: int, *, reduction: int = 16, kernel: int = 7) -> nn.Module:
    """Channel, then spatial attention (Woo et al. 2018, 1807.06521)."""
    inner = CbamModule(channels, rd_ratio=1 / reduction, spatial_kernel_size=kernel)
    return Gated(inner, neutral=0.25)


@ATTENTIONS.register
def coordinate(channels: int, aus: int, *, reduction: int = 16) -> nn.Module:
    """Attention along rows and columns (Hou et al. 2021, 2103.02907)."""
    return Gated(CoordAttn(channels, rd_ratio=1 / reduction), neutral=0.25)


@ATTENTIONS.register
def gather_excite(channels: int, aus: int, *, extent: int = 4, reduction: int = 16) -> nn.Module:
    """Gates from means of neighbourhoods `extent` cells apart (Hu et al. 2018, 1810.12348).

    Their parameter-free gather before their excite network; extent 0 is the whole map, which makes
    it `se`. Written out, as timm 1.0.31's cannot be built with its network.
    """
    return Gated(GatherExcite(channels, extent, reduction), neutral=0.5)


@ATTENTIONS.register
def au_spatial(channels: int, aus: int, *, width: int = 64) -> nn.Module:
    """A map per AU (the idea of EAC-Net, Li et al. 2017, 1702.02925; gating our own).

    M = sigmoid(conv(F)), f_a = sum(M_a F) / sum(M_a) -> AU logit s_a; the emotion path sees
    F + gate * sum_a M_a sigmoid(s_a) P(f_a).
    """
    return AuSpatial(channels, _some(aus, "au_spatial"), width)


@ATTENTIONS.register
def au_cross(
    channels: int,
    aus: int,
    *,
    width: int = 128,
    heads: int = 4,
    layers: int = 1,
    dropout: float = 0.1,
) -> nn.Module:
    """A learned query per AU that reads the h x w tokens (as in DETR, Carion et al. 2020,
    2005.12872); the emotion path sees F + gate * P(pool of the queries, by their AU logits)."""
    if width % heads or width % 4:
        raise ValueError(f"au_cross: width {width} must be a multiple of 4 and of heads {heads}")
    return AuCross(channels, _some(aus, "au_cross"), width, heads, layers, dropout)


class Plain(nn.Module):
    """Identity."""

    def forward(self, x: Tensor) -> Attended:
        return Attended(x)


class Gated(nn.Module):
    """x + gate * (inner(x) / neutral - x), where an untrained inner gives about neutral * x."""

    def __init__(self, inner: nn.Module, neutral: float) -> None:
        super().__init__()
        self.inner, self.neutral = inner, neutral
        self.gate = nn.Parameter(torch.tensor([GATE]))

    def forward(self, x: Tensor) -> Attended:
        return Attended(x + self.gate * (self.inner(x) / self.neutral - x))


class GatherExcite(nn.Module):
    """x times gates that are alike within a neighbourhood; see `gather_excite`."""

    def __init__(self, channels: int, extent: int, reduction: int) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)  # two or three units may all be dead at the start
        self.extent = extent
        self.excite = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        gates = self.excite(self.gather(x)).sigmoid()
        return x * functional.interpolate(gates, size=x.shape[-2:])

    def gather(self, x: Tensor) -> Tensor:
        """Means over windows of 2 extent - 1 cells, of the cells inside the map."""
        if self.extent == 0:
            return x.mean((2, 3), keepdim=True)
        window = 2 * self.extent - 1
        return functional.avg_pool2d(x, window, self.extent, window // 2, count_include_pad=False)


class AuSpatial(nn.Module):
    """See `au_spatial`."""

    def __init__(self, channels: int, aus: int, width: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, aus, 1)
        self.norm = nn.LayerNorm(channels)
        self.score = AuScore(aus, channels)
        self.identity = nn.Parameter(0.1 * torch.randn(aus, channels))  # tells the AUs apart
        self.evidence = _mlp(channels, width, channels)
        self.gate = nn.Parameter(torch.tensor([GATE]))

    def forward(self, x: Tensor) -> Attended:
        au_maps = self.maps(x)
        mask = au_maps.sigmoid()  # (N, A, h, w)
        mass = mask.sum((2, 3))[..., None].clamp_min(1e-4)
        seen = self.norm(torch.einsum("nahw,nchw->nac", mask, x) / mass)
        au_logits = self.score(seen)
        evidence = au_logits.sigmoid()[..., None] * self.evidence(seen + self.identity)
        change = torch.einsum("nahw,nac->nchw", mask, evidence) / mask.shape[1] ** 0.5
        return Attended(x + self.gate * scale_of(x) * change, au_logits, au_maps)


class AuCross(nn.Module):
    """See `au_cross`."""

    def __init__(
        self, channels: int, aus: int, width: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(aus, width))
        self.norm = nn.LayerNorm(channels)
        self.tokens = nn.Linear(channels, width)
        self.layers = nn.ModuleList(CrossLayer(width, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.score = AuScore(aus, width)
        self.evidence = _mlp(width, width, channels)
        self.gate = nn.Parameter(torch.tensor([GATE]))

    def forward(self, x: Tensor) -> Attended:
        n, _, h, w = x.shape
        tokens = self.tokens(self.norm(x.flatten(2).transpose(1, 2)))  # (N, hw, D)
        tokens = tokens + positions(h, w, tokens.shape[2], tokens.device).to(tokens.dtype)
        queries = self.queries.expand(n, -1, -1)
        for layer in self.layers:
            queries, scores = layer(queries, tokens)
        seen = self.last(queries)  # (N, A, D)
        au_logits = self.score(seen)
        pooled = (au_logits.sigmoid()[..., None] * seen).mean(1)
        change = self.evidence(pooled)[:, :, None, None]
        au_maps = scores.view(n, -1, h, w)
        return Attended(x + self.gate * scale_of(x) * change, au_logits, au_maps)


class CrossLayer(nn.Module):
    """Queries (N, A, D) read tokens (N, T, D); also the scores (N, A, T) before the softmax."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_queries, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a bias shifts all scores of a query alike
        self.value = nn.Linear(width, width)
        self.mlp = _mlp(width, 2 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (
                self.query(self.norm_queries(queries)),
                self.key(tokens),
                self.value(tokens),
            )
        )
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (N, heads, A, T)
        read = (self.drop(scores.softmax(3)) @ v).transpose(1, 2).flatten(2)
        queries = queries + self.drop(self.out(read))
        return queries + self.drop(self.mlp(self.norm_mlp(queries))), scores.mean(1)


class AuScore(nn.Module):
    """A logit per AU from that AU's own feature: (N, A, C) -> (N, A)."""

    def __init__(self, aus: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(aus, channels))
        self.bias = nn.Parameter(torch.zeros(aus))

    def forward(self, features: Tensor) -> Tensor:
        return (features * self.weight).sum(2) + self.bias


def scale_of(x: Tensor) -> Tensor:
    """Root mean square of each map (N, 1, 1, 1), as a constant: changes are relative to it."""
    return x.detach().float().square().mean((1, 2, 3), keepdim=True).sqrt().to(x.dtype)


def positions(h: int, w: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of row and column (h w, width), as in Vaswani et al. 2017 (1706.03762)."""
    octaves = torch.arange(width // 4, device=device)
    rates = 100.0 ** (-octaves / (width // 4))
    rows = torch.arange(h, device=device)[:, None] * rates
    columns = torch.arange(w, device=device)[:, None] * rates
    by_row = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(h, w, -1)
    by_column = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(h, w, -1)
    return torch.cat([by_row, by_column], 2).flatten(0, 1)


def _mlp(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width_out))


def _some(aus: int, name: str) -> int:
    if aus < 1:
        raise ValueError(f"attention '{name}' needs action units, and this data set names none")
    return aus
