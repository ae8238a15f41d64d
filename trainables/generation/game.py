"""What the two networks play for. Scores (N,), higher for what looks real -> a scalar loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.registry import Registry


@dataclass(frozen=True)
class Game:
    """The loss of the discriminator by real and generated scores, that of the generator by its."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


GAMES: Registry[Callable[[], Game]] = Registry("adversarial loss")


@GAMES.register
def non_saturating() -> Game:
    """Logistic loss (Goodfellow et al. 2014, 1406.2661), the choice of StyleGAN."""
    return Game(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
    )


@GAMES.register
def hinge() -> Game:
    """Hinge loss (Lim & Ye 2017, 1705.02894): scores beyond 1 teach nothing more."""
    return Game(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
    )


def r1_penalty(scores: Tensor, images: Tensor, gamma: float) -> Tensor:
    """gamma / 2 times the mean squared gradient of the scores by the real images they are of.

    Mescheder et al. 2018 (1801.04406). `images` are what the discriminator looked at.
    """
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gamma / 2 * slope.square().sum((1, 2, 3)).mean()


def average_share(images: int, half_life: float, seen: int) -> float:
    """How much of the new weights an average takes in after a step on so many images.

    What it holds has lost half its weight after `half_life` images (Karras et al. 2020,
    2006.06676), early on after a twentieth of those `seen`, so that the start is forgotten.
    """
    share: float = 1 - 0.5 ** (images / max(1.0, min(half_life, 0.05 * seen)))
    return share


def au_loss(logits: Tensor, aus: Tensor) -> Tensor:
    """Mean cross-entropy over the known AUs; 0 where none is known."""
    known = (aus >= 0).float()
    each = F.binary_cross_entropy_with_logits(logits, aus.clamp_min(0).float(), reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)
