"""What judges see of an image: gradients and colours as numbers, no network. No torch.

N images, D features, S pixels a side. Networks trained on the real images would be judges that
have seen the answer, and there are no weights here without a download.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.features.classical import hog

Floats = NDArray[np.float64]
U8 = NDArray[np.uint8]
Looks = Callable[[U8], Floats]  # images (N, 3, S, S) -> (N, D)
PIXELS, COLOURS, WIDTH = 64, 8, 128  # sides of what is described; components kept


def describe(images: U8) -> Floats:
    """(N, 1568 + 192): histograms of oriented gradients at 64 px, and an 8 x 8 thumbnail."""
    pixels = [_resized(image, PIXELS) for image in images]
    thumbs = np.array([_resized(image, COLOURS).ravel() for image in images])
    shapes = hog(np.array(pixels).transpose(0, 3, 1, 2))
    return np.concatenate([shapes, thumbs / 255.0], 1).astype(np.float64)


def _resized(image: U8, side: int) -> U8:
    pixels = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def fit_looks(train: U8, width: int = WIDTH) -> tuple[Floats, Looks]:
    """The looks of training images, and how others look: principal components of descriptions.

    At most `width`, scaled so that a training image has a squared length of D on average, as
    kernels want.
    """
    known = describe(train)
    mean, scale = known.mean(0), known.std(0) + 1e-6
    kept = min(width, len(known) - 1)
    _, values, axes = np.linalg.svd((known - mean) / scale, full_matrices=False)
    factor = np.sqrt(kept * len(known) / (values[:kept] ** 2).sum())
    basis = axes[:kept].T * factor

    def seen(described: Floats) -> Floats:
        turned: Floats = (described - mean) / scale @ basis
        return turned

    return seen(known), lambda images: seen(describe(images))
