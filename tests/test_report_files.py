"""What a report writes beside its page, the objectives' front, measures of many models at once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import FakeData, make_run, small
from page import Page

from analysis import boardtable, classplots, costs, findings, intervals, measures, report
from analysis.decisions import read_decisions
from analysis.leaderboard import read_board
from analysis.statistics import tally
from trainables import metrics
from trainables.store import Predictions, RunStore


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    run = make_run(tmp_path_factory.mktemp("files") / "run", 12, small())
    run.update_meta(objectives=["macro_f1", "latency"])
    for number, record in enumerate(run.records()):
        result = record.result
        assert result is not None
        path = run.trial(record.id).path / "result.json"
        held = json.loads(path.read_text())
        held["metrics"]["latency_ms"] = 1.0 + number % 3
        path.write_text(json.dumps(held))
    report.write_report(run)
    return run


def test_parquet_and_csv_hold_the_same(run: RunStore) -> None:
    folder = run.root / "report"
    csv, parquet = (
        pd.read_csv(folder / "leaderboard.csv"),
        pd.read_parquet(folder / "leaderboard.parquet"),
    )
    assert parquet.columns.tolist() == csv.columns.tolist()
    for name in ("score", "score low", "setting lr"):
        np.testing.assert_allclose(csv[name], parquet[name].to_numpy(float))
    assert csv["trial"].tolist() == parquet["trial"].tolist()


def test_markdown_says_what_the_page_says(run: RunStore) -> None:
    text = (run.root / "report" / "report.md").read_text()
    page = Page((run.root / "report" / "index.html").read_text())
    for sentence in findings.words(findings.find(read_board(run))):
        assert sentence in text
    row = page.rows["classes"][1]
    assert f"| {' | '.join(row)} |" in text
    assert "python -m search.run --space sprint2" in text


def test_the_front_of_several_objectives_is_on_the_page(run: RunStore) -> None:
    found = costs.front(read_board(run))
    done = {
        r.id: (r.result.metrics["score"], r.result.metrics["latency_ms"])
        for r in run.records()
        if r.result and r.result.status == "completed"
    }
    wanted = {
        t for t, (s, c) in done.items()
        if not any(s2 >= s and c2 <= c and (s2, c2) != (s, c) for s2, c2 in done.values())
    }  # fmt: skip
    assert set(found.points) == wanted
    page = Page((run.root / "report" / "index.html").read_text())
    assert [row[0] for row in page.rows["goals"][1:]] == list(found.points)
    assert costs.front(read_board(run)).names == ("macro_f1", "latency")


def test_the_smallest_difference_is_told_and_falls_with_more_images(tmp_path: Path) -> None:
    sizes = []
    for number, count in enumerate((60, 600)):
        data = FakeData(("a", "b", "c"), (count, count, count), (), 0.8)
        run = make_run(tmp_path / str(number), 6, data)
        found = findings.find(read_board(run))
        assert found.detectable is not None
        assert any(f"about {found.detectable:.3f}" in line for line in findings.words(found))
        sizes.append(found.detectable)
    assert sizes[0] / sizes[1] == pytest.approx(np.sqrt(10), rel=0.35)


def test_all_models_at_once_score_as_one_by_one(run: RunStore) -> None:
    board = read_board(run)
    every = read_decisions(run, board.records, len(board.class_names), {}, None, "macro_f1")
    votes, units = every.full, every.unit_f1
    assert len(votes.trials) > len(board.votes.full.trials)
    counts = tally(votes.labels, votes.predicted, len(board.class_names))
    columns = measures.of_classes(counts, board.goal)
    columns |= {"nll": every.nll, "ece": every.ece}
    for m, probs in enumerate(votes.probs):
        for name, value in metrics.scores(votes.labels, probs).items():
            assert columns[name][m] == pytest.approx(value, abs=1e-6), name
        if not np.isnan(votes.au_probs[m]).any():
            wanted = metrics.au_f1(votes.aus, votes.au_probs[m])
            np.testing.assert_allclose(units[m], wanted)


def test_beyond_the_best_intervals_are_close_to_the_bootstraps(
    run: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = read_board(run)
    said = board.votes.labels, board.votes.predicted, board.goal
    scores = board.goal.scores(tally(*said[:2], len(board.class_names)))
    exact = intervals.of_scores(*said, scores, 0)
    monkeypatch.setattr(intervals, "BOOTSTRAPPED", 2)
    quick = intervals.of_scores(*said, scores, 0)
    for name, values in exact.items():
        np.testing.assert_allclose(quick[name], values, atol=0.035, err_msg=name)
    kept = {0, *np.argsort(-scores)[:2].tolist()}
    same = set(np.flatnonzero(quick["score low"] == exact["score low"]).tolist())
    assert same == kept


def test_the_data_of_the_table_cannot_end_its_script(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, small())
    trial = run.records()[1].id
    path = run.trial(trial).path / "config.json"
    head = json.loads(path.read_text())
    head["config"]["backbone"] = "</script><script>alert(1)</script>"
    path.write_text(json.dumps(head))
    found = findings.find(read_board(run))
    text = boardtable.data(found, found.board.varying)
    assert "<" not in text
    (options,) = (s["options"] for s in json.loads(text)["settings"] if s["name"] == "backbone")
    assert head["config"]["backbone"] in options


def test_probabilities_that_sum_to_nothing_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, small())
    trial = run.trial(run.records()[2].id)
    held = trial.predictions("val")
    assert held is not None
    zeros = np.zeros_like(held.probs)
    trial.save_predictions(
        "val", Predictions(held.ids, held.labels, zeros, held.aus, held.au_probs)
    )
    page = Page(report.write_report(run).read_text())
    assert "rows of probabilities are negative or sum to 0" in page.text


def test_of_many_classes_a_confusion_shows_those_with_the_most_mistakes() -> None:
    counts = np.diag(np.full(60, 8))
    counts[3, 57] = 2
    names = tuple(f"class {k}" for k in range(60))
    figure = classplots.confusion(counts, names, "Confusion")
    shown = figure.data[0]
    assert len(shown.x) == len(shown.y) == classplots.MOST_CLASSES
    row, column = shown.y.index("class 3"), shown.x.index("class 57")
    assert shown.z[row][column] == 0.2  # of all of the class, shown or not
    assert shown.customdata[row][column] == 2
    assert "of 60 classes the 50" in figure.layout.title.text
