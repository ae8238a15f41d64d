"""Decoding: any image a folder may hold becomes upright square RGB, or is refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from trainables.data.images import Unreadable, decode, read, square

RED = (255, 0, 0)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def half_red(mode: str = "RGB") -> Image.Image:
    """Red on the left, black on the right."""
    image = Image.new("RGB", (16, 16))
    image.paste(RED, (0, 0, 8, 16))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "PNG"), ("RGB", "BMP"), ("RGB", "WEBP"), ("P", "PNG"), ("RGBA", "PNG"),
     ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF"), ("RGB", "PPM")],
)  # fmt: skip
def test_any_mode_becomes_rgb_in_that_order(mode, form):
    pixels = decode(encoded(half_red(mode), form), 16)
    assert (pixels.shape, pixels.dtype) == ((3, 16, 16), np.uint8)
    assert np.abs(pixels[:, 8, 3].astype(int) - RED).max() < 30
    assert pixels[:, 8, 12].max() < 30


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16"])
def test_grey_is_three_times_the_same(mode):
    grey = Image.fromarray(np.tile(np.arange(0, 256, 16, np.uint8), (16, 1)))
    if mode == "I;16":
        grey = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    pixels = decode(encoded(grey.convert(mode) if mode != "I;16" else grey), 16)
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] == pixels[2]).all()
    assert (pixels[0, 0, 0], pixels[0, 0, 15]) in {(0, 240), (0, 255)}


def test_exif_orientation_is_honoured():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = decode(encoded(half_red(), "JPEG", exif=exif, quality=95), 16)
    assert pixels[0, 8, 12] > 200 > 60 > pixels[0, 8, 3]


def test_first_frame_of_an_animation():
    frames = [half_red(), Image.new("RGB", (16, 16), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, 16)[0, 8, 3] > 200


def test_what_is_transparent_is_grey():
    assert (
        decode(encoded(Image.new("RGBA", (16, 16), (*RED, 0))), 16).tolist()
        == [[[127] * 16] * 16] * 3
    )


def test_the_right_size_is_left_as_it_is():
    exact = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert (decode(encoded(Image.fromarray(exact)), 16) == exact.transpose(2, 0, 1)).all()


def test_shrinking_averages_areas():
    chequers = np.indices((8, 8)).sum(0) % 2 * 200
    pixels = np.repeat(chequers[..., None], 3, 2).astype(np.uint8)
    assert (square(pixels, 4) == 100).all()  # each 2 x 2 area holds two of 0 and two of 200


def test_padding_repeats_the_edge_and_cuts_nothing_off():
    rows = np.arange(1, 5, dtype=np.uint8)[:, None, None] * 50
    wide = np.broadcast_to(rows, (4, 8, 3))
    assert square(wide, 8)[:, 0, 0].tolist() == [50, 50, 50, 100, 150, 200, 200, 200]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (37, 41), (3, 2)])
def test_any_shape_becomes_square(shape):
    assert square(np.zeros((*shape, 3), np.uint8), 24).shape == (24, 24, 3)


def test_without_a_size_the_image_keeps_its_own():
    assert read(encoded(Image.new("RGB", (7, 5)))).shape == (5, 7, 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (encoded(half_red("L").resize((200, 200)), "JPEG")[:-200], "truncated"),
        (encoded(half_red())[:60], "truncated"),
    ],
)
def test_a_broken_file_is_refused(data, said):
    with pytest.raises(Unreadable, match=said):
        decode(data, 16)
