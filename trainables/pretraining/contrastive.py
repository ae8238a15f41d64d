"""Methods that compare two views of an image. N images, C channels, D embedding.

Written out: `lightly` 1.6.0 (MIT) has both losses, and brings pytorch-lightning, hydra-core and
four more packages for the forty lines they take.
"""

import copy
import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from trainables.averages import average_in
from trainables.backbones import Backbone
from trainables.pretraining.pretext import METHODS, Found, Pretext
from trainables.pretraining.views import View, make_view

HIDDEN = 256  # units of the heads: 2048 and 4096 in the papers, for networks of 24 M parameters


@METHODS.register
def simclr(
    backbone: Backbone,
    image_size: int,
    *,
    temperature: float = 0.2,
    dim: int = 128,
    crop: float = 0.5,
    augment: str = "light",
) -> Pretext:
    """Two views of an image are each other's nearest among all views of the batch (SimCLR, Chen et
    al. 2020, 2002.05709), by the cross-entropy NT-Xent. Crops and colour are lighter than there."""
    if temperature <= 0:
        raise ValueError(f"temperature {temperature:g} is not above 0")
    branch, view = Branch(backbone, dim), make_view(crop, augment)

    def loss(images: Tensor, generator: Generator) -> Found:
        first, second = (branch(v) for v in _views(backbone, view, images, generator))
        return {"loss": nt_xent(first, second, temperature), "spread": spread(first)}

    return Pretext(branch, loss, needs_whole_batch=True)


@METHODS.register
def byol(
    backbone: Backbone,
    image_size: int,
    *,
    momentum: float = 0.99,
    dim: int = 128,
    crop: float = 0.5,
    augment: str = "light",
) -> Pretext:
    """One view predicts what a slow average of the network makes of another (BYOL, Grill et al.
    2020, 2006.07733); the momentum rises to 1 by half a cosine. No negatives."""
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum {momentum:g} is not within 0 to 1")
    model, view = Byol(Branch(backbone, dim), dim), make_view(crop, augment)

    def loss(images: Tensor, generator: Generator) -> Found:
        first, second = _views(backbone, view, images, generator)
        projected, crossed = model.online(first), model.online(second)
        with torch.no_grad():
            goals = model.target(first), model.target(second)
        one = negative_cosine(model.predictor(projected), goals[1])
        other = negative_cosine(model.predictor(crossed), goals[0])
        return {"loss": (one + other).mean(), "spread": spread(projected)}

    def after_step(progress: float) -> None:
        model.follow(1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2)

    return Pretext(model, loss, after_step, needs_whole_batch=True)


class Branch(nn.Module):
    """The backbone, the mean of its last map, and a projection: (N, 3, S, S) -> (N, D)."""

    def __init__(self, backbone: Backbone, dim: int) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"dim {dim} is not 2 or more")
        self.backbone = backbone
        self.projection = two_layers(backbone.channels[-1], dim)

    def forward(self, values: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(values)[-1].mean((2, 3)))
        return projected


class Byol(nn.Module):
    """A branch that learns, with a predictor, and its slow average."""

    def __init__(self, online: Branch, dim: int) -> None:
        super().__init__()
        self.online = online
        self.predictor = two_layers(dim, dim)
        self.target = copy.deepcopy(online).requires_grad_(False)

    def follow(self, momentum: float) -> None:
        """Move the target towards the online branch; its batch statistics are of its own inputs."""
        average_in(self.target.parameters(), self.online.parameters(), 1 - momentum)


def two_layers(width_in: int, width_out: int) -> nn.Sequential:
    """Both papers' head: linear, batch norm, ReLU, linear."""
    return nn.Sequential(
        nn.Linear(width_in, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, width_out),
    )


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over 2N views of the cross-entropy of finding its partner among the other 2N - 1."""
    views = F.normalize(torch.cat([first, second]).float(), dim=1)
    logits = views @ views.T / temperature
    logits.fill_diagonal_(-torch.inf)
    count = len(first)
    partners = torch.arange(2 * count, device=views.device).roll(count)
    return F.cross_entropy(logits, partners)


def negative_cosine(made: Tensor, goal: Tensor) -> Tensor:
    """(N,) squared distance of the two on the unit sphere, 2 - 2 cos."""
    return 2 - 2 * F.cosine_similarity(made.float(), goal.float(), dim=1)


@torch.no_grad()
def spread(embedding: Tensor) -> Tensor:
    """Standard deviation of normalised embeddings over the images, times sqrt(D): 1 where they
    fill the sphere, 0 where all images look the same (Chen & He 2021, 2011.10566)."""
    on_sphere = F.normalize(embedding.float(), dim=1)
    return on_sphere.std(0).mean() * math.sqrt(embedding.shape[1])


def _views(
    backbone: Backbone, view: View, images: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    one, other = (backbone.normalised(view(images, generator)) for _ in range(2))
    return one, other
