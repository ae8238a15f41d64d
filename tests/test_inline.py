"""The whole search in one process."""

import json
from itertools import pairwise

import pytest
from test_core import recomputed
from toy import EPOCHS, SPACE, flat, quality, run_toy, start

from search.inline import run_inline
from search.pruners import PRUNERS
from trainables.config import TrialConfig


class Counter:
    """An observer that counts what it is told."""

    def __init__(self, patience=10**9):
        self.calls, self.patience = [], patience

    def start(self):
        self.calls.append("start")

    def update(self):
        self.calls.append("update")
        if len(self.calls) > self.patience:
            raise KeyboardInterrupt

    def stop(self):
        self.calls.append("stop")


def outcome(search):
    """What a run leaves behind, workers aside."""
    return [
        (r.id, r.role, r.result and r.result.status, [(h["epoch"], h["score"]) for h in r.history])
        for r in search.store.records()
    ]


def test_thirty_trials_end_and_some_are_stopped_early(tmp_path):
    search = start(tmp_path, budget=30)
    assert run_inline(search, tmp_path, run_toy)
    statuses = [status for _, _, status, _ in outcome(search)]
    assert set(statuses) == {"completed", "stopped"}
    assert 10 <= statuses.count("stopped") <= 26
    assert search.pruner.rungs == recomputed(search)
    for record in search.store.records():
        config = TrialConfig.from_flat(record.config)
        epochs = [row["epoch"] for row in record.history]
        assert epochs == list(range(1, len(epochs) + 1))
        assert abs(record.history[-1]["score"] - quality(config) * len(epochs) / EPOCHS) < 1e-9


@pytest.mark.parametrize("pruner", PRUNERS)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(pruner, tmp_path):
    asked = {"budget": 30, "pruner": pruner, "anchors": [("default", SPACE.defaults())]}
    straight = start(tmp_path / "straight", **asked)
    assert run_inline(straight, tmp_path, run_toy)
    for patience in (1, 30, 20):
        cut = start(tmp_path / "cut", **asked)
        assert not run_inline(cut, tmp_path, run_toy, Counter(patience))
    resumed = start(tmp_path / "cut", **asked)
    assert run_inline(resumed, tmp_path, run_toy)
    assert outcome(resumed) == outcome(straight)
    assert resumed.pruner.rungs == straight.pruner.rungs


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_trial_of_a_run_ends_and_the_best_ones_are_trained_whole(pruner, tmp_path):
    search = start(tmp_path, budget=30, pruner=pruner)
    assert run_inline(search, tmp_path, run_toy)
    statuses = [status for _, _, status, _ in outcome(search)]
    assert search.is_finished
    assert len(statuses) == 30
    assert set(statuses) <= {"completed", "stopped"}
    assert "completed" in statuses
    assert ("stopped" in statuses) == (pruner != "none")


def test_an_interrupt_inside_a_trial_leaves_it_unfinished(tmp_path):
    anchors = [("baseline", flat(weights="interrupt", fold=4))]
    search = start(tmp_path, budget=2, anchors=anchors)
    assert not run_inline(search, tmp_path, run_toy)
    (record,) = search.store.records()
    assert record.result is None
    assert [row["epoch"] for row in record.history] == [1, 2, 3]
    resumed = start(tmp_path, budget=2, anchors=anchors)
    assert run_inline(resumed, tmp_path, run_toy)
    first = resumed.store.records()[0]
    assert first.result.status == "completed"
    assert all(b["epoch"] - a["epoch"] == 1 for a, b in pairwise(first.history))


def test_a_trial_that_raises_fails_with_its_reason_and_the_others_go_on(tmp_path):
    anchors = [
        ("baseline", flat(weights="raise", fold=3)),
        ("default", flat(weights="nan", fold=2, lr=0.1)),
    ]
    search = start(tmp_path, budget=6, anchors=anchors)
    assert run_inline(search, tmp_path, run_toy)
    raised, bad, *others = search.store.records()
    assert (raised.result.status, raised.result.epoch) == ("failed", 2)
    assert raised.result.error == "RuntimeError: a bug at this epoch"
    trace = search.store.trial(raised.id).read("error.txt").decode()
    assert "in fault" in trace
    assert bad.result.status == "failed"
    assert "not finite" in bad.result.error
    assert {r.result.status for r in others} <= {"completed", "stopped"}


def test_a_process_that_a_gpu_has_spoilt_trains_no_more(tmp_path):
    """The trial stays open, so that a resume trains it."""
    search, began = start(tmp_path), []

    def spoilt(store, data):
        began.append(store.id)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
        yield

    with pytest.raises(OSError, match="RuntimeError: CUDA error: an illegal memory access"):
        run_inline(search, tmp_path, spoilt)
    assert len(began) == 1
    assert search.store.trial(began[0]).result() is None


def test_the_observer_is_told_from_start_to_stop(tmp_path):
    watching = Counter()
    run_inline(start(tmp_path, budget=2), tmp_path, run_toy, watching)
    assert watching.calls[0] == "start"
    assert watching.calls[-1] == "stop"
    assert watching.calls.count("update") >= 2


def test_results_are_plain_json(tmp_path):
    search = start(tmp_path, budget=3)
    run_inline(search, tmp_path, run_toy)
    for record in search.store.records():
        text = (tmp_path / "trials" / record.id / "result.json").read_text()
        assert json.loads(text)["status"] == record.result.status
