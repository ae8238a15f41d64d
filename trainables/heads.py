"""Heads. N batch, D embedding, K classes, B basic emotions: (N, D) -> logits (N, K).

A builder takes (dim, components, classes, basics) and its hyper-parameters by keyword.
`components` names the two basic emotions of each class; data of single emotions has None.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.registry import Registry

Components = tuple[tuple[int, int], ...] | None
HeadBuilder = Callable[..., nn.Module]

HEADS: Registry[HeadBuilder] = Registry("head")


@HEADS.register
def flat(dim: int, components: Components, classes: int, basics: int) -> nn.Module:
    """One independent logit a class."""
    return small_linear(dim, classes)


@HEADS.register
def additive(dim: int, components: Components, classes: int, basics: int) -> nn.Module:
    """Logit of a compound = sum of the logits of its two basic emotions (methods 2.5)."""
    return Additive(small_linear(dim, basics), pair_matrix(components, classes, basics))


@HEADS.register
def additive_residual(
    dim: int, components: Components, classes: int, basics: int, *, shrink: float = 0.01
) -> nn.Module:
    """The same plus a term of each class's own, starting at 0, whose squared weights cost `shrink`.

    A class of few images then leans on its two emotions, one of many may deviate (methods 2.5).
    """
    residual = nn.Linear(dim, classes)
    nn.init.zeros_(residual.weight)
    nn.init.zeros_(residual.bias)
    pairs = pair_matrix(components, classes, basics)
    return Additive(small_linear(dim, basics), pairs, residual, shrink)


@HEADS.register
def cosine(
    dim: int, components: Components, classes: int, basics: int, *, scale: float = 16.0
) -> nn.Module:
    """Scale times the cosine between embedding and class weight (Gidaris & Komodakis 2018,
    1804.09458).

    Loss `ldam` subtracts scale * margin from the true logit and multiplies nothing, so with the
    same scale in both, this head and that loss are exactly LDAM (Cao et al. 2019, 1906.07413).
    """
    return Cosine(dim, classes, scale)


def small_linear(dim: int, outputs: int) -> nn.Linear:
    """A linear layer that starts near zero, so that the first loss is close to ln K."""
    layer = nn.Linear(dim, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def penalty_of(head: nn.Module, like: Tensor) -> Tensor:
    """What a head asks to add to the loss: a scalar, 0 for heads that ask for nothing."""
    return head.penalty() if isinstance(head, Additive) else like.new_zeros(())


def pair_matrix(components: Components, classes: int, basics: int) -> Tensor:
    """(K, B): how often each basic emotion takes part in each class."""
    if components is None:
        raise ValueError(
            "an additive head needs compound classes, and this data set names no components; "
            "take head 'flat' or 'cosine'"
        )
    assert len(components) == classes
    matrix = torch.zeros(classes, basics)
    for row, pair in enumerate(components):
        for basic in pair:
            matrix[row, basic] += 1
    return matrix


class Additive(nn.Module):
    """Sums of basic logits, with an optional shrunk residual."""

    pairs: Tensor

    def __init__(
        self, basic: nn.Linear, pairs: Tensor, residual: nn.Linear | None = None, shrink: float = 0
    ) -> None:
        super().__init__()
        self.basic, self.residual, self.shrink = basic, residual, shrink
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self.basic(embedding) @ self.pairs.T
        if self.residual is not None:
            logits = logits + self.residual(embedding)
        return logits

    def penalty(self) -> Tensor:
        """What the residual costs: shrink * mean over classes of its squared weights."""
        if self.residual is None:
            return self.pairs.new_zeros(())
        cost: Tensor = self.shrink * self.residual.weight.square().sum(1).mean()
        return cost


class Cosine(nn.Module):
    """Scaled cosine similarities."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim))
        self.scale = scale

    def forward(self, embedding: Tensor) -> Tensor:
        unit = functional.normalize(embedding, dim=1)
        return self.scale * unit @ functional.normalize(self.weight, dim=1).T
