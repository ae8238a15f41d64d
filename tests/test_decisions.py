"""What is kept of the predictions of a run's trials as they are read, part after part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import make_run, small

from analysis import votes as reading
from analysis.board import read_board
from trainables.store import RunStore


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    return make_run(tmp_path / "run", 14, small())


def test_probabilities_are_kept_of_completed_trials_and_the_baseline(run: RunStore) -> None:
    board = read_board(run)
    stands = {r.id: (r.role == "baseline" or r.result.status == "completed") for r in board.records}
    assert {stands[trial] for trial in board.votes.trials} == {True, False}
    assert set(board.votes.full.trials) == {t for t in board.votes.trials if stands[t]}
    for trial in board.votes.full.trials:
        full = board.votes.full.predicted[board.votes.full.row(trial)]
        assert (full == board.votes.calls(trial)).all()


def test_where_no_completed_trial_can_be_used_all_probabilities_are_kept(run: RunStore) -> None:
    for record in run.records():
        if record.result and record.result.status == "completed":
            (run.trial(record.id).path / "val.npz").write_bytes(b"torn")
    votes = read_board(run).votes
    assert votes.trials
    assert votes.full.trials == votes.trials


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_the_size_of_the_parts_changes_nothing(
    run: RunStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    records = run.records()
    shuffled = run.trial(records[5].id).predictions("val")
    order = np.random.default_rng(0).permutation(len(shuffled.ids))
    rest = (shuffled.labels, shuffled.probs, shuffled.aus, shuffled.au_probs)
    run.trial(records[5].id).save_predictions(
        "val", type(shuffled)(tuple(shuffled.ids[n] for n in order), *(v[order] for v in rest))
    )
    for number, change in (
        (6, {"ids": tuple(f"x{n}" for n in order)}),
        (7, {"labels": 1 - 0 * order}),
    ):
        held = run.trial(records[number].id).predictions("val")
        run.trial(records[number].id).save_predictions("val", replace(held, **change))
    whole = read_board(run).votes
    monkeypatch.setattr(reading, "AT_ONCE", at_once)
    parts = read_board(run).votes
    assert parts.trials == whole.trials
    assert parts.ids == whole.ids == tuple(sorted(whole.ids))
    assert parts.problems == whole.problems
    assert "of other images" in whole.problems[records[6].id]
    assert "labels differ from those of trial" in whole.problems[records[7].id]
    for name in ("labels", "aus", "predicted", "nll", "ece", "unit_f1"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
    np.testing.assert_array_equal(parts.full.probs, whole.full.probs)
    np.testing.assert_array_equal(parts.full.au_probs, whole.full.au_probs)
