"""TrivialAugment: one operation an image, all alike; each operation against a reference."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Generator, Tensor

from trainables import trivial
from trainables.augment import AUGMENTS, Batch
from trainables.trivial import MOVES, OPERATIONS, PIXELS, draws, operate

COUNTS = np.array([3, 3])
GEOMETRIC = [OPERATIONS.index(name) for name in MOVES]


def batch(n: int, size: int = 32) -> Batch:
    images = torch.rand(n, 3, size, size, generator=Generator().manual_seed(0)) * 0.6 + 0.2
    return Batch(images, torch.eye(2)[torch.arange(n) % 2], torch.ones(n, 1))


def test_operations_are_equally_likely_and_so_are_strengths() -> None:
    drawn, strength = draws(torch.zeros(13000, 1), Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=len(OPERATIONS))
    assert len(counts) == 13
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()
    assert strength.min() < -0.999
    assert strength.max() > 0.999
    assert abs(strength.mean()) < 0.02
    assert np.corrcoef(drawn, strength)[0, 1] == pytest.approx(0, abs=0.03)


def test_every_image_has_its_own_operation_and_no_other() -> None:
    before = batch(len(OPERATIONS))
    drawn, strength = torch.arange(len(OPERATIONS)), torch.linspace(-0.9, 0.8, len(OPERATIONS))
    together = operate(before, drawn, strength).images
    for k, name in enumerate(OPERATIONS):
        alone = Batch(before.images[[k]], before.targets[[k]], before.aus[[k]])
        after = operate(alone, drawn[[k]], strength[[k]]).images[0]
        torch.testing.assert_close(together[k], after)
        assert torch.equal(after, before.images[k]) == (name == "identity")


def test_it_is_a_flip_then_the_operations_that_are_drawn(monkeypatch) -> None:
    before = batch(64)
    monkeypatch.setattr(
        trivial, "draws", lambda images, _: (torch.zeros(64, dtype=torch.int64), torch.zeros(64))
    )
    after = AUGMENTS["trivial"](COUNTS, ())(before, Generator().manual_seed(0)).images
    turned = torch.tensor(
        [torch.equal(a, b.flip(2)) for a, b in zip(after, before.images, strict=True)]
    )
    assert 16 < turned.sum() < 48


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


@pytest.mark.parametrize("strength", [-0.8, -0.3, 0.5])
@pytest.mark.parametrize(
    ("name", "most", "enhance"),
    [("brightness", 0.6, ImageEnhance.Brightness), ("sharpness", 0.9, ImageEnhance.Sharpness)],
)
def test_operations_are_those_of_the_paper(name, most, enhance, strength) -> None:
    image = batch(1).images
    found = PIXELS[name](image, torch.tensor([strength])).clamp(0, 1)[0]
    wanted = tensor(enhance(pil(image[0])).enhance(1 + most * strength))
    inner = (slice(None), slice(1, -1), slice(1, -1))  # PIL leaves the border as it is
    torch.testing.assert_close(found[inner], wanted[inner], atol=2.5 / 255, rtol=0)


def test_contrast_colour_and_auto_contrast_by_hand() -> None:
    image = torch.zeros(1, 3, 1, 2)
    image[0, :, 0, 0], image[0, :, 0, 1] = (
        torch.tensor([0.1, 0.2, 0.3]),
        torch.tensor([0.4, 0.5, 0.6]),
    )
    half = torch.tensor([-0.5])
    gain = {"contrast": 1 - 0.35, "colour": 1 - 0.45}
    centre = {"contrast": torch.tensor(0.35), "colour": torch.tensor([0.2, 0.5]).view(1, 1, 1, 2)}
    for name, factor in gain.items():
        wanted = centre[name] + factor * (image - centre[name])
        torch.testing.assert_close(PIXELS[name](image, half), wanted)
    torch.testing.assert_close(PIXELS["auto_contrast"](image, half), (image - 0.1) / 0.5)


def test_maps_and_boxes_go_with_the_pixels() -> None:
    n = 40
    spot = torch.zeros(n, 1, 16, 16)
    spot[:, :, 5:9, 8:12] = 1
    images = torch.nn.functional.interpolate(spot, scale_factor=2).expand(-1, 3, -1, -1)
    boxes = torch.tensor([8 / 16, 5 / 16, 12 / 16, 9 / 16]).expand(n, 1, 4)
    before = Batch(images, torch.eye(2)[[0] * n], torch.ones(n, 1), spot, boxes)
    drawn = torch.tensor([*GEOMETRIC, 0, 7, 9]).repeat(6)[:n]
    strength = torch.linspace(-1, 1, n)
    after = operate(before, drawn, strength)
    assert after.regions is not None
    assert after.boxes is not None
    small = torch.nn.functional.avg_pool2d(after.images[:, :1], 2)
    moves = torch.isin(drawn, torch.tensor(GEOMETRIC))
    assert (small - after.regions)[moves].abs().mean() < 0.01
    assert (after.regions - spot)[moves].abs().mean((1, 2, 3)).min() > 1e-3
    at = (torch.arange(16) + 0.5) / 16
    x = (after.regions[:, 0].sum(1) * at).sum(1) / after.regions.sum((1, 2, 3))
    torch.testing.assert_close(
        x, (after.boxes[:, 0, 0] + after.boxes[:, 0, 2]) / 2, atol=0.01, rtol=0
    )
    assert torch.equal(after.regions[~moves], spot[~moves])
    assert torch.equal(after.boxes[~moves], boxes[~moves])


@pytest.mark.parametrize(
    ("name", "sign", "place"),
    [
        ("shift_x", 1, (0.5 - 0.15, 0.5)),  # theta says where a pixel comes from
        ("shift_y", -1, (0.5, 0.5 + 0.15)),
        ("rotate", 1, (0.5, 0.5)),
    ],
)
def test_moves_go_as_far_as_they_say(name, sign, place) -> None:
    boxes = torch.tensor([[[0.4, 0.4, 0.6, 0.6]]])
    before = Batch(torch.rand(1, 3, 32, 32), torch.eye(1), torch.ones(1, 1), None, boxes)
    drawn = torch.tensor([OPERATIONS.index(name)])
    after = operate(before, drawn, torch.tensor([float(sign)]))
    assert after.boxes is not None
    centre = (after.boxes[0, 0, :2] + after.boxes[0, 0, 2:]) / 2
    torch.testing.assert_close(centre, torch.tensor(place))
