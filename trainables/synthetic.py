"""More training images: generated ones, or real ones again as their control.

SYNTHETIC: builder(*, hyper-parameters) -> rule: (bundle, folder of a synthetic set, rng) -> the
images to add to the training split, or None. N training images, K classes, A action units.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.config import SHORTCUTS, TrialConfig
from trainables.data.bundle import DataBundle, Split
from trainables.data.pixels import view
from trainables.generation.conditions import cycle, spread_evenly
from trainables.generation.synthetic_set import SyntheticSet, set_for
from trainables.registry import Registry, unknown

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Rule = Callable[[DataBundle, str, np.random.Generator], Split | None]

SYNTHETIC: Registry[Callable[..., Rule]] = Registry("synthetic images")
WHICH = ("all", "tail")
MOST = 10.0  # synthetic images for each real one


@SYNTHETIC.register
def none_() -> Rule:
    """The real images alone."""
    return lambda bundle, folder, rng: None


@SYNTHETIC.register
def generated(
    *, ratio: float = 1.0, classes: str = "all", balance: float = 0.5, keep: float = 1.0
) -> Rule:
    """`ratio` generated images for each real one, from a set made by `trainables.generation`.

    Of each class the share `keep` is used that shows best the AUs it was asked for. Where `classes`
    is tail, only some classes have any, and whatever gives them away as generated becomes a short
    cut to the label: all is the honest choice (methods 2.12).
    """
    _check(ratio, classes, balance)
    if classes == "tail":
        log.warning("synthetic.classes 'tail': %s", SHORTCUTS["synthetic.classes", "tail"])
    if not 0 < keep <= 1:
        raise ValueError(f"synthetic.keep {keep:g} must be above 0, and 1 at most")

    def rule(bundle: DataBundle, folder: str, rng: np.random.Generator) -> Split:
        made = set_for(Path(folder), bundle)
        counts = additional(bundle.class_counts(), ratio, classes, balance)
        missing = [bundle.class_names[k] for k in np.flatnonzero(counts) if k not in made.labels]
        if missing:
            raise ValueError(
                f"the synthetic set at '{folder}' has no image of {', '.join(missing)}: make a "
                "larger one (--images)"
            )
        usable = best(made, keep)
        rows = usable[draw_rows(made.labels[usable], counts, rng)]
        votes = bundle.train.distributions  # of a face that nobody has seen there are none
        return Split(
            view(made.images, rows),
            made.labels[rows],
            made.aus[rows],
            tuple(f"generated/{row}" for row in rows),
            None if votes is None else np.zeros((len(rows), votes.shape[1]), votes.dtype),
        )

    return rule


@SYNTHETIC.register
def repeated(*, ratio: float = 1.0, classes: str = "all", balance: float = 0.5) -> Rule:
    """Real images again, as many of each class: the control, of equal cost and class balance."""
    _check(ratio, classes, balance)

    def rule(bundle: DataBundle, folder: str, rng: np.random.Generator) -> Split:
        counts = additional(bundle.class_counts(), ratio, classes, balance)
        train, rows = bundle.train, draw_rows(bundle.train.labels, counts, rng)
        votes = train.distributions
        return Split(
            view(train.images, rows),
            train.labels[rows],
            train.aus[rows],
            tuple(f"repeated/{train.ids[k]}" for k in rows),
            None if votes is None else votes[rows],
        )

    return rule


def best(made: SyntheticSet, keep: float) -> Ints:
    """Rows of the share `keep` of each class, at least one, that agree most with their AUs."""
    order = np.argsort(-made.agreement, kind="stable")
    kept = []
    for k in np.unique(made.labels):
        rows = order[made.labels[order] == k]
        kept.append(rows[: math.ceil(keep * len(rows) - 1e-9)])
    return np.sort(np.concatenate(kept))


def additional(class_counts: Ints, ratio: float, classes: str, balance: float) -> Ints:
    """(K,) images to add: round(ratio N) in all, a class as its count to the power of 1 - balance.

    0 keeps the balance of the real images, 1 adds as many to each class that has any.
    """
    total = round(ratio * int(class_counts.sum()))
    has_some = class_counts > 0
    weights = np.where(has_some, class_counts.clip(1).astype(np.float64) ** (1 - balance), 0.0)
    if classes == "tail":
        weights = np.where(class_counts < class_counts.sum() / len(class_counts), weights, 0.0)
        if not weights.any():
            raise ValueError("no class is rarer than the mean: set synthetic.classes to 'all'")
    return spread_evenly(total, weights)


def extended(config: TrialConfig, bundle: DataBundle) -> DataBundle:
    """The data with what the configuration adds to the training split; the same without anything.

    No image is copied: those of either part stay where they are, and are looked up batch by batch.
    Counts of classes and AUs, on which losses and samplers rest, are then those of the images that
    are trained on, and so is the fingerprint another: no cache may take the two for one.
    """
    part = config.synthetic
    rule = SYNTHETIC[part.name](**part.args)
    more = rule(bundle, config.synthetic_set, np.random.default_rng([config.seed, 3]))
    if more is None:
        return bundle
    train, ours, theirs = bundle.train, bundle.train.distributions, more.distributions
    both = Split(
        view(train.images, np.arange(len(train) + len(more)), more.images),
        np.concatenate([train.labels, more.labels]),
        np.concatenate([train.aus, more.aus]),
        (*train.ids, *more.ids),
        None if ours is None or theirs is None else np.concatenate([ours, theirs]),
    )
    mark = f"{bundle.fingerprint}+{part.name}:{sorted(part.args.items())}:{config.seed}"
    return replace(bundle, train=both, fingerprint=mark)


def draw_rows(labels: Ints, counts: Ints, rng: np.random.Generator) -> Ints:
    """Rows of so many images of each class; where there are too few, each as often as the next."""
    rows = [cycle(np.flatnonzero(labels == k), int(n), rng) for k, n in enumerate(counts)]
    return np.concatenate(rows)


def _check(ratio: float, classes: str, balance: float) -> None:
    if classes not in WHICH:
        raise LookupError(unknown("synthetic.classes", classes, WHICH))
    if not 0 < ratio <= MOST:
        raise ValueError(f"synthetic.ratio {ratio:g} must be above 0, and {MOST:g} at most")
    if not 0 <= balance <= 1:
        raise ValueError(f"synthetic.balance {balance:g} must be within 0 and 1")
