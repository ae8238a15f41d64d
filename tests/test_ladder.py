"""The ladder of a made-up ablation, element by element; the command end to end and its mistakes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import FakeData, edit_json, make_meta, make_run, predictions, small
from page import Page

from analysis import ablate, ablation, ladder, ladder_page, ladder_words
from analysis.ablation import AS_LONG, Arm, Plan, make_plan
from analysis.ladder import Ladder
from analysis.leaderboard import mean_au_f1, read_board
from analysis.seeds import holm
from trainables import cli, metrics
from trainables.config import TrialConfig
from trainables.store import RunStore, TrialResult

DATA = FakeData(("happy", "sad", "calm"), (300, 200, 100), ("AU1", "AU2"), 0.8)
SKILL = {"baseline": 0.6, "best of sprint2": 2.6, "without loss": 1.2}  # others as the winner
FAILED = ("without au_loss", 3)  # role and place of its seed


def rerun(root: Path, plan: Plan, data: FakeData = DATA) -> RunStore:
    """The trials of a plan, with made-up predictions of known skill."""
    meta = make_meta(data, len(plan.arms) * len(plan.seeds))
    run = RunStore.create(root, {**meta, "name": "rerun", "seed": plan.seeds[0], "epochs": 27})
    for number, seed in enumerate(plan.seeds):
        for arm in plan.arms:
            config = TrialConfig.from_flat({**arm.config, "seed": seed})
            trial = run.trial(run.create_trial(config, len(run.records()), arm.role))
            if (arm.role, number) == FAILED:
                trial.finish(TrialResult("failed", error="RuntimeError: <b>no</b> memory"))
                continue
            rng = np.random.default_rng([seed, len(arm.role)])
            said = predictions(data, SKILL.get(arm.role, 2.6), 0.5, rng)
            if config.au_loss.name == "none":
                said = replace(said, au_probs=said.au_probs[:, :0])
            trial.save_predictions("val", said)
            trial.finish(TrialResult("completed", {}, 27, 27.0))
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run of 12 trials, RUN/ablation with its plan and the trained plan, all made up."""
    root = tmp_path_factory.mktemp("ladder") / "run"
    run = make_run(root, 12, DATA)
    plan = make_plan([read_board(run)], seeds=4)
    ablation.save(plan, root / "ablation")
    rerun(root / "ablation" / "rerun", plan)
    return root


@pytest.fixture(scope="module")
def found(home: Path) -> Ladder:
    plan = ablation.load(home / "ablation")
    board = read_board(RunStore.open(home / "ablation" / "rerun"))
    ladder_page.write(ladder.read(plan, board), home / "ablation")
    return ladder.read(plan, board)


def scores_by_hand(found: Ladder, role: str) -> dict[str, np.ndarray]:
    """Measure -> the score of each seed, by trainables.metrics, one trial after the other."""
    run, out = found.board.run, dict[str, list[float]]()
    for record in run.records():
        said = run.trial(record.id).predictions("val") if record.role == role else None
        if said is not None:
            values = metrics.scores(said.labels, said.probs)
            values["au_f1"] = mean_au_f1(said.aus, said.au_probs) if said.au_probs.size else np.nan
            for name in ladder.MEASURES:
                out.setdefault(name, []).append(values[name])
    return {name: np.array(values) for name, values in out.items()}


def test_every_row_is_the_mean_and_spread_of_its_seeds(found: Ladder) -> None:
    assert [row.arm for row in found.rows] == list(found.plan.arms)
    for row in found.rows:
        wanted = scores_by_hand(found, row.arm.role)
        for name, values in wanted.items():
            if np.isnan(values).any():
                assert name not in row.measures
                continue
            s = row.measures[name]
            assert s.value == pytest.approx(values.mean(), abs=1e-6)
            assert s.sd == pytest.approx(values.std(ddof=1), abs=1e-6)
            assert 0 <= s.low < s.value < s.high <= 1
    assert "au_f1" not in found.rows[0].measures  # the baseline has no AU head
    assert "au_f1" in found.rows[1].measures


def test_rungs_are_compared_with_the_baseline_and_ablations_with_the_winner(found) -> None:
    assert found.plan.winner == "best of sprint2"
    for row in found.rows:
        kind = row.arm.kind
        assert row.against == {"baseline": "", "rung": "baseline"}.get(kind, "best of sprint2")
        if kind == "baseline":
            assert row.gap is None
            continue
        mine, theirs = (scores_by_hand(found, r)["macro_f1"] for r in (row.arm.role, row.against))
        if row.arm.role == FAILED[0]:
            theirs = np.delete(theirs, FAILED[1])
        gap = mine - theirs
        assert row.gap is not None
        assert row.gap.value == pytest.approx(gap.mean(), abs=1e-6)
        assert row.gap.sd == pytest.approx(gap.std(ddof=1), abs=1e-6)


def test_p_values_are_holms_over_all_differences(found: Ladder) -> None:
    raw = {row.arm.role: row.gap.p for row in found.rows if row.gap is not None}
    corrected = holm(raw)
    assert len(raw) == len(found.plan.arms) - 1
    assert all(row.p == corrected[row.arm.role] for row in found.rows if row.gap is not None)


@pytest.mark.parametrize(
    ("skill", "verdict"),
    [
        (2.5, "is not better than the baseline trained as long, as far as this can tell"),
        (0.8, "is better than the baseline trained as long, so its lead is not its length alone"),
        (4.0, "is worse than the baseline trained as long"),
    ],
)
def test_the_winner_is_held_against_the_baseline_trained_as_long(
    tmp_path: Path, found: Ladder, monkeypatch, skill: float, verdict: str
) -> None:
    monkeypatch.setitem(SKILL, AS_LONG, skill)
    base = found.plan.arms[0]
    longer = {"synthetic": "repeated", "synthetic.balance": 0.0, "synthetic.ratio": 2.0}
    control = Arm(AS_LONG, "control", {**base.config, **longer}, base.source)
    plan = replace(found.plan, arms=(*found.plan.arms, control))
    held = ladder.read(plan, read_board(rerun(tmp_path / "rerun", plan)))
    mine, theirs = (scores_by_hand(held, role)["macro_f1"] for role in (plan.winner, AS_LONG))
    assert held.over_control is not None
    assert held.over_control.value == pytest.approx((mine - theirs).mean(), abs=1e-6)
    raw = {row.arm.role: row.gap.p for row in held.rows if row.gap is not None}
    corrected = holm({**raw, "": held.over_control.p})
    assert held.over_control_p == corrected[""]
    assert all(row.p == corrected[row.arm.role] for row in held.rows if row.gap is not None)
    assert f"The winner ({plan.winner}) {verdict}: " in " ".join(ladder_words.words(held))


def test_the_sentences_say_what_helped_and_as_plainly_what_did_not(found: Ladder) -> None:
    told = ladder_words.words(found)
    helped = next(line for line in told if line.startswith("Helped"))
    nothing = next(line for line in told if line.startswith("Did not help"))
    assert "loss (" in helped
    for arm in found.plan.arms:
        if arm.kind == "without" and arm.role != "without loss":
            assert f"{arm.role.removeprefix('without ')} ({arm.change})" in nothing
            assert arm.change not in helped
    assert any("Best of sprint2 is better than the baseline: +" in line for line in told)
    text = " ".join(told)
    for words in (
        "SYNTHETIC faces", "Smallest true difference", "Bayes ceiling 0.750 in macro-F1",
        "was chosen on these very validation images", "tuned by nobody", "Budget of each search",
        "under seeds 12 to 15, none of which the search had used", "The test split stays sealed",
        "Not complete, of 4 seeds there are: without au_loss 3.",
        "Failed, without au_loss, seed 15: RuntimeError: <b>no</b> memory",
    ):  # fmt: skip
        assert words in text


def test_unequal_budgets_are_told(found: Ladder) -> None:
    one, two = replace(found.plan.budgets[0], space="a"), replace(found.plan.budgets[0], epochs=9)
    for budgets, words in (((one, two), "NOT an equal budget"), ((one, one), "is an equal budget")):
        other = replace(found, plan=replace(found.plan, budgets=budgets))
        assert any(words in line for line in ladder_words.words(other))


def test_real_data_are_not_called_synthetic(found: Ladder) -> None:
    meta = {**found.board.meta, "data": {**found.board.meta["data"], "is_synthetic": False}}
    real = replace(found, board=replace(found.board, meta=meta))
    assert "SYNTHETIC" not in ladder_page.page(real) + ladder_page.markdown(real)


def test_the_csv_has_every_number(home: Path, found: Ladder) -> None:
    table = pd.read_csv(home / "ablation" / "ladder.csv")
    assert table["role"].tolist() == [row.arm.role for row in found.rows]
    for (_, line), row in zip(table.iterrows(), found.rows, strict=True):
        assert line["macro_f1"] == pytest.approx(row.measures["macro_f1"].value)
        assert line["seeds"] == len(row.seeds)
        if row.gap is not None:
            assert line["difference low"] == pytest.approx(row.gap.low)
            assert line["p holm"] == pytest.approx(row.p)


def test_the_page_and_the_markdown_show_the_same_tables(home: Path, found: Ladder) -> None:
    text = (home / "ablation" / "ladder.html").read_text()
    page, markdown = Page(text), (home / "ablation" / "ladder.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line[:2] == "| "]
    first, second = page.rows["table-1"], page.rows["table-2"]
    assert [row[0] for row in first[1:]] == [
        "baseline", "best of sprint2", "always the commonest class", "Bayes ceiling",
    ]  # fmt: skip
    assert first[0][1:] == ["seeds", "time", "macro-F1", "UAR", "accuracy", "AU-F1", "difference"]
    best = found.row("best of sprint2")
    assert best is not None
    s = best.measures["macro_f1"]
    assert first[2][2] == "1.0 ×"
    assert first[2][3] == f"{s.value:.3f} ± {s.sd:.3f} [{s.low:.3f}, {s.high:.3f}]"
    assert first[2][-1] == ladder_words.gap_text(best)
    assert second[1][-1] == "–"  # the winner beside its own ablations
    assert [row[3] for row in first[1:]] == [line[3] for line in lines[2:6]]
    for line in ladder_words.words(found):
        assert line in page.text


def test_the_page_is_safe_and_asks_nothing_of_the_network(home: Path) -> None:
    text = (home / "ablation" / "ladder.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags  # of the failure's text
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "default-src 'none'" in text
    assert "SYNTHETIC DATA" in page.text


def test_the_drawing_has_each_difference_at_its_place(found: Ladder) -> None:
    drawn = ladder_page.forest(found, ladder_page.sections(found))
    assert drawn is not None
    assert len(drawn.marks) == len(found.rows) - 1
    assert all(m.low <= m.x <= m.high for m in drawn.marks)
    styles = {mark.text: mark.style for mark in drawn.marks}
    assert styles["best of sprint2"] == "better"
    assert styles["without loss"] == "worse"
    assert styles["without attention"] == "unclear"
    scale = {float(told): x for x, told in drawn.ticks}
    assert scale[0.0] == drawn.zero


# --- the command ---------------------------------------------------------------------------------


def test_tables_alone_are_written_of_what_is_there(home: Path, found: Ladder, capsys) -> None:
    for path in (home / "ablation").glob("ladder.*"):
        path.unlink()
    assert ablate.main([str(home), "--skip-run"]) == 0
    assert {p.suffix for p in (home / "ablation").glob("ladder.*")} == {".md", ".csv", ".html"}
    assert "Did not help" in capsys.readouterr().out


def test_a_dry_run_tells_plan_and_cost_and_begins_nothing(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "train", None)
    run = make_run(tmp_path / "run", 12, small())
    assert ablate.main([str(run.root), "--seeds", "3", "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    plan = make_plan([read_board(run)], 3)
    assert f"{len(plan.arms)} configurations, seeds 12 to 14: {3 * len(plan.arms)} trials" in out
    minutes = len(plan.arms) * 3 * 27 * 4.0 / 60
    assert f"about {minutes:.0f} minutes on one worker" in out
    assert not (run.root / "ablation").exists()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupted_training_ends_by_itself(tmp_path: Path, number: str) -> None:
    child = tmp_path / "child.py"  # takes its time to end, as Ray does
    child.write_text(
        "import signal, time, pathlib\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        f"    pathlib.Path({str(tmp_path / 'kept')!r}).touch()\n"
        "    raise SystemExit(130)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        "import sys\nfrom analysis import ablate\n"
        f"sys.exit(ablate.train([sys.executable, {str(child)!r}]))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"begun\n"
    if number == "SIGINT":  # as a terminal's Ctrl-C, to both
        os.killpg(parent.pid, signal.SIGINT)
    else:
        parent.terminate()
    assert parent.wait(30) == 130
    parent.stdout.close()
    assert (tmp_path / "kept").exists()


def test_a_mistake_in_the_training_is_not_to_be_repeated(tmp_path: Path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", 12, DATA)
    monkeypatch.setattr(ablate, "train", lambda command: 2)
    assert ablate.main([str(run.root), "--", "--nope"]) == 2
    assert "go on with" not in capsys.readouterr().err


def test_the_training_is_a_command_on_the_same_data(tmp_path: Path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", 12, DATA)
    edit_json(run.root / "run.json", command=["x", "--aus=plan18", "--au-null", "zeros", "--seed"])
    asked: list[list[str]] = []

    def train(command):
        asked.append(command)
        root = run.root / "ablation"
        if len(asked) == 1:
            return 130
        if not (root / "rerun").exists():
            made = rerun(root / "rerun", ablation.load(root))
            edit_json(made.root / "run.json", configs=ablation_configs(root))
        return 0

    monkeypatch.setattr(ablate, "train", train)
    words = [str(run.root), "--seeds", "4", "--inline", "--", "--hours", "2"]
    assert ablate.main(words) == 130
    assert "go on with:\n  python -m analysis.ablate " in capsys.readouterr().err
    assert ablate.main(words) == 0
    assert ablate.main(words) == 0
    root = run.root / "ablation"
    assert asked[1][1:] == [
        *("-m", "search.run", "--configs", str(root / "configs.json"), "--seeds", "4"),
        *("--seed", "12", "--runs", str(root), "--name", "rerun", "--data", "faces:4000"),
        *("--aus", "plan18", "--au-null", "zeros", "--inline", "--hours", "2"),
    ]
    assert asked[2] == [*asked[1], "--resume"]
    edit_json(root / "rerun" / "run.json", seed=7)
    with pytest.raises(ValueError, match="holds an ablation of other configurations"):
        ablate.main(words)


def ablation_configs(folder: Path) -> list[dict[str, object]]:
    arms = ablation.load(folder).arms
    return [{"role": arm.role, "config": arm.config} for arm in arms]


def test_the_ablation_of_a_real_search_runs_and_its_tables_are_those_of_its_trials(
    place, monkeypatch
):
    from search import run as search_run

    data = ("--inline", "--data", "faces:200:easy", "--image-size", "32", "--epochs", "1")
    words = ["--space", "smoke", *data, "--trials", "3", "--name", "first", "--pruner", "none"]
    assert search_run.main(words) == 0

    def train(command):  # in this process, where torch is imported already
        assert command[1:3] == ["-m", "search.run"]
        return search_run.main(command[3:])

    monkeypatch.setattr(ablate, "train", train)
    assert ablate.main(["runs/first", "--seeds", "2", "--inline"]) == 0
    folder = place / "runs" / "first" / "ablation"
    table = pd.read_csv(folder / "ladder.csv")
    board = read_board(RunStore.open(folder / "rerun"))
    assert len(board.records) == 2 * len(table) >= 4
    for _, row in table.iterrows():
        own = [r.history[-1]["macro_f1"] for r in board.records if r.role == row["role"]]
        assert row["macro_f1"] == pytest.approx(np.mean(own), abs=0.03)  # float16
        assert row["seeds"] == 2
    assert ablate.main(["runs/first", "--seeds", "3", "--inline"]) == 0  # one seed more
    assert set(pd.read_csv(folder / "ladder.csv")["seeds"]) == {3}


def test_a_rerun_on_other_data_is_refused(home: Path, found: Ladder) -> None:
    meta = {**found.board.meta, "data": {**found.board.meta["data"], "fingerprint": "beef"}}
    with pytest.raises(ValueError, match="was trained on other data"):
        ladder.read(found.plan, replace(found.board, meta=meta))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no run at 'nowhere'"),
        (
            ["nowhere", "--skip-run"],
            "no plan at 'nowhere/ablation/plan.json': leave out --skip-run",
        ),
        (["x", "--seeds", "1"], "--seeds: 1 is too small; give 2 to 100"),
        (["x", "--sedes", "3"], "Did you mean '--seeds'"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_a_mistake_is_told_in_a_line(place, capsys, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: ablate.main(words))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_runs_from_a_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.ablate", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no run at")


def test_what_a_row_costs_is_told_and_a_dear_one_has_its_control_named(found: Ladder) -> None:
    assert {row.cost for row in found.rows} == {1.0}  # 27 s each
    assert "equal cost" not in " ".join(ladder_words.words(found))
    dear = [replace(row, cost=3.0) if row.arm.kind == "rung" else row for row in found.rows]
    text = " ".join(ladder_words.words(replace(found, rows=tuple(dear))))
    assert "Not of equal cost" in text
    assert f"{dear[1].arm.role} 3.0" in text
    assert "which nothing here tells apart" in text
    control = replace(dear[0], arm=replace(dear[0].arm, role=AS_LONG, kind="control"))
    assert f"compare with '{AS_LONG}'" in " ".join(
        ladder_words.words(replace(found, rows=(control, *dear)))
    )
