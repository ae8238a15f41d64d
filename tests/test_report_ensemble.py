"""The ensemble's section of the page: every method, the front, how members differ."""

import json
from pathlib import Path

import pytest
from fake_run import other_run
from page import Page

from analysis import memberplots, report
from analysis.findings import Findings, find
from analysis.leaderboard import read_board
from trainables.store import RunStore


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    run = other_run(tmp_path_factory.mktemp("runs") / "run", trials=12)
    report.write_report(run)
    return run


@pytest.fixture(scope="module")
def findings(run: RunStore) -> Findings:
    return find(read_board(run))


def test_every_method_that_was_compared_stands_in_the_table(run: RunStore) -> None:
    page = Page((run.root / "report" / "index.html").read_text())
    saved = json.loads((run.root / "report" / "ensemble.json").read_text())
    rows = [row for row in page.rows["ensemble"] if len(row) == 6][1:]
    assert [row[0].removesuffix(" (chosen)") for row in rows] == [
        row["method"] for row in saved["table"]
    ]
    assert [row[2] for row in rows] == [f"{row['crossfit']:.3f}" for row in saved["table"]]
    assert [row[5] for row in rows] == [f"{row['latency_ms']:.1f}" for row in saved["table"]]
    names = {row["method"] for row in saved["table"]}
    assert {"CMA-ES", "stacking", "greedy", "average, adjusted"} <= names


def test_the_front_of_the_figure_is_that_of_the_file(run: RunStore, findings: Findings) -> None:
    saved = json.loads((run.root / "report" / "ensemble.json").read_text())
    figure = memberplots.front(findings)
    assert figure is not None
    line = next(trace for trace in figure.data if trace.name == "the front")
    best = [point for point in saved["front"] if point["is_best"]]
    assert list(line.x) == [point["latency_ms"] for point in best]
    assert list(line.y) == sorted(point["score"] for point in best)
    assert "What accuracy costs" in Path(run.root / "report" / "index.html").read_text()


def test_the_disagreement_shown_is_that_of_the_predictions(findings: Findings) -> None:
    ensemble, votes = findings.ensemble, findings.board.votes
    assert ensemble is not None
    first, second = list(ensemble.members)[:2]
    figure = memberplots.disagreement(findings)
    assert figure is not None
    apart = (votes.calls(first) != votes.calls(second)).mean()
    assert figure.data[0].z[0][1] == pytest.approx(apart)
