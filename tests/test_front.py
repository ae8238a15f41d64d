"""The front of several objectives."""

import json

import pytest

from search import status
from search.front import SHOWN, front, front_lines
from trainables.config import TrialConfig
from trainables.store import RunStore, TrialResult

BOTH = ["macro_f1", "latency"]


def ended(score, latency, status="completed"):
    return TrialResult(status, {"score": score, "latency_ms": latency, "parameters": 9}, 2, 1.0)


def test_only_what_no_other_beats_is_on_it_best_score_first():
    results = {
        "slow": ended(0.9, 30.0),
        "fast": ended(0.5, 2.0),
        "beaten": ended(0.4, 3.0),
        "equal latency": ended(0.6, 30.0),
        "middle": ended(0.7, 10.0),
    }
    found = front(results, BOTH)
    assert list(found.items()) == [
        ("slow", (0.9, 30.0)),
        ("middle", (0.7, 10.0)),
        ("fast", (0.5, 2.0)),
    ]


def test_a_score_of_zero_is_a_score():
    assert front({"a": ended(0.0, 3.0)}, BOTH) == {"a": (0.0, 3.0)}


def test_what_has_not_been_trained_to_its_end_is_not_on_it():
    stopped, broken = ended(0.9, 1.0, "stopped"), TrialResult("completed", {"score": 0.9}, 2, 1.0)
    results = {"a": stopped, "b": None, "c": broken, "d": ended(0.1, 9.0)}
    assert list(front(results, BOTH)) == ["d"]


def test_of_two_equal_trials_the_earlier_is_shown():
    assert list(front({"b": ended(0.5, 2.0), "a": ended(0.5, 2.0)}, BOTH)) == ["b"]


def test_one_objective_has_no_front():
    assert front({"a": ended(0.5, 2.0)}, ["macro_f1"]) == {}


def test_a_line_tells_each_objective_and_many_are_cut_short():
    objectives = [*BOTH, "parameters"]
    points = {f"t{n}": (0.9 - n / 100, 20.0 - n, 1e6) for n in range(SHOWN + 2)}
    lines = front_lines(points, objectives)
    assert lines[0] == "t0 score 0.9000, 20 ms, 1,000,000 parameters"
    assert len(lines) == SHOWN + 1
    assert lines[-1] == "and 2 more (search.status --json)"


@pytest.fixture
def run(tmp_path):
    store = RunStore.create(tmp_path / "run", {"name": "run", "objectives": BOTH, "rungs": []})
    for number, (score, latency) in enumerate([(0.9, 30.0), (0.5, 2.0), (0.4, 3.0)]):
        trial = store.create_trial(TrialConfig(seed=number), number)
        store.trial(trial, store.hand_out(trial)).finish(ended(score, latency))
    return store


def test_the_state_of_a_run_tells_it(run, capsys):
    slow, fast, _ = (record.id for record in run.records())
    assert status.main([str(run.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["front"] == [
        {"trial": slow, "macro_f1": 0.9, "latency": 30.0},
        {"trial": fast, "macro_f1": 0.5, "latency": 2.0},
    ]
    assert status.main([str(run.root)]) == 0
    assert f"front    {fast} score 0.5000, 2 ms" in capsys.readouterr().out
