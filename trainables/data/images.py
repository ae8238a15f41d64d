"""One image file -> pixels. S pixels a side; (3, S, S) uint8 RGB."""

import io
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
)
_MOST_BYTES = 256 << 20  # of an image file: a video put there by mistake is not read whole
_MATTE = 127  # what shows through a transparent pixel


class Unreadable(Exception):
    """The file holds no image that can be decoded whole."""


def is_image_name(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def content(path: Path) -> bytes:
    """The bytes of a file that may be an image. Raises Unreadable."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
            raise Unreadable("not a file")
        if not 0 < about.st_size <= _MOST_BYTES:
            raise Unreadable("too large for an image" if about.st_size else "empty file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise Unreadable("missing") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        raise Unreadable(str(error)) from error


def decode(data: bytes, size: int) -> Pixels:
    """The upright (3, S, S) image; no part of a face is cut off."""
    return planes(read(data), size)


def planes(image: Pixels, size: int) -> Pixels:
    """(height, width, 3) -> (3, S, S), padded to a square by repeating its edge."""
    return np.ascontiguousarray(square(image, size).transpose(2, 0, 1))


def read(data: bytes) -> Pixels:
    """The upright image in its own size, (height, width, 3). The first frame of an animation."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _rgb(_upright(image))
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder throws, the file is at fault
        raise Unreadable(_reason(data, error)) from error


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block does not make the picture unusable
        return image


def _rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):  # 16 bits and more: `convert` would clip at 255
        return np.repeat(_to_bytes(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        matte = Image.new("RGBA", image.size, (_MATTE, _MATTE, _MATTE, 255))
        image = Image.alpha_composite(matte, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_bytes(values: NDArray[Any]) -> Pixels:
    top = 255.0 if values.max(initial=0) <= 255 else 65535.0
    return np.clip(values.astype(np.float64) * (255.0 / top), 0, 255).round().astype(np.uint8)


def square(pixels: Pixels, size: int) -> Pixels:
    """(height, width, 3) -> (size, size, 3): the longer side fits, the shorter repeats its edge."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    if scale != 1:
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, shape, interpolation=method)
    down, right = size - pixels.shape[0], size - pixels.shape[1]
    if down or right:
        border = (down // 2, down - down // 2, right // 2, right - right // 2)
        pixels = cv2.copyMakeBorder(pixels, *border, cv2.BORDER_REPLICATE)
    return pixels
