"""The mirror for optuna-dashboard: what Optuna reads from it, during a run and after crashes."""

from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from test_core import begin, row
from toy import EPOCHS, SPACE, flat, run_toy, start

from search.inline import run_inline
from search.journal import Journal, distribution
from spaces.space import Choice, IntRange, LogUniform, Uniform
from trainables.store import RunStore

STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def read(search):
    """The study, read as optuna-dashboard reads it."""
    backend = optuna.storages.journal.JournalFileBackend(str(search.store.root / "study.journal"))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


def assert_mirrors(search):
    trials = read(search).get_trials()
    assert [t.user_attrs["trial"] for t in trials] == list(search.rows)
    for mirror, record in zip(trials, search.store.records(), strict=True):
        assert mirror.user_attrs["role"] == record.role
        scores = {r["epoch"]: r["score"] for r in record.history}
        assert mirror.intermediate_values == scores
        for name, value in mirror.params.items():
            assert record.config[name] == value
        if record.result is None:
            assert mirror.state == TrialState.RUNNING
            continue
        assert mirror.state == STATES[record.result.status]
        assert mirror.value == (None if mirror.state == TrialState.FAIL else scores[max(scores)])
        assert mirror.user_attrs["epoch"] == record.result.epoch
    return trials


ANCHORS = [
    ("baseline", flat(backbone="resnet50", lr=1e-3)),  # outside the space
    ("default", flat(weights="raise", fold=2)),
]


def test_a_whole_run_is_mirrored_trial_by_trial(tmp_path):
    search = start(tmp_path, budget=10, anchors=ANCHORS)
    assert run_inline(search, tmp_path, run_toy, Journal(search, SPACE))
    baseline, failed, *others = assert_mirrors(search)
    assert baseline.params["lr"] == 1e-3
    assert baseline.user_attrs["others"]["backbone"] == "resnet50"
    assert failed.user_attrs["error"] == "RuntimeError: a bug at this epoch"
    assert {"loss", "au_weight", "lr", "batch_size"} <= set(others[0].params)
    focal = [t for t in others if t.params["loss"] == "focal"]
    assert all("loss.gamma" in t.params for t in focal)
    assert all("loss.gamma" not in t.params for t in others if t not in focal)
    assert read(search).best_trial.value == max(
        r.result.metrics["score"] for r in search.store.records() if r.result.status == "completed"
    )


def test_a_running_trial_is_seen_epoch_by_epoch(tmp_path):
    search, now = start(tmp_path), [0.0]
    journal = Journal(search, SPACE, clock=lambda: now[0])
    journal.start()
    trial = begin(search, row(1, 0.5))
    journal.update()
    assert_mirrors(search)
    search.store.trial(trial).append(row(2, 0.6))
    search.on_row(trial, row(2, 0.6))
    journal.update()  # too early: a flush waits for the disk
    assert list(read(search).trials[0].intermediate_values) == [1]
    now[0] = 1.0
    journal.update()
    assert_mirrors(search)


def test_a_run_that_is_resumed_goes_on_in_its_journal(tmp_path):
    search = start(tmp_path, budget=8, anchors=[("default", flat(weights="interrupt", fold=5))])
    assert not run_inline(search, tmp_path, run_toy, Journal(search, SPACE))
    before = (tmp_path / "study.journal").read_bytes()
    resumed = start(tmp_path, budget=8)
    assert run_inline(resumed, tmp_path, run_toy, Journal(resumed, SPACE))
    assert (tmp_path / "study.journal").read_bytes().startswith(before)
    assert len(assert_mirrors(resumed)) == 8


def torn(path):
    path.write_bytes(path.read_bytes()[:-7])


def garbled(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"nonsense\n", *lines[3:]]))


def of_another_run(path):
    path.write_bytes(path.read_bytes().replace(b'"trial":"', b'"trial":"x'))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [torn, garbled, of_another_run, empty, lambda p: p.unlink()])
def test_a_damaged_journal_is_written_anew(tmp_path, damage):
    search = start(tmp_path, budget=4)
    assert run_inline(search, tmp_path, run_toy, Journal(search, SPACE))
    damage(tmp_path / "study.journal")
    resumed = start(tmp_path, budget=6)
    assert run_inline(resumed, tmp_path, run_toy, Journal(resumed, SPACE))
    assert len(assert_mirrors(resumed)) == 6


def test_several_objectives_have_their_directions_and_values(tmp_path):
    search = start(tmp_path)
    journal = Journal(search, SPACE, ("score", "latency_ms"))
    journal.start()
    trial = begin(search, row(1, 0.4, latency_ms=2.5), row(EPOCHS, 0.75, latency_ms=3.5))
    search.on_end(trial)
    journal.stop()
    study = read(search)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.trials[0].values == [0.75, 3.5]


def test_what_cannot_be_written_leaves_no_half_a_line(tmp_path, monkeypatch):
    search = start(tmp_path)
    journal = Journal(search, SPACE)
    journal.start()
    begin(search, row(1, 0.5))

    def fill_the_disk(logs):
        with journal.path.open("ab") as file:
            file.write(b'{"op_code": ')
        raise OSError("no space left on device")

    monkeypatch.setattr(journal.backend.file, "append_logs", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        journal.stop()
    assert read(search).trials == []


def test_dimensions_are_what_optuna_names_them():
    d = optuna.distributions
    assert distribution(Choice(("a", "b"), "a")) == d.CategoricalDistribution(("a", "b"))
    assert distribution(IntRange(1, 8, 2)) == d.IntDistribution(1, 8)
    assert distribution(Uniform(0.0, 1.0, 0.5)) == d.FloatDistribution(0.0, 1.0)
    assert distribution(LogUniform(0.1, 1.0, 0.5)) == d.FloatDistribution(0.1, 1.0, log=True)


def test_the_main_command_keeps_a_journal_and_goes_on_with_it(ended, place):
    words = ("--space", "smoke", "--inline", "--data", "faces:200:easy", "--image-size", "32")
    words = (*words, "--epochs", "1", "--name", "mirrored")
    assert ended(*words, "--trials", "2")[0] == 0
    run = SimpleNamespace(store=RunStore.open(place / "runs" / "mirrored"))
    before = (run.store.root / "study.journal").read_bytes()
    assert len(read(run).trials) == 2
    assert ended(*words, "--trials", "3", "--resume")[0] == 0
    assert (run.store.root / "study.journal").read_bytes().startswith(before)
    study, records = read(run), run.store.records()
    assert [t.user_attrs["trial"] for t in study.trials] == [r.id for r in records]
    assert [t.value for t in study.trials] == [r.result.metrics["score"] for r in records]
