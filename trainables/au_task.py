"""The AU task of a trial: its loss and prior, and the signs that it lives.

N images, A action units.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables import metrics
from trainables.balance import Pair
from trainables.config import Part, TrialConfig
from trainables.data.bundle import DataBundle
from trainables.data.listing import several
from trainables.losses import AU_LOSSES, Loss
from trainables.prototypes import PRIORS, Prior
from trainables.store import Predictions, Row

DEAD_RATIO = 1e-3  # of the gradients without lambda: below it AUs do not teach the network


@dataclass(frozen=True)
class AuTask:
    """What supervises the AUs; how much it weighs, the settings in force say."""

    loss: Loss  # (N, A) logits and targets -> (N,)
    prior: Prior | None = None  # from what the class, or the emotion head, says of the AUs


def make_au_task(config: TrialConfig, bundle: DataBundle) -> AuTask:
    """The AU task of a configuration, by the training images."""
    aus = bundle.train.aus
    positives, known = (aus == 1).sum(0), (aus >= 0).sum(0)
    loss = AU_LOSSES[config.au_loss.name](positives, known, **config.au_loss.args)
    return AuTask(loss, make_prior(config.au_prior, bundle))


def make_prior(part: Part, bundle: DataBundle) -> Prior | None:
    """The prior by the training images, if one is asked for.

    Raises ValueError for classes of which none has AU labels.
    """
    if part.name == "none":
        return None
    if without := bundle.unlabelled_classes():
        raise ValueError(
            f"au_prior '{part.name}' needs AU labels of every class, and no training image of "
            f"{several(without)} has them: set au_prior to 'none', or label some"
        )
    return PRIORS[part.name](*bundle.au_counts(), **part.args)


def watch(val: Predictions, weight: float, balance: Pair, norms: Pair | None) -> Row:
    """What shows whether the AU task lives: its weight over that of the emotion task, how many AUs
    can be scored, and the norms of the two gradients on shared parameters, one over the other.

    `norms` are None where no image of the epoch had a known AU.
    """
    if not weight:
        return {}
    emotion, au = norms or (0.0, 0.0)
    ratio, in_force = au / emotion if emotion else 0.0, weight * balance[1] / balance[0]
    return {
        "au_supported": int(supported(val).sum()),
        "lambda": in_force,
        "gradient_ratio": ratio,
        "au_dead": ratio < DEAD_RATIO * in_force,
    }


def supported(val: Predictions) -> NDArray[np.bool_]:
    """Which AUs (A,) have enough positive images to be scored."""
    return np.asarray((val.aus == 1).sum(0) >= metrics.MIN_SUPPORT)


def mean_f1(val: Predictions) -> float | None:
    """Mean F1 over the AUs that can be scored; None without an AU head."""
    enough = supported(val)
    if not val.au_probs.size or not enough.any():
        return None
    return float(np.nanmean(metrics.au_f1(val.aus, val.au_probs)[enough]))
