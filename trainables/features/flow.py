"""Optical flow: how a face moved to the labelled image. n images of S x S pixels, G x G cells.

Flow is (n, 2, S, S): pixels to the right and down that what stands at a place of the first frame
has moved by in the labelled image.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.data.bundle import DataBundle, Split
from trainables.data.listing import several
from trainables.features.classical import luma, pooling

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Method = Callable[[F32, F32], F32]  # luma 0..1 of first frame and image (S, S) -> (2, S, S)
STILL = 0.1  # pixels: motion below this is mostly error, so it does not make a full histogram


def farneback(first: F32, last: F32) -> F32:
    """Polynomial expansion (Farnebäck 2003), from coarse to fine: for motions of many pixels."""
    one, two = (np.rint(255 * image).astype(np.uint8) for image in (first, last))
    nothing = np.zeros((*first.shape, 2), np.float32)
    found = cv2.calcOpticalFlowFarneback(one, two, nothing, 0.5, 3, 9, 5, 5, 1.1, 0)
    return np.asarray(found, np.float32).transpose(2, 0, 1)


def ilk(first: F32, last: F32) -> F32:
    """Iterative Lucas-Kanade (Le Besnerais & Champagnat 2005)."""
    from skimage.registration import optical_flow_ilk  # so that a search without it starts sooner

    return np.asarray(optical_flow_ilk(first, last, radius=5)[::-1], np.float32)


def tvl1(first: F32, last: F32) -> F32:
    """TV-L1 (Zach et al. 2007), as scikit-image has it: keeps edges of motion, and is slow."""
    from skimage.registration import optical_flow_tvl1

    return np.asarray(optical_flow_tvl1(first, last)[::-1], np.float32)


METHODS: dict[str, Method] = {"farneback": farneback, "ilk": ilk, "tvl1": tvl1}


def features(first: U8, last: U8, method: str, bins: int, grid: int) -> F32:
    """(n, G·G·(bins + 2)) of images (n, 3, S, S): in each cell the shares of motion by direction
    (HOOF, Chaudhry et al. 2009), then the mean and the deviation of its size, in image sides.

    Bin 0 is motion to the right; they go on clockwise, as y runs down.
    """
    flows = flow(first, last, METHODS[method])
    size = first.shape[-1]
    return np.stack([_histograms(each, bins, grid) for each in flows / np.float32(size)])


def flow(first: U8, last: U8, method: Method) -> F32:
    """(n, 2, S, S) of images (n, 3, S, S)."""
    one, two = luma(first) / np.float32(255), luma(last) / np.float32(255)
    return np.stack([method(a, b) for a, b in zip(one, two, strict=True)])


def _histograms(motion: F32, bins: int, grid: int) -> F32:
    size = motion.shape[-1]
    pool = pooling(size, grid)
    length = np.hypot(*motion)
    turn = np.arctan2(motion[1], motion[0]) / (2 * np.pi) * bins  # in bins
    low = np.floor(turn)
    part = turn - low
    at = low.astype(np.int64)
    votes = np.zeros((bins, *length.shape), np.float32)  # shared by the two nearest directions
    for shift, share in ((0, 1 - part), (1, part)):
        np.put_along_axis(
            votes, ((at + shift) % bins)[None], (length * share)[None].astype(np.float32), 0
        )
    mean = pool @ length @ pool.T
    deviation = np.sqrt(np.maximum(pool @ (length * length) @ pool.T - mean * mean, 0))
    shares = (pool @ votes @ pool.T) / (mean + np.float32(STILL / size))
    return np.concatenate([shares, mean[None], deviation[None]]).ravel().astype(np.float32)


def first_frames(part: Split) -> U8:
    """(n, 3, S, S) the first frame of each image's sequence, its onset."""
    if part.sequences is None:
        raise ValueError("stills have no frames")
    return part.sequences.frames[part.sequences.starts[:-1]]


def check_moving(bundle: DataBundle) -> None:
    """Raise ValueError, saying why and what to do, unless every image has a frame before it."""
    still: list[str] = []
    for split in (bundle.train, bundle.val, bundle.test):
        still += _without(split)
    total = len(bundle.train) + len(bundle.val) + len(bundle.test)
    if len(still) == total:
        raise ValueError(
            "optical flow is motion from an earlier frame to the labelled image, and "
            f"'{bundle.name}' holds stills: it is not defined for them. Name the frames before "
            "each image (its onset, or a neutral face of the same sequence) in a column 'frames' "
            "of a manifest, or take other features"
        )
    if still:
        raise ValueError(
            f"optical flow needs a frame before every image, and {len(still)} of {total} have "
            f"none: {several(still)}. Fill the column 'frames' of the manifest, or leave them out"
        )


def _without(split: Split) -> Sequence[str]:
    if split.sequences is None:
        return split.ids
    return [split.ids[k] for k in np.flatnonzero(np.diff(split.sequences.starts) == 0)]
