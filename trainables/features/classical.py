"""Hand-made features of images. N images of S x S pixels, G x G cells, D features.

Each function takes (N, 3, S, S) uint8 RGB and gives (N, D) float32. They need no training:
baselines on a CPU, members of an ensemble that err differently, and alarms (faces whose class can
be told from a colour histogram have a short cut). All but `colour` read the luma (ITU-R BT.601).
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
PATTERNS = 59  # codes of 8 neighbours: 58 with at most two changes around the circle, and the rest
_CHUNK = 16  # images a time: few enough to stay in the processor's cache
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def lbp(images: U8, radius: int = 1, grid: int = 7) -> F32:
    """Shares of the 59 uniform local binary patterns in each cell (Ahonen et al. 2006): G·G·59."""
    from skimage.feature import local_binary_pattern  # so that a search without it starts sooner

    cells = _cells(images.shape[-1], grid)

    def codes(image: U8) -> F32:
        framed = np.pad(image, radius, "edge")  # beyond the image skimage would see black
        found = local_binary_pattern(framed, 8, radius, "nri_uniform").astype(np.int64)
        found = found[radius:-radius, radius:-radius]
        return _shares(cells * PATTERNS + found, grid * grid, PATTERNS)

    return _each(images, codes)


def hog(images: U8, orientations: int = 8, cell: int = 8) -> F32:
    """Histograms of oriented gradients, blocks of 2 x 2 cells, L2-Hys (Dalal & Triggs 2005)."""
    from skimage.feature import hog as skimage_hog

    if images.shape[-1] < 2 * cell:
        raise ValueError(
            f"hog: a block of 2 x 2 cells of {cell} px does not fit into images of "
            f"{images.shape[-1]} px; give cells of at most {images.shape[-1] // 2} px"
        )

    def gradients(image: U8) -> F32:
        found = skimage_hog(image, orientations, (cell, cell), (2, 2), block_norm="L2-Hys")
        return np.asarray(found, np.float32)

    return _each(images, gradients)


def gabor(images: U8, scales: int = 4, orientations: int = 8, grid: int = 4) -> F32:
    """Mean and deviation in each cell of the responses' size to a Gabor bank: G·G·scales·8·2.

    Frequencies run from 0.05 to 0.4 cycles a pixel in equal ratios, each of one octave, as
    `skimage.filters.gabor_kernel` has them. The images go on as their mirror images.
    """
    size = images.shape[-1]
    bank = gabor_bank(size, scales, orientations)
    pool = pooling(size, grid)
    rows = []
    for start in range(0, len(images), _CHUNK):
        grey = luma(images[start : start + _CHUNK]) / np.float32(255)
        rows.append(_responses(grey, bank, pool))
    return np.concatenate(rows)


def colour(images: U8, bins: int = 16, grid: int = 2) -> F32:
    """Shares of red, green and blue values in each cell, 3·G·G·bins: light, not shape."""
    cells = _cells(images.shape[-1], grid)[None]
    places = np.arange(3)[:, None, None] * grid * grid + cells  # (3, S, S): channel, then cell
    level = np.arange(256, dtype=np.int64) * bins // 256
    rows = [_shares(places * bins + level[image], 3 * grid * grid, bins) for image in images]
    return np.stack(rows)


def gabor_frequencies(scales: int) -> NDArray[np.float64]:
    """(scales,) cycles a pixel."""
    return np.geomspace(0.05, 0.4, scales)


@lru_cache(maxsize=4)
def gabor_bank(size: int, scales: int, orientations: int) -> F32:
    """(scales · orientations, 2S, 2S) transfer functions: a Gaussian about each frequency.

    The Fourier transform of skimage's kernels, with their mean response to a constant image taken
    out, else a bright image would pass for a textured one.
    """
    f = fft.fftfreq(2 * size)
    y, x = f[:, None], f[None]
    bank = []
    for frequency in gabor_frequencies(scales):
        spread = 1 / (2 * np.pi * np.sqrt(np.log(2) / 2) * 3 / (np.pi * frequency))  # one octave
        for angle in np.arange(orientations) * np.pi / orientations:
            dx, dy = x - frequency * np.cos(angle), y - frequency * np.sin(angle)
            gain = np.exp(-(dx**2 + dy**2) / (2 * spread**2))
            gain[0, 0] = 0
            bank.append(gain)
    return np.asarray(bank, np.float32)


def _responses(grey: F32, bank: F32, pool: F32) -> F32:
    """(n, D) of images (n, S, S)."""
    n, size = grey.shape[:2]
    both = np.concatenate([grey, grey[:, ::-1]], 1)
    spectrum = fft.fft2(np.concatenate([both, both[:, :, ::-1]], 2))
    features = []
    for gain in bank:
        # only the quarter that is the image is transformed back along the second axis
        rows = fft.ifft(spectrum * gain, axis=1, overwrite_x=True)[:, :size]
        response = np.abs(fft.ifft(rows, axis=2)[:, :, :size])
        mean = pool @ response @ pool.T
        square = pool @ (response * response) @ pool.T
        deviation = np.sqrt(np.maximum(square - mean * mean, 0))
        features += [mean.reshape(n, -1), deviation.reshape(n, -1)]
    return np.concatenate(features, 1).astype(np.float32)


def _each(images: U8, work: Callable[[U8], F32]) -> F32:
    """`work` of the luma of each image, whole grey levels."""
    rows = []
    for start in range(0, len(images), _CHUNK):
        grey = np.rint(luma(images[start : start + _CHUNK])).astype(np.uint8)
        rows += [work(image) for image in grey]
    return np.stack(rows)


def luma(images: U8) -> F32:
    """(n, S, S) luma in 0..255."""
    return np.asarray(np.einsum("nchw,c->nhw", images.astype(np.float32), _LUMA), np.float32)


def _edges(size: int, grid: int) -> NDArray[np.int64]:
    if not 1 <= grid <= size:
        raise ValueError(f"a grid of {grid} x {grid} on images of {size} px: give 1 to {size}")
    return np.arange(size) * grid // size


def _cells(size: int, grid: int) -> NDArray[np.int64]:
    """(S, S) the number of the cell of each pixel, row by row."""
    edges = _edges(size, grid)
    return edges[:, None] * grid + edges


def pooling(size: int, grid: int) -> F32:
    """(G, S) matrix that takes the mean over each cell along one side."""
    member = (np.arange(grid)[:, None] == _edges(size, grid)).astype(np.float32)
    mean: F32 = member / member.sum(1, keepdims=True)
    return mean


def _shares(codes: NDArray[np.int64], cells: int, bins: int) -> F32:
    """(cells · bins,) histogram of each cell, of sum 1, from codes cell · bins + bin."""
    counts = np.bincount(codes.ravel(), minlength=cells * bins).reshape(cells, bins)
    return np.asarray((counts / counts.sum(1, keepdims=True)).ravel(), np.float32)
