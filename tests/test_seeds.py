"""Means over seeds: intervals by hand and in simulation, Holm, what can be detected."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.seeds import detectable, holm, spread, within

NAN = float("nan")


def test_holm_by_hand():
    # sorted: .01 * 4, .02 * 3, .03 * 2 (not below the one before), .04
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"b": 0.04, "d": 0.06, "c": 0.06, "a": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_a_comparison_without_a_p_value_does_not_count_for_holm():
    found = holm({"a": 0.02, "b": NAN, "c": 0.03})
    assert found["a"] == pytest.approx(0.04)
    assert found["c"] == pytest.approx(0.04)
    assert math.isnan(found["b"])


def test_without_image_noise_the_interval_is_students():
    values = np.array([0.50, 0.54, 0.52, 0.56, 0.53])
    found = spread(values, np.repeat(values[None], 50, 0))
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.sd == pytest.approx(values.std(ddof=1))
    assert found.freedom == pytest.approx(4)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_seeds_that_agree_leave_the_interval_of_the_images():
    # both seeds always score alike: rounds 0.4 and 0.6, whose variance is 0.02
    found = spread(np.array([0.5, 0.5]), np.array([[0.4, 0.4], [0.6, 0.6]]))
    half = stats.norm.ppf(0.975) * math.sqrt(0.02)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert found.freedom == math.inf


def test_what_a_seed_says_of_an_image_is_counted_once():
    # the seeds' noise on images is their own: the mean's variance is 0.01, a seed's 0.02, so the
    # images have 0.01 - (0.02 - 0.01) / 1 = 0 of their own, and the seeds 0.08 / 2
    values, rounds = (
        np.array([0.3, 0.7]),
        np.array([[0.6, 0.5], [0.4, 0.5], [0.5, 0.6], [0.5, 0.4]]),
    )
    single, mean = rounds.var(0, ddof=1).mean(), rounds.mean(1).var(ddof=1)
    assert single == pytest.approx(2 * mean)
    assert spread(values, rounds).error == pytest.approx(math.sqrt(0.08 / 2))


def test_one_seed_has_the_interval_of_the_images_and_no_p_value():
    found = spread(np.array([0.5]), np.array([[0.4], [0.6]]))
    assert found.high - 0.5 == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(0.02))
    assert math.isnan(found.p)
    assert math.isnan(found.sd)


def test_a_score_ends_where_scores_do():
    values = np.array([0.02, 0.3])
    found = within(spread(values, np.repeat(values[None], 3, 0)))
    assert (found.low, found.high) == (0.0, 1.0)


def test_two_configurations_that_are_one_differ_by_nothing():
    found = spread(np.zeros(5), np.zeros((20, 5)))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize(("sd", "images"), [(0.1, 300), (0.02, 300)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(sd, images):
    """Images differ in difficulty, seeds in skill, and each seed has its own view of an image."""
    rng, truth = np.random.default_rng(0), stats.norm.cdf(0.3 / math.sqrt(2 + sd**2))
    held, alarms, worlds = 0, 0, 1000
    weights = rng.multinomial(images, np.full(images, 1 / images), size=120).astype(np.float64)
    for _ in range(worlds):
        hard = rng.normal(0, 1, images)
        one, two = (
            ((0.3 + rng.normal(0, sd, (5, 1)) + hard + rng.normal(0, 1, (5, images))) > 0) * 1.0
            for _ in range(2)
        )
        found = spread(one.mean(1), weights @ one.T / images)
        held += found.low <= truth <= found.high
        gap = one - two
        alarms += spread(gap.mean(1), weights @ gap.T / images).p < 0.05
    assert 0.92 <= held / worlds <= 0.97
    assert 0.03 <= alarms / worlds <= 0.08


def test_a_difference_that_can_be_detected_is_found_four_times_of_five():
    rng, errors = np.random.default_rng(1), 0.1
    sample = spread(rng.normal(0, errors, 5), np.zeros((3, 5)))
    effect = detectable(sample) / sample.error * errors / math.sqrt(5)
    found = [
        spread(v := rng.normal(effect, errors, 5), np.repeat(v[None], 2, 0)).p < 0.05
        for _ in range(600)
    ]
    assert 0.75 <= np.mean(found) <= 0.9
    assert detectable(sample, 10) > 1.3 * detectable(sample)
