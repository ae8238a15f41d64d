"""Which images are one picture, and splits that keep these together. N images, K classes, G groups.

Official splits are never changed: a picture that stands in two of them is reported.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trainables.data.listing import SPLITS

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]  # (N, 2): of the image, and of its mirror image
Thumbs = NDArray[np.uint8]  # (N, 8, 8, 3)

VERSION = 1  # part of the cache key: raise it when a change here moves an image
SEED = 0  # one split for everybody: a split drawn anew for each trial would leak
MOST_BITS = 6  # of 64 that two copies of a picture may differ in …
MOST_LEVELS = 10.0  # … and of 255 that their thumbnails may differ by, on average
MOST_IMAGES = 40_000  # more are compared by content only: the comparison is quadratic
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
_BLOCK = 512


def look(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Difference hashes (2,) and thumbnail (8, 8, 3) of an image (3, S, S), to know it again by."""
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    both = np.stack([grey, grey[:, ::-1]]).astype(np.int16)
    bits = np.packbits((np.diff(both, axis=2) > 0).reshape(2, 64), axis=1)
    thumb = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
    return bits.view(np.uint64).ravel(), thumb


def near_pairs(hashes: Hashes, thumbs: Thumbs) -> Ints:
    """(P, 2) pairs of images that show one picture, mirrored or not; none of a very large set."""
    found = [np.empty((0, 2), np.int64)]
    if len(hashes) > MOST_IMAGES:
        return found[0]
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK, 0]
        for is_mirrored in (0, 1):
            bits = np.bitwise_count(block[:, None] ^ hashes[None, start:, is_mirrored])
            pairs = np.argwhere(bits <= MOST_BITS) + start
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            other = thumbs[:, :, ::-1] if is_mirrored else thumbs
            gap = np.abs(thumbs[pairs[:, 0]].astype(np.int16) - other[pairs[:, 1]])
            found.append(pairs[gap.mean((1, 2, 3)) <= MOST_LEVELS])
    return np.unique(np.concatenate(found), axis=0)


def exact_pairs(digests: Sequence[str]) -> Ints:
    """(P, 2) pairs of images with the same content, each paired with the first of its kind."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, k), k) for k, digest in enumerate(digests)]
    return np.array([p for p in pairs if p[0] != p[1]], np.int64).reshape(-1, 2)


def group(count: int, pairs: Ints) -> Ints:
    """(N,) number of the group of images that pairs join, directly or through others."""
    if not len(pairs):
        return np.arange(count)
    ones = np.ones(len(pairs), bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def assign(
    labels: Ints, groups: Ints, given: Sequence[str | None], seed: int = SEED
) -> tuple[str, ...]:
    """The split of each image: the given one where splits are given, and what these leave out.

    Without any, 60 : 20 : 20 in each class. A missing val or test takes a fifth of the images of
    train, class by class, and never an image whose near-duplicate stays behind.
    """
    out = np.array(["train" if split is None else split for split in given], dtype="<U5")
    present = {split for split in given if split is not None} - {"train"}
    missing = [split for split in ("val", "test") if split not in present]
    free = np.flatnonzero(out == "train")
    if missing:
        out[free] = _deal(labels[free], groups[free], missing, np.random.default_rng(seed))
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


def _deal(
    labels: Ints, groups: Ints, missing: Sequence[str], rng: np.random.Generator
) -> NDArray[np.str_]:
    """Large groups first, in random order, each to the split that lacks most of its classes."""
    classes, labels = np.unique(labels, return_inverse=True)
    counts = np.bincount(labels, minlength=len(classes))
    wanted = [quotas(int(n), missing) for n in counts]
    need = np.array([[quota[split] for quota in wanted] for split in SPLITS], np.float64)
    share = np.maximum(need.copy(), 1)
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups)
    members = np.split(np.argsort(groups, kind="stable"), sizes.cumsum()[:-1])
    shuffled = rng.permutation(len(sizes))
    out = np.empty(len(labels), dtype="<U5")
    for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        held = np.bincount(labels[members[g]], minlength=len(classes))
        # What is still lacked, as a share of the quota; an overfull split is never chosen first.
        over = np.maximum(held - np.maximum(need, 0), 0).sum(1)
        lack = ((need / share) * held).sum(1) - 1e3 * over
        pick = int(lack.argmax())
        need[pick] -= held
        out[members[g]] = SPLITS[pick]
    return out
