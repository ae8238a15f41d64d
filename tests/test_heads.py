"""Heads: the additive ones against sums by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainables.heads import HEADS, penalty_of

PAIRS = ((0, 1), (1, 2), (2, 2))
X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def test_additive_logits_are_sums_of_two_basic_emotions() -> None:
    head = HEADS["additive"](8, PAIRS, 3, 3)
    u = head.basic(X)
    reference = torch.stack([u[:, a] + u[:, b] for a, b in PAIRS], 1)
    torch.testing.assert_close(head(X), reference)


def test_residual_starts_as_the_additive_head() -> None:
    head = HEADS["additive_residual"](8, PAIRS, 3, 3)
    torch.testing.assert_close(head(X), head.basic(X) @ head.pairs.T)


def test_residual_costs_its_squared_weights() -> None:
    head = HEADS["additive_residual"](8, PAIRS, 3, 3, shrink=0.1)
    assert penalty_of(head, X) == 0
    nn.init.constant_(head.residual.weight, 2.0)
    assert penalty_of(head, X).item() == pytest.approx(0.1 * 8 * 4)


@pytest.mark.parametrize("name", ["flat", "additive", "cosine"])
def test_other_heads_cost_nothing(name: str) -> None:
    assert penalty_of(HEADS[name](8, PAIRS, 3, 3), X) == 0


@pytest.mark.parametrize("name", ["additive", "additive_residual"])
def test_additive_needs_components(name: str) -> None:
    with pytest.raises(ValueError, match="take head 'flat'"):
        HEADS[name](8, None, 7, 7)


def test_cosine_is_within_its_scale_whatever_the_length() -> None:
    head = HEADS["cosine"](8, None, 3, 0, scale=7.0)
    torch.testing.assert_close(head(X), head(100 * X))
    assert head(1e3 * X).abs().max() <= 7.0


@pytest.mark.parametrize("name", ["flat", "additive", "additive_residual"])
def test_first_loss_is_near_the_logarithm_of_the_classes(name: str) -> None:
    pairs = tuple((i % 6, (i + 1) % 6) for i in range(14))
    logits = HEADS[name](256, pairs, 14, 6)(functional.layer_norm(torch.randn(64, 256), (256,)))
    loss = functional.cross_entropy(logits, torch.arange(64) % 14)
    assert loss.item() == pytest.approx(math.log(14), abs=0.15)
