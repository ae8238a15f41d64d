"""The scores against scikit-learn, or by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from trainables import metrics


def draw(seed: int, classes: int = 5, images: int = 200) -> tuple[NDArray[np.int64], ...]:
    rng = np.random.default_rng(seed)
    return rng.integers(classes - 1, size=images), rng.integers(classes, size=images)


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    labels, said = draw(seed)  # class 4 is predicted but never true
    present = list(range(4))
    assert (metrics.confusion(labels, said, 5) == sk.confusion_matrix(labels, said)).all()
    recall = sk.recall_score(labels, said, average=None, labels=present)
    assert metrics.Tallies.of(labels, said, 5).recalls[:4] == pytest.approx(recall)
    assert metrics.uar(labels, said, 5) == pytest.approx(recall.mean())
    assert metrics.accuracy(labels, said) == pytest.approx(sk.accuracy_score(labels, said))
    f1 = sk.f1_score(labels, said, average="macro", labels=present)
    assert metrics.macro_f1(labels, said, 5) == pytest.approx(f1)


def test_a_class_without_images_has_no_recall() -> None:
    tallies = metrics.Tallies.of(np.array([0, 0]), np.array([0, 1]), 3)
    assert np.isnan(tallies.recalls).tolist() == [False, True, True]
    assert np.isnan(tallies.f1_scores).tolist() == [False, False, True]


def test_a_rare_class_is_left_out_of_the_score_but_its_false_positives_count() -> None:
    labels = np.repeat([0, 1, 2], [20, 20, 3])
    probs = np.eye(3)[labels].astype(np.float32)
    probs[-3:] = [1, 0, 0]  # all of class 2 is called class 0
    first = 2 * 20 / (2 * 20 + 3)
    scores = metrics.scores(labels, probs)
    assert scores["score"] == pytest.approx((first + 1) / 2)
    assert scores["macro_f1_all"] == pytest.approx((first + 1 + 0) / 3)


def test_all_present_classes_count_where_none_has_enough_images() -> None:
    assert metrics.supported(np.array([0, 2, 2]), 4).tolist() == [True, False, True, False]


def test_nll_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(4), 50), rng.integers(4, size=50)
    expected = sk.log_loss(labels, probs, labels=range(4))
    assert metrics.nll(labels, probs) == pytest.approx(expected)


def test_nll_of_an_impossible_class_is_finite() -> None:
    assert metrics.nll(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-np.log(1e-7))


def test_calibration_error_by_hand() -> None:
    # two bins of two images: confidence .6 and .9, of which half and all are right
    probs = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    labels = np.array([0, 1, 0, 0])
    value = metrics.expected_calibration_error(labels, probs, bins=2)
    assert value == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)


def test_calibration_error_of_a_calibrated_model_is_small() -> None:
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1, 20_000)
    labels = (rng.random(20_000) > sure).astype(np.int64)
    assert metrics.expected_calibration_error(labels, np.stack([sure, 1 - sure], 1)) < 0.02


def test_au_f1_agrees_with_scikit_learn_where_units_are_known() -> None:
    rng = np.random.default_rng(2)
    aus = rng.integers(-1, 2, size=(100, 6)).astype(np.int8)
    probs = rng.random((100, 6))
    found = metrics.au_f1(aus, probs)
    for unit in range(6):
        known = aus[:, unit] >= 0
        expected = sk.f1_score(aus[known, unit], probs[known, unit] >= 0.5)
        assert found[unit] == pytest.approx(expected)


def test_au_f1_of_a_unit_that_no_image_shows_is_unknown() -> None:
    aus = np.array([[0, -1], [0, 1]], np.int8)
    assert np.isnan(metrics.au_f1(aus, np.ones((2, 2)))).tolist() == [True, False]


def test_majority_scores_by_hand() -> None:
    labels = np.repeat([0, 1], [30, 10])
    scores = metrics.majority_scores(np.array([1, 1, 0]), labels, 2)
    assert scores["accuracy"] == pytest.approx(0.25)
    assert scores["uar"] == pytest.approx(0.5)
    assert scores["score"] == pytest.approx((2 * 10 / 50) / 2)
