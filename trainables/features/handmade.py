"""The extractors that need no network: of images, of landmarks from a file, of motion.

What is out of range, or lacking in the data, is told by the builder, before any trial.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from trainables.config import TrialConfig
from trainables.data.bundle import DataBundle
from trainables.data.entry import file_hash
from trainables.features import classical, face_shape, flow, landmark_file
from trainables.features.extractors import EXTRACTORS, Extractor, Floats
from trainables.features.landmark_file import Landmarks
from trainables.registry import unknown


@EXTRACTORS.register
def lbp(config: TrialConfig, bundle: DataBundle, *, radius: int = 1, grid: int = 7) -> Extractor:
    """Histograms of local binary patterns: texture, whatever the light."""
    if not 1 <= radius <= 8:
        raise ValueError(f"radius {radius} cannot be: give 1 to 8 pixels")
    return _of_images(bundle, partial(classical.lbp, radius=radius, grid=grid))


@EXTRACTORS.register
def hog(
    config: TrialConfig, bundle: DataBundle, *, orientations: int = 8, cell: int = 8
) -> Extractor:
    """Histograms of oriented gradients: contours."""
    if orientations < 2 or cell < 2:
        raise ValueError(f"{orientations} orientations in cells of {cell} px: give 2 or more")
    return _of_images(bundle, partial(classical.hog, orientations=orientations, cell=cell))


@EXTRACTORS.register
def gabor(
    config: TrialConfig,
    bundle: DataBundle,
    *,
    scales: int = 4,
    orientations: int = 8,
    grid: int = 4,
) -> Extractor:
    """A bank of Gabor filters: wrinkles and edges by width and direction."""
    if not 2 <= scales <= 8 or not 2 <= orientations <= 16:
        raise ValueError(
            f"{scales} scales of {orientations} orientations: give 2 to 8, and 2 to 16"
        )
    feature = partial(classical.gabor, scales=scales, orientations=orientations, grid=grid)
    return _of_images(bundle, feature)


@EXTRACTORS.register
def colour(config: TrialConfig, bundle: DataBundle, *, bins: int = 16, grid: int = 2) -> Extractor:
    """Colour histograms, the alarm: where they score far above guessing, the data has a short cut
    (light, camera, place) that tells the class."""
    if not 2 <= bins <= 256:
        raise ValueError(f"{bins} bins cannot be: give 2 to 256")
    return _of_images(bundle, partial(classical.colour, bins=bins, grid=grid))


@EXTRACTORS.register
def landmarks(
    config: TrialConfig, bundle: DataBundle, *, file: str = "", use: str = "all"
) -> Extractor:
    """The shape of the face by the landmarks of a file, which must have every image.

    `use`: one of face_shape.USES. Points are not mirrored: a mirrored image has no row of its own.
    """
    path = Path(file)
    if not path.is_absolute():
        known = f", as '{path.absolute()}'" if file else ""
        raise ValueError(
            f"features 'landmarks' read a file: set features.file to its whole path{known}. "
            "`python -m trainables.features.landmarks DATA --out FILE.npz` writes one"
        )
    found = _read(path, path.stat().st_mtime_ns if path.exists() else 0)
    if use not in face_shape.USES:
        raise ValueError(f"landmark features '{use}'; known: {', '.join(face_shape.USES)}")
    found.rows_of([*bundle.train.ids, *bundle.val.ids, *bundle.test.ids])
    return Extractor(
        lambda part: face_shape.features(found.rows_of(part.ids), use),
        file_hash(path),
        has_mirror=False,
    )


@EXTRACTORS.register
def optical_flow(
    config: TrialConfig,
    bundle: DataBundle,
    *,
    method: str = "farneback",
    bins: int = 8,
    grid: int = 6,
) -> Extractor:
    """Motion from the first frame of each image's sequence; refused for stills, which have none.

    `method`: one of flow.METHODS.
    """
    if method not in flow.METHODS:
        raise LookupError(unknown("method of optical flow", method, flow.METHODS))
    if not 2 <= bins <= 32:
        raise ValueError(f"{bins} directions cannot be: give 2 to 32")
    classical.pooling(bundle.image_size, grid)  # a grid that does not fit is told now
    flow.check_moving(bundle)
    return Extractor(
        lambda part: flow.features(flow.first_frames(part), part.images, method, bins, grid),
        f"scikit-image {version('scikit-image')}, opencv {cv2.__version__}",
    )


@lru_cache(4)
def _read(path: Path, changed: int) -> Landmarks:
    return landmark_file.read(path)


def _of_images(bundle: DataBundle, feature: Callable[[classical.U8], Floats]) -> Extractor:
    size = bundle.image_size
    feature(np.zeros((1, 3, size, size), np.uint8))  # what does not fit is told now
    return Extractor(lambda part: feature(part.images), f"scikit-image {version('scikit-image')}")
