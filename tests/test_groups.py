"""Folds are pooled to one row, seeds are averaged in their score, neither the other way round."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import FakeData, config, edit_json, make_meta, make_run, predictions, small

from analysis import groups, tables
from analysis import leaderboard as lb
from analysis.findings import find, words
from analysis.leaderboard import read_board
from analysis.report import write_report
from analysis.votes import read_votes
from trainables import metrics
from trainables.config import TrialConfig
from trainables.store import Predictions, RunStore, TrialResult

FOLDS = 3


def part_of(whole: Predictions, rows: np.ndarray) -> Predictions:
    ids = tuple(whole.ids[k] for k in rows)
    return Predictions(
        ids, whole.labels[rows], whole.probs[rows], whole.aus[rows], whole.au_probs[rows]
    )


def add(run, settings: TrialConfig, number: int, said: Predictions, role="proposed", **result):
    """A trial with these predictions that has ended so; its id."""
    trial = run.trial(run.create_trial(settings, number, role))
    trial.save_predictions("val", said)
    score = metrics.scores(said.labels, said.probs)["score"]
    trial.append({"epoch": 27, "score": score, "seconds": 2.0})
    status = result.pop("status", "completed")
    trial.finish(TrialResult(status, {"score": score}, 27, 2.0, 0.0, **result))
    return trial.id


def said_by(data: FakeData, skill: float, seed: int, split: str = "val") -> Predictions:
    return predictions(data, skill, 0.5, np.random.default_rng(seed), split)


def add_folds(run, settings, whole, first, folds=range(FOLDS), role="proposed", **result):
    """The folds of a configuration that together say `whole`; the ids of the trials."""
    ids = []
    for fold in folds:
        rows = np.flatnonzero(np.arange(len(whole.ids)) % FOLDS == fold)
        own = replace(settings, folds=FOLDS, fold=fold)
        ids.append(add(run, own, first + fold, part_of(whole, rows), role, **result))
    return ids


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", {**make_meta(small(), 12), "finished": None})


@pytest.fixture
def folded(run):
    """Baseline with all folds, a better one with all, one with its first fold, one failed."""
    rng, data = np.random.default_rng(0), small()
    whole = [said_by(data, skill, k) for k, skill in enumerate((1.5, 2.5, 3.5, 2.0))]
    names = [add_folds(run, config(0, rng), whole[0], 0, role="baseline")]
    names.append(add_folds(run, config(1, rng), whole[1], 10))
    names.append(add_folds(run, config(2, rng), whole[2], 20, folds=[0]))
    one = config(3, rng)
    names.append(add_folds(run, one, whole[3], 30, folds=[0]))
    names[-1] += add_folds(run, one, whole[3], 30, folds=[1], status="failed", error="loss is nan")
    return run, names, whole


def test_a_configuration_is_one_row_scored_on_its_pooled_folds(folded):
    run, names, whole = folded
    run.update_meta(finished="now")
    board = read_board(run)
    table = lb.frame(board)
    assert len(table) == 4
    own = table[table["trial"] == names[1][0]].iloc[0]
    stored = [run.trial(name).predictions("val") for name in names[1]]
    labels = np.concatenate([part.labels for part in stored])
    probs = np.concatenate([part.probs for part in stored])
    expected = metrics.scores(labels, probs)
    assert own["score"] == pytest.approx(expected["score"])
    assert own["score"] != pytest.approx(
        np.mean([metrics.scores(p.labels, p.probs)["score"] for p in stored]), abs=1e-4
    )
    assert (own["folds"], own["status"], own["seconds"]) == (FOLDS, "completed", 6.0)
    assert len(board.votes.labels) == len(whole[1].ids)
    assert own["note"] == ""


def test_a_configuration_of_some_folds_is_scored_on_those_and_is_no_candidate(folded):
    run, names, whole = folded
    run.update_meta(finished="now")
    board = read_board(run)
    table = lb.frame(board)
    part = table[table["trial"] == names[2][0]].iloc[0]
    only = run.trial(names[2][0]).predictions("val")
    assert part["score"] == pytest.approx(metrics.scores(only.labels, only.probs)["score"])
    assert (part["folds"], part["status"], part["rank"]) == (1, "stopped", 3)
    assert lb.candidates(board)[0] == sorted([names[0][0], names[1][0]])
    assert find(board).best == names[1][0]


def test_a_failed_fold_fails_its_configuration(folded):
    run, names, _ = folded
    table = lb.frame(read_board(run))
    row = table[table["trial"] == names[3][0]].iloc[0]
    assert row["status"] == "failed"
    assert row["note"] == "fold 1: loss is nan"
    assert np.isnan(row["score"])


def test_as_long_as_none_has_all_folds_all_are_seen_on_their_first(run):
    rng, data = np.random.default_rng(0), small()
    first = add_folds(run, config(0, rng), said_by(data, 1.5, 0), 0, [0, 1], role="baseline")
    other = add_folds(run, config(1, rng), said_by(data, 2.5, 1), 10, [0])
    board = read_board(run)
    assert set(board.votes.trials) == {first[0], other[0]}
    assert set(board.votes.ids) == set(run.trial(first[0]).predictions("val").ids)
    assert {lb.status(r, board.meta) for r in board.records} == {"running"}
    assert not board.votes.partial


def test_the_report_tells_trainings_and_configurations(folded):
    run, _, _ = folded
    findings = find(read_board(run))
    told = words(findings)[0]
    assert "Trainings: 9 of" in told
    assert "configurations: 4" in told
    page = write_report(run).read_text()
    assert "<th" in page
    assert "folds" in tables.shown(findings.table)


def test_on_test_a_configuration_is_the_mean_of_its_folds(folded):
    run, names, _ = folded
    data = small()
    tests = [said_by(data, 2.0, 50 + fold, "test") for fold in range(FOLDS)]
    for name, said in zip(names[1], tests, strict=True):
        run.trial(name).save_predictions("test", said)
    board = read_board(run)
    votes = read_votes(run, [board.record(names[1][0])], 3, "test", board.folds)
    stored = [run.trial(name).predictions("test").probs for name in names[1]]
    assert votes.problems == {}
    assert np.allclose(votes.probs[0], np.mean(stored, 0), atol=1e-6)


# --- seeds -----------------------------------------------------------------------------------


@pytest.fixture
def seeded(run):
    """A baseline and another configuration, three seeds each, and a stopped fourth seed."""
    rng, data = np.random.default_rng(0), small()
    base, other = config(0, rng), config(2, rng)
    ids = {"baseline": [], "proposed": []}
    for seed in range(3):
        for role, settings, skill in (("baseline", base, 1.5), ("proposed", other, 2.5)):
            said = said_by(data, skill, 10 * seed + len(role))
            number = 2 * seed + (role == "proposed")
            ids[role].append(add(run, replace(settings, seed=seed), number, said, role))
    late = add(run, replace(other, seed=3), 9, said_by(data, 0.1, 99), status="stopped")
    return run, ids, late


def test_seeds_of_a_configuration_are_one_row_of_their_mean_score(seeded):
    run, ids, late = seeded
    board = read_board(run)
    table = lb.frame(board)
    assert table["trial"].tolist() == [ids["proposed"][0], ids["baseline"][0], late]
    row = table.iloc[0]
    stored = [run.trial(name).predictions("val") for name in ids["proposed"]]
    each = [metrics.scores(p.labels, p.probs)["score"] for p in stored]
    assert row["score"] == pytest.approx(np.mean(each))
    assert row["seeds"] == 3
    assert row["score low"] < row["score"] < row["score high"]
    assert row["vs baseline"] == pytest.approx(row["score"] - table.iloc[1]["score"])
    together = np.mean([p.probs for p in stored], 0)
    ensemble = metrics.scores(stored[0].labels, together)["score"]
    assert row["score"] != pytest.approx(ensemble, abs=1e-3)


def test_a_stopped_seed_stands_by_itself(seeded):
    run, ids, late = seeded
    found = {g.repeats for g in lb.groups(read_board(run))}
    assert found == {tuple(ids["baseline"]), tuple(ids["proposed"]), (late,)}


def test_a_run_without_folds_and_repeats_reads_as_ever(tmp_path):
    from fake_run import make_run

    run = make_run(tmp_path / "run", 6, small())
    board = read_board(run)
    assert [r.id for r in board.records] == [r.id for r in run.records()]
    assert all(a is b or a == b for a, b in zip(board.records, run.records(), strict=True))
    assert board.trainings == len(board.records)
    assert not {"folds", "seeds"} & set(tables.shown(lb.frame(board)))
    assert [len(g.repeats) for g in lb.groups(board)] == [1] * len(board.records)


def test_pooling_drops_action_units_that_some_folds_lack():
    data = small()
    one, other = said_by(data, 1.0, 0), said_by(data, 1.0, 1)
    bare = replace(other, au_probs=np.zeros((len(other.ids), 0), np.float32))
    assert groups.pooled([one, bare]).au_probs.shape == (2 * len(one.ids), 0)


def test_folds_that_saw_other_test_images_are_not_averaged():
    data = small()
    one = said_by(data, 1.0, 0, "test")
    with pytest.raises(ValueError, match="other images"):
        groups.mean([one, replace(one, ids=tuple(f"x{k}" for k in one.ids))])


def test_no_soup_is_made_of_folds(folded):
    from analysis import soup

    run, names, _ = folded
    for name in (*names[0], *names[1]):
        run.trial(name).write(soup.WEIGHTS, b"x")
    assert soup.kettles(read_board(run)) == []


def test_a_run_whose_settings_have_been_renamed_since_can_still_be_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 4, small())
    names = [group.id for group in groups.groups_of(run.records(), {})]
    for record in run.records():
        older = {**record.config, "au_warmup": "none"}
        edit_json(run.root / "trials" / record.id / "config.json", config=older)
    assert len({group.id for group in groups.groups_of(run.records(), {})}) == len(set(names))
    assert write_report(run).exists()
