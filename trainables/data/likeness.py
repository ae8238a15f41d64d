"""Which images look alike: hashes, thumbnails, and the pairs that are near in both. N images.

Light to import, as every process that decodes images takes looks.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.data.images import square

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]  # (N, 2): of the image, and of its mirror image
Thumbs = NDArray[np.uint8]  # (N, 8, 8, 3)

LOOK_PIXELS = 64  # images are compared at one size, whatever the size of the run
MOST_BITS = 6  # of 64 that two copies of a picture may differ in …
MOST_LEVELS = 10.0  # … and of 255 that their thumbnails may differ by, on average
MOST_IMAGES = 100_000  # of more, an image is not compared with all that could be near, but with …
REACH = 128  # … so many of the nearest in brightness, in each of the bands of a hash
BANDS = MOST_BITS + 1  # of that many parts of the bits, a near pair has one in common
_VALUES = 8 * 8 * 3  # of a thumbnail
_SHIFT = 17  # bits: more than the brightness of any thumbnail and MOST_LEVELS more take
_BLOCK = 1 << 14


def look(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Difference hashes (2,) and thumbnail (8, 8, 3) to know a (height, width, 3) image by."""
    grey, thumb = reduced(square(halved(image), LOOK_PIXELS))
    return difference_hashes(grey[None])[0], thumb


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, halved as often as that leaves whole pixels and LOOK_PIXELS: several times as fast
    as reducing a photograph by other factors."""
    height, width = image.shape[:2]
    while max(height, width) >= 2 * LOOK_PIXELS and not height % 2 and not width % 2:
        height, width = height // 2, width // 2
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image


def reduced(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The grey (8, 9) and the colours (8, 8, 3) of an image that is `square` at LOOK_PIXELS."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return grey, cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)


def difference_hashes(greys: NDArray[np.uint8]) -> Hashes:
    """(N, 8, 9) -> (N, 2): where it gets brighter to the right, in the image and mirrored."""
    left, right = greys[:, :, :-1], greys[:, :, 1:]
    rises = np.stack([right > left, (left > right)[:, :, ::-1]], 1)
    return np.packbits(rises.reshape(-1, 2, 64), axis=2).view(np.uint64)[:, :, 0]


def near_pairs(hashes: Hashes, thumbs: Thumbs) -> Ints:
    """(P, 2) pairs of images that look alike, mirrored or not; of a very large set not all.

    Hashes that differ in few bits are equal in one of the bands into which the bits are dealt, and
    thumbnails that differ little are nearly as bright. So images are sorted by band, then by
    brightness, and each is compared with those that follow it. Where REACH ends the comparison,
    the time grows as N log N; where nothing does, it is a hundredth of that of all pairs.
    """
    count = len(hashes)
    bits = hashes.T.ravel()  # each image is there twice, the second time mirrored
    brightness = np.tile(thumbs.reshape(count, _VALUES).sum(1, dtype=np.int64), 2)
    reach = REACH if count > MOST_IMAGES else 2 * count
    found = [np.empty(0, np.int64)]
    for band in _bands(bits):
        keys = (band << _SHIFT) + brightness
        order = np.argsort(keys, kind="stable")
        for one, other in _followers(keys[order], bits[order], reach):
            found.append(_codes(order[one], order[other], count))
    return _alike(np.unique(np.concatenate(found)), thumbs)


def _bands(bits: NDArray[np.uint64]) -> Iterator[Ints]:
    """(N,) the bits of each band as a number; neighbours in the picture, which often rise
    together, are dealt to different bands."""
    each = np.unpackbits(bits[:, None].view(np.uint8), axis=1)
    for places in np.array_split(np.arange(64) * 37 % 64, BANDS):
        yield each[:, places].astype(np.int64) @ (1 << np.arange(len(places)))


def _followers(keys: Ints, bits: NDArray[np.uint64], reach: int) -> Iterator[tuple[Ints, Ints]]:
    """Places of near hashes whose sorted keys are near, at most `reach` places apart."""
    here = np.arange(len(keys))
    for step in range(1, reach + 1):
        here = here[: np.searchsorted(here, len(keys) - step)]
        here = here[keys[here + step] - keys[here] <= MOST_LEVELS * _VALUES]  # else none further on
        if not len(here):
            return
        is_near = np.bitwise_count(bits[here] ^ bits[here + step]) <= MOST_BITS
        yield here[is_near], here[is_near] + step


def _codes(one: Ints, other: Ints, count: int) -> Ints:
    """A number for each pair of an image and a later one, the later one mirrored or not."""
    first, second = np.minimum(one, other), np.maximum(one, other)  # mirrored ones come second
    is_mirrored = second >= count
    second = second - count * is_mirrored
    kept = (first < second) & (first < count)
    codes: Ints = ((first * count + second) * 2 + is_mirrored)[kept]
    return codes


def _alike(codes: Ints, thumbs: Thumbs) -> Ints:
    """(P, 2) those of the pairs whose thumbnails are near."""
    kept = [np.empty(0, np.int64)]
    for start in range(0, len(codes), _BLOCK):
        block = codes[start : start + _BLOCK]
        (first, second), is_mirrored = divmod(block >> 1, len(thumbs)), block & 1
        other = thumbs[second]
        other = np.where(is_mirrored[:, None, None, None], other[:, :, ::-1], other)
        gap = np.abs(thumbs[first].astype(np.int16) - other)
        kept.append((block >> 1)[gap.mean((1, 2, 3)) <= MOST_LEVELS])
    pairs = np.unique(np.concatenate(kept))
    return np.stack(divmod(pairs, max(1, len(thumbs))), 1)
