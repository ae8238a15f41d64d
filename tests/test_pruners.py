"""Successive halving, by hand and by its properties."""

import math
import random

import pytest
from from_scratch import expected_epochs, expected_survivors
from hypothesis import given
from hypothesis import strategies as st

from search.pruners import asha, thaw


def test_milestones_grow_by_eta_and_end_below_max_epochs():
    assert asha(27, grace=1, eta=3).milestones == (1, 3, 9)
    assert asha(12, grace=2, eta=3).milestones == (2, 6)
    assert asha(2, grace=2, eta=3).milestones == ()


def test_verdicts_by_hand():
    pruner = asha(9, grace=1, eta=3)
    # fewer than three scores cannot tell a best third; then 1 of 3, 2 of 4, 2 of 5, 2 of 6, 3 of 7
    scores = [0.5, 0.4, 0.3, 0.45, 0.6, 0.48, 0.49]
    verdicts = [pruner.decide(f"t{i}", 1, s) for i, s in enumerate(scores)]
    assert verdicts == ["continue", "continue", "stop", "continue", "continue", "stop", "continue"]


def test_an_epoch_between_milestones_decides_nothing():
    pruner = asha(9)
    assert pruner.decide("a", 2, -1.0) == "continue"
    assert pruner.rungs == {1: {}, 3: {}}


def test_the_last_epoch_is_never_a_reason_to_stop():
    assert asha(9).decide("a", 9, -5.0) == "continue"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stops_even_a_protected_trial(score):
    pruner = asha(9)
    pruner.protect("a")
    assert pruner.decide("a", 1, score) == "stop"
    assert pruner.rungs[1] == {}


def test_a_protected_trial_goes_on_and_is_compared_with():
    pruner = asha(9)
    pruner.protect("baseline")
    for trial, score in {"a": 0.5, "b": 0.6, "c": 0.7}.items():
        pruner.decide(trial, 1, score)
    assert pruner.decide("baseline", 1, 0.1) == "continue"
    assert pruner.rungs[1]["baseline"] == 0.1


def test_the_first_score_at_a_milestone_and_the_first_verdict_stand():
    pruner = asha(9)
    for trial, score in {"a": 0.5, "b": 0.6}.items():
        pruner.decide(trial, 1, score)
    assert pruner.decide("c", 1, 0.55) == "stop"
    assert pruner.decide("c", 1, 0.99) == "stop"
    assert pruner.rungs[1] == {"a": 0.5, "b": 0.6, "c": 0.55}
    assert pruner.decide("a", 1, 0.5) == "continue"


def test_equal_scores_do_not_all_survive():
    pruner = asha(9)
    verdicts = [pruner.decide(f"t{i}", 1, 0.14) for i in range(9)]
    assert verdicts.count("continue") == 2  # the two that came before there were three


@given(st.permutations(range(20)))
def test_the_best_of_a_rung_always_goes_on(order):
    pruner = asha(9)
    verdicts = {i: pruner.decide(f"{i:02}", 1, float(i)) for i in order}
    assert verdicts[19] == "continue"
    assert 2 <= sum(v == "continue" for v in verdicts.values()) <= 20


def test_rungs_do_not_depend_on_the_order_of_arrival():
    scores = {f"t{i}": random.Random(i).random() for i in range(10)}
    one, other = asha(9), asha(9)
    for trial, score in scores.items():
        one.decide(trial, 1, score)
    for trial, score in reversed(scores.items()):
        other.record(trial, 1, score)
    assert one.rungs == other.rungs


def test_forecast_is_the_mean_over_random_orders():
    survived = []
    for seed in range(300):
        order = random.Random(seed).sample(range(20), 20)
        pruner = asha(3, grace=1, eta=3)
        survived.append(sum(pruner.decide(f"{i:02}", 1, float(i)) == "continue" for i in order))
    forecast = expected_survivors(asha(3, grace=1, eta=3), 20)[1]
    assert sum(survived) / len(survived) == pytest.approx(forecast, rel=0.03)


def test_expected_epochs_by_hand():
    pruner = asha(9, grace=1, eta=3)
    # of 3: 1 + 1 + 1/3 pass epoch 1; of these 2 1/3: 1 + 1 + 1/3 * 1/3 pass epoch 3
    assert expected_survivors(pruner, 3) == pytest.approx({1: 7 / 3, 3: 2 + 1 / 9})
    assert expected_epochs(pruner, 3) == pytest.approx(1 + 2 * 7 / 9 + 6 * (2 + 1 / 9) / 3)
    assert expected_epochs(pruner, 3, epoch=3) == pytest.approx(6)
    assert expected_epochs(pruner, 3, epoch=9) == 0
    assert expected_epochs(asha(9, grace=9), 3) == 9


@pytest.mark.parametrize("wrong", [{"grace": 0}, {"eta": 1}, {"max_epochs": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        asha(**{"max_epochs": 9, **wrong})


def test_thawing_rungs_lie_a_root_of_eta_apart_down_from_the_end():
    assert thaw(51, grace=6, eta=3).milestones == (6, 10, 17, 29)
    assert thaw(9, grace=3, eta=3).milestones == (3, 5)
    assert thaw(2, grace=2, eta=3).milestones == ()


def test_whoever_is_let_go_from_a_rung_goes_on_even_if_it_shows_its_row_again():
    pruner = thaw(9, grace=3)
    assert pruner.decide("first", 3, 0.4) == "pause"
    pruner.let_go("first", 3)
    assert pruner.decide("first", 5, 0.4) == "continue"  # to learn from a whole curve, early
    assert pruner.decide("a", 3, 0.5) == "pause"
    pruner.let_go("a", 3)
    assert pruner.decide("a", 3, 0.5) == "continue"
    assert pruner.decide("a", 5, 0.6) == "pause"


def test_once_nothing_is_new_the_best_of_a_rung_by_a_root_of_eta_go_on():
    pruner = thaw(9, grace=3)
    waiting = {f"t{i}": 3 for i in range(6)}
    for i, trial in enumerate(waiting):
        pruner.decide(trial, 3, i / 10)
    gone = []
    while (trial := pruner.promote(waiting)) is not None:
        gone.append(trial)
        del waiting[trial]
    assert gone == ["t5", "t4", "t3", "t2"]  # ceil(6 / sqrt(3))


def test_a_baseline_ahead_does_not_take_the_place_of_the_first_to_be_trained_whole():
    pruner = thaw(9, grace=3)
    pruner.protect("baseline")
    for rung in (3, 5):
        assert pruner.decide("baseline", rung, 0.1) == "continue"
    pruner.decide("first", 3, 0.5)
    pruner.let_go("first", 3)
    assert pruner.decide("first", 5, 0.6) == "continue"
    pruner.decide("second", 3, 0.5)
    pruner.let_go("second", 3)
    assert pruner.decide("second", 5, 0.7) == "pause"
