"""From easy to hard: how difficult each training image is. N images, K classes, A action units.

ORDERS: (bundle) -> difficulty (N,), more is harder. Ties fall at random. Raises ValueError for what
the data does not tell.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainables.data.bundle import DataBundle
from trainables.reference import reference_losses
from trainables.registry import Registry

Floats = NDArray[np.float64]

SHRINK = 15.0  # imagined images of the average face in each prototype

ORDERS: Registry[Callable[[DataBundle], Floats]] = Registry("curriculum order")


@ORDERS.register
def class_count(bundle: DataBundle) -> Floats:
    """Frequent classes first."""
    return -bundle.class_counts()[bundle.train.labels].astype(np.float64)


@ORDERS.register
def random_(bundle: DataBundle) -> Floats:
    """No order: the control that shows what growing the data alone does."""
    return np.zeros(len(bundle.train))


@ORDERS.register
def reference_loss(bundle: DataBundle) -> Floats:
    """The loss of a reference classifier that has not seen the image (Weinshall et al. 2018,
    1802.03796; Hacohen & Weinshall 2019, 1904.03626: transfer scoring).

    Theirs is a network trained on ImageNet; ours needs no weights (reference.py).
    """
    return reference_losses(bundle)


@ORDERS.register
def au_prototype(bundle: DataBundle) -> Floats:
    """How far the image's AUs are from those of its class: mean squared distance to its prototype.

    Over the AUs that are known of the image; one without any is as hard as the median.
    """
    aus, labels = bundle.train.aus, bundle.train.labels
    known = aus >= 0
    if not known.any():
        raise ValueError(
            "curriculum_order 'au_prototype' needs AU labels, and no training image has any: "
            "take another order"
        )
    positives, seen = bundle.au_counts()
    overall = positives.sum(0) / np.maximum(seen.sum(0), 1)
    table = (positives + SHRINK * overall) / (seen + SHRINK)
    squared = np.where(known, (aus - table[labels]) ** 2, 0)
    return _median_where_untold(squared.sum(1) / np.maximum(known.sum(1), 1), known.any(1))


@ORDERS.register
def crowd_entropy(bundle: DataBundle) -> Floats:
    """How much the crowd disagreed: entropy of its votes; an image without votes: the median."""
    votes = bundle.train.distributions
    if votes is None or not votes.any():
        raise ValueError(
            "curriculum_order 'crowd_entropy' needs crowd votes, and this data set has none: "
            "take another order"
        )
    shares = votes.astype(np.float64) / np.maximum(votes.sum(1, keepdims=True), 1e-12)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    return _median_where_untold(entropy, votes.any(1))


def easy_to_hard(
    bundle: DataBundle, order: str, is_reversed: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The N image indices in that order, hard to easy where it is reversed: the control which
    should do worse, if the order matters."""
    difficulty = ORDERS[order](bundle)
    shuffled = rng.permutation(len(difficulty))
    key = -difficulty if is_reversed else difficulty
    return shuffled[np.argsort(key[shuffled], kind="stable")]


def _median_where_untold(difficulty: Floats, is_told: ArrayLike) -> Floats:
    told = np.asarray(is_told)
    return np.where(told, difficulty, np.median(difficulty[told]))
