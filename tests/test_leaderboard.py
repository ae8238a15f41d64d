"""The leaderboard of small runs: numbers, ranks, intervals, and what is told where they lack."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import FakeData, add_trial, edit_json, make_meta, make_run, small

from analysis import ensemble, leaderboard, tables
from analysis.leaderboard import read_board
from trainables import metrics
from trainables.store import Predictions, RunStore, Status, TrialResult


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    return make_run(tmp_path / "run", 12, small())


def row(table: pd.DataFrame, role: str = "baseline") -> pd.Series:
    return table[table["role"] == role].iloc[0]


def predictions(run: RunStore, trial: str) -> Predictions:
    found = run.trial(trial).predictions("val")
    assert found is not None
    return found


def test_scores_are_those_of_the_stored_predictions(run: RunStore) -> None:
    table = leaderboard.leaderboard(run)
    for _, line in table[table["rank"].notna()].iterrows():
        stored = predictions(run, line["trial"])
        for name, value in metrics.scores(stored.labels, stored.probs).items():
            assert line[name] == pytest.approx(value), name
    assert not table["note"][table["rank"].notna()].any()


def test_ranks_follow_the_score_and_failed_trials_come_last(run: RunStore) -> None:
    table = leaderboard.leaderboard(run)
    ranked = table[table["rank"].notna()]
    assert ranked["score"].is_monotonic_decreasing
    assert ranked["rank"].tolist() == list(range(1, len(ranked) + 1))
    failed = table.iloc[len(ranked) :]
    assert failed["status"].tolist() == ["failed"]
    assert failed["score"].isna().all()
    assert "loss is nan" in failed["note"].iloc[0]


def test_recall_and_support_of_each_class_by_hand(run: RunStore) -> None:
    line = row(leaderboard.leaderboard(run))
    stored = predictions(run, line["trial"])
    for k, name in enumerate(small().class_names):
        own = stored.labels == k
        recall = (stored.probs[own].argmax(1) == k).mean()
        assert line[f"recall {name} (n={own.sum()})"] == pytest.approx(recall)


def test_action_units_have_a_score_where_the_model_has_a_head(run: RunStore) -> None:
    table = leaderboard.leaderboard(run)
    assert math.isnan(row(table)["au_f1"])  # the baseline is trained on one task
    line = row(table, "default")
    stored = predictions(run, line["trial"])
    expected = metrics.au_f1(stored.aus, stored.au_probs)
    column = next(name for name in table.columns if name.startswith("au_f1 AU1 (n="))
    assert line[column] == pytest.approx(expected[0])
    assert line["au_f1"] == pytest.approx(expected.mean())


def test_the_difference_from_the_baseline_is_paired(run: RunStore) -> None:
    table = leaderboard.leaderboard(run)
    line, base = row(table, "default"), row(table)
    assert math.isnan(base["vs baseline"])
    assert line["vs baseline"] == pytest.approx(line["score"] - base["score"])
    assert line["vs baseline low"] < line["vs baseline"] < line["vs baseline high"]


def test_a_twin_of_the_baseline_differs_by_exactly_nothing(tmp_path: Path) -> None:
    run = RunStore.create(tmp_path / "run", make_meta(small(), 2))
    one, two = (add_trial(run, n, small(), np.random.default_rng(0)) for n in (0, 1))
    two.save_predictions("val", predictions(run, one.id))
    line = row(leaderboard.leaderboard(run), "default")
    found = [line[f"vs baseline{end}"] for end in ("", " low", " high")]
    assert found == [0, 0, 0]


def test_majority_scores_use_the_commonest_training_class(run: RunStore) -> None:
    edit_json(run.root / "run.json", data={**run.meta()["data"], "train_counts": [1, 9, 3]})
    found = leaderboard.majority(read_board(run))
    labels = small().labels()
    assert found is not None
    assert found["accuracy"] == pytest.approx((labels == 1).mean())


@pytest.mark.parametrize("objective", metrics.OBJECTIVES)
def test_the_score_is_what_the_run_maximised(run: RunStore, objective: str) -> None:
    run.update_meta(metric=objective)
    board = read_board(run)
    table = leaderboard.frame(board)
    ranked = table[table["rank"].notna()]
    assert ranked["score"].tolist() == ranked[objective].tolist()
    found, majority = ensemble.build(board.votes.full, board.goal), leaderboard.majority(board)
    assert found.optimistic["single"] == pytest.approx(ranked["score"].max())
    assert majority is not None
    assert majority["score"] == majority[objective]


def test_an_unknown_metric_is_told(run: RunStore) -> None:
    run.update_meta(metric="accurcy")
    with pytest.raises(ValueError, match="unknown metric 'accurcy'"):
        read_board(run)


def test_settings_that_vary_are_found(run: RunStore) -> None:
    names = leaderboard.varying(read_board(run).records)
    assert {"backbone", "loss", "loss.gamma", "lr", "seed"} <= set(names)
    assert "epochs" not in names


def test_predictions_in_another_order_are_brought_into_order(run: RunStore) -> None:
    before = leaderboard.leaderboard(run)
    trial = before["trial"].iloc[0]
    stored = predictions(run, trial)
    order = np.random.default_rng(0).permutation(len(stored.ids))
    shuffled = Predictions(
        tuple(stored.ids[i] for i in order),
        stored.labels[order],
        stored.probs[order],
        stored.aus[order],
        stored.au_probs[order],
    )
    run.trial(trial).save_predictions("val", shuffled)
    after = leaderboard.leaderboard(run)
    pd.testing.assert_frame_equal(before, after, rtol=1e-4)  # float16, rounded once more


def spoil_ids(stored: Predictions) -> Predictions:
    return replace(stored, ids=("other.jpg", *stored.ids[1:]))


def spoil_labels(stored: Predictions) -> Predictions:
    return replace(stored, labels=(stored.labels + 1) % 3)


def spoil_classes(stored: Predictions) -> Predictions:
    return replace(stored, probs=stored.probs[:, :2])


def spoil_range(stored: Predictions) -> Predictions:
    return replace(stored, labels=np.full_like(stored.labels, -1))


def spoil_numbers(stored: Predictions) -> Predictions:
    probs = stored.probs.copy()
    probs[3, 1] = np.nan
    return replace(stored, probs=probs)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_ids, "of other images"),
        (spoil_labels, "labels differ"),
        (spoil_classes, "predicts 2 classes, the run has 3"),
        (spoil_range, "outside 0 to 2"),
        (spoil_numbers, "non-finite"),
    ],
)
def test_unusable_predictions_get_a_reason_and_no_score(run, spoil, told) -> None:  # type: ignore[no-untyped-def]  # parametrised
    trial = leaderboard.leaderboard(run)["trial"].iloc[2]
    run.trial(trial).save_predictions("val", spoil(predictions(run, trial)))
    table = leaderboard.leaderboard(run)
    line = table[table["trial"] == trial].iloc[0]
    assert math.isnan(line["score"])
    assert told in line["note"]
    assert table["score"].notna().sum() == 10


def test_truncated_predictions_get_a_reason(run: RunStore) -> None:
    trial = leaderboard.leaderboard(run)["trial"].iloc[0]
    path = run.trial(trial).path / "val.npz"
    path.write_bytes(path.read_bytes()[:100])
    table = leaderboard.leaderboard(run)
    assert "not a predictions file" in table[table["trial"] == trial]["note"].iloc[0]


def test_unusable_action_units_cost_only_the_action_units(run: RunStore) -> None:
    trial = row(leaderboard.leaderboard(run), "default")["trial"]
    stored = predictions(run, trial)
    run.trial(trial).save_predictions(
        "val", replace(stored, au_probs=np.full_like(stored.au_probs, np.nan))
    )
    line = row(leaderboard.leaderboard(run), "default")
    assert line["score"] > 0
    assert math.isnan(line["au_f1"])


def test_a_history_that_contradicts_the_predictions_is_told(run: RunStore) -> None:
    trial = leaderboard.leaderboard(run)["trial"].iloc[0]
    run.trial(trial).append({"epoch": 28, "score": 0.99})
    table = leaderboard.leaderboard(run)
    assert "reports score 0.990" in table[table["trial"] == trial]["note"].iloc[0]


def test_the_best_is_sought_among_completed_trials(run: RunStore) -> None:
    board = read_board(run)
    chosen, note = leaderboard.candidates(board)
    assert note == ""
    assert {leaderboard.status(board.record(t), board.meta) for t in chosen} == {"completed"}


def test_stopped_trials_stand_in_where_none_is_completed(tmp_path: Path) -> None:
    run = RunStore.create(tmp_path / "run", make_meta(small(), 2))
    for n in range(2):
        trial = add_trial(run, n, small(), np.random.default_rng(n), 3)
        trial.finish(TrialResult("stopped", {}, 3, 1.0))
    chosen, note = leaderboard.candidates(read_board(run))
    assert len(chosen) == 2
    assert "no trial was completed" in note


def test_a_failed_baseline_is_told_with_its_reason(tmp_path: Path) -> None:
    run = RunStore.create(tmp_path / "run", make_meta(small(), 2))
    for n in range(2):
        trial = add_trial(run, n, small(), np.random.default_rng(n))
        status: Status = "failed" if n == 0 else "completed"
        trial.finish(TrialResult(status, {}, 27, 1.0, error="" if n else "OSError: disk full"))
    board = read_board(run)
    assert leaderboard.baseline(board)[0] is None
    assert "disk full" in leaderboard.baseline(board)[1]
    assert leaderboard.frame(board)["vs baseline"].isna().all()


def test_a_run_without_class_names_is_told(run: RunStore) -> None:
    edit_json(run.root / "run.json", data={})
    with pytest.raises(ValueError, match=r"data\.class_names is missing"):
        read_board(run)


def test_an_empty_run_has_an_empty_leaderboard(tmp_path: Path) -> None:
    run = RunStore.create(tmp_path / "run", make_meta(small(), 2))
    table = leaderboard.leaderboard(run)
    assert len(table) == 0
    assert "score" in table


def test_markdown_holds_the_best_and_the_baseline(run: RunStore) -> None:
    board = read_board(run)
    table = leaderboard.frame(board)
    text = tables.markdown(board, table, 2)
    lines = text.splitlines()
    shown = [line.split(" | ")[1] for line in lines[2:]]
    assert shown[:2] == table["trial"].tolist()[:2]
    assert row(table)["trial"] in shown
    assert len({line.count(" | ") for line in [lines[0], *lines[2:]]}) == 1


def test_names_with_marks_do_not_break_the_markdown(tmp_path: Path) -> None:
    data = FakeData(("a|b", "<b>", "c"), (60, 40, 20), (), 0.8)
    run = make_run(tmp_path / "run", 3, data)
    board = read_board(run)
    text = tables.markdown(board, leaderboard.frame(board))
    assert "<b>" not in text
