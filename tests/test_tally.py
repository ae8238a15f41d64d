"""What is counted as it comes equals what is counted from scratch."""

import math

from from_scratch import best, counts, last_score
from test_core import begin, row
from toy import EPOCHS, flat, run_toy, start

from search.inline import run_inline
from search.monitor import counts as tallied
from search.tally import Rung, Tally


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
