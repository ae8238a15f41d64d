"""Augmentation and mixing: what each does to pixels, targets, AUs, boxes and region maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator

from trainables.augment import MIXERS, Batch
from trainables.data.tables import region_maps
from trainables.geometry import affine, flip
from trainables.mixing import beta, cutmix, mixup

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


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_keeps_the_mirror(name: str) -> None:
    before = replace(batch(), mirror=torch.tensor([1, 0, 2]))
    after = MIXERS[name](COUNTS, probability=1.0)(before, Generator().manual_seed(1))
    assert after.mirror is before.mirror


def test_affine_moves_maps_with_pixels() -> None:
    # the picture is its own region map, so both must come out alike
    spot = torch.zeros(5, 1, 16, 16)
    spot[:, :, 4:8, 9:13] = 1
    images = torch.nn.functional.interpolate(spot, scale_factor=2).expand(-1, 3, -1, -1)
    before = Batch(images, torch.eye(5), torch.ones(5, 1), spot)
    after = affine(degrees=15, scale=0.1, shift=0.1)(before, Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(after.images[:, :1], 2)
    assert after.regions is not None
    assert (small - after.regions).abs().mean() < 0.01
    assert (after.regions - spot).abs().mean() > 0.01


def test_mixup_mixes_targets_by_the_share_of_the_images() -> None:
    before = Batch(
        torch.eye(4)[:, None, None, :].expand(4, 3, 4, 4).contiguous(),
        torch.eye(4),
        torch.tensor([[1.0], [0.0], [1.0], [-1.0]]),
    )
    after = mixup(COUNTS, alpha=1.0, probability=1.0)(before, Generator().manual_seed(5))
    # image i is column i white, so the mean of column j is the share of image j: the target itself
    torch.testing.assert_close(after.images[:, 0, 0, :], after.targets)
    for target, au in zip(after.targets, after.aus, strict=True):
        if target[3] > 0:  # the image whose AU is unknown takes part
            assert au == -1
        else:
            torch.testing.assert_close(au[0], target @ torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_cutmix_targets_are_the_pixels_shares_and_aus_follow_the_regions() -> None:
    n = 8
    images = (torch.arange(n) / n)[:, None, None, None].expand(n, 3, 32, 32).contiguous()
    maps = torch.zeros(n, 2, 16, 16)
    maps[:, 0, 0:4, 0:4], maps[:, 1, 12:16, 12:16] = 1, 1
    aus = torch.arange(n)[:, None].expand(n, 2) / n
    after = cutmix(COUNTS, alpha=1.0, probability=1.0)(
        Batch(images, torch.eye(n), aus, maps), Generator().manual_seed(2)
    )
    for i in range(n):
        shares = torch.stack([(after.images[i, 0] == j / n).float().mean() for j in range(n)])
        torch.testing.assert_close(after.targets[i], shares)
        for au, patch in ((0, after.images[i, 0, :8, :8]), (1, after.images[i, 0, 24:, 24:])):
            owner = patch.flatten().mode().values
            assert after.aus[i, au] == owner


def test_mixing_off_returns_the_batch_itself() -> None:
    before = batch()
    assert mixup(COUNTS, probability=0.0)(before, Generator()) is before
    assert cutmix(COUNTS, probability=0.0)(before, Generator()) is before


def test_mixup_share_is_beta_distributed() -> None:
    g = Generator().manual_seed(0)
    draws = np.array([beta(0.2, g) for _ in range(2000)])
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.02)
