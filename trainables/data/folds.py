"""Folds of the training and validation images; test is never among them. N images, K classes.

The images stay where they are: a fold is a view (pixels.py) of those of training and validation.
"""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from trainables.config import TrialConfig
from trainables.contradictions import check_folds
from trainables.data.bundle import DataBundle, Split
from trainables.data.pixels import view
from trainables.data.splits import Ints


def fold_of(bundle: DataBundle, config: TrialConfig) -> DataBundle:
    """The data as the configuration sees them: `val` is its fold, `train` all other images.

    Raises ValueError for a fold that there is not, or that has no image.
    """
    check_folds(config)
    if config.folds == 1:
        return bundle
    train, val = rows_of(bundle, config)
    return replace(bundle, train=_part(bundle, train), val=_part(bundle, val))


def rows_of(bundle: DataBundle, config: TrialConfig) -> tuple[Ints, Ints]:
    """Which images train and which validate, counted through train and then val."""
    dealt = deal(bundle, config.folds, config.fold_seed)
    counts = np.bincount(dealt, minlength=config.folds)
    if not counts.all():
        apart = len(np.unique(_groups(bundle)))
        raise ValueError(
            f"{len(dealt)} images for training and validation are too few, or too much alike, for "
            f"{config.folds} folds: what is of one picture or person stays together, which leaves "
            f"{apart} that can be dealt; give fewer --folds"
        )
    return np.flatnonzero(dealt != config.fold), np.flatnonzero(dealt == config.fold)


def undivided(bundle: DataBundle, config: TrialConfig) -> list[str]:
    """Classes whose images are all in one fold: no fold both trains and validates them."""
    dealt = deal(bundle, config.folds, config.fold_seed)
    labels = np.concatenate([bundle.train.labels, bundle.val.labels])
    places = (np.unique(dealt[labels == k]) for k in range(len(bundle.class_names)))
    return [n for n, own in zip(bundle.class_names, places, strict=True) if len(own) == 1]


def deal(bundle: DataBundle, folds: int, seed: int = 0) -> Ints:
    """The fold (N,) of each image of train and then val, classes spread evenly.

    Images of one group (one picture, mirrored or not, or one person) stay together. It follows
    from names, classes and groups alone: neither the order of the images nor their size matters.
    Large groups are dealt first, each to the fold that has least of its classes.
    """
    parts = bundle.train, bundle.val
    labels = np.concatenate([part.labels for part in parts])
    names = [*bundle.train.ids, *bundle.val.ids]
    totals = np.bincount(labels, minlength=len(bundle.class_names)).tolist()
    have = [[0] * len(totals) for _ in range(folds)]
    sizes, out = [0] * folds, np.zeros(len(labels), np.int64)
    for rows in _ordered(_groups(bundle), names, f"{seed}/{folds}"):
        held = sorted(Counter(labels[rows].tolist()).items())
        shares = [sum(n * have[f][k] / totals[k] for k, n in held) for f in range(folds)]
        pick = min(range(folds), key=lambda f: (shares[f], sizes[f], f))  # noqa: B023  # used here
        for k, n in held:
            have[pick][k] += n
        sizes[pick] += len(rows)
        out[rows] = pick
    return out


def _groups(bundle: DataBundle) -> Ints:
    """(N,) group of each image of train and then val; without any, each is by itself."""
    train, val = bundle.train.groups, bundle.val.groups
    if train is None or val is None:
        return np.arange(len(bundle.train) + len(bundle.val))
    return np.concatenate([train, val])


def _ordered(groups: Ints, names: list[str], salt: str) -> list[Ints]:
    """The images of each group: the large groups first, else in an order that names decide."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    ranked = [
        (-len(rows), hashlib.sha256(f"{salt}/{min(names[k] for k in rows)}".encode()).hexdigest())
        for rows in members
    ]
    return [members[k] for k in sorted(range(len(members)), key=ranked.__getitem__)]


def _part(bundle: DataBundle, rows: Ints) -> Split:
    train, val = bundle.train, bundle.val
    votes = None
    if train.distributions is not None and val.distributions is not None:
        votes = np.concatenate([train.distributions, val.distributions])[rows]
    ids = (*train.ids, *val.ids)
    return Split(
        view(train.images, rows, val.images),
        np.concatenate([train.labels, val.labels])[rows],
        np.concatenate([train.aus, val.aus])[rows],
        tuple(ids[k] for k in rows),
        votes,
        groups=_groups(bundle)[rows],
    )
