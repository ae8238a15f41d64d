"""Losses. N batch, K classes, A action units.

LOSSES: (N, K) logits, (N, K) soft targets -> (N,). AU_LOSSES: (N, A) logits, (N, A) targets in
[0, 1] or -1 unknown -> (N,). Nothing is reduced over N; all arithmetic is in float32.
A builder takes counts of the training set and its hyper-parameters by keyword.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainables.device import constant
from trainables.rebalance import REBALANCE as REBALANCE  # stands beside the losses
from trainables.rebalance import effective_weights
from trainables.registry import Registry

Counts = NDArray[np.integer]
Loss = Callable[[Tensor, Tensor], Tensor]
LossBuilder = Callable[..., Loss]

LDAM_SCALE = 16.0

LOSSES: Registry[LossBuilder] = Registry("loss")
AU_LOSSES: Registry[LossBuilder] = Registry("AU loss")


@LOSSES.register
def cross_entropy(class_counts: Counts, *, smoothing: float = 0.0) -> Loss:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, 1512.00567)."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        smooth = (1 - smoothing) * targets + smoothing / targets.shape[1]
        return -(smooth * logits.float().log_softmax(1)).sum(1)

    return loss


@LOSSES.register
def focal(class_counts: Counts, *, gamma: float = 2.0) -> Loss:
    """sum_k -t_k (1 - p_k)^gamma log p_k, p of the plain softmax (Lin et al. 2017, 1708.02002)."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        log_p = logits.float().log_softmax(1)
        doubt = (1 - log_p.exp()).clamp_min(1e-6)  # 0 to a power below 1 has no finite slope
        return -(targets * doubt**gamma * log_p).sum(1)

    return loss


@LOSSES.register
def class_balanced(class_counts: Counts, *, beta: float = 0.99) -> Loss:
    """Cross-entropy weighted by effective numbers of images (Cui et al. 2019, 1901.05555).

    We weight so that the mean over the training images is 1; the paper's mean over classes changes
    the size of the loss, hence of the step.
    """
    weights = effective_weights(class_counts, beta)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        log_p = logits.float().log_softmax(1)
        return -(targets * constant(weights, log_p) * log_p).sum(1)

    return loss


@LOSSES.register
def ldam(class_counts: Counts, *, margin: float = 0.5, scale: float = LDAM_SCALE) -> Loss:
    """Cross-entropy with a margin that grows as n_k^(-1/4) (Cao et al. 2019, 1906.07413).

    The true logit loses scale * margin_k, the rarest class the whole `margin`. The logits are not
    multiplied: head 'cosine' of the same scale makes this the paper's loss; with any other head it
    is a margin of scale * margin_k in logits, and nothing is blown up.
    A soft target costs the mean over the classes that it names.
    """
    rarity = np.maximum(class_counts, 1) ** -0.25
    margins = scale * margin * rarity / rarity.max()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        z = logits.float()
        lowered = z - constant(margins, z)
        log_p = lowered - torch.logaddexp(lowered, _of_others(z))  # of each class, were it the true
        return -(targets * log_p).sum(1)

    return loss


def _of_others(z: Tensor) -> Tensor:
    """log sum exp of all logits (N, K) but each one in turn: of those before it and after it."""
    none = z.new_full((len(z), 1), torch.finfo(z.dtype).min / 4)  # finite, so its gradient is 0
    before = torch.cat([none, z[:, :-1].logcumsumexp(1)], 1)
    after = torch.cat([z[:, 1:].flip(1).logcumsumexp(1).flip(1), none], 1)
    return torch.logaddexp(before, after)


@LOSSES.register
def balanced_softmax(class_counts: Counts, *, tau: float = 1.0) -> Loss:
    """Cross-entropy of z + tau log prior (Menon et al. 2021, 2007.07314; tau = 1: Ren et al. 2020,
    2007.10740)."""
    counts = np.maximum(class_counts, 1)
    shift = tau * np.log(counts / counts.sum())

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        z = logits.float()
        return -(targets * (z + constant(shift, z)).log_softmax(1)).sum(1)

    return loss


@AU_LOSSES.register
def none_(positives: Counts, known: Counts) -> Loss:
    """No AU loss: zeros that touch nothing."""
    return lambda logits, targets: logits.new_zeros(len(logits), dtype=torch.float32)


@AU_LOSSES.register
def plain_bce(positives: Counts, known: Counts) -> Loss:
    """Binary cross-entropy, present and absent AUs alike: the control of the other three."""
    return weighted_bce(np.ones(len(positives)))


@AU_LOSSES.register
def bce(positives: Counts, known: Counts, *, clip: float = 5.0) -> Loss:
    """Binary cross-entropy, a present AU weighing (absent / present) images, 1 to `clip` times."""
    return weighted_bce(np.clip((known - positives) / np.maximum(positives, 1), 1, max(clip, 1.0)))


@AU_LOSSES.register
def asymmetric(
    positives: Counts,
    known: Counts,
    *,
    gamma_pos: float = 1.0,
    gamma_neg: float = 2.0,
    margin: float = 0.05,
) -> Loss:
    """Focal on both sides, absent AUs surer than `margin` ignored (Ridnik et al. 2021, 2009.14119).

    -y (1 - p)^gamma_pos log p - (1 - y) q^gamma_neg log(1 - q), q = max(p - margin, 0).
    """

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        x = logits.float()
        q = (x.sigmoid() - margin).clamp_min(1e-6)  # 0 to a power below 1 has no finite slope
        doubt = x.neg().sigmoid().clamp_min(1e-6)
        absent = (
            torch.log((x.neg().sigmoid() + margin).clamp_max(1))
            if margin > 0
            else functional.logsigmoid(-x)  # log(0) otherwise
        )
        present = doubt**gamma_pos * functional.logsigmoid(x)
        y = targets.float().clamp_min(0)
        return mean_of_known(-(y * present + (1 - y) * q**gamma_neg * absent), targets)

    return loss


@AU_LOSSES.register
def weighted_asymmetric(positives: Counts, known: Counts) -> Loss:
    """-w_a [y log p + sg(p) (1 - y) log(1 - p)] (ME-GraphAU, Luo et al. 2022, 2205.01782).

    w_a is one over the share of images that show the AU, mean 1 over the AUs; p as a factor is held
    constant (sg), as in the authors' code. An AU that no training image shows weighs nothing, where
    the paper would divide by zero.
    """
    rates = positives / np.maximum(known, 1)
    rarity = np.where(positives > 0, 1 / np.maximum(rates, 1e-12), 0.0)
    weights = rarity / max(rarity.sum(), 1e-12) * (positives > 0).sum()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        x, y = logits.float(), targets.float().clamp_min(0)
        absent = x.sigmoid().detach() * functional.logsigmoid(-x)
        cost = -(y * functional.logsigmoid(x) + (1 - y) * absent)
        return mean_of_known(constant(weights, x) * cost, targets)

    return loss


def weighted_bce(weights: NDArray[np.floating]) -> Loss:
    """Binary cross-entropy in which a present AU weighs `weights` (A,) and an absent one 1."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        x, y = logits.float(), targets.float().clamp_min(0)
        present = constant(weights, x) * functional.logsigmoid(x)
        return mean_of_known(-(y * present + (1 - y) * functional.logsigmoid(-x)), targets)

    return loss


def region_loss(maps: Tensor, regions: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of AU maps (N, A, h, w; logits) against regions (N, A, H, W) in [0, 1].

    Of present AUs only, by targets (N, A): where an absent one would show is not for us to say.
    """
    if regions.shape[-2:] != maps.shape[-2:]:
        regions = functional.adaptive_avg_pool2d(regions, (maps.shape[-2], maps.shape[-1]))
    kind = torch.promote_types(maps.dtype, torch.float32)  # never less; double precision stays
    cost = functional.binary_cross_entropy_with_logits(
        maps.to(kind), regions.to(kind), reduction="none"
    ).mean((2, 3))
    present = (targets > 0.5).to(kind)
    return (present * cost).sum() / present.sum().clamp_min(1)


def mean_of_known(cost: Tensor, targets: Tensor) -> Tensor:
    """Mean over the known AUs of each row (N,); 0 for a row without any."""
    return mean_of(cost, targets >= 0)


def mean_of(cost: Tensor, counted: Tensor) -> Tensor:
    """Mean over the AUs of each row (N,) that count; 0 for a row without any."""
    total = torch.where(counted, cost, torch.zeros_like(cost)).sum(1)
    return total / counted.sum(1).clamp_min(1)
