"""Losses and rebalancing against formulas written out by hand. K = 3 classes, A = 2 AUs."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainables.heads import HEADS
from trainables.losses import AU_LOSSES, LOSSES, region_loss
from trainables.rebalance import REBALANCE, effective_weights

COUNTS = np.array([600, 81, 16])
LABELS = torch.tensor([0, 1, 2, 2])
TARGETS = torch.eye(3)[LABELS]
LOGITS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.2], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0]])


def test_cross_entropy_is_that_of_torch() -> None:
    for smoothing in (0.0, 0.1):
        value = LOSSES["cross_entropy"](COUNTS, smoothing=smoothing)(LOGITS, TARGETS)
        reference = functional.cross_entropy(
            LOGITS, LABELS, label_smoothing=smoothing, reduction="none"
        )
        torch.testing.assert_close(value, reference)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    soft = torch.tensor([[0.2, 0.3, 0.5]]).expand(4, 3)
    for targets in (TARGETS, soft):
        torch.testing.assert_close(
            LOSSES["focal"](COUNTS, gamma=0.0)(LOGITS, targets),
            LOSSES["cross_entropy"](COUNTS)(LOGITS, targets),
        )


def test_focal_by_hand() -> None:
    # two equal logits: p = 1/2, so (1 - 1/2)^2 * log 2
    value = LOSSES["focal"](COUNTS[:2], gamma=2.0)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert value.item() == pytest.approx(0.25 * math.log(2))


def test_class_balanced_by_hand() -> None:
    weights = np.array([(1 - 0.99) / (1 - 0.99**n) for n in COUNTS])
    weights = weights / ((weights * COUNTS).sum() / COUNTS.sum())
    plain = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    value = LOSSES["class_balanced"](COUNTS, beta=0.99)(LOGITS, TARGETS)
    torch.testing.assert_close(value, plain * torch.tensor(weights).float()[LABELS])


def test_class_balanced_keeps_the_ratio_of_the_paper() -> None:
    weights = effective_weights(np.array([582, 6]), 0.99)
    assert weights[1] / weights[0] == pytest.approx(17, abs=0.5)  # methods 2.4


def test_ldam_by_hand() -> None:
    # margins fall as n^(-1/4): 16^(-1/4) = 1/2 has the whole margin, 81^(-1/4) = 1/3 two thirds
    value = LOSSES["ldam"](COUNTS, margin=0.6, scale=10.0)(LOGITS, TARGETS)[1].item()
    a, b, c = 1.5, 0.3 - 10 * 0.4, -0.2
    assert value == pytest.approx(
        -math.log(math.exp(b) / (math.exp(a) + math.exp(b) + math.exp(c)))
    )


@pytest.mark.parametrize("classes", [1, 2, 14])
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_ldam_takes_each_class_for_the_true_one_in_turn(classes: int, size: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    counts = np.arange(classes) + 2
    logits = size * torch.randn(9, classes, generator=generator, dtype=torch.float64)
    targets = torch.randn(9, classes, generator=generator, dtype=torch.float64).softmax(1)
    rarity = counts**-0.25
    wanted = torch.zeros(9, dtype=torch.float64)
    for k, margin in enumerate(2.0 * 0.5 * rarity / rarity.max()):
        lowered = logits.clone()
        lowered[:, k] -= margin
        wanted -= targets[:, k] * lowered.log_softmax(1)[:, k]
    z = logits.float().requires_grad_()
    found = LOSSES["ldam"](counts, margin=0.5, scale=2.0)(z, targets.float())
    assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_ldam_on_the_cosine_head_is_the_loss_of_the_paper() -> None:
    head = HEADS["cosine"](5, None, 3, 0, scale=20.0)
    x = torch.randn(4, 5)
    value = LOSSES["ldam"](COUNTS, margin=0.5, scale=20.0)(head(x), TARGETS)
    cosines = functional.cosine_similarity(x[:, None], head.weight[None], dim=2)
    margins = 0.5 * torch.tensor([600**-0.25, 81**-0.25, 16**-0.25]) / 16**-0.25
    shifted = 20.0 * (cosines - margins * TARGETS)
    reference = functional.cross_entropy(shifted, LABELS, reduction="none")
    torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)


def test_balanced_softmax_by_hand() -> None:
    # softmax with each exponential times the class's share of the images
    shares = COUNTS / COUNTS.sum()
    powers = [math.exp(z) * s for z, s in zip((1.5, 0.3, -0.2), shares, strict=True)]
    value = LOSSES["balanced_softmax"](COUNTS, tau=1.0)(LOGITS, TARGETS)[1].item()
    assert value == pytest.approx(-math.log(powers[1] / sum(powers)), rel=1e-5)


def test_balanced_softmax_with_tau_zero_is_cross_entropy() -> None:
    torch.testing.assert_close(
        LOSSES["balanced_softmax"](COUNTS, tau=0.0)(LOGITS, TARGETS),
        LOSSES["cross_entropy"](COUNTS)(LOGITS, TARGETS),
    )


@pytest.mark.parametrize("name", ["class_balanced", "balanced_softmax", "ldam"])
def test_a_class_without_images_is_no_error(name: str) -> None:
    value = LOSSES[name](np.array([9, 3, 0]))(LOGITS, TARGETS)
    assert value.isfinite().all()


# --- AU losses -----------------------------------------------------------------------------------

AU_LOGITS = torch.tensor([[0.4, -1.2], [2.0, 0.7]])
AU_TARGETS = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
POSITIVES, KNOWN = np.array([25, 2]), np.array([100, 100])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_bce_by_hand() -> None:
    # 75 absent to 25 present: a present AU 1 weighs 3; row 1 has one known AU
    value = AU_LOSSES["bce"](POSITIVES, KNOWN, clip=5.0)(AU_LOGITS, AU_TARGETS)
    first = (-3 * math.log(sigmoid(0.4)) - math.log(1 - sigmoid(-1.2))) / 2
    assert value.tolist() == pytest.approx([first, -math.log(1 - sigmoid(2.0))])


def test_bce_clips_the_weight_of_rare_aus() -> None:
    target, logits = torch.tensor([[-1.0, 1.0]]), torch.zeros(1, 2)
    value = AU_LOSSES["bce"](POSITIVES, KNOWN, clip=5.0)(logits, target)
    assert value.item() == pytest.approx(5 * math.log(2))


def test_asymmetric_by_hand() -> None:
    loss = AU_LOSSES["asymmetric"](POSITIVES, KNOWN, gamma_pos=1.0, gamma_neg=2.0, margin=0.05)
    p, q, r = sigmoid(0.4), sigmoid(-1.2) - 0.05, sigmoid(2.0) - 0.05
    first = (-(1 - p) * math.log(p) - q**2 * math.log(1 - q)) / 2
    value = loss(AU_LOGITS, AU_TARGETS).tolist()
    assert value == pytest.approx([first, -(r**2) * math.log(1 - r)])


def test_asymmetric_without_focus_is_plain_cross_entropy() -> None:
    plain = AU_LOSSES["bce"](POSITIVES, KNOWN, clip=1.0)(AU_LOGITS, AU_TARGETS)
    loss = AU_LOSSES["asymmetric"](POSITIVES, KNOWN, gamma_pos=0.0, gamma_neg=0.0, margin=0.0)
    torch.testing.assert_close(loss(AU_LOGITS, AU_TARGETS), plain)


def test_asymmetric_ignores_absent_aus_it_is_sure_of() -> None:
    loss = AU_LOSSES["asymmetric"](POSITIVES, KNOWN, margin=0.05)
    assert loss(torch.tensor([[-4.0, -4.0]]), torch.zeros(1, 2)).item() == pytest.approx(
        0, abs=1e-9
    )


def test_plain_bce_is_that_of_torch() -> None:
    value = AU_LOSSES["plain_bce"](POSITIVES, KNOWN)(AU_LOGITS[:1], AU_TARGETS[:1])
    reference = functional.binary_cross_entropy_with_logits(AU_LOGITS[:1], AU_TARGETS[:1])
    assert value.item() == pytest.approx(reference.item())


def test_weighted_asymmetric_by_hand() -> None:
    # rates 1/4 and 1/50: weights 4 and 50, over their mean of 27
    value = AU_LOSSES["weighted_asymmetric"](POSITIVES, KNOWN)(AU_LOGITS, AU_TARGETS)
    p, q, r = sigmoid(0.4), sigmoid(-1.2), sigmoid(2.0)
    first = (-4 / 27 * math.log(p) - 50 / 27 * q * math.log(1 - q)) / 2
    assert value.tolist() == pytest.approx([first, -4 / 27 * r * math.log(1 - r)])


def test_weighted_asymmetric_holds_its_factor_constant() -> None:
    # of sg(p) * -log(1 - p) the slope is p * p, without a term for the factor
    logits = torch.tensor([[0.7]], requires_grad=True)
    AU_LOSSES["weighted_asymmetric"](POSITIVES[:1], KNOWN[:1])(logits, torch.zeros(1, 1)).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(sigmoid(0.7) ** 2)


def test_weighted_asymmetric_leaves_out_what_is_never_shown() -> None:
    loss = AU_LOSSES["weighted_asymmetric"](np.array([25, 0]), KNOWN)
    value = loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert value.item() == pytest.approx(math.log(2) / 2)  # of two AUs, the first weighs 1


# --- regions -------------------------------------------------------------------------------------


def half_face() -> Tensor:
    regions = torch.zeros(1, 2, 4, 4)
    regions[:, :, :2] = 1
    return regions


def test_region_loss_by_hand() -> None:
    # logit 1 everywhere, the region is the upper half
    inside, outside = -math.log(sigmoid(1.0)), -math.log(1 - sigmoid(1.0))
    value = region_loss(torch.ones(1, 2, 4, 4), half_face(), torch.tensor([[1.0, -1.0]]))
    assert value.item() == pytest.approx((inside + outside) / 2)


def test_region_loss_looks_at_present_aus_only() -> None:
    maps = torch.zeros(1, 2, 4, 4, requires_grad=True)
    region_loss(maps, half_face(), torch.tensor([[1.0, 0.0]])).backward()
    assert maps.grad is not None
    assert maps.grad[0, 0].any()
    assert not maps.grad[0, 1].any()


def test_region_loss_brings_regions_to_the_size_of_the_maps() -> None:
    maps, present = torch.randn(1, 2, 2, 2), torch.ones(1, 2)
    small = half_face()[:, :, ::2, ::2]
    torch.testing.assert_close(
        region_loss(maps, half_face(), present), region_loss(maps, small, present)
    )


def test_region_loss_without_present_aus_is_zero() -> None:
    assert region_loss(torch.randn(1, 2, 4, 4), half_face(), -torch.ones(1, 2)) == 0


# --- rebalancing ---------------------------------------------------------------------------------


def test_deferred_weights_set_in_at_their_start() -> None:
    rebalance = REBALANCE["deferred"](COUNTS, start=0.7, beta=0.99)
    assert rebalance.class_weights(0.69).tolist() == [1, 1, 1]
    assert rebalance.class_weights(0.7).tolist() == effective_weights(COUNTS, 0.99).tolist()


@pytest.mark.parametrize(("exponent", "share"), [(0.0, 16 / 697), (1.0, 1 / 3)])
def test_sampler_draws_the_rarest_class_as_often_as_it_says(exponent: float, share: float) -> None:
    labels = np.repeat(np.arange(3), COUNTS)
    weights = REBALANCE["sampler"](COUNTS, exponent=exponent).sample_weights(labels)
    assert weights is not None
    assert weights[labels == 2].sum() == pytest.approx(share)
