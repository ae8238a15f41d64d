"""Several runs as one pool; runs that cannot give an ensemble, or only a part of one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_run import edit_json, make_meta, make_run, other_run, small

from analysis import ensemble, pool
from analysis.leaderboard import read_board
from trainables.store import RunStore


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "analysis.ensemble", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


def test_members_come_from_all_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", 6, small())
    other_run(tmp_path / "b")
    roots = [tmp_path / "a", tmp_path / "b"]
    assert ensemble.main([*map(str, roots), "--out", str(tmp_path / "out")]) == 0
    saved = json.loads((tmp_path / "out" / "ensemble.json").read_text())
    for source in saved["sources"]:
        assert source["name"] == f"{Path(source['run']).name}/{source['trial']}"
        assert (tmp_path / "out" / source["run"] / "trials" / source["trial"]).is_dir()
    assert {s["run"] for s in saved["sources"]} == {"../a", "../b"}
    assert saved["fingerprint"] == "f00d" * 8
    assert saved["class_names"] == ["happy", "sad", "calm"]
    assert "chosen" in capsys.readouterr().out


def test_the_order_of_the_images_in_a_run_does_not_matter(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 5, small())
    run = other_run(tmp_path / "b")
    plain = pool.read_runs([tmp_path / "a", tmp_path / "b"])
    for record in run.records():
        path = run.trial(record.id).path / "val.npz"
        with np.load(path) as file:
            order = np.random.default_rng(0).permutation(len(file["ids"]))
            arrays = {name: file[name][order] for name in file.files}
        np.savez(path, **arrays)
    mixed = pool.read_runs([tmp_path / "a", tmp_path / "b"])
    assert mixed.votes.trials == plain.votes.trials
    assert (mixed.votes.probs == plain.votes.probs).all()


def test_a_trial_of_two_runs_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 5, small())
    make_run(tmp_path / "b", 5, small())
    alone, both = (pool.read_runs(r) for r in ([tmp_path / "a"], [tmp_path / "a", tmp_path / "b"]))
    assert len(both.votes.trials) == len(alone.votes.trials)
    assert "stand in two runs" in both.notes[-1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"fingerprint": "beef"}, "their data differ"),
        ({"fingerprint": None}, "not recorded"),
        ({"class_names": ["happy", "sad", "angry"]}, "their classes differ"),
    ],
)
def test_runs_on_other_data_are_refused(
    tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    make_run(tmp_path / "a", 4, small())
    run = make_run(tmp_path / "b", 4, small())
    edit_json(run.root / "run.json", data={**run.meta()["data"], **changes})
    with pytest.raises(ValueError, match=word):
        pool.read_runs([tmp_path / "a", tmp_path / "b"])


def test_runs_for_other_objectives_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 4, small())
    edit_json(make_run(tmp_path / "b", 4, small()).root / "run.json", metric="accuracy")
    with pytest.raises(ValueError, match="their objective differ"):
        pool.read_runs([tmp_path / "a", tmp_path / "b"])


def test_a_run_named_twice_is_told(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 4, small())
    with pytest.raises(ValueError, match="named twice"):
        pool.read_runs([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_latency_and_seeds_are_read_of_the_records(tmp_path: Path) -> None:
    board = read_board(other_run(tmp_path / "b"))
    known = pool.known_of(board.records, "b/")
    assert sorted(known.latency_ms.values()) == [3.0, 4.0, 5.0, 6.0]
    assert len(set(known.group.values())) == 4
    one = board.records[0]
    seeds = [one, type(one)("twin", 9, "proposed", {**one.config, "seed": 99}, [], None)]
    assert len(set(pool.known_of(seeds).group.values())) == 1


def test_a_run_without_a_finished_trial_is_told(tmp_path: Path) -> None:
    RunStore.create(tmp_path / "run", make_meta(small(), 3))
    done = command(tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == "error: no trial has predictions that could be averaged\n"


def test_unusable_predictions_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", 6, small())
    good, torn, nan, gone = [r.id for r in run.records() if r.result.status == "completed"][:4]
    whole = (run.trial(torn).path / "val.npz").read_bytes()
    (run.trial(torn).path / "val.npz").write_bytes(whole[:200])
    with np.load(run.trial(nan).path / "val.npz") as file:
        arrays = dict(file)
    arrays["probs"][3] = np.nan
    np.savez(run.trial(nan).path / "val.npz", **arrays)
    (run.trial(gone).path / "val.npz").unlink()
    assert ensemble.main([str(run.root)]) == 0
    said = capsys.readouterr().out
    assert "3 of 6 trials have no usable predictions" in said
    saved = json.loads((run.root / "report" / "ensemble.json").read_text())
    assert not {torn, nan, gone} & set(saved["members"])


def test_one_finished_trial_is_the_ensemble(tmp_path: Path) -> None:
    other_run(tmp_path / "run", trials=1)
    assert ensemble.main([str(tmp_path / "run"), "--members", "3"]) == 0
    saved = json.loads((tmp_path / "run" / "report" / "ensemble.json").read_text())
    assert saved["method"] == "best single trial"
    assert list(saved["members"].values()) == [1.0]


def test_a_limit_of_latency_reaches_the_choice(tmp_path: Path) -> None:
    run = other_run(tmp_path / "run")
    assert ensemble.main([str(run.root), "--latency-ms", "7.5"]) == 0
    saved = json.loads((run.root / "report" / "ensemble.json").read_text())
    assert saved["latency_ms"] <= 7.5
    done = command(run.root, "--latency-ms", "0.5")
    assert done.returncode == 2
    assert done.stderr == "error: no ensemble within 0.5 ms: the fastest trial takes 3 ms\n"
