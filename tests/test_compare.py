"""Runs side by side: what compares is compared, what does not says why."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import edit_json, make_run, other_run, small
from page import Page

from analysis import compare, statistics
from analysis.findings import Findings, find
from analysis.leaderboard import read_board
from analysis.statistics import Goal
from trainables.store import RunStore


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunStore]:
    root = tmp_path_factory.mktemp("compare")
    return [
        make_run(root / "one", 8, small()),
        other_run(root / "two"),
        other_run(root / "three", 9),
    ]


@pytest.fixture(scope="module")
def found(runs: list[RunStore]) -> list[Findings]:
    return [find(read_board(run)) for run in runs]


def test_the_command_writes_page_and_markdown(runs: list[RunStore], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.compare", *(str(r.root) for r in runs[:2])]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    page = Page((tmp_path / "compare.html").read_text())
    text = (tmp_path / "compare.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert page.rows["runs"] == [rows[0], *rows[2:]]
    assert rows[0] == ["run", "one", "two"]
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "images that chose neither" in done.stdout


def test_the_cells_are_those_of_the_runs_own_reports(found: list[Findings]) -> None:
    side = compare.compare(found, ["one", "two", "three"])[0]
    cells = dict(zip(compare.HEADER, compare.row(side), strict=True))
    best = side.findings.row(str(side.findings.best))
    assert cells["best trial"] == best["trial"]
    assert cells["its score"].startswith(f"{best['score']:.3f} [{best['score low']:.3f}")
    assert side.findings.corrected is not None
    assert cells["corrected (BBC-CV)"].startswith(f"{side.findings.corrected.value:.3f}")
    assert cells["trials (completed)"].startswith("8 (")


@pytest.mark.parametrize(
    ("change", "told"),
    [({"metric": "uar"}, "other score"), ({"data": {"fingerprint": "beef"}}, "other data")],
)
def test_runs_that_do_not_compare_have_no_lead(
    change: dict[str, Any], told: str, found: list[Findings], tmp_path: Path
) -> None:
    run = other_run(tmp_path / "odd")
    data = {**run.meta()["data"], **change.pop("data", {})}
    edit_json(run.root / "run.json", data=data, **change)
    sides = compare.compare([found[0], find(read_board(run))], ["one", "odd"])
    assert sides[1].lead is None
    assert told in sides[1].missing
    assert any(told in line for line in compare.words(sides))


def test_a_longer_search_is_told_of(found: list[Findings]) -> None:
    lines = compare.words(compare.compare(found[:2], ["one", "two"]))
    assert any("the budgets differ" in line for line in lines)
    same = compare.words(compare.compare(found[1:], ["two", "three"]))
    assert not any("the budgets differ" in line for line in same)


def test_a_lead_by_choice_from_many_is_not_believed_and_a_true_one_is() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    goal = Goal("accuracy", np.ones(3, bool))

    def models(count: int, right: float) -> np.ndarray:
        hit = rng.random((count, 300)) < right
        return np.where(hit, labels, (labels + 1) % 3)

    weights = statistics.resample(labels, 300, rng)
    naive, honest = [], []
    for _ in range(10):
        many, one = models(40, 0.6), models(1, 0.6)
        naive.append((many == labels).mean(1).max() - (one == labels).mean())
        honest.append(statistics.corrected_lead(labels, many, one, goal, weights).value)
    assert np.mean(naive) > 0.04
    assert abs(np.mean(honest)) < 0.02
    better = statistics.corrected_lead(labels, models(5, 0.8), models(5, 0.6), goal, weights)
    assert better.low > 0.05


def test_one_run_twice_is_refused(runs: list[RunStore]) -> None:
    root = str(runs[0].root)
    done = subprocess.run(
        [sys.executable, "-m", "analysis.compare", root, root], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "two or more different runs" in done.stderr
