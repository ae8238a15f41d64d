"""The best of a run, trained anew: what is planned, who is confirmed, and who is not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_run import config, make_meta, make_run, predictions, small
from test_groups import add, said_by

from analysis import confirmation, worth
from analysis.findings import find
from analysis.leaderboard import read_board
from search import confirm
from search import run as search_run
from trainables.config import REPEATED, TrialConfig
from trainables.store import RunStore


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", 10, small())


def rerun(run, plan, skills, root):
    """A rerun in which each role has this skill, under the seeds of the plan."""
    again = RunStore.create(root, {**make_meta(small(), 99), "finished": "now"})
    number = 0
    for seed in range(plan.first_seed, plan.first_seed + plan.seeds):
        for arm in plan.arms:
            settings = replace(TrialConfig.from_flat(arm.config), seed=seed)
            said = said_by(small(), skills[arm.role], 1000 * seed + number)
            add(again, settings, number, said, arm.role)
            number += 1
    return read_board(again)


def plan_of(run, top=3, seeds=4, folds=1):
    return confirmation.make_plan(read_board(run), top, seeds, folds)


def test_the_plan_has_the_best_the_default_and_the_baseline_with_nothing_the_run_has_seen(run):
    plan = plan_of(run, folds=None)
    roles = [arm.role for arm in plan.arms]
    assert roles[:2] == ["default", "baseline"]
    assert set(roles[2:]) <= {"rank 1", "rank 2", "rank 3"}
    seen = [TrialConfig.from_flat(r.config) for r in run.records()]
    assert plan.first_seed > max(c.seed for c in seen)
    assert plan.fold_seed > max(c.fold_seed for c in seen)
    assert plan.folds == confirmation.FOLDS
    assert all(not set(REPEATED) & set(arm.config) for arm in plan.arms)
    scores = [arm.seeming for arm in plan.arms[2:]]
    assert scores == sorted(scores, reverse=True)


def test_a_plan_is_read_back_as_it_was_saved(run, tmp_path):
    plan = plan_of(run)
    path = confirmation.save_plan(plan, tmp_path / "x")
    assert confirmation.load_plan(tmp_path / "x") == plan
    assert [e["role"] for e in json.loads(path.read_text())] == [a.role for a in plan.arms]
    assert confirmation.load_plan(tmp_path / "y") is None


def skills_of(plan, best, base=2.0):
    return {a.role: base if a.role in confirmation.ANCHORS else best for a in plan.arms}


def test_a_configuration_that_is_better_is_confirmed(run, tmp_path):
    plan = plan_of(run)
    skills = skills_of(plan, 2.0) | {plan.arms[-1].role: 4.0}
    found = confirmation.judge(plan, rerun(run, plan, skills, tmp_path / "again"))
    assert found.winner == plan.arms[-1].role
    assert "is confirmed" in found.verdict
    row = found.rows[0]
    assert row.lead.low > 0
    assert row.p < 0.05
    assert row.images.gained > row.images.lost
    assert row.score.seeds == 4


def test_no_better_than_the_default_is_a_verdict(run, tmp_path):
    plan = plan_of(run)
    skills = skills_of(plan, 1.0) | {"baseline": 0.5}
    found = confirmation.judge(plan, rerun(run, plan, skills, tmp_path / "again"))
    assert found.winner is None
    assert found.reference == "default"
    assert found.verdict.startswith("No better than the default")


def test_it_is_compared_with_the_better_of_default_and_baseline(run, tmp_path):
    plan = plan_of(run)
    skills = skills_of(plan, 2.0) | {"baseline": 4.0, "default": 0.5}
    found = confirmation.judge(plan, rerun(run, plan, skills, tmp_path / "again"))
    assert found.reference == "baseline"
    assert found.winner is None


def test_equals_are_rarely_confirmed(run, tmp_path):
    plan = plan_of(run, top=3, seeds=3)
    wins = 0
    for k in range(12):
        board = rerun(run, replace(plan, first_seed=20 + 10 * k), skills_of(plan, 2.0),
                      tmp_path / f"again{k}")  # fmt: skip
        wins += confirmation.judge(plan, board).winner is not None
    assert wins <= 2


def test_the_report_has_naive_corrected_confirmed_and_sealed_side_by_side(run, tmp_path):
    findings = find(read_board(run))
    lines = {line.what: line for line in worth.side_by_side(findings, None)}
    assert list(lines) == ["naive best", "corrected best", "confirmed", "test"]
    assert lines["confirmed"].score == "–"
    assert lines["test"].score == "sealed"
    assert lines["test"].note.startswith("0 looks so far")
    plan = plan_of(run)
    board = rerun(run, plan, skills_of(plan, 3.0), tmp_path / "again")
    found = confirmation.judge(plan, board)
    folder = run.root / confirmation.FOLDER
    folder.mkdir()
    (folder / confirmation.FILE).write_text(json.dumps(confirmation.as_facts(found)))
    (run.root / "test_ledger.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    lines = {line.what: line for line in worth.side_by_side(findings, None)}
    assert lines["confirmed"].score.startswith(f"{found.rows[0].score.value:.3f} [")
    assert "2 looks" in lines["test"].note
    told = worth.sentences(findings)[0]
    assert found.verdict in told
    assert "McNemar" in told


def test_nothing_completed_and_nothing_to_compare_with_are_told(tmp_path):
    bare = RunStore.create(tmp_path / "bare", make_meta(small(), 1))
    with pytest.raises(ValueError, match="no default and no baseline"):
        plan_of(bare)
    rng = np.random.default_rng(0)
    said = predictions(small(), 1.0, 0.5, rng)
    add(bare, config(0, rng), 0, said, "baseline", status="stopped")
    with pytest.raises(ValueError, match="nothing completed"):
        plan_of(bare)


def test_another_plan_beside_one_that_was_begun_is_refused(run):
    folder = run.root / confirmation.FOLDER
    confirmation.save_plan(plan_of(run), folder)
    RunStore.create(folder / confirmation.RERUN, {})
    with pytest.raises(ValueError, match="--top 3 --seeds 4 --folds 1"):
        confirm.main([str(run.root), "--top", "2"])


def test_judging_what_was_never_trained_is_refused(run):
    with pytest.raises(FileNotFoundError, match="leave out --skip-run"):
        confirm.main([str(run.root), "--skip-run"])


def test_a_rerun_on_data_that_have_changed_since_is_not_judged(run):
    folder = run.root / confirmation.FOLDER
    plan = plan_of(run)
    confirmation.save_plan(plan, folder)
    again = rerun(run, plan, skills_of(plan, 3.0), folder / confirmation.RERUN).run
    again.update_meta(data={**again.meta()["data"], "fingerprint": "other"})
    with pytest.raises(ValueError, match="was trained on other data .other. than"):
        confirm.main([str(run.root), "--skip-run"])
    assert confirmation.read_facts(run.root) is None


def test_a_run_that_cannot_be_written_to_is_told(run):
    (run.root / confirmation.FOLDER).write_text("in the way")
    with pytest.raises(OSError, match="is kept in its run, and .* cannot be written"):
        confirm.main([str(run.root)])


# --- in earnest -------------------------------------------------------------------------------


def test_a_search_on_folds_is_confirmed_at_its_end(ended, place, monkeypatch):
    whole, asked = confirm.main, []
    monkeypatch.setattr(confirm, "main", lambda w: asked.extend(w) or whole([*w, "--seeds", "2"]))
    words = ["--space", "smoke", "--data", "faces:200:easy", "--image-size", "32", "--inline"]
    words += ["--epochs", "1", "--trials", "7", "--folds", "2", "--sampler", "random"]
    code, out, _ = ended(*words, "--pruner", "none", "--name", "a", "--confirm", "1")
    assert code == 0, out
    assert asked == ["runs/a", "--top", "1", "--inline"]
    facts = confirmation.read_facts(place / "runs/a")
    assert (facts["seeds"], facts["folds"], facts["top"]) == (2, 2, 1)
    assert facts["verdict"] in " ".join(out.split())
    again = RunStore.open(place / "runs/a/confirmation/rerun")
    ids = [
        set(again.trial(r.id).predictions("val").ids)
        for r in again.records()
        if r.role == "baseline" and r.config["fold"] == 0
    ]
    assert len(ids) == 2
    assert len({frozenset(own) for own in ids}) == 2  # each repeat has folds of its own
    board = read_board(again)
    assert all(record.result.status == "completed" for record in board.records)
    assert "confirmed" in (place / "runs/a/report/index.html").read_text()


@pytest.mark.slow
def test_a_search_on_folds_and_its_confirmation_on_ray(place, capsys):
    """The best can only be the default or the baseline, so none is better."""
    words = ["--space", "smoke", "--data", "faces:200:easy", "--image-size", "32", "--epochs", "1"]
    words += ["--folds", "2", "--trials", "4", "--name", "a", "--no-dashboard"]
    assert search_run.main(words) == 0
    again = ["runs/a", "--top", "1", "--seeds", "2", "--", "--no-dashboard"]
    assert confirm.main(again) == 0
    facts = confirmation.read_facts(place / "runs/a")
    assert (facts["winner"], facts["seeds"], facts["folds"]) == (None, 2, 2)
    assert facts["verdict"].startswith("No better than the ")
    rerun = RunStore.open(place / "runs/a/confirmation/rerun")
    configs = [TrialConfig.from_flat(record.config) for record in rerun.records()]
    assert len(configs) == 2 * 2 * 2  # arms, seeds, folds
    assert {(c.seed, c.fold_seed) for c in configs} == {(1, 1), (2, 2)}
    assert {r.result.status for r in rerun.records()} == {"completed"}
    assert all(r.result.status == "completed" for r in read_board(rerun).records)
    assert "No better than the" in (place / "runs/a/report/index.html").read_text()
    out = capsys.readouterr().out
    assert "fold 1" in out
    assert "2 of 2 folds" in out


def test_a_contradiction_of_flags_is_told(refused, place):
    assert "--fold-seed 7 deals folds, and there are none" in refused(
        "--space", "smoke", "--inline", "--fold-seed", "7"
    )
    assert "need 10, but --trials is 9" in refused(
        "--space", "smoke", "--inline", "--folds", "5", "--trials", "9"
    )
