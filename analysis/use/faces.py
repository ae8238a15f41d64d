"""Faces in a picture, and each as the networks were trained to see it. S pixels a side.

A detector gives boxes and eyes; a face is turned and scaled so that its eyes lie where those of the
training crops do (the frame of the AU regions, `assets/fer_tables.json`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.data.images import Pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

LONGEST = 960  # pixels a side that a detector looks at
MARGIN = 0.25  # of the sides, repeated around a picture: a crop leaves a detector no room
LEAST = 0.7  # score of a face by YuNet
FRAME: Mapping[str, Any] = {"eye_mid": (0.5, 0.38), "iod": 0.32}  # where the eyes of a crop are


@dataclass(frozen=True)
class Face:
    """One face of a picture."""

    box: Box
    score: float
    eyes: NDArray[np.float32]  # (2, 2) x, y in pixels; the one on the left of the picture first


Find = Callable[[Pixels], list[Face]]  # RGB (H, W, 3)


def find_all(find: Find, image: Pixels) -> list[Face]:
    """The faces of an RGB image, the largest first, in its own pixels."""
    height, width = image.shape[:2]
    down, right = round(MARGIN * height), round(MARGIN * width)
    framed = cv2.copyMakeBorder(image, down, down, right, right, cv2.BORDER_REPLICATE)
    scale = min(1.0, LONGEST / max(framed.shape[:2]))
    if scale < 1:
        framed = cv2.resize(framed, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    offset = np.array([right, down])
    faces = []
    for face in find(framed):
        box = np.array(face.box).reshape(2, 2) / scale - offset
        box = box.clip(0, [width, height])
        left, top, far, low = (float(side) for side in box.ravel())
        if far > left and low > top:
            faces.append(Face((left, top, far, low), face.score, face.eyes / scale - offset))
    return sorted(faces, key=lambda face: -_area(face.box))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def aligned(
    image: Pixels, eyes: NDArray[np.float32], size: int, frame: Mapping[str, Any]
) -> Pixels:
    """The face (S, S, 3) with its eyes level and in their places; edges are repeated.

    `frame`: {"eye_mid": [x, y], "iod": distance of the eyes}, in shares of the side.
    """
    across = eyes[1] - eyes[0]
    scale = frame["iod"] * size / max(1e-6, float(np.hypot(*across)))
    finer = int(np.clip(round(1 / scale), 1, 16))  # of a large face, means over pixels
    turn = scale * finer / max(1e-6, float(np.hypot(*across)))
    a, b = turn * across
    rotation = np.array([[a, b], [-b, a]])
    target = size * finer * np.array(frame["eye_mid"])
    shift = target - rotation @ eyes.mean(0)
    warp = np.column_stack([rotation, shift]).astype(np.float64)
    side = (size * finer, size * finer)
    seen = cv2.warpAffine(
        image, warp, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if finer > 1:
        seen = cv2.resize(seen, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(seen, np.uint8)


def yunet(path: Path) -> Find:
    """OpenCV's detector YuNet (Wu et al. 2023, 10.1007/s11633-023-1423-y) by the file of its
    network, `face_detection_yunet_….onnx` of the OpenCV Zoo.

    Raises FileNotFoundError or ValueError where it is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no detector at '{path}': give the .onnx file of YuNet")
    try:
        net: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320), LEAST)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot read '{path}' as a YuNet detector: {error}") from error

    def find(image: Pixels) -> list[Face]:
        net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = net.detect(np.ascontiguousarray(image[..., ::-1]))
        return [_of_yunet(row) for row in rows] if rows is not None else []

    return find


def _of_yunet(row: NDArray[np.float32]) -> Face:
    """x, y, width, height, five points (the subject's right eye first, left in the picture)."""
    left, top, width, height = map(float, row[:4])
    return Face((left, top, left + width, top + height), float(row[14]), row[4:8].reshape(2, 2))
