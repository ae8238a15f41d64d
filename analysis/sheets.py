"""The contact sheet: pictures with overlays as one image. S pixels a side. No torch."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainables.data.tables import Box

TILE = 144  # pixels a side of a picture on the sheet
GAP, LINES, LEADING = 6, 5, 15
WIDEST = 3  # mistakes side by side
INK, PAPER, FRAME = (28, 33, 39), (255, 255, 255), (255, 255, 255)
OVERLAY = 0.55
LETTERS = 46  # of a line under three pictures

Heat = NDArray[np.floating]  # (h, w), any scale


@dataclass(frozen=True)
class Tile:
    """One image, what lies over it, and what is said of it."""

    image: NDArray[np.uint8]  # (3, S, S)
    heats: tuple[Heat, ...]  # a picture each, beside the bare image
    boxes: tuple[Box, ...]  # drawn on all
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """The sheet as PNG, what it shows in words and as a table; or why there is none."""

    png: bytes = b""
    words: tuple[str, ...] = ()
    rows: tuple[dict[str, str], ...] = field(default_factory=tuple)
    missing: str = ""

    @property
    def address(self) -> str:
        """The picture as a data address, for a page that stands alone."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def sheet(tiles: Sequence[Tile]) -> bytes:
    """All tiles as one PNG, a few in a row."""
    width = TILE * (1 + max(len(tile.heats) for tile in tiles)) + 2 * GAP
    height = TILE + LINES * LEADING + 2 * GAP
    columns = min(WIDEST, len(tiles))
    page = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), PAPER)
    font = ImageFont.load_default(size=12)
    for number, tile in enumerate(tiles):
        left, top = number % columns * width + GAP, number // columns * height + GAP
        for place, picture in enumerate([None, *tile.heats]):
            page.paste(_drawn(tile, picture), (left + place * TILE, top))
        draw = ImageDraw.Draw(page)
        for line, text in enumerate(tile.lines[:LINES]):
            short = text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
            draw.text((left, top + TILE + 2 + line * LEADING), short, INK, font)
    data = io.BytesIO()
    page.quantize(256).save(data, "PNG", optimize=True)
    return data.getvalue()


def _drawn(tile: Tile, heat: Heat | None) -> Image.Image:
    """The picture of a tile with its heat over it, and the boxes."""
    image = Image.fromarray(np.moveaxis(tile.image, 0, 2)).resize((TILE, TILE))
    if heat is not None:
        grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
        shares = heat_of(heat, TILE)
        mixed = (1 - OVERLAY) * grey + OVERLAY * colours(shares)
        image = Image.fromarray(mixed.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for box in tile.boxes:
        corners = [min(max(round(TILE * v), 0), TILE - 1) for v in box]
        draw.rectangle(corners, outline=FRAME, width=1)
    return image


def heat_of(heat: Heat, size: int) -> NDArray[np.float32]:
    """The map at another size, in [0, 1]."""
    found = np.asarray(heat, np.float32)
    spread = found.max() - min(0.0, float(found.min()))
    scaled = Image.fromarray(found / spread if spread > 0 else np.zeros_like(found))
    large = np.asarray(scaled.resize((size, size), Image.Resampling.BILINEAR))
    shares: NDArray[np.float32] = np.clip(large, 0, 1)
    return shares


def colours(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares (h, w) as colours (h, w, 3) from blue to yellow, readable to all and in grey."""
    stops = np.array([[0, 32, 76], [66, 78, 108], [124, 123, 120], [187, 173, 108], [255, 234, 70]])
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(shares, at, stops[:, c]) for c in range(3)], 2).astype(np.float32)
