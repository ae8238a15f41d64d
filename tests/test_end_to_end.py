"""The main job from the command line to the report, on tiny embedded data."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from search import run
from trainables.data import cache
from trainables.store import RunStore

TRIALS, EPOCHS = 8, 6
BASE = ("--space", "smoke", "--data", "faces:200:easy", "--image-size", "32", "--sampler", "tpe")
WORDS = (*BASE, "--inline", "--trials", str(TRIALS), "--epochs", str(EPOCHS), "--seed", "3")
CLOCKED = ("seconds", "peak_gib", "latency_ms")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder and a cache for this file."""
    root = tmp_path_factory.mktemp("end")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setenv("PYTHONPATH", str(Path(run.__file__).parents[1]), prepend=os.pathsep)
        yield root


@pytest.fixture(scope="module")
def whole(home):
    """A run from beginning to end."""
    assert run.main([*WORDS, "--name", "whole"]) == 0
    return RunStore.open(home / "runs" / "whole")


def told(store: RunStore) -> list[dict]:
    """What a run is, its clock left out."""
    return [
        {
            "id": record.id,
            "role": record.role,
            "config": record.config,
            "status": record.result.status if record.result else None,
            "rows": [{k: v for k, v in r.items() if k not in CLOCKED} for r in record.history],
        }
        for record in store.records()
    ]


def test_every_trial_is_on_record_and_some_were_stopped_early(whole):
    records = whole.records()
    assert [r.role for r in records] == ["baseline", "default"] + ["proposed"] * (TRIALS - 2)
    assert len({r.id for r in records}) == TRIALS
    ended = {r.result.status for r in records}
    assert ended == {"completed", "stopped"}
    (rung,) = whole.meta()["rungs"]
    for record in records:
        length = EPOCHS if record.result.status == "completed" else rung
        assert [row["epoch"] for row in record.history] == list(range(1, length + 1))
    assert records[0].result.status == "completed"
    assert records[0].config["au_loss"] == "none"


def test_the_record_says_what_was_asked(whole):
    meta = whole.meta()
    assert (meta["trials"], meta["epochs"], meta["seed"], meta["sampler"]) == (8, 6, 3, "tpe")
    assert meta["command"][1:] == ["-m", "search.run", *WORDS, "--name", "whole"]
    assert meta["finished"] >= meta["started"]
    assert meta["data"]["is_synthetic"]


def test_the_report_is_written(whole):
    report = whole.root / "report"
    board = (report / "leaderboard.csv").read_text()
    assert all(record.id in board for record in whole.records())
    assert "synthetic" in (report / "leaderboard.md").read_text().lower()
    assert "synthetic" in (report / "index.html").read_text().lower()
    ensemble = json.loads((report / "ensemble.json").read_text())
    members = {str(r.id) for r in whole.records()}
    assert members & set(json.dumps(ensemble).replace('"', " ").split())


def arrays_in(root: Path):
    """Every array in every file of arrays under a folder, with its place."""
    for path in sorted(root.rglob("*.npz")):
        with np.load(path) as file:
            for name in file.files:
                yield path, name, file[name]


def test_sealed_labels_are_in_no_file_of_the_run(whole):
    entry = Path(whole.meta()["data"]["cache"])
    bundle, sealed = cache.load(entry), cache.unseal(entry)[0]
    assert len(sealed) == len(bundle.test)
    assert set(sealed) > {0}  # what is looked for is there to be found
    tests = set()
    for path, name, array in arrays_in(whole.root):
        if path.name == "test.npz" and name in ("labels", "aus"):
            tests.add(path.parent.name)
            assert (array == -1).all(), path
        if array.shape == sealed.shape and array.dtype.kind in "iu":
            assert not np.array_equal(array, sealed), (path, name)
    assert tests == {r.id for r in whole.records() if r.result.status == "completed"}
    listed = [f"{i}".encode() for i in (sealed.tolist(), tuple(sealed.tolist()))]
    listed += [json.dumps(sealed.tolist(), indent=1).encode(), sealed.tobytes()]
    for path in whole.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [text for text in listed if text in content], path


def test_the_same_command_gives_the_same_trials(whole, home):
    assert run.main([*WORDS, "--name", "twin"]) == 0
    assert told(RunStore(home / "runs" / "twin")) == told(whole)


@pytest.mark.parametrize("rows", [2, 20])
def test_an_interrupted_and_resumed_run_equals_one_that_was_not(
    whole, home, monkeypatch, capsys, rows
):
    from trainables import trial

    real, left = trial.run_trial, iter(range(rows))

    def interrupted(store, data):
        for row in real(store, data):
            if next(left, None) is None:
                raise KeyboardInterrupt  # the row is stored, but nobody has seen it
            yield row

    name = f"cut{rows}"
    monkeypatch.setattr(trial, "run_trial", interrupted)
    assert run.main([*WORDS, "--name", name]) == 130
    store = RunStore(home / "runs" / name)
    assert len(told(store)) < TRIALS
    monkeypatch.setattr(trial, "run_trial", real)
    assert run.main([*WORDS, "--name", name, "--resume"]) == 0
    assert told(store) == told(whole)


def test_a_run_goes_on_with_more_trials(whole, home):
    for trials in (3, 5):
        resume = ["--resume"] if trials == 5 else []
        words = [*BASE, "--inline", "--trials", str(trials), "--epochs", "1", "--name", "more"]
        assert run.main([*words, *resume]) == 0
    store = RunStore(home / "runs" / "more")
    assert len(store.records()) == store.meta()["trials"] == 5


@pytest.mark.slow
def test_the_main_job_under_ray(home, capsys):
    pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    words = [*BASE, "--trials", "2", "--epochs", "2", "--name", "ray", "--no-dashboard"]
    try:
        assert run.main(words) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    import ray

    assert not ray.is_initialized()
    store = RunStore(home / "runs" / "ray")
    assert [r.role for r in store.records()] == ["baseline", "default"]
    assert {r.result.status for r in store.records()} <= {"completed", "stopped"}
    assert "ray      " in capsys.readouterr().out
