"""Folds of the training and validation images; test is never among them. N images, K classes.

The images stay where they are: a fold is indices into the two memory-mapped arrays. Such a view
may be of views in turn: a fold to which generated images are added (synthetic.py).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.contradictions import check_folds
from trainables.data.bundle import DataBundle, Split
from trainables.data.splits import Ints


@dataclass(frozen=True)
class Chosen:
    """Some images of two arrays, one after the other, in the order of `rows`; holds no pixels.

    It is indexed, measured and turned into an array as an array of them would be, and no more.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    rows: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.first.shape[1:])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return self.first.dtype

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """A copy of the images of a slice or of indices; of one image for a number.

        Slices of channels and pixels may follow, as in `images[:, :, ::2, ::2]`.
        """
        key, *rest = key if isinstance(key, tuple) else (key,)
        if key is Ellipsis:
            key, rest = slice(None), [Ellipsis, *rest]
        wanted = self.rows[key]
        rows, border = np.atleast_1d(wanted), self.first.shape[0]
        is_first = rows < border
        one = self.first[rows[is_first], *rest]
        out = np.empty((len(rows), *one.shape[1:]), np.uint8)
        out[is_first] = one
        out[~is_first] = self.second[rows[~is_first] - border, *rest]
        return out if np.ndim(wanted) else out[0]

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def view(
    first: NDArray[np.uint8], rows: Ints, second: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Those rows of one array, or of two one after the other, read like an array; no copy."""
    return cast(NDArray[np.uint8], Chosen(first, first[:0] if second is None else second, rows))


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
