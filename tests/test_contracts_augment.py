"""What every augmentation and mixing rule must do. N images, K = 4, A = 6, B = 2."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from trainables.augment import AUGMENTS, MIXERS, Batch, Transform
from trainables.data.tables import region_maps

COUNTS = np.array([90, 40, 10, 6])
NAMES = ("AU1", "AU4", "AUL12", "AUR12", "AU25", "AU99")  # 99 has no box
MIRROR = [0, 1, 3, 2, 4, 5]
PLUG_INS = [*(("augment", n) for n in AUGMENTS), *(("mix", n) for n in MIXERS)]
each = pytest.mark.parametrize(("kind", "name"), PLUG_INS)


def batch(n: int = 6, is_plain: bool = False) -> Batch:
    g = Generator().manual_seed(0)
    images = torch.rand(n, 3, 32, 32, generator=g)
    aus = torch.randint(-1, 2, (n, len(NAMES)), generator=g).float()
    targets = 0.8 * torch.eye(4)[torch.arange(n) % 4] + 0.05
    if is_plain:
        return Batch(images, targets, aus)
    corner = torch.rand(n, 2, 2, generator=g) * 0.7
    return Batch(
        images,
        targets,
        aus,
        torch.from_numpy(region_maps(NAMES, 16)).expand(n, -1, -1, -1),
        torch.cat([corner, corner + 0.3], 2),
        torch.tensor(MIRROR),
    )


def transform(kind: str, name: str) -> Transform:
    if kind == "augment":
        return AUGMENTS[name](COUNTS, NAMES)
    certain = {"probability": 1.0} if "probability" in MIXERS.arguments(name) else {}
    return MIXERS[name](COUNTS, **certain)


def tensors(batch: Batch) -> dict[str, Tensor]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("registry", [AUGMENTS, MIXERS], ids=lambda r: r.kind)
def test_every_plug_in_says_what_it_is_and_has_plain_defaults(registry) -> None:
    for name in registry:
        assert registry[name].__doc__
        assert all(type(d) in (int, float, bool, str) for d in registry.arguments(name).values())
    last = list(registry)[-1]
    with pytest.raises(LookupError, match=f"Did you mean '{last}'"):
        registry[last + "x"]


@each
@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("is_plain", [True, False])
def test_shapes_types_and_ranges_are_kept(kind, name, n, is_plain) -> None:
    before = batch(n, is_plain)
    for seed in range(5):
        after = tensors(transform(kind, name)(before, Generator().manual_seed(seed)))
        assert set(after) == set(tensors(before))
        for field, value in tensors(before).items():
            assert after[field].dtype == value.dtype
            assert after[field].isfinite().all()
            if field != "mirror":
                assert after[field].shape[1:] == value.shape[1:]
                assert n <= len(after[field]) == len(after["images"])
        for field in ("images", "regions", "boxes"):
            if field in after:
                assert after[field].min() >= -1e-6
                assert after[field].max() <= 1 + 1e-6
        torch.testing.assert_close(after["targets"].sum(1), torch.ones(len(after["images"])))
        aus = after["aus"]
        assert ((aus == -1) | ((aus >= 0) & (aus <= 1))).all()
        if kind == "augment":  # of each image by itself
            assert len(after["images"]) == n
            assert torch.equal(after["targets"], before.targets)


@each
def test_boxes_are_boxes(kind, name) -> None:
    after = transform(kind, name)(batch(), Generator().manual_seed(1))
    assert after.boxes is not None
    assert (after.boxes[..., 2:] >= after.boxes[..., :2]).all()


@each
def test_the_batch_that_came_in_is_not_changed(kind, name) -> None:
    before, copy = batch(), batch()
    transform(kind, name)(before, Generator().manual_seed(1))
    for field, value in tensors(copy).items():
        assert torch.equal(tensors(before)[field], value)


@each
def test_a_generator_decides_everything(kind, name) -> None:
    torch.manual_seed(0)
    first, again, other = (
        transform(kind, name)(batch(), Generator().manual_seed(s)) for s in (3, 3, 4)
    )
    for field, value in tensors(first).items():
        assert torch.equal(tensors(again)[field], value)
    assert torch.equal(first.images, other.images) == (name == "none")
    torch.manual_seed(0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    transform(kind, name)(batch(), Generator().manual_seed(3))
    assert torch.equal(torch.rand(1), drawn)  # the global generator is not touched


@each
def test_only_sides_are_swapped_by_augmentation_and_nothing_is_unlearned(kind, name) -> None:
    before = batch()
    after = transform(kind, name)(before, Generator().manual_seed(2))
    if kind == "augment":
        turned = before.aus[:, MIRROR]
        same = (after.aus == before.aus).all(1) | (after.aus == turned).all(1)
        assert same.all()
    assert after.mirror is before.mirror
