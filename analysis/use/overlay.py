"""Pictures with what was said of them drawn in: boxes, labels, bars of probabilities and AUs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis.use.media import Picture
from analysis.use.rows import OK, Row
from trainables.data.images import Pixels

SIDE, LEAST = 720, 360  # pixels of the longer side of the picture, at most and at least
PANEL, LINE, BAR = 300, 18, 110  # pixels
CLASSES, UNITS = 5, 10  # the likeliest so many
FONT: int = cv2.FONT_HERSHEY_SIMPLEX
WHITE, GREY, DARK = (255, 255, 255), (160, 160, 160), (32, 32, 32)
COLOURS = ((90, 200, 250), (250, 180, 80), (140, 220, 120), (230, 130, 200), (240, 230, 100))


def draw(picture: Picture, rows: Sequence[Row]) -> Pixels:
    """The picture (RGB) with a box for each face, and a panel that says what is in them."""
    assert picture.pixels is not None
    height, width = picture.pixels.shape[:2]
    scale = min(SIDE / max(height, width), max(1.0, LEAST / max(height, width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image: Any = cv2.resize(picture.pixels, size, interpolation=method)
    blocks = [_lines(row) for row in rows]
    tall = max(size[1], sum((len(block) + 1) * LINE for block in blocks) + LINE)
    canvas = np.full((tall, size[0] + PANEL, 3), DARK, np.uint8)
    canvas[: size[1], : size[0]] = image
    at = LINE
    for number, (row, block) in enumerate(zip(rows, blocks, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        if row["box"]:
            left, top, right, bottom = (round(side * scale) for side in row["box"])
            cv2.rectangle(canvas[: size[1], : size[0]], (left, top), (right, bottom), colour, 2)
        at = _panel(canvas, size[0] + 8, at, block, colour) + LINE
    return canvas


def _lines(row: Row) -> list[tuple[str, float | None]]:
    """What the panel says of a face: a text, and the length of its bar if it has one."""
    if row["status"] != OK:
        return [(row["status"], None)]
    number = "" if row["face"] is None else f"{row['face']}: "
    lines: list[tuple[str, float | None]] = [(f"{number}{row['label']}", None)]
    for part, most in (("probabilities", CLASSES), ("aus", UNITS)):
        values = row[part] or {}
        lines += [(n, values[n]) for n in sorted(values, key=lambda n: -values[n])[:most]]
    return lines


def _panel(
    canvas: Pixels, x: int, y: int, lines: list[tuple[str, float | None]], colour: Any
) -> int:
    """Write the lines from (x, y) downwards; where the next would be."""
    for text, share in lines:
        plain = text.encode("ascii", "replace").decode()[:34]  # OpenCV's font has no other letters
        if share is None:
            cv2.putText(canvas, plain, (x, y), FONT, 0.5, colour, 1, cv2.LINE_AA)
        else:
            start = x + PANEL - BAR - 50
            cv2.putText(canvas, plain[:22], (x, y), FONT, 0.38, WHITE, 1, cv2.LINE_AA)
            far = start + round(BAR * share * 0.7)
            cv2.rectangle(canvas, (start, y - 9), (far, y), colour, -1)
            cv2.putText(canvas, f"{share:.2f}", (far + 4, y), FONT, 0.35, GREY, 1, cv2.LINE_AA)
        y += LINE
    return y


def name_of(number: int, picture: Picture) -> str:
    """A file name of its own for the picture, whatever its own is."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(picture.path).stem)[:60]
    frame = "" if picture.frame is None else f"_{picture.frame:06}"
    return f"{number:05}_{stem}{frame}.jpg"


def write(folder: Path, number: int, picture: Picture, rows: Sequence[Row]) -> None:
    """Write the drawing. Raises OSError where there is no room."""
    drawn: NDArray[np.uint8] = draw(picture, rows)
    is_good, data = cv2.imencode(".jpg", np.ascontiguousarray(drawn[..., ::-1]))
    assert is_good
    (folder / name_of(number, picture)).write_bytes(data.tobytes())
