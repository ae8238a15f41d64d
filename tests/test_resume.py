"""The main command on a run that exists, and how a run ends."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from search import run
from search.folder import NEEDED, alone_in, is_empty, is_over, read_meta
from trainables import cli
from trainables.config import TrialConfig
from trainables.store import RunStore, TrialResult

DATA = ("--data", "faces:200:easy", "--image-size", "32")
SMOKE = ("--space", "smoke", "--inline", *DATA, "--trials", "2", "--epochs", "1")


# --- a run that exists ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_home):
    """A run of two trials that has ended."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        assert run.main([*SMOKE, "--name", "done"]) == 0
    return root / "runs"


def test_a_name_that_exists_is_refused_without_resume(refused, finished):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    message = refused(*SMOKE, "--runs", str(finished), "--name", "done")
    assert "exists; give another --name, or --resume to go on with it" in message
    assert before == {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}


def test_a_folder_that_is_no_run_is_left_alone(refused, place):
    (place / "runs" / "photos").mkdir(parents=True)
    (place / "runs" / "photos" / "me.jpg").write_text("mine")
    (place / "runs" / "file").write_text("mine")
    for name in ("photos", "file"):
        message = refused(*SMOKE, "--name", name)
        assert f"'runs/{name}' exists and is no run; give another --name" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "1"], "seed was 0, is 1"),
        (["--sampler", "gp"], "sampler was mfgp, is gp"),
        (["--pruner", "median"], "pruner was thaw, is median"),
        (["--metric", "uar"], "metric was macro_f1, is uar"),
        (["--epochs", "2"], "epochs was 1, is 2"),
        (["--data", "faces:201:easy"], "data was faces:200:easy at 32 px, is faces:201:easy"),
        (["--aus", "none"], "(or its content has changed)"),
        (["--space", "sprint1"], "space was 'smoke', is 'sprint1'"),
    ],
)
def test_a_run_is_not_resumed_with_what_would_change_its_trials(refused, finished, words, message):
    told = refused(*SMOKE, "--runs", str(finished), "--name", "done", "--resume", *words)
    assert "cannot be resumed, for its trials would not compare" in told
    assert message in told
    command = told.splitlines()[-1].strip()
    assert shlex.split(command)[1:] == ["-m", "search.run", *SMOKE, "--name", "done", "--resume"]


def test_a_run_that_has_ended_is_only_reported_again(ended, finished, monkeypatch):
    monkeypatch.setattr("search.cluster.start_ray", None)  # not even Ray is started
    page = finished / "done" / "report" / "index.html"
    page.unlink()
    words = [word for word in SMOKE if word != "--inline"]
    code, out, _ = ended(*words, "--runs", str(finished), "--name", "done", "--resume")
    assert code == 0
    assert "has ended: only its report is written anew" in " ".join(out.split())
    assert page.exists()


def test_the_latest_run_of_the_space_is_resumed_without_a_name(ended, finished):
    (finished / "damaged").mkdir(exist_ok=True)
    (finished / "damaged" / "run.json").write_text("{")
    code, out, _ = ended(*SMOKE, "--runs", str(finished), "--resume", "--trials", "1")
    assert code == 0
    assert "done has ended" in " ".join(out.split())


def test_a_damaged_record_is_told(refused, place):
    for name, text in (("torn", "{"), ("foreign", '{"name": 3}')):
        (place / "runs" / name).mkdir(parents=True)
        (place / "runs" / name / "run.json").write_text(text)
    assert "cannot be read" in refused(*SMOKE, "--name", "torn", "--resume")
    assert "lacks sampler" in refused(*SMOKE, "--name", "foreign", "--resume")


def test_a_run_has_one_process(refused, finished):
    with (finished / "done" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        message = refused(*SMOKE, "--runs", str(finished), "--name", "done", "--resume")
    assert "another process works on" in message
    with alone_in(finished / "done"):
        pass


def test_what_a_run_leaves_that_never_began_blocks_nobody(tmp_path):
    with alone_in(tmp_path / "a"):
        assert is_empty(tmp_path / "a")
    (tmp_path / "a" / "trials").mkdir()
    assert is_empty(tmp_path / "a")
    (tmp_path / "a" / "trials" / "x").mkdir()
    assert not is_empty(tmp_path / "a")


def test_a_record_that_cannot_be_begun_leaves_no_folder(ended, place, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainables.store.write_json", full)
    code, _, err = ended(*SMOKE, "--name", "x")
    assert code == 2
    assert "cannot write the run to 'runs/x' (No space left on device)" in err
    assert not (place / "runs" / "x").exists()


def test_a_disk_that_has_no_room_is_refused_at_once(refused, monkeypatch):
    monkeypatch.setattr("search.folder.LEAST_FREE", 1 << 60)
    assert "MiB free, not enough for a run" in refused(*SMOKE)


def test_when_a_run_is_over(tmp_path):
    meta = {"trials": 2, "finished": None}
    store = RunStore.create(tmp_path, {**dict.fromkeys(NEEDED, 0), **meta})
    assert read_meta(store)["trials"] == 2
    trials = [store.create_trial(TrialConfig(seed=k), k) for k in range(2)]
    assert not is_over(tmp_path, None)
    for trial in trials:
        store.trial(trial).finish(TrialResult("completed"))
    assert is_over(tmp_path, None)
    assert is_over(tmp_path, 1)
    assert not is_over(tmp_path, 3)
    store.update_meta(trials=5, finished="now")  # the space held no more than two
    assert is_over(tmp_path, None)
    assert not is_over(tmp_path, 6)


# --- how it ends ---------------------------------------------------------------------------------


def test_all_trials_failing_is_an_error_and_not_a_mistake(ended, monkeypatch):
    def fails(store, data):
        raise FloatingPointError("loss is nan")
        yield

    monkeypatch.setattr("trainables.trial.run_trial", fails)
    code, out, err = ended(*SMOKE, "--name", "x")
    assert code == 1
    assert err == "error: all 2 trials failed, the first with: FloatingPointError: loss is nan\n"
    assert "report:" in out


def test_an_interrupted_run_says_how_to_go_on_and_can(ended, place, monkeypatch):
    real = run_trial_of()
    monkeypatch.setattr(cli, "give_up", lambda words: None)  # it would end the tests

    def interrupted(store, data):
        yield from real(store, data)
        os.kill(os.getpid(), signal.SIGTERM)  # does what Ctrl-C does

    monkeypatch.setattr("trainables.trial.run_trial", interrupted)
    words = (*SMOKE, "--name", "it's mine [red] " + "long " * 20)
    code, _, err = ended(*words)
    assert code == 130
    assert "interrupted; what is done is kept. Go on with:" in err
    command = shlex.split(err.splitlines()[-1])  # whole, in one line
    assert command[1:] == ["-m", "search.run", *words, "--resume"]
    monkeypatch.setattr("trainables.trial.run_trial", real)
    code, _, err = ended(*command[3:])
    assert (code, err) == (0, "")
    (meta,) = (read_meta(RunStore(p.parent)) for p in place.glob("runs/*/run.json"))
    assert meta["finished"]


def run_trial_of():
    from trainables.trial import run_trial

    return run_trial


def test_ctrl_c_before_the_first_trial_leaves_no_run(ended, place, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainables.data.cache.prepare", interrupt)
    assert ended(*SMOKE)[::2] == (130, "interrupted\n")
    assert list(place.iterdir()) == []


def test_a_disk_that_runs_full_says_how_to_go_on(ended, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.core.Search.on_row", full)
    monkeypatch.setattr("search.core.Search.on_end", full)
    code, _, err = ended(*SMOKE, "--name", "x")
    assert code == 2
    assert "No space left on device, with the run in 'runs/x'; what is done is kept" in err
    assert err.splitlines()[-1].endswith("--name x --resume")


def test_sigterm_gives_up_on_what_does_not_end(monkeypatch):
    gone = threading.Event()
    monkeypatch.setattr(cli, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(cli, "give_up", lambda words: gone.set())
    cli.end_on_sigterm("last words")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert gone.wait(10)


def test_a_bug_keeps_its_traceback():
    def bug():
        return {}["absent"]

    with pytest.raises(KeyError):
        cli.run_command(bug)


def test_the_command_itself_refuses_in_a_moment_and_without_a_traceback(place):
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--space", "smoke", "--sampler", "tep"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])},
    )
    assert done.returncode == 2
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.startswith("error: unknown sampler 'tep'")
