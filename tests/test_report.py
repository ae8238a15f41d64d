"""The report of fixed runs, element by element, and hostile names."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import RUNGS, FakeData, add_trial, edit_json, make_run, small
from page import Page, printed

from analysis import findings, leaderboard, report
from analysis.importance import Target, importance, target_of
from analysis.leaderboard import read_board
from analysis.page import draw
from analysis.statistics import Estimate
from analysis.study import study
from trainables import metrics
from trainables.store import RunStore, TrialResult

HOSTILE = ('</script><script>alert("x")</script>', "<img src=x onerror=alert(1)>", "a & b | 'c'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    run = make_run(tmp_path_factory.mktemp("report") / "run", 12, small())
    report.write_report(run)
    return run


@pytest.fixture(scope="module")
def page(run: RunStore) -> Page:
    return Page((run.root / "report" / "index.html").read_text())


def test_the_page_shows_every_trial_in_the_order_of_the_csv(run: RunStore, page: Page) -> None:
    table = pd.read_csv(run.root / "report" / "leaderboard.csv")
    shown = page.rows["board"][1:]
    assert [row[1] for row in shown] == table["trial"].tolist()
    for row, (_, line) in zip(shown, table.iterrows(), strict=True):
        assert row[3] == line["status"]
        wanted = "–" if np.isnan(line["score"]) else f"{line['score']:.3f}"
        assert row[5].split(" ")[0] == wanted
        if not np.isnan(line["score"]):
            assert row[5] == f"{wanted} [{line['score low']:.3f}, {line['score high']:.3f}]"
            assert row[8] == f"{line['uar']:.3f}"


def test_the_markdown_agrees_with_the_csv(run: RunStore) -> None:
    table = pd.read_csv(run.root / "report" / "leaderboard.csv")
    lines = (run.root / "report" / "leaderboard.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    best = table[table["rank"].notna()].head(10)
    assert [row[1] for row in cells][: len(best)] == best["trial"].tolist()
    assert [row[5].split(" ")[0] for row in cells][: len(best)] == [
        f"{value:.3f}" for value in best["score"]
    ]


def test_the_class_table_shows_support_recall_and_too_small_classes(
    tmp_path: Path,
) -> None:
    data = FakeData(("happy", "sad", "rare"), (60, 40, 6), ("AU1",), 0.8)
    run = make_run(tmp_path / "run", 3, data)
    page = Page(report.write_report(run).read_text())
    rows = page.rows["classes"][1:4]
    assert [row[:2] for row in rows] == [["happy", "48"], ["sad", "32"], ["rare", "5"]]
    assert [row[-1] for row in rows] == ["", "", "too few to conclude"]
    best = findings.find(read_board(run)).best
    assert best is not None
    stored = run.trial(best).predictions("val")
    assert stored is not None
    column = page.rows["classes"][0].index("recall, best single")
    recall = (stored.probs[:48].argmax(1) == 0).mean()
    assert rows[0][column].startswith(f"{recall:.2f} [")


def test_action_units_are_those_of_the_metrics(run: RunStore, page: Page) -> None:
    best = findings.find(read_board(run)).best
    assert best is not None
    stored = run.trial(best).predictions("val")
    assert stored is not None
    header, row = page.rows["units"]
    value = metrics.au_f1(stored.aus, stored.au_probs)[0]
    assert row[header.index("F1, best single")] == f"{value:.3f}"


def test_the_ensemble_of_the_page_is_that_of_the_file(run: RunStore, page: Page) -> None:
    saved = json.loads((run.root / "report" / "ensemble.json").read_text())
    assert saved["method"] in page.text
    shown = {row[0]: row[1] for row in page.rows["ensemble"]}
    rows = {"ensemble": "ensemble", "single": "best single", "baseline": "baseline"}
    for name, label in (rows | {"lead over baseline": "lead over the baseline"}).items():
        assert shown[label].startswith(f"{saved['honest'][name]['value']:.3f}")
    assert sum(saved["members"].values()) == pytest.approx(1)


def test_the_summary_says_what_the_numbers_are(run: RunStore, page: Page) -> None:
    found = findings.find(read_board(run))
    for sentence in findings.words(found):
        assert sentence in page.text
    assert "SYNTHETIC" in page.text
    assert "Bayes ceiling" in page.text
    assert "BBC-CV" in page.text


def test_no_banner_where_the_data_is_real(tmp_path: Path) -> None:
    data = FakeData(("a", "b"), (60, 40), (), 0.8, {"is_synthetic": False, "ceiling": {}})
    run = make_run(tmp_path / "run", 2, data)
    page = Page(report.write_report(run).read_text())
    assert "SYNTHETIC" not in page.text + printed(run)
    assert "ceiling" not in page.text


def test_everything_needed_to_run_again_is_there(run: RunStore, page: Page) -> None:
    for text in ("python -m search.run --space sprint2", "6aa8c7a", "f00d" * 8, "torch 2.9.1"):
        assert text in page.text


def test_failures_are_listed_with_their_reason(page: Page) -> None:
    rows = page.rows["remarks"][1:]
    assert [row[1] for row in rows] == ["failed"]
    assert "loss is nan at epoch 5" in rows[0][2]


def test_the_page_asks_nothing_of_the_network(run: RunStore, page: Page) -> None:
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "link" not in page.tags or page.tags.count("link") == 1
    text = (run.root / "report" / "index.html").read_text()
    assert "default-src 'none'" in text
    assert text.count("plotly.js v") <= 1
    assert len(text) < 10_000_000


def test_no_figure_offers_to_publish_its_data(run: RunStore) -> None:
    found = findings.find(read_board(run))
    drawings = [d.markup for d in draw(study(found)) if d.markup]
    assert len(drawings) > 5
    for markup in drawings:  # without plotly's own source
        config = re.search(r'\{[^{}]*"modeBarButtonsToRemove"[^{}]*\}', markup)
        assert config is not None
        assert "sendChartToCloud" in json.loads(config[0])["modeBarButtonsToRemove"]


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    data = FakeData(HOSTILE, (60, 40, 20), ("<script>u</script>",), 0.8, {"notes": [HOSTILE[1]]})
    run = make_run(tmp_path / "run", 12, data)
    edit_json(run.root / "run.json", name=HOSTILE[0], command=["x", HOSTILE[0]], seed=HOSTILE[1])
    trial = add_trial(run, 40, data, np.random.default_rng(0))
    trial.finish(TrialResult("failed", {}, 1, 1.0, error=HOSTILE[0]))
    text = report.write_report(run).read_text()
    page = Page(text)
    assert page.tags.count("img") == 0
    assert [row[0] for row in page.rows["classes"][1:4]] == list(HOSTILE)
    own = [script for script in page.scripts if "alert" in script]
    assert own  # the figures hold the names
    for script in own:
        assert "<script" not in script
        assert "<img" not in script
        assert "\\u003cimg" not in script  # plotly would read it as markup
    assert text.count("</script>") == text.count("<script")


def test_a_report_is_the_same_each_time(run: RunStore) -> None:
    def stable(text: str) -> str:
        return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", text)  # plotly names its boxes by chance

    first = stable((run.root / "report" / "index.html").read_text())
    assert stable(report.write_report(run).read_text()) == first


def test_the_summary_is_printed(run: RunStore) -> None:
    text = printed(run)
    found = findings.find(read_board(run))
    assert str(found.best) in text
    for words in ("best single", "average of best", "always the commonest class", "index.html"):
        assert words in text


def test_the_tables_of_the_summary_fit_80_columns(run: RunStore) -> None:
    lines = [line.rstrip() for line in printed(run, width=80).splitlines()]
    labels = ("best single", "average of best", "best single, by BBC-CV", "baseline",
              "ensemble over the baseline", "always the commonest class")  # fmt: skip
    for label in labels:
        row = next(line for line in lines if line.startswith(label))
        assert re.search(r"\d\.\d{3}", row)
    whole = re.compile(r"\d\.\d{3} \[[+-]?\d\.\d{3}, [+-]?\d\.\d{3}\]")
    top = next(line for line in lines if line.startswith("ensemble: "))
    assert whole.search(top)
    assert max(map(len, lines[: lines.index(top)])) <= 80


def test_the_lead_in_the_summary_is_the_corrected_one(run: RunStore) -> None:
    found = findings.find(read_board(run))
    assert found.lead is not None
    assert found.best != found.baseline
    sentence = next(line for line in findings.words(found) if "against the baseline" in line)
    assert f"did not choose it: {found.lead.value:+.3f}" in sentence
    assert ("may be chance" in sentence) == (found.lead.low <= 0)
    assert "not corrected for choosing" in printed(run)


def test_a_corrected_score_above_the_best_is_explained_and_trusted_by_size(run: RunStore) -> None:
    found = findings.find(read_board(run))
    best = float(found.row(str(found.best))["score"])
    assert not any("the one it corrects" in line for line in findings.words(found))
    above = replace(found, corrected=Estimate(best + 0.02, best - 0.1, best + 0.1))
    told = [line for line in findings.words(above) if "the one it corrects" in line]
    assert len(told) == 1
    assert "is 0.020 higher" in told[0]
    labels = found.board.votes.labels
    assert f"with {len(labels)} images" in told[0]
    assert "neither can be trusted" in told[0]
    assert "neither can be trusted" in findings._above(np.repeat([0, 1], [500, 5]), 0.1)
    many = findings._above(np.repeat([0, 1], 500), 0.001)
    assert "trusted" not in many
    assert "than its interval" in many


def test_stopped_trials_take_part_in_the_correction(run: RunStore) -> None:
    found = findings.find(read_board(run))
    chosen = found.table[found.table["status"] == "completed"]["trial"].tolist()
    stopped = found.table[found.table["status"] == "stopped"]
    below = stopped[stopped["score"] <= found.row(str(found.best))["score"]]["trial"].tolist()
    assert below
    assert sorted(findings.rivals(found.table, chosen)) == sorted(chosen + below)
    assert any("the rungs chose too" in line for line in findings.words(found))


def test_importance_finds_what_mattered(tmp_path: Path) -> None:
    data = FakeData(("happy", "sad", "calm"), (300, 200, 100), (), 0.8)
    board = read_board(make_run(tmp_path / "run", 60, data))
    table = leaderboard.frame(board)
    ranked = importance(table, leaderboard.varying(board.records), target_of(board, table))
    assert ranked.r2 > 0.1
    assert next(iter(ranked.groups)) in ("lr", "backbone")
    assert "seed" not in ranked.groups


def stopping(trials: int, seed: int) -> tuple[pd.DataFrame, Target]:
    """Trials whose score `lr` drives, most of them stopped at epoch 3 or 9 for a low one."""
    rng = np.random.default_rng(seed)
    lr, depth = rng.uniform(0, 1, (2, trials))
    first = 0.3 + 0.2 * lr + rng.normal(0, 0.02, trials)
    epochs = np.where(first < np.median(first), 3, np.where(first < 0.45, 9, 27))
    names = [f"t{n}" for n in range(trials)]
    table = pd.DataFrame(
        {"trial": names, "status": np.where(epochs == 27, "completed", "stopped"),
         "epochs": epochs, "score": first + 0.12 * np.log(epochs / 3),
         "setting lr": lr, "setting depth": depth}
    )  # fmt: skip
    return table, Target(dict(zip(names, first.tolist(), strict=True)), 3)


def test_stopping_does_not_hide_the_setting_that_drove_it() -> None:
    for seed in range(3):
        table, target = stopping(60, seed)
        found = importance(table, ["lr", "depth"], target)
        assert found.r2 > 0.6
        assert found.groups["lr"][0] > 1
        assert abs(found.groups["depth"][0]) < 0.15


def test_importances_are_of_the_score_at_the_first_rung(run: RunStore, page: Page) -> None:
    board = read_board(run)
    found = target_of(board, leaderboard.frame(board))
    assert found.epoch == RUNGS[0]
    for record in board.records:
        ended = record.result is not None and record.result.status != "failed"
        assert (record.id in found.scores) == ended
        if ended:
            assert found.scores[record.id] == record.history[RUNGS[0] - 1]["score"]
    assert f"after epoch {RUNGS[0]}, the first rung" in page.text


def test_importances_are_of_the_final_score_where_nobody_was_stopped(tmp_path: Path) -> None:
    board = read_board(make_run(tmp_path / "run", 3, small()))
    table = leaderboard.frame(board)
    found = target_of(board, table)
    assert found == Target(dict(zip(table["trial"], table["score"], strict=True)))


def test_importance_of_few_trials_is_not_computed(run: RunStore) -> None:
    board = read_board(run)
    table = leaderboard.frame(board).head(5)
    assert "not computed" in importance(table, ["lr"], target_of(board, table)).note


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "error: no run at"),
        (["--finl"], "Did you mean '--final'"),
        (["--top", "0"], "--top 0: at least 1"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(tmp_path: Path, flags: list[str], told: str) -> None:
    command = [sys.executable, "-m", "analysis.report", str(tmp_path / "none"), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_runs_from_a_shell(run: RunStore) -> None:
    command = [sys.executable, "-m", "analysis.report", str(run.root), "--top", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "index.html" in done.stdout
    assert done.stderr == ""
