"""The forecast: against arithmetic where there is no chance, against the rule where there is."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from from_scratch import expected_survivors
from test_core import begin, row
from toy import EPOCHS, flat, run_toy, start

from search.forecast import Estimate, Pace, Position, forecast, fork
from search.inline import run_inline
from search.outlook import Outlook
from search.pruners import PRUNERS

ONE = Pace((2.0,))


def told(pruner="none", trials=10, pace=ONE, workers=2, **more):
    rule = PRUNERS[pruner](EPOCHS, 1, 3)
    return forecast(Position(rule, trials, **more), pace, workers, random.Random(0))


def test_without_chance_the_forecast_is_arithmetic():
    there = told()
    assert there.epochs == Estimate(90, 90, 90)
    assert there.worker_seconds == Estimate(180, 180, 180)
    assert there.seconds == Estimate(90, 90, 90)
    assert there.survivors == {}
    assert there.gpu_hours(0.5).middle == pytest.approx(180 * 0.5 / 3600)


def test_workers_start_and_trials_are_set_up():
    there = told(trials=3, pace=replace(ONE, setup_seconds=1, start_seconds=5), workers=1)
    assert there.seconds.middle == 5 + 3 * (1 + 2 * EPOCHS)


def test_a_last_trial_may_train_alone():
    assert told(trials=3).seconds.middle == 2 * 2 * EPOCHS


@pytest.mark.parametrize("pruner", PRUNERS)
def test_survivors_and_epochs_are_those_of_the_rule(pruner):
    rule = PRUNERS[pruner](EPOCHS, 1, 3)
    there = told(pruner, 120)
    assert there.epochs.low <= there.epochs.middle <= there.epochs.high
    assert there.epochs.low >= 120
    assert there.epochs.high <= 120 * EPOCHS
    kept = [120.0, *(there.survivors[m].middle for m in rule.milestones)]
    assert kept == sorted(kept, reverse=True)
    if pruner in ("asha", "promotion"):
        for milestone, expected in expected_survivors(rule, 120).items():
            assert there.survivors[milestone].middle == pytest.approx(expected, rel=0.35)


def test_a_protected_trial_and_one_with_a_late_horizon_train_on():
    assert told("asha", 1, protected=1).epochs.middle == EPOCHS
    late = replace(ONE, horizons=(EPOCHS,))
    assert told("asha", 20, late).epochs.middle == 20 * EPOCHS


def test_unequal_speeds_and_doubt_in_them_widen_the_interval():
    def width(pace):
        there = told(pace=pace).worker_seconds
        return there.high / there.low

    assert width(ONE) == 1
    assert width(Pace((1.0, 2.0, 6.0))) > 1.5
    assert 1.5 < width(replace(ONE, error=0.2)) < 2.5


def test_nine_of_ten_runs_fall_into_the_interval():
    """Runs of the rule on other chance scores and speeds of the same kind."""
    world = random.Random(1)
    inside = 0
    for _ in range(40):
        speeds = [world.lognormvariate(0, 0.5) for _ in range(6)]
        there = told("asha", 30, Pace(tuple(speeds)))
        truth = told("asha", 30, Pace(tuple(world.lognormvariate(0, 0.5) for _ in range(200))))
        inside += there.seconds.low <= truth.seconds.middle <= there.seconds.high
    assert inside >= 32


def test_a_long_search_is_forecast_as_a_short_one_enlarged():
    short, long = told("asha", 2000, workers=8), told("asha", 20_000, workers=8)
    assert long.epochs.middle == pytest.approx(10 * short.epochs.middle, rel=0.05)
    assert long.seconds.middle == pytest.approx(10 * short.seconds.middle, rel=0.05)


def test_it_starts_from_where_a_search_stands():
    there = told(trials=0, unfinished={"a": 7, "b": 0}, workers=1)
    assert there.epochs.middle == 2 + EPOCHS
    assert told(trials=0).seconds == Estimate(0, 0, 0)


def test_paused_trials_get_their_turn():
    rule = PRUNERS["promotion"](EPOCHS, 1, 3)
    for trial, value in {"a": 0.5, "b": 0.6, "c": 0.7}.items():
        rule.decide(trial, 1, value)
    position = Position(rule, 0, paused={"a": 1, "b": 1, "c": 1})
    there = forecast(position, ONE, 1, random.Random(0))
    assert there.survivors[1].middle == 1
    assert there.epochs.middle == EPOCHS - 1  # c alone: first promoted, then the last of its rung


@pytest.mark.parametrize("name", PRUNERS)
def test_a_fork_of_a_pruner_leaves_the_pruner_as_it_was(name):
    """A contract: what `fork` copies is all that a pruner changes."""

    def play(pruner, rng):
        verdicts = []
        for n in range(40):
            for epoch in range(1, EPOCHS):
                verdicts.append(pruner.decide(f"t{n}", epoch, rng.random()))
        pruner.spare("x", 3)
        pruner.protect("y")
        return verdicts, pruner.promote({f"t{n}": 1 for n in range(40)})

    rule, untouched = PRUNERS[name](EPOCHS, 1, 3), PRUNERS[name](EPOCHS, 1, 3)
    for pruner in (rule, untouched):
        pruner.decide("before", 1, 0.5)
    play(fork(rule), random.Random(1))
    assert rule.rungs == untouched.rungs
    assert play(rule, random.Random(2)) == play(untouched, random.Random(2))


# --- of a search that runs -----------------------------------------------------------------------


def outlook(search, workers=1):
    clock = SimpleNamespace(now=0.0)
    return Outlook(search, workers, lambda: clock.now), clock


def test_a_running_search_is_forecast_at_its_own_pace(tmp_path):
    search = start(tmp_path, budget=1, anchors=[("baseline", flat())])
    ahead, clock = outlook(search)
    begin(search, row(1), row(2))
    assert ahead.look() is None  # two epochs are no pace
    search.on_row(next(iter(search.live)), row(3))
    clock.now = 2.0
    assert ahead.look().seconds == Estimate(12, 12, 12)
    clock.now = 4.0
    assert ahead.look().seconds == Estimate(10, 10, 10)  # it runs down between two forecasts
    clock.now = 100.0
    assert ahead.look().seconds.middle > 12  # workers that train a tenth of the time


def test_a_search_that_is_over_has_nothing_to_come(tmp_path):
    search = start(tmp_path, budget=4)
    ahead, _ = outlook(search)
    assert run_inline(search, tmp_path, run_toy)
    assert ahead.look() is None
