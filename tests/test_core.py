"""The decision core: outcomes, losses, duplicates, and how all is rebuilt from the record."""

import math

import pytest
from from_scratch import best, counts, last_score
from toy import EPOCHS, flat, start

from search.pruners import asha
from trainables.config import TrialConfig, pacing_horizon
from trainables.store import TrialResult


def row(epoch, score=0.5, **more):
    return {"epoch": epoch, "score": score, "seconds": 2.0, **more}


def begin(search, *rows):
    """Hand out a trial that stores and delivers the rows; its id."""
    handout = search.next()
    for one in rows:
        search.store.trial(handout.id, handout.attempt).append(one)
        search.on_row(handout.id, one)
    return handout.id


def recomputed(search):
    """The rungs as the histories alone give them."""
    pruner = asha(EPOCHS, grace=1, eta=3)
    for record in search.store.records():
        pruner.spare(record.id, pacing_horizon(TrialConfig.from_flat(record.config)))
        scores = []
        for one in record.history:
            scores.append(one["score"])
            pruner.record(record.id, one["epoch"], max(scores))
    return pruner.rungs


def test_the_budget_is_the_number_of_trials(tmp_path):
    search = start(tmp_path, budget=3)
    handouts = [search.next() for _ in range(4)]
    assert handouts[3] is None
    assert search.exhausted
    assert not search.is_finished
    for handout in handouts[:3]:
        search.on_end(handout.id, "x")
    assert search.is_finished


def test_a_trial_that_reached_the_last_epoch_is_completed(tmp_path):
    search = start(tmp_path)
    trial = begin(search, row(1), row(EPOCHS, 0.75, peak_gib=1.5))
    assert search.on_end(trial) == "completed"
    result = search.store.trial(trial).result()
    assert result.metrics == row(EPOCHS, 0.75, peak_gib=1.5)
    assert (result.epoch, result.seconds, result.peak_gib) == (EPOCHS, 4.0, 1.5)


def test_a_trial_that_asha_ended_is_stopped(tmp_path):
    search = start(tmp_path)
    for score in (0.5, 0.6):
        begin(search, row(1, score))
    worse = begin(search, row(1, 0.1))
    assert search.on_end(worse) == "stopped"
    assert search.results[worse].metrics == row(1, 0.1)


def test_an_error_a_bad_score_and_an_early_end_are_failures_with_a_reason(tmp_path):
    search = start(tmp_path)
    raised, bad, early = begin(search, row(1)), begin(search), begin(search, row(2))
    search.on_row(bad, row(1, math.nan))
    assert search.on_row(bad, row(1, math.nan)) == "stop"
    assert search.on_end(raised, "RuntimeError: bug") == "failed"
    assert search.on_end(bad) == "failed"
    assert search.on_end(early) == "failed"
    errors = [search.store.trial(t).result().error for t in (raised, bad, early)]
    assert errors == [
        "RuntimeError: bug",
        "the score is not finite at epoch 1",
        f"it ended by itself at epoch 2 of {EPOCHS}",
    ]
    assert search.results[bad].metrics == row(1, None)


def test_the_result_that_the_trial_filed_stands(tmp_path):
    search = start(tmp_path)
    trial = begin(search, row(1))
    search.store.trial(trial).finish(TrialResult("completed", {"score": 0.9}, 1))
    assert search.on_end(trial, "late error") == "completed"
    assert search.store.trial(trial).result().error == ""


def test_duplicates_and_late_news_change_nothing(tmp_path):
    search = start(tmp_path)
    trial = begin(search, row(1, 0.5), row(2, 0.6))
    assert search.on_row(trial, row(1, 0.9)) == "continue"
    assert search.pruner.rungs[1] == {trial: 0.5}
    search.on_end(trial, "x")
    before = search.store.trial(trial).result(), search.history(trial), counts(search)
    assert search.on_row(trial, row(3)) == "stop"
    search.on_lost(trial)
    assert search.on_end(trial, "y") == "failed"
    after = search.store.trial(trial).result(), search.history(trial), counts(search)
    assert after == before


def test_a_lost_trial_comes_back_first_and_fences_its_old_worker(tmp_path):
    search = start(tmp_path)
    first, _ = search.next(), search.next()
    search.on_lost(first.id)
    assert not search.is_current(first)
    again = search.next()
    assert (again.id, again.attempt) == (first.id, 2)
    assert search.is_current(again)
    with pytest.raises(RuntimeError, match="attempt 1 was replaced by 2"):
        search.store.trial(first.id, first.attempt).append(row(1))


def test_a_trial_that_costs_too_many_workers_fails(tmp_path):
    search = start(tmp_path)
    trial = search.next().id
    for _ in range(2):
        search.on_lost(trial)
        assert search.next().id == trial
    search.on_lost(trial)
    assert search.results[trial].error == "its worker was lost 3 times"
    assert search.next().id != trial


def test_a_worker_lost_after_its_last_row_has_not_lost_the_trial(tmp_path):
    search = start(tmp_path)
    trial = begin(search)
    own = search.store.trial(trial)
    own.append(row(EPOCHS, 0.8))
    own.finish(TrialResult("completed", {"score": 0.8}, EPOCHS))
    search.on_lost(trial)
    assert search.results[trial].status == "completed"
    assert last_score(search, trial) == 0.8


def test_the_baseline_is_never_stopped(tmp_path):
    anchors = [("baseline", flat(backbone="resnet50"))]
    search = start(tmp_path, anchors=anchors)
    baseline = begin(search)
    for score in (0.5, 0.6, 0.7):
        begin(search, row(1, score))
    assert search.on_row(baseline, row(1, 0.0)) == "continue"
    resumed = start(tmp_path, anchors=anchors)
    assert resumed.pruner.protected == {baseline}


def test_a_restart_rebuilds_rungs_study_and_books(tmp_path):
    search = start(tmp_path)
    ended = [begin(search, row(1, s), row(2, s), row(3, s)) for s in (0.5, 0.6, 0.2)]
    for trial in ended:
        search.on_end(trial, "bug" if trial == ended[1] else "")
    open_ = begin(search, row(1, 0.7))
    search.store.trial(open_).append(row(2, 0.7))  # stored, but the driver died before it knew
    resumed = start(tmp_path)
    assert resumed.pruner.rungs == recomputed(search)
    assert {t: r.status for t, r in resumed.results.items()} == {
        t: r.status for t, r in search.results.items()
    }
    assert [t.state.name for t in resumed.proposer.model.study.get_trials()] == [
        t.state.name for t in search.proposer.model.study.get_trials()
    ]
    assert resumed.next().id == open_
    assert resumed.next().id not in {*ended, open_}


def test_a_restart_may_have_a_larger_budget(tmp_path):
    search = start(tmp_path, budget=1)
    search.on_end(begin(search), "x")
    assert search.next() is None
    assert start(tmp_path, budget=2).next() is not None


def test_best_and_counts(tmp_path):
    search = start(tmp_path)
    assert best(search) is None
    good, failed = begin(search, row(1, 0.6)), begin(search, row(1, 0.9))
    search.on_end(failed, "bug")
    search.next()
    assert best(search) == good
    assert counts(search) == {
        "running": 1, "completed": 0, "stopped": 0, "failed": 1, "paused": 0, "waiting": 1,
    }  # fmt: skip


def test_a_trial_that_another_driver_took_is_not_closed_here(tmp_path):
    search = start(tmp_path)
    handout = search.next()
    newer = search.store.hand_out(handout.id)  # as a second driver on the same folder would
    assert search.on_end(handout.id, "it was fenced off") == "running"
    assert search.store.trial(handout.id).result() is None
    assert handout.id not in search.live
    search.store.trial(handout.id, newer).append({"epoch": 1, "score": 0.5})  # it may go on


def test_a_trial_pauses_at_a_rung_and_goes_on_when_it_is_among_the_best(tmp_path):
    search = start(tmp_path, budget=3, pruner="promotion")
    good, *others = [begin(search, row(1, score)) for score in (0.6, 0.5, 0.4)]
    assert search.paused == {good: 1, others[0]: 1, others[1]: 1}
    assert search.live == {}
    handout = search.next()  # the best of three
    assert (handout.id, handout.attempt) == (good, 2)
    assert search.on_row(good, row(1, 0.6)) == "continue"  # the row it resumes from
    assert search.on_row(good, row(2, 0.7)) == "continue"
    assert search.on_row(good, row(3, 0.8)) == "pause"


def test_those_that_wait_when_nothing_can_change_any_more_are_stopped(tmp_path):
    search = start(tmp_path, budget=3, pruner="promotion")
    trials = [begin(search, row(1, score)) for score in (0.6, 0.5, 0.4)]
    leader = search.next().id
    begin_rows = [row(epoch, 0.9) for epoch in range(2, EPOCHS + 1)]
    assert search.on_row(leader, begin_rows[1]) == "pause"  # alone at rung 3: nobody to beat
    assert search.next().id == leader  # and nobody will come
    for one in begin_rows[2:]:
        assert search.on_row(leader, one) == "continue"
    assert search.on_end(leader) == "completed"
    assert search.next() is None
    assert search.is_finished
    assert [search.results[t].status for t in trials] == ["completed", "stopped", "stopped"]
    assert search.store.trial(trials[1]).result().epoch == 1


def test_a_restart_finds_paused_trials_waiting(tmp_path):
    search = start(tmp_path, budget=4, pruner="promotion")
    trials = [begin(search, row(1, score)) for score in (0.6, 0.5, 0.4)]
    underway = begin(search)  # the best, promoted
    resumed = start(tmp_path, budget=4, pruner="promotion")
    assert resumed.paused == dict.fromkeys(trials, 1)
    assert resumed.backlog == []
    assert resumed.next().id == underway == trials[0]


def test_a_spent_limit_pauses_what_runs_and_starts_nothing_new(tmp_path):
    search = start(tmp_path)
    search.limit = lambda: "the hour has passed" if search.seconds > 3 else ""
    trial = search.next().id
    assert search.on_row(trial, row(1)) == "continue"
    assert search.on_row(trial, row(2)) == "pause"
    assert search.spent == "the hour has passed"
    assert search.next() is None
    assert search.is_over
    assert not search.is_finished
    assert search.on_end(trial) == "running"  # a front may say so; it is not an end
    assert search.store.trial(trial).result() is None
    assert start(tmp_path).backlog == [trial]


def test_a_last_row_after_the_limit_still_ends_its_trial(tmp_path):
    search = start(tmp_path)
    trial = search.next().id
    search.limit = lambda: "spent"
    assert search.on_row(trial, row(EPOCHS)) == "continue"
    assert search.on_end(trial) == "completed"


def test_a_late_bloomer_is_not_judged_before_it_can_bloom(tmp_path):
    """Deferred re-weighting from 0.3 on: worst at the first rung, best at the end."""
    late = flat(rebalance="deferred", **{"rebalance.start": 0.3})
    bloomer = TrialConfig.from_flat(late)
    assert pacing_horizon(bloomer) == 3
    naive = asha(EPOCHS)
    for number, score in enumerate((0.5, 0.6, 0.1)):
        naive.record(str(number), 1, score)
    assert naive.decide("2", 1, 0.1) == "stop"
    search = start(tmp_path, anchors=[("default", late)])
    trial = search.next().id
    assert search.on_row(trial, row(2, 0.05)) == "continue"
    for score in (0.5, 0.6, 0.7):
        begin(search, row(1, score))
    assert search.on_row(trial, row(1, 0.01)) == "continue"
    assert trial not in search.pruner.rungs[1]
    assert search.on_row(trial, row(3, 0.9)) == "continue"
    assert search.pruner.rungs[3] == {trial: 0.9}


def test_a_trial_is_judged_on_its_best_score_so_far(tmp_path):
    search = start(tmp_path)
    for score in (0.5, 0.6):
        begin(search, row(1, 0.1), row(2, 0.7), row(3, score))
    assert set(search.pruner.rungs[3].values()) == {0.7}
