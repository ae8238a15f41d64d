"""Splits: one picture on one side, each class on both, the same for everybody."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data import likeness, splits


def picture(seed: int, size: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 6, 6))
    return np.kron(coarse, np.ones((size // 6, size // 6))).astype(np.uint8)


def marks(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{k}".encode()).hexdigest() for k in range(count)]


def looks(pictures):
    pairs = [likeness.look(np.ascontiguousarray(p.transpose(1, 2, 0))) for p in pictures]
    return np.stack([h for h, _ in pairs]), np.stack([t for _, t in pairs])


def test_difference_hash_by_hand():
    ramp = np.broadcast_to(np.arange(72, dtype=np.uint8) * 3, (3, 72, 72))
    (plain, mirrored), thumb = likeness.look(ramp.transpose(1, 2, 0))
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
    pairs = likeness.near_pairs(*looks([picture(1), one, picture(2), other]))
    assert pairs.tolist() == [[1, 3]]


def test_different_pictures_are_not_taken_for_copies():
    assert len(likeness.near_pairs(*looks([picture(seed) for seed in range(300)]))) == 0


def test_plain_areas_of_different_colour_are_not_copies():
    plain = [np.full((3, 16, 16), level, np.uint8) for level in (0, 60, 120, 240)]
    assert len(likeness.near_pairs(*looks(plain))) == 0  # their hashes are equal, their looks not


def test_pairs_are_found_among_many():
    many = [picture(seed, 12) for seed in range(517)]
    pairs = likeness.near_pairs(*looks([*many, many[3], many[-1][:, :, ::-1]]))
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
    split_of = np.array(splits.assign(labels, np.arange(160), [None] * 160, marks(160)))
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
    assert list(splits.assign(np.arange(4), np.zeros(4, int), given_, marks(4))) == given_


@pytest.mark.parametrize(("missing", "kept"), [("val", "test"), ("test", "val")])
def test_a_missing_split_is_carved_out_of_train(missing, kept):
    given_ = ["train"] * 40 + [kept] * 10
    labels = np.array([0, 1] * 25)
    out = np.array(splits.assign(labels, np.arange(50), given_, marks(50)))
    assert (out[40:] == kept).all()
    assert np.bincount(labels[out == missing]).tolist() == [4, 4]
    assert (out[:40] == "train").sum() == 32


def test_only_a_train_folder_is_split_in_three():
    out = splits.assign(np.repeat([0, 1], 10), np.arange(20), ["train"] * 20, marks(20))
    assert set(out) == {"train", "val", "test"}


def test_order_is_drawn_from_the_seed():
    labels = np.repeat([0, 1], 50)
    draws = [
        splits.assign(labels, np.arange(100), [None] * 100, marks(100), seed=s) for s in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=80),
    st.integers(0, 5),
)
def test_no_group_stands_in_two_splits(images, seed):
    labels, groups = (np.array(column, np.int64) for column in zip(*images, strict=True))
    out = np.array(splits.assign(labels, groups, [None] * len(images), marks(len(images)), seed))
    assert set(out) <= set(splits.SHARES)
    for g in set(groups.tolist()):
        assert len(set(out[groups == g])) == 1


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_every_class_stands_in_train_and_val(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = len(labels)
    out = np.array(splits.assign(labels, np.arange(count), [None] * count, marks(count)))
    for k, n in enumerate(sizes):
        for split in ("train", "val"):
            held = int((out[labels == k] == split).sum())
            assert held >= (2 if n >= 4 else 1 if n >= 2 or split == "train" else 0)


LABELS = np.repeat([0, 1, 2], 100)


def sides(labels, pairs=(), salt="", names=None) -> dict[str, str]:
    """Content -> split."""
    names = marks(len(labels), salt) if names is None else names
    groups = splits.group(len(labels), np.array(pairs, np.int64).reshape(-1, 2))
    out = splits.assign(labels, groups, [None] * len(labels), names)
    return dict(zip(names, out, strict=True))


def moved(before, after):
    return sum(before[name] != after[name] for name in before)


def test_a_split_does_not_depend_on_the_order_of_the_files():
    order = np.random.default_rng(0).permutation(len(LABELS))
    names = marks(len(LABELS))
    assert sides(LABELS[order], names=[names[k] for k in order]) == sides(LABELS)


@pytest.mark.parametrize("salt", "abcdef")
def test_a_new_image_moves_few_others(salt):
    before = sides(LABELS, salt=salt)
    for label in range(3):  # it may come to stand anywhere in the order of its class
        after = sides(np.append(LABELS, label), salt=salt)
        assert moved(before, after) <= 2  # one over the end of val, one over that of test


@pytest.mark.parametrize("salt", "abcdef")
def test_a_new_pair_moves_few_others(salt):
    before, rng = sides(LABELS, salt=salt), np.random.default_rng(0)
    for _ in range(5):
        pair = rng.choice(100, 2, replace=False)
        assert moved(before, sides(LABELS, [pair], salt)) <= 4


def test_groups_larger_than_a_quota_stay_in_train():
    split_of = sides(np.zeros(100, int), [(0, k) for k in range(1, 50)])
    assert {split_of[name] for name in marks(50)} == {"train"}
    assert [list(split_of.values()).count(s) for s in ("train", "val", "test")] == [60, 20, 20]


def test_quotas_are_kept_where_every_picture_stands_twice():
    split_of = list(sides(np.zeros(100, int), [(k, k + 1) for k in range(0, 100, 2)]).values())
    assert [split_of.count(s) for s in ("train", "val", "test")] == [60, 20, 20]


def test_the_largest_group_goes_to_train_and_val_is_not_left_empty():
    for salt in "abcdef":  # whichever of the two comes first by content
        pairs = [(0, k) for k in range(1, 30)] + [(30, k) for k in range(31, 100)]
        split_of = list(sides(np.zeros(100, int), pairs, salt).values())
        assert split_of == ["val"] * 30 + ["train"] * 70


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.text(max_size=3))
def test_two_pictures_make_train_and_val_however_often_they_stand(sizes, salt):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    count = len(groups)
    out = splits.assign(np.zeros(count, int), groups, [None] * count, marks(count, ascii(salt)))
    assert {"train", "val"} <= set(out)


def test_two_large_groups_still_make_a_validation_split():
    pairs = [(0, k) for k in range(1, 5)] + [(5, k) for k in range(6, 10)]
    assert sorted(sides(np.zeros(10, int), pairs).values()) == ["train"] * 5 + ["val"] * 5


def test_a_picture_looks_the_same_whatever_the_size_of_its_file():
    files = [picture(k, 48) for k in range(5)] + [picture(k, 960) for k in range(5)]
    assert likeness.near_pairs(*looks(files)).tolist() == [[k, k + 5] for k in range(5)]


def test_pairs_of_equal_content_are_not_told_again_as_alike():
    one = picture(0)
    exact, near = splits.alike(["a", "b", "a"], *looks([one, one[:, :, ::-1], one]))
    assert (exact.tolist(), near.tolist()) == ([[0, 2]], [[0, 1], [1, 2]])


def test_what_is_not_sought_is_told():
    assert splits.unsought(splits.MOST_IMAGES) == []
    assert "Above 100,000 images not all pairs" in splits.unsought(100_001)[0]


def test_known_splits_lie_beside_each_other_and_others_by_their_content():
    marks = ["d", "c", "b", "a", "e", "f"]
    given = ["test", "train", "val", "train", "train", "test"]
    assert splits.ordered(given, marks).tolist() == [1, 3, 4, 2, 0, 5]
    assert splits.ordered([None] * 6, marks).tolist() == [3, 2, 1, 0, 4, 5]
    without_val = [None if split == "val" else split for split in given]
    assert splits.ordered(without_val, marks).tolist() == [3, 1, 4, 0, 5, 2]  # train may be moved
