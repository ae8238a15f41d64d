"""Intervals and corrections against scipy, by hand, and against a known truth."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis import statistics
from trainables import metrics

Ints = NDArray[np.int64]
PRIOR = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
K = len(PRIOR)
GOAL = statistics.Goal("macro_f1", np.ones(K, bool))


def calls(labels: Ints, skill: float, noise: NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """A model that is right with probability `skill`, and otherwise any other class."""
    return np.where(noise < skill, labels, (labels + rng.integers(1, K, len(labels))) % K)


def world(models: int, images: int, seed: int) -> tuple[Ints, Ints]:
    """Labels, and the calls of equally good models that agree on part of the images."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, images, p=PRIOR)
    shared = stats.norm.ppf(rng.random(images)) * np.sqrt(0.5)
    rows = []
    for _ in range(models):
        noise = stats.norm.cdf(shared + np.sqrt(0.5) * rng.standard_normal(images))
        rows.append(calls(labels, 0.6, noise, rng))
    return labels, np.stack(rows)


TRUTH = float(GOAL.scores(statistics.tally(*world(1, 200_000, 99), K))[0])


def test_a_resample_keeps_the_size_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 7, 1])
    weights = statistics.resample(labels, 40, np.random.default_rng(0))
    for k, size in enumerate((50, 7, 1)):
        assert (weights[:, labels == k].sum(1) == size).all()


def test_a_resample_draws_images_as_the_bootstrap_does() -> None:
    weights = statistics.resample(np.zeros(50, np.int64), 4000, np.random.default_rng(0))
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


def test_scores_of_tallies_equal_those_of_the_metrics_module() -> None:
    labels, predicted = world(70, 130, 0)  # more than one chunk of models
    keep = metrics.supported(labels, K)
    one = np.ones((1, len(labels)), np.float32)
    weighted = statistics.weighted_tally(labels, predicted, K, one)
    for counts in (statistics.tally(labels, predicted, K), weighted):
        for name, found in {
            "score": statistics.macro_f1s(counts, keep),
            "accuracy": statistics.accuracies(counts),
            "uar": statistics.uars(counts),
        }.items():
            wanted = [metrics.scores(labels, np.eye(K)[p])[name] for p in predicted]
            assert found.ravel() == pytest.approx(wanted, abs=1e-6), name


@pytest.mark.parametrize("objective", metrics.OBJECTIVES)
def test_a_goal_scores_as_the_metrics_module_does(objective: str) -> None:
    labels, predicted = world(3, 70, 0)
    labels[labels == 4] = 3
    labels[:4] = 4  # too few to be optimised
    goal = statistics.Goal(objective, metrics.supported(labels, K))
    found = goal.scores(statistics.tally(labels, predicted, K))
    wanted = [metrics.decisions(labels, row, K)[objective] for row in predicted]
    assert found == pytest.approx(wanted)


def test_a_weighted_tally_equals_that_of_the_images_repeated() -> None:
    labels, predicted = world(2, 60, 1)
    weights = statistics.resample(labels, 3, np.random.default_rng(1))
    sampled = statistics.bootstrap(labels, predicted, GOAL, weights)
    for b, row in enumerate(weights.astype(int)):
        repeated = np.repeat(labels, row), np.repeat(predicted[1], row)
        assert sampled["score"][b, 1] == pytest.approx(metrics.macro_f1(*repeated, K), abs=1e-6)
        assert sampled["uar"][b, 1] == pytest.approx(metrics.uar(*repeated, K), abs=1e-6)


def test_wilson_agrees_with_scipy() -> None:
    hits, total = np.array([0, 1, 2, 3, 40]), np.array([2, 2, 2, 6, 50])
    low, high = statistics.wilson(hits, total)
    for k in range(len(hits)):
        wanted = stats.binomtest(int(hits[k]), int(total[k])).proportion_ci(method="wilson")
        assert (low[k], high[k]) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_wilson_of_nothing_is_everything() -> None:
    low, high = statistics.wilson(np.array([0]), np.array([0]))
    assert (low[0], high[0]) == (0, 1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(150):
        labels, predicted = world(1, 300, seed)
        weights = statistics.resample(labels, 200, np.random.default_rng(seed))
        score = statistics.bootstrap(labels, predicted, GOAL, weights)["score"]
        low, high = statistics.interval(score[:, 0])
        covered += bool(low <= TRUTH <= high)
    assert 0.89 <= covered / 150 <= 0.99


def test_the_paired_interval_of_equal_models_covers_zero_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(150):
        labels, predicted = world(2, 300, seed + 1000)
        weights = statistics.resample(labels, 200, np.random.default_rng(seed))
        score = statistics.bootstrap(labels, predicted, GOAL, weights)["score"]
        low, high = statistics.interval(score[:, 1] - score[:, 0])
        covered += bool(low <= 0 <= high)
    assert 0.89 <= covered / 150 <= 0.99


def test_correction_removes_the_optimism_of_choosing_the_best() -> None:
    naive, corrected, covered = [], [], 0
    for seed in range(40):
        labels, predicted = world(60, 300, seed + 2000)
        keep = np.ones(K, bool)
        best = statistics.macro_f1s(statistics.tally(labels, predicted, K), keep).max()
        weights = statistics.resample(labels, 150, np.random.default_rng(seed))
        found = statistics.corrected_best(labels, predicted, GOAL, weights)[0]
        naive.append(best - TRUTH)
        corrected.append(found.value - TRUTH)
        covered += bool(found.low <= TRUTH <= found.high)
    assert np.mean(naive) > 0.03
    assert abs(np.mean(corrected)) < 0.012
    assert covered / 40 > 0.85


def test_correcting_one_model_changes_next_to_nothing() -> None:
    labels, predicted = world(1, 400, 5)
    keep = np.ones(K, bool)
    weights = statistics.resample(labels, 400, np.random.default_rng(0))
    naive = statistics.macro_f1s(statistics.tally(labels, predicted, K), keep)[0]
    found = statistics.corrected_best(labels, predicted, GOAL, weights)[0]
    assert found.value == pytest.approx(naive, abs=0.005)


@pytest.mark.parametrize("models", [7, 20])
def test_the_lead_of_the_best_of_equal_models_is_rarely_taken_for_real(models: int) -> None:
    naive = corrected = 0
    for seed in range(100):
        labels, predicted = world(models + 1, 300, seed + 5000)  # the first is the baseline
        weights = statistics.resample(labels, 150, np.random.default_rng(seed))
        score = statistics.bootstrap(labels, predicted, GOAL, weights)["score"]
        best = int(GOAL.scores(statistics.tally(labels, predicted, K)).argmax())
        naive += bool(statistics.interval(score[:, best] - score[:, 0])[0] > 0)
        lead = statistics.corrected_best(labels, predicted, GOAL, weights, predicted[0])[1]
        assert lead is not None
        corrected += lead.low > 0
    assert naive >= 10  # the defect that this is about
    assert corrected <= 4


def test_a_lead_that_is_real_is_found() -> None:
    labels, predicted = world(5, 300, 11)
    rng = np.random.default_rng(0)
    base = calls(labels, 0.4, rng.random(300), rng)
    weights = statistics.resample(labels, 200, rng)
    lead = statistics.corrected_best(labels, predicted, GOAL, weights, base)[1]
    assert lead is not None
    assert lead.low > 0
    assert lead.value == pytest.approx(0.2, abs=0.08)


def test_a_lead_over_oneself_is_exactly_nothing() -> None:
    labels, predicted = world(1, 100, 3)
    weights = statistics.resample(labels, 50, np.random.default_rng(0))
    lead = statistics.corrected_best(labels, predicted, GOAL, weights, predicted[0])[1]
    assert lead == statistics.Estimate(0.0, 0.0, 0.0)


def test_the_corrected_interval_of_one_model_covers_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        labels, predicted = world(1, 300, seed + 7000)
        weights = statistics.resample(labels, 150, np.random.default_rng(seed))
        found = statistics.corrected_best(labels, predicted, GOAL, weights)[0]
        covered += bool(found.low <= TRUTH <= found.high)
    assert 0.9 <= covered / 200 <= 0.99


def test_equal_seeds_give_equal_numbers() -> None:
    labels, predicted = world(3, 80, 0)
    found = [
        statistics.corrected_best(
            labels,
            predicted,
            GOAL,
            statistics.resample(labels, 50, np.random.default_rng(4)),
        )
        for _ in range(2)
    ]
    assert found[0] == found[1]
