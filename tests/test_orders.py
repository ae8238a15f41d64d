"""Orders from easy to hard, by hand, and the reference classifier with its file."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest

from trainables import reference
from trainables.data import cache
from trainables.data.bundle import DataBundle, Split
from trainables.orders import ORDERS, easy_to_hard
from trainables.reference import folds, out_of_fold_losses, reference_losses


def bundle_of(labels, aus, votes=None) -> DataBundle:
    labels, aus = np.array(labels), np.array(aus, np.int8)
    count = len(labels)
    images = np.zeros((count, 3, 4, 4), np.uint8)
    ids = tuple(map(str, range(count)))
    votes = None if votes is None else np.array(votes, np.float32)
    split = Split(images, labels, aus, ids, votes)
    names = tuple(f"class {k}" for k in range(labels.max() + 1))
    units = tuple(f"AU{k}" for k in range(aus.shape[1]))
    return DataBundle("toy", split, split, split, names, units, "f")


def test_majority_comes_first_or_last() -> None:
    bundle = bundle_of([0, 0, 0, 1, 2, 2], np.zeros((6, 0)))
    labels, rng = bundle.train.labels, np.random.default_rng(0)
    first = easy_to_hard(bundle, "class_count", False, rng)
    assert labels[first].tolist() == [0, 0, 0, 2, 2, 1]
    last = easy_to_hard(bundle, "class_count", True, rng)
    assert labels[last].tolist() == [1, 2, 2, 0, 0, 0]


def test_distance_to_the_au_prototype_by_hand() -> None:
    # one class, one AU: shown by 3 of 4. P = (3 + 15 * 3/4) / (4 + 15) = 3/4
    bundle = bundle_of([0, 0, 0, 0, 0], [[1], [1], [1], [0], [-1]])
    found = ORDERS["au_prototype"](bundle)
    assert found[:4] == pytest.approx([1 / 16, 1 / 16, 1 / 16, 9 / 16])
    assert found[4] == pytest.approx(1 / 16)  # nothing is known of it: the median


def test_prototypes_are_of_the_class_and_unknown_aus_do_not_count() -> None:
    aus = [[1, 0], [1, -1], [0, 1], [1, 0]]
    bundle = bundle_of([0, 0, 1, 1], aus)
    found = ORDERS["au_prototype"](bundle)
    first = (2 + 15 * 3 / 4) / 17  # AU0 in class 0; of AU1 one of three faces shows it
    second = (0 + 15 * 1 / 3) / 16
    assert found[0] == pytest.approx(((1 - first) ** 2 + second**2) / 2)
    assert found[1] == pytest.approx((1 - first) ** 2)


def test_entropy_of_the_crowd_by_hand() -> None:
    votes = [[4, 0, 0], [1, 1, 0], [0, 0, 0], [3, 1, 0]]
    found = ORDERS["crowd_entropy"](bundle_of([0, 0, 0, 0], np.zeros((4, 0)), votes))
    three_to_one = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found == pytest.approx([0, math.log(2), three_to_one, three_to_one])  # no votes: median


@pytest.mark.parametrize(
    ("name", "message"),
    [("au_prototype", "needs AU labels"), ("crowd_entropy", "needs crowd votes")],
)
def test_what_the_data_does_not_tell_is_refused(name: str, message: str) -> None:
    bundle = bundle_of([0, 1], np.full((2, 1), -1), np.zeros((2, 2)))
    for blind in (bundle, replace(bundle, train=replace(bundle.train, distributions=None))):
        with pytest.raises(ValueError, match=message):
            ORDERS[name](blind)


# --- the reference classifier --------------------------------------------------------------------


@pytest.fixture
def bundle(faces, tmp_path) -> DataBundle:
    """The faces, with a folder of their own."""
    return replace(cache.load(faces), folder=tmp_path)


def test_folds_share_each_class_evenly() -> None:
    labels = np.repeat([0, 1, 2], [50, 7, 1])
    fold = folds(labels, 5, np.random.default_rng(0))
    counts = np.array([np.bincount(fold[labels == k], minlength=5) for k in range(3)])
    assert (counts.max(1) - counts.min(1) <= 1).all()


def test_images_of_a_wrong_label_are_hard(bundle) -> None:
    labels = bundle.train.labels.copy()
    frequent = np.flatnonzero(labels == np.bincount(labels).argmax())
    wrong = frequent[:8]
    labels[wrong] = np.bincount(labels).argsort()[-2]
    losses = out_of_fold_losses(replace(bundle, train=replace(bundle.train, labels=labels)))
    assert losses[wrong].mean() > losses[frequent[8:]].mean() + 0.5


def test_an_image_that_is_there_again_is_not_seen_by_its_copy(bundle) -> None:
    train, rng = bundle.train, np.random.default_rng(0)
    labels = rng.permutation(train.labels)  # nothing can be learned but by heart
    again = np.arange(0, len(labels), 2)
    twice = replace(
        train,
        images=np.concatenate([train.images, train.images[again]]),
        labels=np.concatenate([labels, labels[again]]),
        ids=(*train.ids, *(f"repeated/{train.ids[k]}" for k in again)),
    )
    losses = out_of_fold_losses(replace(bundle, train=twice))
    copied, alone = losses[again], losses[1 : len(labels) : 2]
    assert copied.mean() > alone.mean() - 0.5
    np.testing.assert_allclose(losses[len(labels) :], copied, rtol=1e-4)


def test_a_class_of_one_image_is_the_hardest(bundle) -> None:
    labels = np.where(np.arange(len(bundle.train)) == 5, 1, 0)
    losses = out_of_fold_losses(replace(bundle, train=replace(bundle.train, labels=labels)))
    assert losses.argmax() == 5
    assert losses[5] == pytest.approx(-math.log(reference.LEAST_CHANCE))


def test_losses_are_computed_once_for_a_data_set(bundle, tmp_path, monkeypatch, caplog) -> None:
    computed = list[DataBundle]()

    def compute(of: DataBundle) -> np.ndarray:
        computed.append(of)
        return np.arange(len(of.train)) + 0.5

    monkeypatch.setattr(reference, "out_of_fold_losses", compute)
    first = reference_losses(bundle)
    np.testing.assert_array_equal(reference_losses(bundle), first)
    assert len(computed) == 1
    (file,) = tmp_path.iterdir()  # nothing half written is left
    reference_losses(replace(bundle, train=replace(bundle.train, labels=bundle.train.labels[::-1])))
    assert len(computed) == 2  # other labels, other losses
    file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(reference_losses(bundle), first)
    assert len(computed) == 3
    assert "cannot be read and is made anew" in caplog.text
    assert reference_losses(replace(bundle, folder=None)).shape == first.shape


def test_a_cache_that_cannot_be_written_is_done_without(bundle, monkeypatch, caplog) -> None:
    def full(*_) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(reference, "replace_file", full)
    monkeypatch.setattr(reference, "out_of_fold_losses", lambda b: np.zeros(len(b.train)))
    assert len(reference_losses(bundle)) == len(bundle.train)
    assert "cannot be kept" in caplog.text


def test_a_prepared_data_set_is_whole_with_the_losses_beside_it(faces) -> None:
    reference_losses(cache.load(faces))
    assert cache.load(faces).folder == faces
    assert list(faces.glob("reference_losses-*.npz"))
