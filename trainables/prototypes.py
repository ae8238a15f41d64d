"""AU prototypes of the classes, as soft priors on the AU head. N batch, K classes, A action units.

A prototype P(a|y) is the share of a class's training images that show an AU, drawn towards the
share of all images by `shrink` imagined ones. Published tables would do as the prior too, but the
embedded faces are drawn from one: it would tell the answer.
PRIORS: builder(positives (K, A), known (K, A), *, hyper-parameters) -> (N, K) logits, (N, A) AU
logits, (N, K) soft targets, (N, A) AU targets -> (N,), its weight included. The control of each is
a `shrink` of a million: then all classes have one prototype, and only the pull is left.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainables.device import constant, full_precision
from trainables.losses import mean_of
from trainables.registry import Registry

Counts = NDArray[np.integer]
Prior = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

LEAST = 1e-4  # no prototype is surer than this

PRIORS: Registry[Callable[..., Prior]] = Registry("AU prior")


@PRIORS.register
def none_(positives: Counts, known: Counts) -> Prior:
    """No prior: zeros that touch nothing."""
    return lambda logits, au_logits, targets, aus: logits.new_zeros(len(logits))


@PRIORS.register
def co_annotation(
    positives: Counts, known: Counts, *, weight: float = 0.1, shrink: float = 15.0
) -> Prior:
    """Cross-entropy of unlabelled AUs with P(a|y) as soft target (Kollias et al. 2019, 1910.11111).

    Images with a label for every AU give nothing, so it acts only where the data has gaps.
    """
    table = prototypes(positives, known, shrink)

    def prior(logits: Tensor, au_logits: Tensor, targets: Tensor, aus: Tensor) -> Tensor:
        x = au_logits.float()
        expected = mixed(targets, constant(table, x))
        cost = functional.binary_cross_entropy_with_logits(x, expected, reduction="none")
        return weight * mean_of(cost, aus < 0)

    return prior


@PRIORS.register
def distribution_matching(
    positives: Counts, known: Counts, *, weight: float = 0.1, shrink: float = 15.0
) -> Prior:
    """Divergence of the AU head from sum_y p(y) P(a|y), p the emotion posterior (Kollias et al.
    2019, 1910.11111); both heads learn from it.

    We take the divergence KL(sum_y p(y) P(a|y) || sigmoid(s_a)) of Bernoulli variables, mean over
    AUs, which is 0 just where they match; the paper's sum has the present side only.
    """
    table = prototypes(positives, known, shrink)

    def prior(logits: Tensor, au_logits: Tensor, targets: Tensor, aus: Tensor) -> Tensor:
        x = au_logits.float()
        expected = mixed(logits.float().softmax(1), constant(table, x))
        cross = functional.binary_cross_entropy_with_logits(x, expected, reduction="none")
        entropy = -torch.xlogy(expected, expected) - torch.xlogy(1 - expected, 1 - expected)
        return weight * (cross - entropy).mean(1)

    return prior


def mixed(weights: Tensor, table: Tensor) -> Tensor:
    """(N, K) and (K, A) -> (N, A) their product, in float32 under autocast too."""
    with full_precision(weights.device):
        return weights.float() @ table.float()


def prototypes(positives: Counts, known: Counts, shrink: float) -> NDArray[np.float64]:
    """P(a|y) (K, A) from counts of images. Raises ValueError for what no image tells."""
    if not (known > 0).all():
        raise ValueError(
            "a class without images that are labelled for an AU has no prototype of it"
        )
    overall = positives.sum(0) / known.sum(0)
    table = (positives + shrink * overall) / (known + shrink)
    return np.asarray(table.clip(LEAST, 1 - LEAST))
