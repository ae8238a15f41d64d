"""Successive halving, by hand and by its properties."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.asha import Asha


def test_milestones_grow_by_eta_and_end_below_max_epochs():
    assert Asha(27, grace=1, eta=3).milestones == (1, 3, 9)
    assert Asha(12, grace=2, eta=3).milestones == (2, 6)
    assert Asha(2, grace=2, eta=3).milestones == ()


def test_verdicts_by_hand():
    asha = Asha(9, grace=1, eta=3)
    # fewer than three scores cannot tell a best third; then 1 of 3, 2 of 4, 2 of 5, 2 of 6, 3 of 7
    scores = [0.5, 0.4, 0.3, 0.45, 0.6, 0.48, 0.49]
    verdicts = [asha.decide(f"t{i}", 1, s) for i, s in enumerate(scores)]
    assert verdicts == ["continue", "continue", "stop", "continue", "continue", "stop", "continue"]


def test_an_epoch_between_milestones_decides_nothing():
    asha = Asha(9)
    assert asha.decide("a", 2, -1.0) == "continue"
    assert asha.rungs == {1: {}, 3: {}}


def test_the_last_epoch_is_never_a_reason_to_stop():
    assert Asha(9).decide("a", 9, -5.0) == "continue"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stops_even_a_protected_trial(score):
    asha = Asha(9)
    asha.protect("a")
    assert asha.decide("a", 1, score) == "stop"
    assert asha.rungs[1] == {}


def test_a_protected_trial_goes_on_and_is_compared_with():
    asha = Asha(9)
    asha.protect("baseline")
    for trial, score in {"a": 0.5, "b": 0.6, "c": 0.7}.items():
        asha.decide(trial, 1, score)
    assert asha.decide("baseline", 1, 0.1) == "continue"
    assert asha.rungs[1]["baseline"] == 0.1


def test_the_first_score_at_a_milestone_and_the_first_verdict_stand():
    asha = Asha(9)
    for trial, score in {"a": 0.5, "b": 0.6}.items():
        asha.decide(trial, 1, score)
    assert asha.decide("c", 1, 0.55) == "stop"
    assert asha.decide("c", 1, 0.99) == "stop"
    assert asha.rungs[1] == {"a": 0.5, "b": 0.6, "c": 0.55}
    assert asha.decide("a", 1, 0.5) == "continue"


def test_equal_scores_do_not_all_survive():
    asha = Asha(9)
    verdicts = [asha.decide(f"t{i}", 1, 0.14) for i in range(9)]
    assert verdicts.count("continue") == 2  # the two that came before there were three


@given(st.permutations(range(20)))
def test_the_best_of_a_rung_always_goes_on(order):
    asha = Asha(9)
    verdicts = {i: asha.decide(f"{i:02}", 1, float(i)) for i in order}
    assert verdicts[19] == "continue"
    assert 2 <= sum(v == "continue" for v in verdicts.values()) <= 20


def test_rungs_do_not_depend_on_the_order_of_arrival():
    scores = {f"t{i}": random.Random(i).random() for i in range(10)}
    one, other = Asha(9), Asha(9)
    for trial, score in scores.items():
        one.decide(trial, 1, score)
    for trial, score in reversed(scores.items()):
        other.record(trial, 1, score)
    assert one.rungs == other.rungs


def test_forecast_is_the_mean_over_random_orders():
    survived = []
    for seed in range(300):
        order = random.Random(seed).sample(range(20), 20)
        asha = Asha(3, grace=1, eta=3)
        survived.append(sum(asha.decide(f"{i:02}", 1, float(i)) == "continue" for i in order))
    forecast = Asha(3, grace=1, eta=3).expected_survivors(20)[1]
    assert sum(survived) / len(survived) == pytest.approx(forecast, rel=0.03)


def test_expected_epochs_by_hand():
    asha = Asha(9, grace=1, eta=3)
    # of 3: 1 + 1 + 1/3 pass epoch 1; of these 2 1/3: 1 + 1 + 1/3 * 1/3 pass epoch 3
    assert asha.expected_survivors(3) == pytest.approx({1: 7 / 3, 3: 2 + 1 / 9})
    assert asha.expected_epochs(3) == pytest.approx(1 + 2 * 7 / 9 + 6 * (2 + 1 / 9) / 3)
    assert asha.expected_epochs(3, epoch=3) == pytest.approx(6)
    assert asha.expected_epochs(3, epoch=9) == 0
    assert Asha(9, grace=9).expected_epochs(3) == 9


@pytest.mark.parametrize("wrong", [{"grace": 0}, {"eta": 1}, {"max_epochs": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Asha(**{"max_epochs": 9, **wrong})
