"""Pictures to look at: grids of images as PNG. N images, S pixels a side, uint8 (N, 3, S, S)."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.store import replace_file

U8 = NDArray[np.uint8]
GAP, NAME_WIDTH, WHITE = 4, 150, 255


def grid(rows: Sequence[Sequence[U8 | None]], names: Sequence[str] = ()) -> U8:
    """(height, width, 3): a row of pictures (3, S, S) a line, with its name before it; None is a
    gap."""
    side = next(image.shape[-1] for row in rows for image in row if image is not None)
    cell, left = side + GAP, NAME_WIDTH if names else 0
    sheet = np.full(
        (len(rows) * cell + GAP, left + max(map(len, rows)) * cell + GAP, 3), WHITE, np.uint8
    )
    for r, row in enumerate(rows):
        top = GAP + r * cell
        for c, image in enumerate(row):
            if image is not None:
                at = left + GAP + c * cell
                sheet[top : top + side, at : at + side] = image.transpose(1, 2, 0)
        if names:
            base = (2, top + side // 2 + 4)
            cv2.putText(sheet, names[r][:24], base, cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0))
    return sheet


def save_png(path: Path, sheet: U8) -> None:
    """Write a sheet (height, width, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    replace_file(path, data.tobytes())
