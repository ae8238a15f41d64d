"""Greedy selection: a reference by hand, brute force, properties."""

import itertools

import numpy as np
import pytest
from models import Floats, draw, likely_of

from analysis.selection import FLOOR, bagged, log_likelihood, select


def even(likely: Floats) -> Floats:
    return np.ones(likely.shape[1], np.float32)


def value_of(weights: np.ndarray, likely: Floats, importance: Floats) -> float:
    return float(log_likelihood((weights @ likely)[None], importance)[0])


def slow_selection(likely: Floats, importance: Floats, rounds: int, start: int) -> list[float]:
    """Caruana's algorithm with a sorted start as one would write it on a board."""

    def value(members: list[int]) -> float:
        mean = np.maximum(likely[members].astype(np.float64).mean(0), FLOOR)
        return float((np.log(mean) * importance).sum() / importance.sum())

    order = sorted(range(len(likely)), key=lambda m: -value([m]))
    prefixes = [order[:size] for size in range(1, min(start, rounds, len(order)) + 1)]
    chosen = list(max(prefixes, key=value))
    best, kept = value(chosen), list(chosen)
    while len(chosen) < rounds:
        chosen.append(max(range(len(likely)), key=lambda m: value([*chosen, m])))
        if value(chosen) > best:
            best, kept = value(chosen), list(chosen)
    return [kept.count(m) / len(kept) for m in range(len(likely))]


@pytest.mark.parametrize(("seed", "start"), list(itertools.product(range(4), (1, 4))))
def test_selection_equals_the_slow_one(seed: int, start: int) -> None:
    likely = likely_of(*draw(5, 40, 3, seed))
    importance = np.random.default_rng(seed).uniform(0.5, 2, 40).astype(np.float32)
    fast = select(likely, importance, 12, start)
    assert fast == pytest.approx(slow_selection(likely, importance, 12, start))


@pytest.mark.parametrize("seed", range(6))
def test_selection_is_as_good_as_the_best_of_all_mixtures_of_two_models(seed: int) -> None:
    likely = likely_of(*draw(2, 60, 3, seed))
    found = select(likely, even(likely), 40)
    shares = np.linspace(0, 1, 41)
    mixtures = np.stack([s * likely[0] + (1 - s) * likely[1] for s in shares])
    best = log_likelihood(mixtures, even(likely)).max()
    assert value_of(found, likely, even(likely)) == pytest.approx(best, abs=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_two_rounds_equal_brute_force_over_pairs_with_the_best(seed: int) -> None:
    likely = likely_of(*draw(6, 50, 4, seed))
    alone = log_likelihood(likely, even(likely))
    pairs = np.stack([(likely[alone.argmax()] + likely[m]) / 2 for m in range(6)])
    best = max(alone.max(), log_likelihood(pairs, even(likely)).max())
    weights = select(likely, even(likely), 2, start=1)
    assert value_of(weights, likely, even(likely)) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_sorted_start_is_the_best_prefix_where_no_round_follows(seed: int) -> None:
    likely = likely_of(*draw(7, 50, 4, seed))
    order = np.argsort(-log_likelihood(likely, even(likely)))
    means = np.stack([likely[order[:k]].mean(0) for k in range(1, 5)])
    best = int(log_likelihood(means, even(likely)).argmax()) + 1
    weights = select(likely, even(likely), rounds=best, start=4)
    assert set(np.flatnonzero(weights)) == set(order[:best])


@pytest.mark.parametrize(("seed", "models"), list(itertools.product(range(8), (1, 2, 3, 12))))
def test_never_below_the_best_member_on_the_images_it_selects_on(seed: int, models: int) -> None:
    likely = likely_of(*draw(models, 30, 3, seed))
    best = log_likelihood(likely, even(likely)).max()
    whole = select(likely, even(likely))
    bags = bagged(likely, even(likely), np.random.default_rng(seed))
    for weights in (whole, bags):
        assert value_of(weights, likely, even(likely)) >= best - 1e-6
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()


def test_a_twin_of_every_model_is_no_better_and_no_worse() -> None:
    likely = likely_of(*draw(4, 120, 3, 0))
    alone = select(likely, even(likely), start=1)
    twins = select(np.concatenate([likely, likely]), even(likely), start=1)
    assert twins[:4] + twins[4:] == pytest.approx(alone)


def test_images_without_importance_do_not_count() -> None:
    likely = likely_of(*draw(5, 80, 3, 1))
    importance = np.r_[np.ones(40), np.zeros(40)].astype(np.float32)
    changed = likely.copy()
    changed[:, 40:] = likely[::-1, 40:]
    assert select(likely, importance) == pytest.approx(select(changed, importance))
