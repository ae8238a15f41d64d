"""Which images are one picture, and splits that keep these together. N images, K classes, G groups.

Official splits are never changed: a picture that stands in two of them is reported. A split that is
made here follows from the files alone: neither the size of a run nor the order of the files moves
an image, and a new image moves few others.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.data.likeness import BANDS, MOST_IMAGES, REACH, Hashes, Thumbs, near_pairs
from trainables.data.listing import SPLITS

Ints = NDArray[np.int64]

VERSION = 4  # part of the cache key: raise it when a change here moves an image
SEED = 0  # one split for everybody: a split drawn anew for each trial would leak
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
_ORDER = ("val", "test", "train")  # train last: what fits nowhere else is at home there


def ordered(splits: Sequence[str | None], digests: Sequence[str]) -> Ints:
    """The images (N,) as they lie in a file: those of one split beside each other, as far as the
    splits are known. Those that may yet be moved lie by their content: by their order in a listing
    a place could tell the label of a test image."""
    moved = {None} if {*SPLITS} <= {*splits} else {None, "train"}  # see `assign`
    ranks = [len(SPLITS) if split is None else SPLITS.index(split) for split in splits]
    marks = [mark if split in moved else "" for split, mark in zip(splits, digests, strict=True)]
    return np.array(sorted(range(len(ranks)), key=lambda k: (ranks[k], marks[k])), np.int64)


def alike(digests: Sequence[str], hashes: Hashes, thumbs: Thumbs) -> tuple[Ints, Ints]:
    """(P, 2) pairs of the same content, and (Q, 2) pairs of other content that look alike."""
    near, content = near_pairs(hashes, thumbs), np.array(digests, np.str_)
    return exact_pairs(digests), near[content[near[:, 0]] != content[near[:, 1]]]


def exact_pairs(digests: Sequence[str]) -> Ints:
    """(P, 2) pairs of images with the same content, each paired with the first of its kind."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, k), k) for k, digest in enumerate(digests)]
    return np.array([p for p in pairs if p[0] != p[1]], np.int64).reshape(-1, 2)


def group(count: int, pairs: Ints) -> Ints:
    """(N,) number of the group of images that pairs join, directly or through others."""
    if not len(pairs):
        return np.arange(count)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def unsought(count: int) -> list[str]:
    """A sentence on what is not looked for among so many images, if anything is not."""
    if count <= MOST_IMAGES:
        return []
    return [
        f"Above {MOST_IMAGES:,} images not all pairs that could look alike are compared: among "
        f"these {count:,}, each with some {REACH * BANDS:,} others, a few copies that differ in "
        "light may stand in two splits."
    ]


def assign(
    labels: Ints,
    groups: Ints,
    given: Sequence[str | None],
    digests: Sequence[str],
    seed: int = SEED,
) -> tuple[str, ...]:
    """The split of each image: the given one where splits are given, and what these leave out.

    Without any, 60 : 20 : 20 in each class. A missing val or test takes a fifth of the images of
    train, class by class, and never an image whose near-duplicate stays behind.
    """
    out = np.array(["train" if split is None else split for split in given], dtype="<U5")
    present = {split for split in given if split is not None} - {"train"}
    missing = [split for split in ("val", "test") if split not in present]
    free = np.flatnonzero(out == "train")
    if missing and len(free):
        marks = np.array(digests, np.str_)[free]
        out[free] = _deal(labels[free], _ranked(groups[free], marks, seed), missing)
    return tuple(map(str, out))


def quotas(count: int, missing: Sequence[str]) -> dict[str, int]:
    """How many of a class's images each split gets; two for train and val before one for test."""
    val = test = 0
    if "val" in missing:
        val = max(min(2, count - 2), round(SHARES["val"] * count), min(1, count - 1))
    if "test" in missing:
        test = max(min(1, count - val - 2), round(SHARES["test"] * count))
        test = max(0, min(test, count - val - 2))
    return {"train": count - val - test, "val": val, "test": test}


def _ranked(groups: Ints, digests: NDArray[np.str_], seed: int) -> list[Ints]:
    """The images of each group, in an order that only the content of the groups decides."""
    _, groups = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(groups, kind="stable"), np.bincount(groups).cumsum()[:-1])
    ranks = [
        hashlib.sha256(f"{seed}/{min(digests[of].tolist())}".encode()).hexdigest() for of in members
    ]
    return [members[k] for k in sorted(range(len(members)), key=ranks.__getitem__)]


def _deal(labels: Ints, ranked: Sequence[Ints], missing: Sequence[str]) -> NDArray[np.str_]:
    """Each group to the first split with room for it, or, if none has, to the least overfull one.

    Not dealt in turns: a group that comes or goes then moves an image or two at the ends of val
    and test, where it would move all that follow it.
    """
    classes, labels = np.unique(labels, return_inverse=True)
    counts = np.bincount(labels, minlength=len(classes))
    wanted = [quotas(int(n), missing) for n in counts]
    room = [[quota[split] for quota in wanted] for split in _ORDER]
    held = [Counter(labels[members].tolist()) for members in ranked]
    is_large = [min(_excess(h, left) for left in room[:2]) > 0 for h in held]  # for val, for test
    out = np.empty(len(labels), dtype="<U5")
    # The large ones first, largest of all in front: else train fills up, and val stays empty.
    for k in sorted(range(len(ranked)), key=lambda k: -len(ranked[k]) if is_large[k] else 0):
        excess = [_excess(held[k], left) for left in room]
        least = min(excess)
        is_train = 0 < least == excess[-1]  # of equally overfull splits, train
        pick = len(excess) - 1 if is_train else excess.index(least)
        for label, n in held[k].items():
            room[pick][label] -= n
        out[ranked[k]] = _ORDER[pick]
    return out


def _excess(held: Mapping[int, int], room: Sequence[int]) -> int:
    """How many images of a group a split has no room for."""
    return sum(max(0, n - max(0, room[label])) for label, n in held.items())
