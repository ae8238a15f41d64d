"""What is counted as it comes equals what is counted from scratch."""

import math

from from_scratch import best, counts, last_score
from test_core import begin, row
from toy import EPOCHS, flat, run_toy, start

from search.inline import run_inline
from search.monitor import counts as tallied
from search.tally import Rung, Tally
from trainables.store import TrialResult


class Checker:
    """An observer that tallies at each look and compares with a count from scratch."""

    def __init__(self, search):
        self.search, self.tally, self.looks = search, Tally(search.pruner.milestones), 0

    def start(self):
        self.update()

    def update(self):
        search, tally = self.search, self.tally
        tally.follow(search)
        self.looks += 1
        assert tally.epochs == sum(map(len, search.rows.values()))
        assert tally.seconds == search.seconds
        assert tally.best == best(search)
        assert tallied(search, tally) == counts(search)
        for milestone, rung in tally.rungs.items():
            epochs = [max(rows, default=0) for rows in search.rows.values()]
            assert rung == Rung(
                sum(e >= milestone for e in epochs), sum(e > milestone for e in epochs)
            )
        for trial, known in tally.trials.items():
            assert same(known.score, last_score(search, trial))

    def stop(self):
        self.update()


def same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))


def test_at_every_moment_of_a_run_the_sums_are_right(tmp_path):
    anchors = [
        ("baseline", flat(lr=1e-4)),
        ("default", flat(weights="raise", fold=1)),
        ("default", flat(weights="nan", fold=1)),
    ]
    search = start(tmp_path, budget=14, anchors=anchors, pruner="promotion")
    checker = Checker(search)
    assert run_inline(search, tmp_path, run_toy, checker)
    assert checker.looks > 30
    assert len(checker.tally.failures) == 2
    assert search.roles[checker.tally.baseline] == "baseline"
    resumed = start(tmp_path, budget=14)
    again = Checker(resumed)
    again.update()
    assert again.tally.seconds == checker.tally.seconds


def test_a_look_tells_which_trials_something_happened_to(tmp_path):
    search, tally = start(tmp_path), Tally()
    first, second = begin(search, row(1)), begin(search)
    assert tally.follow(search) == [first, second]
    assert tally.follow(search) == []
    search.on_row(second, row(1))
    assert tally.follow(search) == [second]
    search.on_end(first, "a bug")
    assert tally.follow(search) == [first]
    assert tally.failures == [first]


def test_the_best_falls_back_when_its_score_does_or_it_fails(tmp_path):
    search, tally = start(tmp_path), Tally()
    high, low = begin(search, row(1, 0.9)), begin(search, row(1, 0.5))
    tally.follow(search)
    assert tally.best == high
    search.on_row(high, row(2, 0.4))
    tally.follow(search)
    assert tally.best == low
    search.on_end(low, "a bug")
    tally.follow(search)
    assert tally.best == high


def test_a_tie_goes_to_the_earlier_trial(tmp_path):
    search, tally = start(tmp_path), Tally()
    early, late = begin(search), begin(search, row(1, 0.5))
    tally.follow(search)
    search.on_row(early, row(1, 0.5))
    tally.follow(search)
    assert tally.best == early == best(search)
    assert late in tally.trials


def test_settings_vary_once_two_trials_differ_in_them(tmp_path):
    search = start(tmp_path, anchors=[("baseline", flat()), ("default", flat(lr=0.5))])
    tally = Tally()
    begin(search)
    tally.follow(search)
    assert tally.varying == set()
    begin(search, row(EPOCHS))
    tally.follow(search)
    assert tally.varying == {"lr"}


# --- folds ---------------------------------------------------------------------------------------


def fold_of(lr: float, fold: int):
    return {**flat(lr=lr), "folds": 3, "fold": fold}


def end(tally: Tally, trial: str, score: float, status: str = "completed"):
    tally.take(trial, {1: row(1, score)}, TrialResult(status, {"score": score}, 1, 1.0))


def folded_tally() -> Tally:
    """Two configurations, a and b, of three folds; pooled scores are made up."""
    tally = Tally(milestones=[1], pooled=lambda trials: {"a": 0.2, "b": 0.1}[trials[0][0]])
    for name, lr in (("a", 0.1), ("b", 0.2)):
        for fold in range(3):
            tally.add(f"{name}{fold}", fold_of(lr, fold), "proposed")
    return tally


def test_the_best_is_of_those_with_most_folds_by_the_pooled_score():
    tally = folded_tally()
    end(tally, "a0", 0.5)
    end(tally, "b0", 0.6)
    assert tally.best == "b0"
    end(tally, "a1", 0.99)  # a further fold is nobody's best
    assert (tally.best, tally.trials["a0"].score) == ("a0", 0.2)
    end(tally, "b1", 0.0)
    assert (tally.best, tally.trials["b0"].score) == ("a0", 0.1)
    end(tally, "b2", 0.0)
    assert tally.best == "b0"
    assert tally.fold_counts() == {3: 1, 2: 1}
    assert (tally.rungs[1].came, tally.epochs) == (2, 5)  # further folds stand in no rung


def test_a_failed_fold_is_the_end_of_a_lead():
    tally = folded_tally()
    end(tally, "a0", 0.5)
    end(tally, "a1", 0.5)
    end(tally, "b0", 0.4)
    assert tally.best == "a0"
    end(tally, "a2", 0.0, "failed")
    assert tally.best == "b0"


def test_a_second_fold_that_ends_before_the_first_counts_when_that_has_ended():
    tally = folded_tally()
    end(tally, "a1", 0.9)
    assert tally.fold_counts() == {1: 1}
    end(tally, "a0", 0.3)
    assert (tally.best, tally.trials["a0"].score) == ("a0", 0.2)
