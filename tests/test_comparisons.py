"""Tests of one model against another, by other libraries and by simulation of a known truth."""

import numpy as np
import pytest
from scipy import stats

from analysis.comparisons import corrected_t, mcnemar


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 9), (9, 3), (1, 0), (20, 21)])
def test_mcnemar_is_the_binomial_test_of_the_images_on_which_two_differ(gained, lost):
    first = np.array([1] * gained + [0] * lost + [1] * 30 + [0] * 10, bool)
    second = np.array([0] * gained + [1] * lost + [1] * 30 + [0] * 10, bool)
    found = mcnemar(first, second)
    assert (found.gained, found.lost) == (gained, lost)
    by_hand = min(1.0, 2 * stats.binom.cdf(min(gained, lost), gained + lost, 0.5))
    assert found.p == pytest.approx(by_hand)


def test_mcnemar_never_says_a_true_tie_is_a_difference_too_often():
    rng = np.random.default_rng(0)
    right = rng.random((2, 2000, 60)) < 0.7
    size = np.mean([mcnemar(a, b).p < 0.05 for a, b in zip(*right, strict=True)])
    assert 0.02 < size <= 0.05


def test_corrected_t_by_hand():
    gaps, share = np.array([0.02, 0.05, -0.01, 0.04]), 1 / 3
    found = corrected_t(gaps, share)
    error = np.sqrt((1 / 4 + 1 / 3) * gaps.var(ddof=1))
    assert found.value == pytest.approx(0.025)
    assert found.p == pytest.approx(2 * stats.t.sf(0.025 / error, 3))
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 3) * error)


def test_without_a_test_share_it_is_the_paired_t_test():
    gaps = np.random.default_rng(1).normal(0.3, 1, 12)
    assert corrected_t(gaps, 0.0).p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_one_difference_tells_nothing_of_its_error():
    assert np.isnan(corrected_t(np.array([0.1]), 0.25).p)
    assert corrected_t(np.zeros(4), 0.25).p == 1.0


def test_repeated_folds_of_the_same_images_fool_the_plain_t_test_and_not_the_corrected_one():
    """Two classifiers of equal worth, nearest means of noisy features; four times five folds."""
    rng = np.random.default_rng(2)
    plain = corrected = 0
    for _ in range(150):
        labels = np.arange(60) % 2
        views = rng.normal(0, 1, (2, 60, 3)) + 0.35 * labels[:, None]
        gaps = []
        for _ in range(4):
            fold = rng.permutation(60) % 5
            for k in range(5):
                seen, held = fold != k, fold == k
                scores = []
                for x in views:
                    means = [x[seen & (labels == c)].mean(0) for c in (0, 1)]
                    far = [((x[held] - m) ** 2).sum(1) for m in means]
                    scores.append(((far[1] < far[0]) == labels[held]).mean())
                gaps.append(scores[0] - scores[1])
        plain += corrected_t(np.array(gaps), 0.0).p < 0.05
        corrected += corrected_t(np.array(gaps), 1 / 4).p < 0.05
    assert plain / 150 > 0.2
    assert corrected / 150 < 0.1
