"""Augmentation: what each does to pixels, AUs, boxes and region maps, and to which images."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from trainables.augment import AUGMENTS, Batch
from trainables.data.tables import region_maps
from trainables.geometry import drawn, flip, flip_and_affine, grid_of, move
from trainables.jpeg import compressed
from trainables.photometric import blurred, degrade, pixelated

COUNTS = np.array([90, 40, 10, 6])


def batch(n: int = 6, size: int = 32, aus: int = 3, regions: bool = True) -> Batch:
    g = Generator().manual_seed(0)
    maps = torch.zeros(n, aus, 16, 16)
    maps[:, 0, :4], maps[:, 1, 6:10, :5], maps[:, 2, 12:] = 1, 1, 1
    return Batch(
        torch.rand(n, 3, size, size, generator=g),
        torch.eye(4)[torch.arange(n) % 4],
        torch.randint(-1, 2, (n, aus), generator=g).float(),
        maps if regions else None,
    )


def test_flip_moves_maps_with_pixels() -> None:
    before = batch(n=40)
    assert before.regions is not None
    after = flip(before, Generator().manual_seed(0))
    flipped = [not torch.equal(a, b) for a, b in zip(after.images, before.images, strict=True)]
    assert 8 < sum(flipped) < 32
    assert after.regions is not None
    for i, was_flipped in enumerate(flipped):
        wanted = before.regions[i].flip(2) if was_flipped else before.regions[i]
        assert torch.equal(after.regions[i], wanted)


def test_flip_swaps_the_aus_of_left_and_right_and_moves_boxes() -> None:
    names = ("AU1", "AUL12", "AUR12")
    maps = torch.from_numpy(region_maps(names, 16)).expand(32, 3, 16, 16)
    images = torch.linspace(0, 1, 16).expand(32, 3, 16, 16)  # brighter to the right
    aus = torch.tensor([0.0, 1.0, -1.0]).expand(32, 3)
    before = Batch(images, torch.eye(4)[torch.arange(32) % 4], aus, maps)
    eyes = torch.tensor([[0.1, 0.2, 0.4, 0.5], [0.6, 0.2, 0.9, 0.5]]).expand(32, 2, 4)
    before = replace(before, boxes=eyes, mirror=torch.tensor([0, 2, 1]))
    after = flip(before, Generator().manual_seed(0))
    flipped = after.images[:, 0, 0, 0] > 0.5
    assert 8 < flipped.sum() < 24
    assert after.aus[flipped].unique(dim=0).tolist() == [[0, -1, 1]]
    assert after.aus[~flipped].unique(dim=0).tolist() == [[0, 1, -1]]
    assert after.regions is not None
    torch.testing.assert_close(after.regions, maps)  # left is on the right of any picture
    assert after.boxes is not None  # but a box stays with its eye
    torch.testing.assert_close(after.boxes[flipped], eyes.flip(1)[flipped])
    assert torch.equal(after.boxes[~flipped], eyes[~flipped])


def test_flip_and_affine_moves_maps_with_pixels() -> None:
    # the picture is its own region map, so both must come out alike
    spot = torch.zeros(5, 1, 16, 16)
    spot[:, :, 4:8, 9:13] = 1
    images = torch.nn.functional.interpolate(spot, scale_factor=2).expand(-1, 3, -1, -1)
    before = Batch(images, torch.eye(5), torch.ones(5, 1), spot)
    after = flip_and_affine(degrees=15, scale=0.1, shift=0.1)(before, Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(after.images[:, :1], 2)
    assert after.regions is not None
    assert (small - after.regions).abs().mean() < 0.01
    assert (after.regions - spot).abs().mean() > 0.01


def test_flip_and_affine_are_one_after_the_other() -> None:
    mirror, boxes = torch.tensor([1, 0, 2]), torch.rand(40, 2, 4).sort(2).values
    before = replace(batch(n=40, aus=3), mirror=mirror, boxes=boxes)
    both = flip_and_affine(degrees=15, scale=0.1, shift=0.1)(before, Generator().manual_seed(0))
    generator = Generator().manual_seed(0)
    turned = flip(before, generator)
    wanted = move(turned, drawn(turned.images, generator, degrees=15, scale=0.1, shift=0.1))
    for name in ("images", "aus", "regions", "boxes"):
        torch.testing.assert_close(getattr(both, name), getattr(wanted, name), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_grid_of_a_move_is_that_of_torch(dtype: torch.dtype) -> None:
    moves = drawn(torch.rand(7, 3, 9, 9), Generator().manual_seed(0), 15, 0.2, 0.1).to(dtype)
    moves[::2, 0] *= -1
    wanted = torch.nn.functional.affine_grid(moves, [7, 3, 9, 9], align_corners=False)
    torch.testing.assert_close(grid_of(moves, 9), wanted, atol=1e-6, rtol=0)


def test_blur_by_hand() -> None:
    spot = torch.zeros(3, 3, 64, 64)
    spot[:, :, 32, 32] = 1
    none, half, whole = blurred(spot, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(none, spot[0])
    at = torch.arange(64) - 32.0
    for image, sigma in ((half, 0.8), (whole, 1.6)):  # 1/40 of 64 pixels, of which reach 2.5
        bell = (-0.5 * (at / sigma) ** 2).exp() * (at.abs() <= 4)
        wanted = torch.outer(bell, bell) / bell.sum() ** 2
        torch.testing.assert_close(image, wanted.expand(3, -1, -1))


def test_low_resolution_by_hand() -> None:
    images = torch.rand(2, 3, 60, 60, generator=Generator().manual_seed(0))
    same, coarse = pixelated(images, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(same, images[0])
    few, at = images.new_zeros(1, 3, 24, 24), torch.arange(60.0)
    for y in range(24):  # cells of 2.5 pixels, so that a pixel lies in two
        for x in range(24):
            rows, columns = (
                (at + 1).clamp(max=2.5 * k + 2.5) - at.clamp(min=2.5 * k) for k in (y, x)
            )
            weights = torch.outer(rows.clamp_min(0), columns.clamp_min(0))
            few[0, :, y, x] = (images[1] * weights).sum((1, 2)) / 2.5**2
    wanted = torch.nn.functional.interpolate(few, (60, 60), mode="bilinear")
    torch.testing.assert_close(coarse, wanted[0])


@pytest.mark.parametrize("quality", [10, 37, 50, 75, 95])
@pytest.mark.parametrize("size", [64, 50])
def test_compression_is_that_of_libjpeg(quality, size) -> None:
    smooth = torch.rand(1, 3, 9, 9, generator=Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(smooth, (size, size), mode="bilinear")
    file = io.BytesIO()
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    wanted = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    found = compressed(image, torch.tensor([quality]))[0] * 255
    difference = (found - wanted).abs()
    assert difference.mean() < 0.5
    assert difference.mean() < 0.2 * (found - image[0] * 255).abs().mean() + 0.1


def test_a_worse_camera_comes_with_its_chance_and_is_off_unless_asked_for() -> None:
    before = batch(n=400)
    for chances in ((0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3)):
        after = degrade(*chances)(before, Generator().manual_seed(0)).images
        changed = (after != before.images).flatten(1).any(1)
        assert 90 < changed.sum() < 150
    plain, off, on = (
        AUGMENTS["medium"](COUNTS, (), **args)(before, Generator().manual_seed(0)).images
        for args in ({}, {"blur": 0.0, "low_resolution": 0.0, "jpeg": 0.0}, {"jpeg": 1.0})
    )
    assert torch.equal(plain, off)
    assert not torch.equal(plain, on)


def test_minority_only_is_strong_for_rare_classes_alone(caplog) -> None:
    before = batch(n=80)  # classes of 90, 40, 10 and 6 images: the last two are below the median
    after = AUGMENTS["minority_only"](COUNTS, ())(before, Generator().manual_seed(0))
    light = AUGMENTS["light"](COUNTS, ())(before, Generator().manual_seed(0))
    assert "the distortion itself tells the class" in caplog.text
    is_rare = before.targets.argmax(1) >= 2
    assert torch.equal(after.images[~is_rare], light.images[~is_rare])
    assert (after.images[is_rare] != light.images[is_rare]).flatten(1).any(1).all()
    erased = (after.images == 0.5).all(1).flatten(1).sum(1) > 50
    assert erased[is_rare].any()


def test_classes_as_frequent_as_the_median_are_not_rare() -> None:
    before = batch(n=40)
    one, two = (
        AUGMENTS[name](np.array([5, 5, 5, 5]), ())(before, Generator().manual_seed(0)).images
        for name in ("minority_only", "light")
    )
    assert torch.equal(one, two)
