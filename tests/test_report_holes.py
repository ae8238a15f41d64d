"""Reports of runs that lack something say what."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_run import FakeData, add_trial, make_meta, make_run, small
from page import Page, printed

from analysis import findings, report
from analysis.leaderboard import read_board
from trainables.store import Predictions, RunStore, TrialResult


def empty(root: Path) -> RunStore:
    return RunStore.create(root, make_meta(small(), 3))


def just_started(root: Path) -> RunStore:
    run = empty(root)
    run.update_meta(finished=None)
    trial = add_trial(run, 0, small(), np.random.default_rng(0), 2)
    (trial.path / "val.npz").unlink()
    return run


def running(root: Path) -> RunStore:
    run = empty(root)
    run.update_meta(finished=None)
    for n in range(2):
        add_trial(run, n, small(), np.random.default_rng(n), 2)
    return run


def one_trial(root: Path) -> RunStore:
    return make_run(root, 1, small())


def all_failed(root: Path) -> RunStore:
    run = empty(root)
    for n in range(2):
        trial = add_trial(run, n, small(), np.random.default_rng(n), 2)
        trial.finish(TrialResult("failed", {}, 2, 1.0, error="boom"))
    return run


def one_class(root: Path) -> RunStore:
    run = make_run(root, 4, small())
    for record in run.records():
        stored = run.trial(record.id).predictions("val")
        assert stored is not None
        rest = (stored.probs, stored.aus, stored.au_probs)
        zeros = np.zeros_like(stored.labels)
        run.trial(record.id).save_predictions("val", Predictions(stored.ids, zeros, *rest))
    return run


def no_units(root: Path) -> RunStore:
    return make_run(root, 4, FakeData(("a", "b"), (60, 40), (), 0.8))


def sparse_meta(root: Path) -> RunStore:
    run = make_run(root, 4, small())
    (run.root / "run.json").write_text(json.dumps({"data": {"class_names": ["x", "y", "z"]}}))
    return run


def torn(root: Path) -> RunStore:
    run = make_run(root, 4, small())
    for record in run.records()[:3]:
        (run.trial(record.id).path / "val.npz").write_bytes(b"PK")
    return run


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (empty, "no trial has usable predictions"),
        (just_started, "it has no val predictions yet"),
        (running, "no trial has ended yet"),
        (one_trial, "it is the baseline itself"),
        (all_failed, "boom"),
        (one_class, "all validation images are of one class"),
        (no_units, "the data has no action units"),
        (sparse_meta, "the majority scores are unknown"),
        (torn, "3 of 4 trials have no usable predictions"),
    ],
)
def test_a_run_with_holes_gives_a_report_that_says_so(make, told, tmp_path) -> None:  # type: ignore[no-untyped-def]  # parametrised
    run = make(tmp_path / "run")
    assert printed(run)
    page = Page((run.root / "report" / "index.html").read_text())
    assert told in page.text
    assert "nan" not in re.sub(r"loss is nan", "", page.text).lower().split()


def test_a_better_trial_that_was_stopped_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2, small())
    trial = add_trial(run, 3, small(), np.random.default_rng(0), 3)
    stored = trial.predictions("val")
    assert stored is not None
    perfect = np.eye(3, dtype=np.float32)[stored.labels]
    rest = (stored.aus, stored.au_probs)
    trial.save_predictions("val", Predictions(stored.ids, stored.labels, perfect, *rest))
    trial.finish(TrialResult("stopped", {}, 3, 1.0))
    found = findings.find(read_board(run))
    assert found.best != trial.id
    assert any(f"trial {trial.id} (stopped after epoch 3)" in line for line in found.notes)


def test_no_ensemble_of_an_earlier_report_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, small())
    report.write_report(run)
    shutil.rmtree(run.root / "trials")
    report.write_report(run)
    assert not (run.root / "report" / "ensemble.json").exists()
