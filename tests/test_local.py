"""The local branch: its boxes, how they move, and pooling against crops by hand."""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from trainables.augment import Batch
from trainables.config import TrialConfig
from trainables.data.tables import AU_NAMES, box_around, region_maps
from trainables.feed import make_feed
from trainables.geometry import flip, flip_and_affine
from trainables.local import LOCALS, LocalBranch, local_of, pool_boxes, shaken
from trainables.mixing import cutmix, mixup
from trainables.model import FERModel, build_model

C, D = 16, 24
BRANCHES = [name for name in LOCALS if name != "none"]


def branch(name: str = "face", **arguments: object) -> LocalBranch:
    torch.manual_seed(0)
    return LocalBranch(LOCALS[name](0, **arguments), C, D)


def feature_map(size: int = 8) -> Tensor:
    return torch.randn(3, C, size, size, generator=Generator().manual_seed(1))


def ramp(size: int = 10) -> Tensor:
    """(1, 2, S, S): each cell holds its centre, x and y as shares of the side."""
    at = (torch.arange(size) + 0.5) / size
    return torch.stack([at.expand(size, size), at[:, None].expand(size, size)])[None]


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("boxes", [3, 5])
def test_boxes_lie_within_the_image(name: str, boxes: int) -> None:
    found = LOCALS[name](7, boxes=boxes).boxes
    assert found.shape == (boxes, 4)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= 1).all()
    assert (found[:, 2:] - found[:, :2] > 0.1).all()


def test_boxes_hold_the_regions_of_their_action_units() -> None:
    eyes, nose, mouth = LOCALS["face"](0).boxes
    maps = dict(zip(AU_NAMES, torch.from_numpy(region_maps(AU_NAMES, 100)), strict=True))
    for box, unit in ((eyes, "AU5"), (eyes, "AU2"), (nose, "AU9"), (mouth, "AU12")):
        x0, y0, x1, y1 = (round(100 * float(v)) for v in box)
        inside = maps[unit][y0:y1, x0:x1].sum()
        assert inside / maps[unit].sum() > 0.98  # edges are rounded
    assert maps["AU12"][: round(100 * float(eyes[3]))].sum() == 0  # and none of other parts


def test_five_boxes_take_the_eyes_apart_by_the_subjects_side() -> None:
    right, left = LOCALS["face"](0, boxes=5).boxes[:2]
    assert right[2] == pytest.approx(0.5)  # the subject's right is on the left of the image
    assert left[0] == pytest.approx(0.5)
    torch.testing.assert_close(1 - right[[2, 0]], left[[0, 2]])
    assert box_around((1, 2), "L")[0] == 0.5


def test_other_numbers_of_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 or 5 boxes, not 4"):
        LOCALS["face"](0, boxes=4)


def test_control_has_boxes_of_the_same_sizes_at_places_of_the_seed() -> None:
    def sizes(boxes: Tensor) -> Tensor:
        return boxes[:, 2:] - boxes[:, :2]

    face, one, again, other = (
        LOCALS[n](s).boxes
        for n, s in (("face", 0), ("anywhere", 1), ("anywhere", 1), ("anywhere", 2))
    )
    torch.testing.assert_close(sizes(one), sizes(face))
    assert torch.equal(one, again)
    assert (one - other).abs().min() > 0.001


# --- pooling -------------------------------------------------------------------------------------


def test_pooling_a_linear_ramp_gives_the_centres_of_the_cells() -> None:
    boxes = torch.tensor([[[0.2, 0.1, 0.8, 0.4], [0.35, 0.5, 0.65, 0.9]]])
    cells = pool_boxes(ramp(), boxes, 3)
    for k, (x0, y0, x1, y1) in enumerate(boxes[0].tolist()):
        steps = (torch.arange(3) + 0.5) / 3
        columns, rows = x0 + (x1 - x0) * steps, y0 + (y1 - y0) * steps
        torch.testing.assert_close(cells[0, k, 0], columns.expand(3, 3))
        torch.testing.assert_close(cells[0, k, 1], rows[:, None].expand(3, 3))


def test_pooling_a_box_of_whole_cells_is_the_mean_of_the_crop() -> None:
    # on a ramp, interpolation between cell centres and the mean over cells are the same
    box = torch.tensor([[[0.2, 0.3, 0.8, 0.9]]])
    crop = ramp()[:, :, 3:9, 2:8]
    torch.testing.assert_close(pool_boxes(ramp(), box, 1)[0, 0, :, 0, 0], crop.mean((0, 2, 3)))
    thirds = crop.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(pool_boxes(ramp(), box, 3)[0, 0], thirds[0])


def test_pooling_takes_maps_that_are_not_square() -> None:
    wide = ramp(12)[:, :, :6] * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)  # half as high
    box = torch.tensor([[[0.25, 0.25, 0.75, 0.75]]])
    torch.testing.assert_close(pool_boxes(wide, box, 1).flatten(), torch.tensor([0.5, 0.5]))


# --- the branch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BRANCHES)
def test_branch_learns_with_every_parameter_and_starts_small(name: str) -> None:
    module = branch(name)
    added = module(feature_map())
    assert added.shape == (3, D)
    assert added.std() < 0.1  # beside a normalised embedding of 1
    (added * torch.randn_like(added)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_branch_sees_its_boxes_and_nothing_else() -> None:
    module, x = branch("face", boxes=3).eval(), feature_map(20)
    x0, y0, x1, _ = (round(20 * float(v)) for v in module.boxes[2])  # the mouth
    above, at, other = x.clone(), x.clone(), torch.randn(C, 1, 1)
    above[:, :, :2] += other  # over the brows
    at[:, :, y0:, x0:x1] += other
    assert not torch.allclose(module(at), module(x), atol=1e-3)
    torch.testing.assert_close(module(above), module(x))


def test_branch_is_certain_in_use_and_shaken_in_training() -> None:
    module, x = branch("face", drop=0.0), feature_map()
    assert not torch.equal(module(x), module(x))
    assert torch.equal(module.eval()(x), module(x))
    still = branch("face", jitter=0.0, drop=0.0)
    assert torch.equal(still(x), still(x))


def test_jitter_moves_boxes_by_no_more_than_it_says_and_never_out() -> None:
    boxes = LOCALS["face"](0, boxes=5).boxes.expand(200, -1, -1)
    torch.manual_seed(0)
    moved = shaken(boxes, 0.05) - boxes
    assert 0.04 < moved.abs().max() <= 0.05 + 1e-6
    torch.testing.assert_close(moved[..., :2], moved[..., 2:])  # sizes are kept
    assert (boxes + moved).min() >= 0
    assert (boxes + moved).max() <= 1


def test_dropped_boxes_are_the_share_asked_for() -> None:
    module = branch("face", jitter=0.0, drop=0.5)
    torch.nn.init.ones_(module.project.weight)
    x = feature_map(4)[:1].expand(400, -1, -1, -1)
    torch.manual_seed(0)
    added = module(x).sum(1)
    kept_all = added == added.max()
    assert len(added.unique()) > 4  # which of three boxes are seen
    assert 0.05 < kept_all.float().mean() < 0.2  # 1 / 8


# --- boxes travel with the picture ---------------------------------------------------------------


def picture(boxes: Tensor, size: int = 64) -> Batch:
    """Images that are white in their one box."""
    at = (torch.arange(size) + 0.5) / size
    x0, y0, x1, y1 = boxes.unbind(2)  # (N, 1)
    columns, rows = (at >= x0) & (at < x1), (at >= y0) & (at < y1)
    white = (rows[:, :, None] & columns[:, None, :]).float()[:, None].expand(-1, 3, -1, -1)
    n = len(boxes)
    return Batch(white, torch.eye(n), torch.zeros(n, 0), boxes=boxes)


def centre_of(images: Tensor) -> Tensor:
    """(N, 2) where the white of each image is, x and y."""
    at = (torch.arange(images.shape[-1]) + 0.5) / images.shape[-1]
    mass = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    return torch.stack([(mass * at).sum((1, 2)), (mass * at[:, None]).sum((1, 2))], 1)


def test_flip_takes_the_box_along() -> None:
    boxes = torch.tensor([[[0.125, 0.25, 0.375, 0.75]]]).repeat(20, 1, 1)
    after = flip(picture(boxes), Generator().manual_seed(0))
    assert after.boxes is not None
    torch.testing.assert_close(
        centre_of(after.images), (after.boxes[:, 0, :2] + after.boxes[:, 0, 2:]) / 2
    )
    lefts = after.boxes[:, 0, 0]
    assert set(lefts.tolist()) == {0.125, 0.625}
    torch.testing.assert_close(
        after.boxes[..., 2:] - after.boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    )


def test_flip_and_affine_takes_the_box_along() -> None:
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 0.75]]]).repeat(16, 1, 1)
    change = flip_and_affine(degrees=15, scale=0.12, shift=0.06)
    after = change(picture(boxes), Generator().manual_seed(1))
    assert after.boxes is not None
    middle = (after.boxes[:, 0, :2] + after.boxes[:, 0, 2:]) / 2
    torch.testing.assert_close(centre_of(after.images), middle, atol=0.005, rtol=0)
    assert (middle - torch.tensor([0.375, 0.625])).abs().max() > 0.03
    sides = after.boxes[:, 0, 2:] - after.boxes[:, 0, :2]
    areas = after.images[:, 0].mean((1, 2))
    torch.testing.assert_close(sides.prod(1), areas, atol=0.004, rtol=0)


@pytest.mark.parametrize("mixer", [mixup, cutmix])
def test_mixing_keeps_the_boxes_of_the_first_image(mixer) -> None:
    boxes = torch.rand(4, 1, 4).sort(2).values
    before = picture(boxes[..., [0, 1, 2, 3]])
    after = mixer(np.ones(4, int), probability=1.0)(before, Generator().manual_seed(0))
    assert after.boxes is before.boxes


# --- in the network ------------------------------------------------------------------------------


def build(**settings: object) -> FERModel:
    torch.manual_seed(0)
    flat = {"backbone": "test_resnet", **settings}
    return build_model(TrialConfig.from_flat(flat), 7, 0)


def test_branch_changes_a_network_little_at_the_start_and_somewhat() -> None:
    images = torch.rand(4, 3, 64, 64)
    model = build(local="face").eval()
    beside, model.local = model.local, None
    without = model(images).embedding
    model.local = beside
    change = (model(images).embedding - without).norm() / without.norm()
    assert 0.001 < change < 0.1


def test_boxes_given_are_the_boxes_looked_at() -> None:
    images, model = torch.rand(4, 3, 64, 64), build(local="face").eval()
    own = model.local.boxes.expand(4, -1, -1)
    assert torch.equal(model(images, own).logits, model(images).logits)
    assert not torch.equal(model(images, own.flip(1)).logits, model(images).logits)


def test_network_and_feed_agree_on_the_boxes_of_the_control(faces) -> None:
    from trainables.data import cache

    config = TrialConfig.from_flat({"backbone": "test_resnet", "local": "anywhere", "seed": 5})
    feed = make_feed(config, cache.load(faces), torch.device("cpu"))
    model = build_model(config, 14, 20)
    assert torch.equal(feed.boxes, model.local.boxes)
    assert torch.equal(feed.boxes, local_of(config).boxes)


def test_without_a_branch_nothing_is_fed_or_built(faces) -> None:
    from trainables.data import cache

    config = TrialConfig.from_flat({"backbone": "test_resnet"})
    assert make_feed(config, cache.load(faces), torch.device("cpu")).boxes is None
    assert build().local is None
