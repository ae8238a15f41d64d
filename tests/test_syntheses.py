"""Feature vectors that are made: each rule by hand, and that nothing else goes in."""

from dataclasses import replace

import numpy as np
import pytest

from trainables.features import distributions, oversampling
from trainables.features.examples import Examples
from trainables.features.plugins import SYNTHESES

PAIRS = ((0, 1), (0, 2), (1, 2), (0, 3), (2, 3))
MADE = [name for name in SYNTHESES if name != "none"]


def _real(features, labels, classes=3):
    labels = np.asarray(labels)
    targets = np.eye(classes, dtype=np.float32)[labels]
    return Examples(np.asarray(features, np.float32), targets, labels, PAIRS[:classes], 4)


def _cloud(counts=(60, 30, 6), width=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = rng.normal(size=(len(labels), width)) + 5 * np.eye(len(counts), width)[labels]
    return _real(features, labels, len(counts))


def _made(name, real, seed=0, **arguments):
    return SYNTHESES[name](**arguments)(real, np.random.default_rng(seed))


def test_rows_are_allotted_by_hand():
    counts = np.array([60, 30, 6, 0])  # the mean of the three that have images: 32
    assert oversampling.allotted(counts, 0.5, "all").tolist() == [16, 16, 16, 0]
    assert oversampling.allotted(counts, 2.0, "tail").tolist() == [0, 64, 64, 0]
    assert oversampling.allotted(counts, 0.0, "all").tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("classes", ["all", "tail"])
@pytest.mark.parametrize("name", MADE)
def test_every_synthesis_makes_as_many_of_the_same_classes_as_its_control(name, classes):
    made = _made(name, _cloud(), ratio=1.5, classes=classes)
    control = _made("repeat", _cloud(), ratio=1.5, classes=classes)
    assert made.counts().tolist() == control.counts().tolist()
    assert len(made) == (144 if classes == "all" else 96)


@pytest.mark.parametrize("name", [name for name in MADE if name != "repeat"])
def test_a_synthesis_makes_new_rows_and_its_control_makes_none(name):
    real = _cloud()
    known = {row.tobytes() for row in real.features}
    assert all(row.tobytes() in known for row in _made("repeat", real).features)
    assert all(row.tobytes() not in known for row in _made(name, real).features)


@pytest.mark.parametrize("name", MADE)
def test_a_ratio_of_nought_makes_nothing_and_bad_arguments_are_refused(name):
    assert len(_made(name, _cloud(), ratio=0.0)) == 0
    with pytest.raises(ValueError, match="ratio -1"):
        SYNTHESES[name](ratio=-1.0)
    with pytest.raises(ValueError, match="known: all, tail"):
        SYNTHESES[name](classes="few")


@pytest.mark.parametrize("name", MADE)
def test_rows_are_taught_as_their_class_unless_they_are_mixed_with_others(name):
    made = _made(name, _cloud())
    assert np.array_equal(made.targets, np.eye(3, dtype=np.float32)[made.labels])


@pytest.mark.parametrize("name", MADE)
def test_crowd_votes_go_along(name):
    real = _cloud()
    real = replace(real, targets=0.7 * real.targets + np.float32(0.1))
    made = _made(name, real)
    assert made.targets.max(1) == pytest.approx(0.8, abs=1e-5)


def test_smote_lies_on_segments_to_the_nearest_of_the_class():
    features = [[0, 0], [1, 0], [10, 0], [0, 0.5], [0, 1.5]]
    real = _real(features, [0, 0, 0, 1, 1], 2)
    made = _made("smote", real, ratio=20.0 / 2.5, neighbours=1)
    one, other = made.features[made.labels == 0], made.features[made.labels == 1]
    assert (one[:, 1] == 0).all()
    # of 0 and 1 the nearest are each other, of 10 it is 1: nothing lies between by another way
    assert ((one[:, 0] >= 0) & (one[:, 0] <= 10)).all()
    assert (one[:, 0] > 1).mean() == pytest.approx(1 / 3, abs=0.2)
    assert (other[:, 0] == 0).all()
    assert ((other[:, 1] >= 0.5) & (other[:, 1] <= 1.5)).all()


def test_smote_never_goes_to_a_farther_one():
    features = [[0, 0], [1, 0], [0, 100], [1, 100]]  # two pairs; with one neighbour no bridge
    made = _made("smote", _real(features, [0, 0, 0, 0], 1), ratio=10.0, neighbours=1)
    assert np.isin(made.features[:, 1], [0, 100]).all()
    bridged = _made("smote", _real(features, [0, 0, 0, 0], 1), ratio=10.0, neighbours=3)
    assert ((bridged.features[:, 1] > 0) & (bridged.features[:, 1] < 100)).any()


def test_smote_of_equal_rows_does_not_take_itself_for_a_neighbour():
    real = _real([[0, 0], [0, 0], [1, 1]], [0, 0, 0], 1)
    near = oversampling._nearest(real.features, 1)
    assert near[:2, 0].tolist() == [1, 0]


def test_nearest_in_blocks_is_nearest_at_once(monkeypatch):
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    whole = np.sort(oversampling._nearest(features, 3), 1)
    gaps = np.linalg.norm(features[:, None] - features, axis=2) + np.diag([np.inf] * 40)
    assert np.array_equal(whole, np.sort(np.argsort(gaps, 1)[:, :3], 1))
    monkeypatch.setattr("trainables.features.judges._ROWS", 7)
    assert np.array_equal(whole, np.sort(oversampling._nearest(features, 3), 1))


def test_mixing_within_stays_on_segments_of_the_class():
    real = _real([[0, 0], [4, 0], [0, 9], [0, 9]], [0, 0, 1, 1], 2)
    made = _made("mixing", real, ratio=5.0)
    one = made.features[made.labels == 0]
    assert (one[:, 1] == 0).all()
    assert ((one[:, 0] >= 0) & (one[:, 0] <= 4)).all()
    assert (made.features[made.labels == 1] == [0, 9]).all()


def test_mixing_between_classes_mixes_targets_as_features_and_keeps_the_larger_share():
    real = _real([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 1, 2])
    made = _made("mixing", real, ratio=10.0, within=False, alpha=1.0)
    assert made.features == pytest.approx(made.targets)  # as the features are the targets
    assert (made.targets.argmax(1) == made.labels).all()
    assert made.targets.max(1).min() >= 0.5
    assert (made.targets.max(1) < 1).mean() > 0.5


def test_calibration_by_hand():
    # two heads of ten, a class of one row; ratio 1 of a mean of 7 rows each
    rng = np.random.default_rng(0)
    heads = [rng.normal(size=(10, 2)) * [3, 1], rng.normal(size=(10, 2)) * [1, 2] + [8, 0]]
    row = np.array([4.0, 5.0])
    features = np.concatenate([*heads, row[None]])
    real = _real(features, [0] * 10 + [1] * 10 + [2])
    found = distributions.heads_of(real)
    rows = np.repeat(row[None], 40_000, 0).astype(np.float32)
    drawn = distributions._calibrated(rows, found, 2, 0.3, np.random.default_rng(1))
    mean = (heads[0].mean(0) + heads[1].mean(0) + row) / 3
    covariances = [np.cov(head.T) for head in heads]
    covariance = sum(covariances) / 2 + 0.3 * np.eye(2) * np.trace(sum(covariances)) / 4
    assert drawn.mean(0) == pytest.approx(mean, abs=0.05)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.15)


def test_calibration_borrows_from_the_nearest_heads_only():
    rng = np.random.default_rng(0)
    near = rng.normal(size=(20, 2)) * [0.1, 5]
    far = rng.normal(size=(20, 2)) * [50, 0.1] + [1000, 0]
    real = _real(np.concatenate([near, far, [[1, 0]]]), [0] * 20 + [1] * 20 + [2])
    made = _made("calibration", real, ratio=10.0, nearest=1, alpha=0.0)
    tail = made.features[made.labels == 2]
    assert tail.mean(0) == pytest.approx((near.mean(0) + [1, 0]) / 2, abs=1.5)
    assert tail[:, 0].std() < 0.2
    assert tail[:, 1].std() == pytest.approx(near[:, 1].std(ddof=1), rel=0.25)
    head = made.features[made.labels == 1]  # a head borrows of itself
    assert head[:, 0].mean() == pytest.approx(1000, abs=50)


def test_the_largest_classes_are_heads_where_too_few_reach_the_mean():
    counts = (50, 3, 2, 2)
    assert [h.label for h in distributions.heads_of(_cloud(counts), 1)] == [0]
    assert [h.label for h in distributions.heads_of(_cloud(counts), 2)] == [0, 1]
    with pytest.raises(ValueError, match="no class has two images"):
        distributions.heads_of(_cloud((1, 1, 1)))


def test_pair_recombines_what_is_additive(monkeypatch):
    effects = 10 * np.eye(4)
    labels = np.repeat([0, 1, 2, 3, 4], [90, 90, 90, 90, 1])
    features = np.array([effects[a] + effects[b] for a, b in np.array(PAIRS)[labels]])
    features[-1] = 99  # the one image of the tail is not what its basics add up to
    monkeypatch.setattr(distributions, "RIDGE", 1e-6)
    real = _real(features, labels, 5)
    found = distributions.pair_effects(real)
    assert found == pytest.approx(effects, abs=3)
    made = _made("pair", real)
    tail = made.features[made.labels == 4]
    assert tail == pytest.approx(np.broadcast_to(found[2] + found[3], tail.shape), abs=1e-3)
    assert tail[0] == pytest.approx([0, 0, 10, 10], abs=5)


def test_pair_takes_its_scatter_from_heads():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 300, 2])
    features = np.zeros((602, 2))
    features[:600, 0] = rng.normal(size=600) * 3
    features[600:, 1] = [50, -50]  # the tail scatters along another way, which must not matter
    still, loud = (_made("pair", _real(features, labels), noise=n) for n in (0.0, 1.0))
    tail = loud.features[loud.labels == 2]
    assert tail.std(0)[0] == pytest.approx(3, rel=0.3)
    assert tail.std(0)[1] == pytest.approx(0, abs=1e-4)
    assert still.features[still.labels == 2].std(0) == pytest.approx([0, 0], abs=1e-5)


def test_pair_predicts_a_class_from_others_better_than_its_one_image():
    # what it is for: the compound (2, 3) with one noisy image, its basics seen in hundreds
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(4, 20)) * 2
    labels = np.repeat([0, 1, 2, 3, 4], [90, 90, 90, 90, 1])
    truth = np.array([effects[a] + effects[b] for a, b in PAIRS])
    features = truth[labels] + rng.normal(size=(361, 20)) * 2
    made = _made("pair", _real(features, labels, 5), noise=0.0)
    mine = np.linalg.norm(made.features[made.labels == 4][0] - truth[4])
    own = np.linalg.norm(features[-1] - truth[4])
    assert mine < 0.3 * own, (mine, own)


def test_pair_needs_compounds():
    real = replace(_cloud(), components=None)
    with pytest.raises(ValueError, match="not compounds"):
        _made("pair", real)
