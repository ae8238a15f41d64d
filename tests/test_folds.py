"""Folds: every image validates once, copies stay together, classes are spread, test is left out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import draw

from trainables.config import Part, TrialConfig
from trainables.data import cache, manifest
from trainables.data.bundle import DataBundle, Split
from trainables.data.folds import deal, fold_of, undivided
from trainables.data.pixels import Chosen
from trainables.features.trial import run as run_features
from trainables.trial import Training


def bundle_of(labels, groups=None, border=None, names=None) -> DataBundle:
    """A data set without faces; the images from `border` on are those of validation."""
    labels = np.array(labels)
    count, border = len(labels), len(labels) * 2 // 3 if border is None else border
    names = names or [f"i{k}" for k in range(count)]
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((3, 2, 2), np.uint8)
    groups = np.arange(count) if groups is None else np.array(groups)

    def part(rows):
        chosen = np.arange(count)[rows]
        return Split(
            images[rows],
            labels[rows],
            np.full((len(chosen), 1), -1, np.int8),
            tuple(names[k] for k in chosen),
            None,
            groups=groups[rows],
        )

    empty = Split(images[:0], labels[:0], np.zeros((0, 1), np.int8), ())
    classes = tuple(f"c{k}" for k in range(labels.max() + 1))
    train, val = part(slice(0, border)), part(slice(border, None))
    return DataBundle("toy", train, val, empty, classes, ("AU1",), "0")


def with_fold(fold: int, folds: int = 3, **settings) -> TrialConfig:
    return TrialConfig(folds=folds, fold=fold, **settings)


def test_each_image_validates_in_one_fold_and_trains_in_all_others():
    bundle = bundle_of([0, 1, 2] * 12)
    parts = [fold_of(bundle, with_fold(fold)) for fold in range(3)]
    everybody = {*bundle.train.ids, *bundle.val.ids}
    assert sorted(name for part in parts for name in part.val.ids) == sorted(everybody)
    for part in parts:
        assert {*part.train.ids, *part.val.ids} == everybody
        assert not {*part.train.ids} & {*part.val.ids}


def test_a_part_has_the_pixels_labels_and_groups_of_its_names():
    bundle = bundle_of([0, 1] * 15, groups=np.arange(30) // 2 + 7)
    part = fold_of(bundle, with_fold(1))
    for split in (part.train, part.val):
        number = np.array([int(name[1:]) for name in split.ids])
        assert (np.array(split.images)[:, 0, 0, 0] == number).all()
        assert (split.labels == number % 2).all()
        assert (split.groups == number // 2 + 7).all()


@given(
    labels=st.lists(st.integers(0, 3), min_size=12, max_size=80),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_without_groups_folds_differ_by_one_image_of_a_class_at_the_most(labels, folds, seed):
    bundle = bundle_of(labels)
    dealt = deal(bundle, folds, seed)
    for k in range(max(labels) + 1):
        counts = np.bincount(dealt[np.array(labels) == k], minlength=folds)
        assert np.ptp(counts) <= 1


@given(labels=st.lists(st.integers(0, 2), min_size=30, max_size=60), seed=st.integers(0, 2**32 - 1))
def test_groups_stay_together(labels, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, len(labels) // 2, len(labels))
    dealt = deal(bundle_of(labels, groups), 3)
    for group in np.unique(groups):
        assert len(set(dealt[groups == group].tolist())) == 1
    assert np.ptp(np.bincount(dealt, minlength=3)) <= len(labels) // 3


def test_the_order_of_the_images_and_their_official_split_move_none():
    labels, groups = np.arange(40) % 4, np.arange(40) // 2
    mixed = np.random.default_rng(0).permutation(40)
    names = [f"i{k}" for k in range(40)]
    one = bundle_of(labels, groups, names=names)
    other = bundle_of(
        labels[mixed], groups[mixed], border=11, names=[names[k] for k in mixed.tolist()]
    )
    assert (deal(one, 4)[mixed] == deal(other, 4)).all()


def test_another_fold_seed_deals_other_folds_and_the_same_one_the_same():
    bundle = bundle_of([0, 1, 2] * 12)
    assert (deal(bundle, 3, 1) == deal(bundle, 3, 1)).all()
    assert (deal(bundle, 3, 1) != deal(bundle, 3, 2)).any()


def test_one_fold_is_the_split_of_the_data_set():
    bundle = bundle_of([0, 1] * 9)
    assert fold_of(bundle, TrialConfig()) is bundle


@pytest.mark.parametrize(
    ("folds", "fold", "told"),
    [(3, 3, "fold 3 is not among 3 folds"), (1, 1, "set folds"), (0, 0, "give 1"), (99, 0, "20")],
)
def test_a_fold_that_there_is_not_is_refused(folds, fold, told):
    with pytest.raises(ValueError, match=told):
        fold_of(bundle_of([0, 1] * 9), TrialConfig(folds=folds, fold=fold))


def test_too_few_different_images_are_refused():
    with pytest.raises(ValueError, match="too few, or too much alike, for 3 folds"):
        fold_of(bundle_of([0, 1] * 9, groups=np.arange(18) // 9), with_fold(0))


def test_a_class_of_one_person_is_told():
    bundle = bundle_of([0, 0, 0, 1, 1, 1, 2], [0, 1, 2, 3, 3, 3, 4])
    assert undivided(bundle, TrialConfig(folds=2)) == ["c1", "c2"]


def test_a_view_is_indexed_like_the_array_it_stands_for():
    first, second = np.random.default_rng(0).integers(0, 256, (2, 9, 3, 4, 4), np.uint8)
    rows = np.array([8, 0, 17, 9, 3])
    view, whole = Chosen(first, second, rows), np.concatenate([first, second])[rows]
    assert view.shape == whole.shape
    assert view.nbytes == whole.nbytes
    assert len(view) == 5
    every = slice(None)
    thin = (every, every, slice(None, None, 2), slice(1, None))
    mirrored = (..., slice(None, None, -1))
    for key in (slice(1, 4), slice(3, 99), np.array([4, 0, 0]), 2, slice(5, None), thin, mirrored):
        assert np.array_equal(view[key], whole[key])
    assert np.array_equal(np.array(view), whole)
    assert np.array_equal(np.stack(list(view)), whole)


def test_a_repeat_under_another_fold_or_seed_is_of_the_same_configuration():
    one = TrialConfig()
    assert one.group_id == replace(one, seed=4, folds=5, fold=2, fold_seed=9).group_id
    assert one.group_id != replace(one, lr=0.5).group_id
    assert one.trial_id != replace(one, folds=5).trial_id


# --- groups of a real data set ---------------------------------------------------------------


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A manifest of 36 pictures: two are mirrored copies of others, four are of one person."""
    root = tmp_path_factory.mktemp("album")
    lines = ["path,label,split,subject"]
    for k in range(36):
        draw(root / f"{k}.png", k)
        split = ("train", "train", "val", "test")[k % 4] if k < 32 else "train"
        lines.append(f"{k}.png,{'ab'[k % 2]},{split},{'anna' if k in (1, 2, 9, 10) else ''}")
    import cv2

    for k in (4, 5):
        image = cv2.imread(str(root / f"{k}.png"))
        cv2.imwrite(str(root / f"m{k}.png"), image[:, ::-1])
        lines.append(f"m{k}.png,{'ab'[k % 2]},val,")
    (root / "manifest.csv").write_text("\n".join(lines))
    return root


def test_mirrored_copies_and_one_persons_images_share_a_fold(album, tmp_path):
    bundle = cache.load(cache.prepare(str(album), 32, cache_root=tmp_path))
    names = [*bundle.train.ids, *bundle.val.ids]
    for seed in range(4):
        fold = dict(zip(names, deal(bundle, 3, seed).tolist(), strict=True))
        assert fold["4.png"] == fold["m4.png"]
        assert fold["5.png"] == fold["m5.png"]
        assert len({fold[f"{k}.png"] for k in (1, 2, 9, 10)}) == 1
    assert bundle.test.groups is None
    assert not {"3.png", "7.png"} & {*names}


def test_a_split_that_is_made_keeps_a_person_on_one_side(tmp_path):
    lines = ["path,label,subject"]
    for k in range(60):
        draw(tmp_path / f"{k}.png", k)
        lines.append(f"{k}.png,{'ab'[k % 2]},p{k % 20}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    bundle = cache.load(cache.prepare(str(tmp_path), 32, cache_root=tmp_path / "cache"))
    sides = [{int(name[:-4]) % 20 for name in s.ids} for s in (bundle.train, bundle.val)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert manifest.read(tmp_path).rows[3].subject == "p3"


# --- trials on folds -------------------------------------------------------------------------


def test_a_network_is_trained_and_scored_on_its_fold(faces):
    bundle = cache.load(faces)
    config = with_fold(1, epochs=1, batch_size=128, image_size=48)
    training = Training(config, bundle)
    own = fold_of(bundle, config)
    assert training.bundle.val.ids == own.val.ids
    row = training.run_epoch()
    assert row["images"] == len(own.train) == len(bundle.train) + len(bundle.val) - len(own.val)
    assert training.val.ids == own.val.ids
    assert (training.val.labels >= 0).all()


def test_features_are_computed_once_for_all_folds(faces):
    config = TrialConfig(
        features=Part("hog"), classifier=Part("lda"), image_size=48, augment=Part("none")
    )
    bundle = cache.load(faces)
    ids, at = [], faces.parent
    run_features(config, faces)
    before = sorted(path.name for path in at.glob("features-*"))
    for fold in range(3):
        row, left = run_features(replace(config, folds=3, fold=fold), faces)
        own = fold_of(bundle, with_fold(fold))
        assert left.val.ids == own.val.ids
        assert row["images"] == len(own.train)
        ids += left.val.ids
    assert sorted(ids) == sorted((*bundle.train.ids, *bundle.val.ids))
    assert sorted(path.name for path in at.glob("features-*")) == before
