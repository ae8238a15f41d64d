"""The record: whole files, torn lines, fencing, predictions."""

import json

import numpy as np
import pytest

from trainables.config import TrialConfig
from trainables.store import Fenced, Predictions, RunStore, TrialResult, finite, replace_file


@pytest.fixture
def run(tmp_path) -> RunStore:
    return RunStore.create(tmp_path / "run", {"name": "run"})


@pytest.fixture
def trial(run):
    tid = run.create_trial(TrialConfig(), 0, "baseline")
    return run.trial(tid, run.hand_out(tid))


def predictions(n: int = 4) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        tuple(f"{i}.jpg" for i in range(n)),
        rng.integers(0, 3, n),
        rng.dirichlet(np.ones(3), n).astype(np.float32),
        rng.integers(-1, 2, (n, 2)).astype(np.int8),
        rng.random((n, 2)).astype(np.float32),
    )


def test_a_run_is_not_started_twice(run) -> None:
    with pytest.raises(FileExistsError):
        RunStore.create(run.root, {})
    assert run.meta() == {"name": "run"}


def test_opening_nothing_says_so(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        RunStore.open(tmp_path)


def test_a_repeated_configuration_is_refused(run, trial) -> None:
    with pytest.raises(FileExistsError):
        run.create_trial(TrialConfig(), 1)


def test_history_keeps_the_first_row_of_an_epoch_and_drops_a_torn_line(trial) -> None:
    trial.append({"epoch": 1, "score": 0.1})
    trial.append({"epoch": 1, "score": 0.9})
    trial.append({"epoch": 2, "score": 0.2})
    with (trial.path / "history.jsonl").open("ab") as file:
        file.write(b'{"epoch": 3, "sc')
    assert [row["score"] for row in trial.history()] == [0.1, 0.2]


def test_a_writer_after_a_torn_line_starts_its_own(trial) -> None:
    trial.append({"epoch": 1, "score": 0.1})
    with (trial.path / "history.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2, "sc')
    trial.append({"epoch": 2, "score": 0.2})
    trial.append({"epoch": 3, "score": 0.3})
    assert [(row["epoch"], row["score"]) for row in trial.history()] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]


def test_a_row_with_nan_is_refused(trial) -> None:
    assert not finite({"score": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        trial.append({"epoch": 1, "score": float("nan")})
    assert trial.history() == []


def test_a_late_writer_is_fenced(run, trial) -> None:
    newer = run.trial(trial.id, run.hand_out(trial.id))
    newer.append({"epoch": 1, "score": 0.5})
    for write in (
        lambda: trial.append({"epoch": 2, "score": 0.0}),
        lambda: trial.write("last.pt", b""),
    ):
        with pytest.raises(Fenced, match="attempt 1 was replaced by 2"):
            write()
    assert len(newer.history()) == 1


def test_predictions_read_back(trial) -> None:
    stored = predictions()
    trial.save_predictions("val", stored)
    found = trial.predictions("val")
    assert found is not None
    assert found.ids == stored.ids
    np.testing.assert_array_equal(found.labels, stored.labels)
    np.testing.assert_array_equal(found.aus, stored.aus)
    np.testing.assert_allclose(found.probs, stored.probs, atol=1e-3)
    np.testing.assert_allclose(found.probs.sum(1), 1, rtol=1e-6)
    assert trial.predictions("test") is None


def test_truncated_predictions_are_told_apart_from_absent_ones(trial) -> None:
    trial.save_predictions("val", predictions())
    path = trial.path / "val.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="not a predictions file"):
        trial.predictions("val")


def test_the_first_verdict_stands(trial) -> None:
    trial.finish(TrialResult("completed", {"score": 0.5}, 3))
    trial.finish(TrialResult("failed", error="late"))
    assert trial.result() == TrialResult("completed", {"score": 0.5}, 3)


def test_records_come_in_the_order_of_proposal(run) -> None:
    ids = [run.create_trial(TrialConfig(seed=s), s) for s in range(5)]
    assert [r.id for r in run.records()] == ids
    assert run.records()[2].config["seed"] == 2


def test_a_failed_write_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.json"
    replace_file(path, b"old")
    with pytest.raises(TypeError):
        replace_file(path, None)  # type: ignore[arg-type]  # the failure under test
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_plain_json(run, trial) -> None:
    head = json.loads((run.root / "trials" / trial.id / "config.json").read_text())
    assert head["role"] == "baseline"
    assert head["config"] == TrialConfig().flat()
