"""Splits: one picture on one side, each class on both, the same for everybody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data import splits


def picture(seed: int, size: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 6, 6))
    return np.kron(coarse, np.ones((size // 6, size // 6))).astype(np.uint8)


def looks(pictures):
    pairs = [splits.look(p) for p in pictures]
    return np.stack([h for h, _ in pairs]), np.stack([t for _, t in pairs])


def test_difference_hash_by_hand():
    ramp = np.broadcast_to(np.arange(72, dtype=np.uint8) * 3, (3, 72, 72))
    (plain, mirrored), thumb = splits.look(ramp)
    assert (int(plain), int(mirrored)) == (2**64 - 1, 0)  # brighter to the right everywhere
    assert thumb.shape == (8, 8, 3)


@pytest.mark.parametrize("change", ["mirrored", "brighter", "noisy", "softer", "identical"])
def test_copies_of_a_picture_are_found(change):
    one = picture(0)
    noise = np.random.default_rng(9).normal(0, 4, one.shape)
    other = {
        "identical": one,
        "mirrored": one[:, :, ::-1],
        "brighter": np.clip(one.astype(int) + 6, 0, 255).astype(np.uint8),
        "noisy": np.clip(one + noise, 0, 255).astype(np.uint8),
        "softer": (one // 2 + np.roll(one, 1, 2) // 2).astype(np.uint8),
    }[change]
    pairs = splits.near_pairs(*looks([picture(1), one, picture(2), other]))
    assert pairs.tolist() == [[1, 3]]


def test_different_pictures_are_not_taken_for_copies():
    assert len(splits.near_pairs(*looks([picture(seed) for seed in range(300)]))) == 0


def test_plain_areas_of_different_colour_are_not_copies():
    plain = [np.full((3, 16, 16), level, np.uint8) for level in (0, 60, 120, 240)]
    assert len(splits.near_pairs(*looks(plain))) == 0  # their hashes are equal, their looks not


def test_pairs_are_found_across_blocks():
    many = [picture(seed, 12) for seed in range(splits._BLOCK + 5)]
    pairs = splits.near_pairs(*looks([*many, many[3], many[-1][:, :, ::-1]]))
    assert pairs.tolist() == [[3, len(many)], [len(many) - 1, len(many) + 1]]


def test_exact_pairs_join_all_of_a_kind():
    assert splits.exact_pairs(["a", "b", "a", "c", "a"]).tolist() == [[0, 2], [0, 4]]
    assert splits.exact_pairs(["a", "b"]).shape == (0, 2)


def test_groups_reach_through_others():
    groups = splits.group(5, np.array([[0, 1], [1, 4]]))
    assert groups[0] == groups[1] == groups[4]
    assert len(set(groups.tolist())) == 3


def test_shares_are_60_20_20_in_each_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    split_of = np.array(splits.assign(labels, np.arange(160), [None] * 160))
    counts = {s: np.bincount(labels[split_of == s]).tolist() for s in splits.SHARES}
    assert counts == {"train": [60, 30, 6], "val": [20, 10, 2], "test": [20, 10, 2]}


@pytest.mark.parametrize(
    ("count", "train", "val", "test"),
    [(1, 1, 0, 0), (2, 1, 1, 0), (3, 2, 1, 0), (4, 2, 2, 0), (5, 2, 2, 1), (6, 3, 2, 1)],
)
def test_two_images_in_train_and_val_come_before_one_in_test(count, train, val, test):
    quota = splits.quotas(count, ["val", "test"])
    assert quota == {"train": train, "val": val, "test": test}


def test_official_splits_are_never_changed():
    given_ = ["train", "test", "val", "train"]
    assert list(splits.assign(np.arange(4), np.zeros(4, int), given_)) == given_


@pytest.mark.parametrize(("missing", "kept"), [("val", "test"), ("test", "val")])
def test_a_missing_split_is_carved_out_of_train(missing, kept):
    given_ = ["train"] * 40 + [kept] * 10
    labels = np.array([0, 1] * 25)
    out = np.array(splits.assign(labels, np.arange(50), given_))
    assert (out[40:] == kept).all()
    assert np.bincount(labels[out == missing]).tolist() == [4, 4]
    assert (out[:40] == "train").sum() == 32


def test_only_a_train_folder_is_split_in_three():
    out = splits.assign(np.repeat([0, 1], 10), np.arange(20), ["train"] * 20)
    assert set(out) == {"train", "val", "test"}


def test_order_is_drawn_from_the_seed():
    labels = np.repeat([0, 1], 50)
    draws = [splits.assign(labels, np.arange(100), [None] * 100, seed=s) for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=80),
    st.integers(0, 5),
)
def test_no_group_stands_in_two_splits(images, seed):
    labels, groups = (np.array(column, np.int64) for column in zip(*images, strict=True))
    out = np.array(splits.assign(labels, groups, [None] * len(images), seed))
    assert set(out) <= set(splits.SHARES)
    for g in set(groups.tolist()):
        assert len(set(out[groups == g])) == 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_every_class_stands_in_train_and_val(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    out = np.array(splits.assign(labels, np.arange(len(labels)), [None] * len(labels)))
    for k, n in enumerate(sizes):
        for split in ("train", "val"):
            held = int((out[labels == k] == split).sum())
            assert held >= (2 if n >= 4 else 1 if n >= 2 or split == "train" else 0)
