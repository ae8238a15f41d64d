"""Heads trained by gradient descent on features: any of ours, and the decoupled ones.

Decoupling (Kang et al. 2020, 1910.09217): the trunk was trained on images as they come, only the
classifier is balanced. D features, K classes.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import Part
from trainables.features.classifiers import CLASSIFIERS, Fit, Fitted
from trainables.features.descent import (
    Descent,
    Teaching,
    check_count,
    fitted,
    seeded,
    train_head,
    zero_linear,
)
from trainables.features.examples import Lesson
from trainables.heads import HEADS
from trainables.model import head_of

BALANCED = Part("sampler", {"exponent": 1.0})
AS_THEY_COME = Part()


@CLASSIFIERS.register
def linear(*, passes: int = 30, optimizer: str = "adamw") -> Fit:
    """The head, loss and rebalancing of the configuration, trained on every view."""
    check_count("passes", passes)

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        how = Descent.of(lesson.config, passes, optimizer)
        return fitted(_trained(lesson, Teaching.of(lesson.config, lesson.counts), how, rng))

    return fit


@CLASSIFIERS.register
def crt(*, passes: int = 10, exponent: float = 1.0, optimizer: str = "adamw") -> Fit:
    """Classifier re-training: a new head, trained on classes drawn equally often (Kang et al.).

    Its first stage is the training of the trunk, of which a frozen one keeps nothing but features.
    Images are drawn with chance ~ n_k^-exponent; 0 is the control, which draws them as they are.
    """
    _check("exponent", exponent, 0, 2)
    check_count("passes", passes)

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        how = Descent.of(lesson.config, passes, optimizer)
        drawn = Part("sampler", {"exponent": exponent})
        return fitted(_trained(lesson, Teaching.of(lesson.config, lesson.counts, drawn), how, rng))

    return fit


@CLASSIFIERS.register
def tau_norm(*, tau: float = 1.0, passes: int = 30, optimizer: str = "adamw") -> Fit:
    """A head without bias, trained on images as they come, its weights over their norm^tau (Kang
    et al.); tau 0 is the control, the head itself.

    Norms grow with the class only where features are not centred, so the mean is put back. The
    factors are divided by their mean: the softmax stays as sharp, and no decision depends on it.
    """
    _check("tau", tau, 0, 3)
    check_count("passes", passes)

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        how = Descent.of(lesson.config, passes, optimizer)
        head = _plain(lesson, how, rng, has_bias=False)
        with torch.no_grad():
            head.weight.copy_(normalised(head.weight, tau))
        return fitted(head, lesson.center)

    return fit


@CLASSIFIERS.register
def lws(*, passes: int = 30, rescaling: int = 10, optimizer: str = "adamw") -> Fit:
    """Learnable weight scaling: one factor a class, learned on classes drawn equally often, on the
    logits of a head trained on images as they come (Kang et al.). 0 scale passes: the control."""
    check_count("passes", passes)
    check_count("rescaling", rescaling, least=0)

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        how = Descent.of(lesson.config, passes, optimizer)
        scaled = Scaled(_plain(lesson, how, rng, has_bias=True))
        if rescaling:
            again = Descent.of(lesson.config, rescaling, optimizer)
            teaching = Teaching.of(lesson.config, lesson.counts, BALANCED)
            train_head(scaled, lesson.seen, teaching, again, rng)
        return fitted(scaled)

    return fit


class Scaled(nn.Module):
    """The logits of a head that is fixed, times one factor a class (K,)."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(head.out_features))

    def forward(self, features: Tensor) -> Tensor:
        scaled: Tensor = self.scale * self.head(features)
        return scaled


def normalised(weight: Tensor, tau: float) -> Tensor:
    """Rows (K, D) over their norm^tau, the mean of these factors being 1."""
    factors = weight.norm(dim=1, keepdim=True).clamp_min(1e-12) ** -tau
    divided: Tensor = weight * factors / factors.mean()
    return divided


def _trained(
    lesson: Lesson, teaching: Teaching, how: Descent, rng: np.random.Generator
) -> nn.Module:
    """The head of the configuration, trained."""
    seen, part = lesson.seen, head_of(lesson.config)
    shape = (seen.features.shape[1], seen.components, seen.classes, seen.basics)
    head = seeded(partial(HEADS[part.name], *shape, **part.args), rng)
    train_head(head, seen, teaching, how, rng)
    return head


def _plain(lesson: Lesson, how: Descent, rng: np.random.Generator, has_bias: bool) -> nn.Linear:
    """A linear head trained on images as they come; without bias, on features not centred."""
    seen = lesson.seen
    if not has_bias:
        seen = replace(seen, features=seen.features + lesson.center)
    head = zero_linear(seen.features.shape[1], seen.classes, has_bias)
    teaching = Teaching.of(lesson.config, lesson.counts, AS_THEY_COME)
    train_head(head, seen, teaching, how, rng)
    return head


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} {value:g} is not within {least:g} to {most:g}")
