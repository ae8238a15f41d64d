"""Judges of synthetic features: against formulas written out, and on data of which we know all."""

import itertools

import numpy as np
import pytest

from trainables.features import judges


def _normal(seed, count, width=4, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width))


def _kernel(x, y):
    return (x @ y / len(x) + 1) ** 3


def test_kid_is_the_unbiased_formula_over_all_pairs():
    real, fake = _normal(0, 7), _normal(1, 5)
    pairs = itertools.permutations
    within = [np.mean([_kernel(x, y) for x, y in pairs(part, 2)]) for part in (real, fake)]
    across = np.mean([_kernel(x, y) for x in real for y in fake])
    assert judges.kid(real, fake) == pytest.approx(sum(within) - 2 * across)


def test_kid_by_hand():
    # one feature; kernel(x, y) = (x y + 1)^3: within {1, 1} 8, within {0, 0} 1, across 1
    assert judges.kid(np.ones((2, 1)), np.zeros((2, 1))) == pytest.approx(8 + 1 - 2)


def test_kid_of_equal_distributions_is_on_average_zero_at_any_size():
    few = [judges.kid(_normal(2 * k, 10), _normal(2 * k + 1, 15)) for k in range(400)]
    assert abs(np.mean(few)) < 3 * np.std(few) / 20  # 20 = sqrt(400): three standard errors
    assert judges.kid(_normal(0, 300), _normal(1, 300, shift=0.5)) > 10 * abs(np.mean(few))


def test_kid_in_blocks_is_kid_at_once(monkeypatch):
    real, fake = _normal(0, 40), _normal(1, 30)
    whole = judges.kid(real, fake)
    monkeypatch.setattr(judges, "_ROWS", 7)
    assert judges.kid(real, fake) == pytest.approx(whole)


def test_density_and_coverage_by_hand():
    real = np.array([[0.0], [1.0], [3.0]])  # with one neighbour: radii 1, 1, 2
    fake = np.array([[0.5], [10.0]])  # 0.5 lies in the first two neighbourhoods, 10 in none
    assert judges.density_coverage(real, fake, neighbours=1) == (1.0, pytest.approx(2 / 3))


def test_a_generator_of_one_face_has_no_coverage():
    real = _normal(0, 200)
    alike = judges.density_coverage(real, _normal(1, 200))
    assert alike == (pytest.approx(1, abs=0.2), pytest.approx(1, abs=0.1))
    one = np.repeat(real[:1], 200, 0)
    assert judges.density_coverage(real, one)[1] < 0.1


def test_memorisation_finds_copies_and_names_them():
    train, held_out = _normal(0, 100), _normal(1, 100)
    new = judges.memorisation(train, _normal(2, 100), held_out)
    assert new.ratio == pytest.approx(1, abs=0.2)
    assert new.copied == pytest.approx(0.05, abs=0.06)
    copies = judges.memorisation(train, train[10:30], held_out)
    assert copies.ratio == pytest.approx(0, abs=1e-6)
    assert copies.copied == 1
    assert copies.nearest.tolist() == list(range(10, 30))


def test_memorisation_sees_mirrored_copies_only_when_told_of_mirrored_images():
    train, mirrored, held_out = _normal(0, 100), _normal(1, 100), _normal(2, 100)
    fake = mirrored[:20]
    assert judges.memorisation(train, fake, held_out).copied < 0.3
    seen = judges.memorisation(train, fake, held_out, mirrored)
    assert seen.copied == 1
    assert seen.nearest.tolist() == list(range(20))  # by the number of the image, not of its mirror


def test_memorisation_by_hand():
    train, held_out = np.array([[0.0], [10.0]]), np.array([[2.0], [14.0]])  # 2 and 4 away: 3
    found = judges.memorisation(train, np.array([[1.0], [10.0], [13.0]]), held_out)  # 1, 0, 3
    assert found.ratio == pytest.approx(1 / 3)
    assert found.copied == pytest.approx(2 / 3)  # nearer than 2 + 0.05 * 2
    assert found.distances.tolist() == [1, 0, 3]


def test_the_probe_tells_what_differs_and_guesses_where_nothing_does():
    real = _normal(0, 300)
    assert judges.probe_auc(real, _normal(1, 300)) == pytest.approx(0.5, abs=0.06)
    assert judges.probe_auc(real, _normal(1, 300, shift=3.0)) > 0.99
    assert np.isnan(judges.probe_auc(real, real[:4]))


def test_the_probe_is_held_to_samples_it_was_not_fitted_on():
    # more features than samples: fitted and judged on the same ones it would score 1
    noise = judges.probe_auc(_normal(0, 40, 100), _normal(1, 40, 100))
    assert noise == pytest.approx(0.5, abs=0.2)


def test_the_probe_within_each_class():
    real, labels = _normal(0, 90), np.repeat([0, 1, 2], 30)
    fake = np.concatenate([_normal(1, 30), _normal(2, 30, shift=4.0), _normal(3, 3)])
    of = judges.probe_by_class(real, labels, fake, np.repeat([0, 1, 2], [30, 30, 3]))
    assert sorted(of) == [0, 1]  # of class 2 there are too few
    assert of[0] < 0.75
    assert of[1] > 0.99
    assert judges.probe_by_class(real, labels, fake[:30], np.full(30, 3)) == {}  # no real ones


def test_rows_are_matched_by_class():
    one, other = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 3])
    a, b = judges.matched(one, other, np.random.default_rng(0))
    assert len(a) == len(b) == len(set(a)) == len(set(b)) == 2  # one of class 0, one of class 1
    assert np.array_equal(one[a], other[b])


def _labelled(seed, counts, shift=0.0):
    labels = np.repeat(np.arange(len(counts)), counts)
    return _normal(seed, len(labels), shift=shift) + 3 * np.eye(len(counts), 4)[labels], labels


def test_the_verdict_of_new_rows_of_copies_and_of_what_is_off():
    train, held_out = _labelled(0, (90, 30, 9)), _labelled(1, (60, 30, 9))
    new = judges.verdict(train[0], _labelled(2, (30, 30, 30)), held_out)  # other shares of classes
    assert new["synthetic_probe_auc"] == pytest.approx(0.5, abs=0.12)
    assert new["nearest_train_distance_ratio"] == pytest.approx(1, abs=0.25)
    copies = judges.verdict(train[0], (train[0][90:], train[1][90:]), held_out)
    assert copies["nearest_train_distance_ratio"] == pytest.approx(0, abs=1e-6)
    off = judges.verdict(train[0], _labelled(2, (30, 30, 30), shift=4.0), held_out)
    assert off["synthetic_probe_auc"] > 0.95


def test_the_verdict_looks_for_copies_among_all_training_rows():
    train, held_out = _labelled(0, (900, 30, 9)), _labelled(1, (60, 30, 9))
    copies = train[0][:90], train[1][:90]
    found = judges.verdict(train[0], copies, held_out, most=20)
    assert found["nearest_train_distance_ratio"] == pytest.approx(0, abs=1e-6)


def test_the_verdict_leaves_out_what_cannot_be_told():
    train, few, held_out = (_labelled(k, (n, n)) for k, n in enumerate((9, 2, 9)))
    assert set(judges.verdict(train[0], few, held_out)) == {"nearest_train_distance_ratio"}
    strange = _normal(1, 20), np.full(20, 5)  # of a class that no held-out row has
    assert judges.verdict(train[0], strange, train) == {}


def test_features_of_other_widths_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 4\)"):
        judges.kid(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        judges.kid(np.zeros((1, 2)), np.zeros((3, 2)))
