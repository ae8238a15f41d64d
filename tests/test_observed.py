"""What a model is told, kept in order: equal to what a pass over all trials gives."""

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata

from search.observed import Known, Ranking, Waiting


def from_scratch(scores, size):
    """All observations ranked, half of the pick the best and the others evenly from the rest."""
    rows = [(trial, epoch) for trial in sorted(scores) for epoch in sorted(scores[trial])]
    values = np.array([scores[trial][epoch] for trial, epoch in rows])
    y = ndtri((rankdata(values) - 0.5) / len(values))
    chosen = np.arange(len(y))
    if len(y) > size:
        order = np.argsort(-y, kind="stable")
        best, rest = order[: size // 2], order[size // 2 :]
        even = np.linspace(0, len(rest) - 1, size - len(best)).round().astype(int)
        chosen = np.sort(np.concatenate([best, rest[even]]))
    return [rows[i] for i in chosen], y[chosen]


@pytest.mark.parametrize("size", [10, 40, 1000])
def test_ranks_that_are_kept_are_those_of_a_sort(size):
    rng, ranking, scores = np.random.default_rng(size), Ranking(), {}
    for step in range(200):
        trial = int(rng.integers(40))
        if step % 50 == 49:
            scores.pop(trial, None)
            ranking.put(trial, {})
        else:  # few values, so that there are ties, and failures, which tie too
            values = [-math.inf, *np.round(rng.random(4), 1)]
            scores[trial] = {e: values[rng.integers(5)] for e in (1, 3, 9)[: rng.integers(1, 4)]}
            ranking.put(trial, scores[trial])
        if scores:
            rows, y = ranking.pick(size)
            wanted, targets = from_scratch(scores, size)
            assert rows == wanted
            np.testing.assert_array_equal(y, targets)
    assert ranking.trials == len(scores)
    assert len(ranking) == sum(map(len, scores.values()))


def standing(scores):
    trials = {name: Known(i, {1: score}) for i, (name, score) in enumerate(scores.items())}
    waiting = Waiting()
    waiting.running.update(trials)
    return waiting, trials


def test_the_best_of_each_rung_are_weighed_in_the_order_of_trials():
    waiting, trials = standing({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.2, "e": 0.7})
    paused = {"a": 1, "b": 1, "c": 1, "d": 3}
    waiting.settle(paused)
    assert list(waiting.running) == ["e"]
    assert waiting.shortlist(paused, 2, trials) == {"b": 1, "c": 1, "d": 3}
    assert list(waiting.shortlist(paused, 3, trials)) == ["a", "b", "c", "d"]


def test_who_goes_on_runs_and_may_wait_again():
    waiting, trials = standing({"a": 0.1, "b": 0.9, "c": 0.5})
    waiting.settle({"a": 1, "b": 1, "c": 1})
    waiting.let_go("b", trials["b"], 1)
    assert list(waiting.running) == ["b"]
    assert list(waiting.shortlist({"a": 1, "c": 1}, 9, trials)) == ["a", "c"]
    waiting.settle(paused := {"a": 1, "b": 3, "c": 1})
    assert waiting.shortlist(paused, 9, trials) == {"a": 1, "b": 3, "c": 1}


def test_who_was_let_go_by_others_is_seen_to_run_and_who_ended_is_not():
    waiting, trials = standing({"a": 0.1, "b": 0.9, "c": 0.5})
    waiting.settle({"a": 1, "b": 1, "c": 1})
    trials["c"].status = "stopped"
    assert waiting.shortlist({"a": 1}, 1, trials) == {"a": 1}
    assert list(waiting.running) == ["b"]
