"""AU-safe erasing and cropping, against dense points in every AU's box. N images, A AUs, P points.

The reference moves the points by numpy, one image at a time, and looks up the pixels they fall on.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator

from trainables import protection
from trainables.augment import AUGMENTS, Batch, Transform
from trainables.data.tables import AU_NAMES, au_boxes, region_maps
from trainables.geometry import cut, drawn, followed, hulls, move
from trainables.photometric import ERASED
from trainables.protection import beside, windows

NAMES = ("AUL12", "AUR12", *(name for name in AU_NAMES if name != "AU12"), "AU99")
MIRROR = torch.tensor([1, 0, *range(2, len(NAMES))])
COUNTS = np.array([3, 3])
N, SIDE = 48, 64


def batch(shown: int = 4, seed: int = 0) -> Batch:
    """Noise, of which no pixel is the grey of erasing; some AUs active, some unknown."""
    g = Generator().manual_seed(seed)
    chance = torch.rand(N, len(NAMES), generator=g)
    aus = (chance.argsort(1).argsort(1) < shown).float()
    aus[torch.rand(aus.shape, generator=g) < 0.1] = -1
    images = torch.rand(N, 3, SIDE, SIDE, generator=g)
    return Batch(images, torch.eye(2)[torch.arange(N) % 2], aus, mirror=MIRROR)


def points(box, count: int = 40) -> np.ndarray:
    """(P, 2) evenly over a box."""
    at = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(box[0] + at * (box[2] - box[0]), box[1] + at * (box[3] - box[1]))
    return np.stack([x.ravel(), y.ravel()], 1)


def moved(places: np.ndarray, theta: torch.Tensor) -> np.ndarray:
    turn = theta.double().numpy()
    return (np.linalg.solve(turn[:, :2], (2 * places - 1).T - turn[:, 2:]).T + 1) / 2


def covered(erased: torch.Tensor, places: np.ndarray) -> float:
    """Share of the points that fall on erased pixels (S, S)."""
    cells = np.floor(places * SIDE).astype(int)
    inside = ((cells >= 0) & (cells < SIDE)).all(1)
    return float(erased.numpy()[cells[inside, 1], cells[inside, 0]].sum() / len(places))


class Watched:
    """What a pipeline did to the batch: its result, the turn, and the whole move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, transform: Transform, seed: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(protection, "drawn", self._drawn)
            patch.setattr(protection, "move", self._move)
            self.after = transform(batch(seed=seed), Generator().manual_seed(seed))
        self.erased = (self.after.images == ERASED).all(1)

    def _drawn(self, *args, **kwargs):
        self.turn = drawn(*args, **kwargs)
        return self.turn

    def _move(self, batch, theta):
        self.theta = theta
        return move(batch, theta)

    def active(self):
        """Image and box of everything that must be spared."""
        for i, k in (self.after.aus > 0.5).nonzero().tolist():
            for box in au_boxes(NAMES[k]):
                yield i, box

    def most_covered(self) -> float:
        return max(
            covered(self.erased[i], moved(points(b), self.theta[i])) for i, b in self.active()
        )

    def cut_off(self) -> int:
        """How many boxes reach out of the crop, of the part that was in the picture before."""
        count = 0
        for i, box in self.active():
            before = moved(points(box), self.turn[i])
            was_in = ((before >= 0) & (before <= 1)).all(1)
            after = moved(points(box), self.theta[i])[was_in]
            count += bool(((after < -1e-4) | (after > 1 + 1e-4)).any())
        return count


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
def test_erasing_never_covers_more_than_its_share_of_an_active_box(monkeypatch, share) -> None:
    transform = AUGMENTS["au_safe"](COUNTS, NAMES, share=share, crop=0.6, probability=1.0)
    seen = [Watched(monkeypatch, transform, seed) for seed in range(3)]
    assert max(w.most_covered() for w in seen) <= share + 0.01
    assert sum(w.erased.any(2).any(1).float().mean() for w in seen) / 3 > 0.25  # it does erase


def test_crops_contain_all_active_boxes(monkeypatch) -> None:
    transform = AUGMENTS["au_safe"](COUNTS, NAMES, crop=0.5, probability=0.0)
    for seed in range(3):
        watched = Watched(monkeypatch, transform, seed)
        zoom = torch.linalg.det(watched.theta[:, :, :2]) / torch.linalg.det(watched.turn[:, :, :2])
        assert watched.cut_off() == 0
        assert (zoom < 0.98).float().mean() > 0.3  # it does crop


@pytest.mark.parametrize(
    ("name", "args"), [("erase_crop", {}), ("au_safe", {"protect": "others"})], ids=str
)
def test_the_controls_spare_nothing(monkeypatch, name, args) -> None:
    transform = AUGMENTS[name](COUNTS, NAMES, crop=0.6, probability=1.0, **args)
    watched = Watched(monkeypatch, transform, 0)
    assert watched.most_covered() > 0.7
    assert watched.cut_off() > 10


def test_the_aus_of_others_are_spared_as_strongly_as_ones_own(monkeypatch) -> None:
    areas, sides = [], []
    for protect in ("own", "others"):
        transform = AUGMENTS["au_safe"](COUNTS, NAMES, protect=protect, crop=0.5, probability=1.0)
        seen = [Watched(monkeypatch, transform, seed) for seed in range(8)]
        areas.append(np.mean([w.erased.float().mean() for w in seen]))
        sides.append(np.mean([torch.linalg.det(w.theta[:, :, :2]).mean() for w in seen]))
    assert areas[0] == pytest.approx(areas[1], rel=0.1)
    assert sides[0] == pytest.approx(sides[1], rel=0.03)


def test_unknown_aus_are_not_spared_and_pictures_without_labels_are_as_in_the_control() -> None:
    before = batch()
    unknown, absent = (replace(before, aus=torch.full_like(before.aus, v)) for v in (-1.0, 0.0))
    safe = AUGMENTS["au_safe"](COUNTS, NAMES, probability=0.7)
    blind = AUGMENTS["erase_crop"](COUNTS, NAMES, probability=0.7)
    one, two, three = (
        t(b, Generator().manual_seed(0)).images
        for t, b in ((safe, unknown), (safe, absent), (blind, before))
    )
    assert torch.equal(one, two)
    torch.testing.assert_close(one, three)


def test_a_kept_side_spares_its_own_half_only(monkeypatch) -> None:
    before = batch(0)
    aus = torch.zeros_like(before.aus)
    aus[:, 0] = 1  # the subject's left lip corner, on the right of the picture until it is flipped
    safe = AUGMENTS["au_safe"](COUNTS, NAMES, share=0.0, crop=1.0, probability=1.0)
    on_left = on_right = 0
    monkeypatch.setattr(protection, "drawn", lambda images, *_, **__: still(len(images)))
    for seed in range(5):
        after = safe(replace(before, aus=aus), Generator().manual_seed(seed))
        erased = (after.images == ERASED).all(1)
        maps = torch.from_numpy(region_maps(NAMES[:2], SIDE))
        for i in range(N):
            own, other = (0, 1) if after.aus[i, 0] == 1 else (1, 0)
            assert after.aus[i, other] == 0
            assert not (erased[i] * maps[own]).any()
            on_left += bool((erased[i] * maps[other]).any()) and own == 0
            on_right += bool((erased[i] * maps[other]).any()) and own == 1
    assert on_left > 5
    assert on_right > 5


def still(n: int) -> torch.Tensor:
    return torch.eye(2, 3).expand(n, 2, 3)


def test_crops_by_hand() -> None:
    boxes = torch.tensor([[[0.1, 0.2, 0.4, 0.9], [0.5, 0.5, 1.2, 0.6]]]).repeat(200, 1, 1)
    g = Generator().manual_seed(0)
    only = windows(boxes, torch.tensor([[True, False]]).repeat(200, 1), 0.5, g)
    assert (only[:, 2] >= 0.7 - 1e-6).all()  # the box is 0.7 high
    assert (only[:, 0] <= 0.1 + 1e-6).all()
    assert (only[:, 1] <= 0.2 + 1e-6).all()
    assert (only[:, 0] + only[:, 2] >= 0.4 - 1e-6).all()
    assert (only[:, 1] + only[:, 2] >= 0.9 - 1e-6).all()
    both = windows(boxes, torch.ones(200, 2, dtype=torch.bool), 0.5, g)
    assert (both[:, 2] >= 0.9 - 1e-6).all()  # from 0.1 to the edge of the picture
    none = windows(boxes, torch.zeros(200, 2, dtype=torch.bool), 0.5, g)
    for found in (only, both, none):
        assert (found[:, :2] >= -1e-6).all()
        assert (found[:, :2] + found[:, 2:] <= 1 + 1e-6).all()
    assert none[:, 2].min() < 0.52
    assert none[:, 2].max() > 0.98


def test_erased_squares_are_all_as_large_and_lie_anywhere() -> None:
    none = torch.zeros(400, 1, 4)
    masks = beside(none, torch.full((400, 1), torch.inf), SIDE, Generator().manual_seed(0))
    assert masks.sum((1, 2, 3)).unique().tolist() == [20 * 20]  # a tenth of 64 x 64
    assert masks.any(2).any(0).all()  # every column is hit, and every row
    assert masks.any(3).any(0).all()
    nowhere = beside(none + torch.tensor([0.0, 0, 1, 1]), torch.zeros(400, 1), SIDE, Generator())
    assert not nowhere.any()


def test_where_a_box_goes_by_hand() -> None:
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])  # new (x, y) is old (-y, x)
    around, area = hulls(torch.tensor([[0.6, 0.1, 0.9, 0.3]]), quarter[None])
    torch.testing.assert_close(around, torch.tensor([[[0.1, 0.1, 0.3, 0.4]]]))
    torch.testing.assert_close(area, torch.tensor([[0.06]]))
    window = cut(torch.tensor([[0.5, 0.0, 0.5]]))  # the upper right quarter of that
    around, area = hulls(torch.tensor([[0.6, 0.1, 0.9, 0.3]]), followed(quarter[None], window))
    torch.testing.assert_close(around, torch.tensor([[[-0.8, 0.2, -0.4, 0.8]]]))
    torch.testing.assert_close(area, torch.tensor([[0.24]]))


def test_regions_and_boxes_move_with_the_pixels() -> None:
    spot = torch.zeros(N, 1, 16, 16)
    spot[:, :, 4:8, 9:13] = 1
    images = torch.nn.functional.interpolate(spot, scale_factor=4).expand(-1, 3, -1, -1)
    boxes = torch.tensor([9 / 16, 4 / 16, 13 / 16, 8 / 16]).expand(N, 1, 4)
    before = Batch(images, torch.eye(2)[[0] * N], torch.zeros(N, 1), spot, boxes)
    for name in ("au_safe", "erase_crop"):
        after = AUGMENTS[name](COUNTS, ["AU1"], crop=0.6, probability=0.0)(
            before, Generator().manual_seed(0)
        )
        assert after.regions is not None
        assert after.boxes is not None
        light = after.images.mean(1)
        middle = (light.amax((1, 2)) + light.amin((1, 2))) / 2
        seen = (light > middle[:, None, None]).float()
        there = torch.nn.functional.interpolate(after.regions, scale_factor=4)[:, 0]
        differ = (seen - (there > 0.5).float()).abs().mean((1, 2))
        assert (differ < 0.06).all()
        at = (torch.arange(64) + 0.5) / 64
        x = (seen.sum(1) * at).sum(1) / seen.sum((1, 2))
        wholly = ((after.boxes[:, 0] > 0.02) & (after.boxes[:, 0] < 0.98)).all(1)
        centre = (after.boxes[:, 0, 0] + after.boxes[:, 0, 2]) / 2
        torch.testing.assert_close(x[wholly], centre[wholly], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"protect": "all"}, "protect 'all' of au_safe is not own or others"),
        ({"share": 1.5}, "share 1.5 is not a share"),
        ({"crop": 0.0}, "crop 0.0 is not a share"),
        ({"probability": -1.0}, "probability -1.0 is not"),
    ],
)
def test_what_cannot_be_is_refused(args, message) -> None:
    with pytest.raises(ValueError, match=message):
        AUGMENTS["au_safe"](COUNTS, NAMES, **args)
    with pytest.raises(ValueError, match="needs AU labels, and the data has none"):
        AUGMENTS["au_safe"](COUNTS, ())
