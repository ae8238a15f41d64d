"""The state of a run from its record alone."""

import json
import re
import subprocess
import sys

import pytest
from from_scratch import best
from toy import EPOCHS, flat, run_toy, start

from search import status
from search.folder import alone_in
from search.inline import run_inline
from trainables import cli

ANCHORS = [("baseline", flat(lr=1e-3)), ("default", flat(weights="raise", fold=2))]


@pytest.fixture
def run(tmp_path):
    """A run of toy trials that is over; one of them has failed."""
    search = start(tmp_path / "toy", budget=8, anchors=ANCHORS)
    search.store.update_meta(trials=8, rungs=list(search.pruner.milestones), gpus_per_trial=0.5)
    assert run_inline(search, tmp_path, run_toy)
    return search


def told(capsys, *words):
    assert status.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_counts_what_the_record_holds(run, capsys):
    there, results = told(capsys, run.store.root), run.results.values()
    ended = {s: sum(r.status == s for r in results) for s in ("completed", "stopped", "failed")}
    assert there["trials"] == {"asked": 8, "begun": 8, "unfinished": 0, **ended}
    assert there["best"]["trial"] == best(run)
    assert there["best"]["score"] == max(r.metrics["score"] for r in results if not r.error)
    assert there["baseline"]["config"]["lr"] == 1e-3
    assert there["epochs"] == sum(map(len, run.rows.values()))
    assert there["worker_hours"] == pytest.approx(run.seconds / 3600)
    assert there["gpu_hours"] == pytest.approx(run.seconds / 7200)
    (failure,) = there["failures"]
    assert failure["error"] == "RuntimeError: a bug at this epoch"
    first = there["rungs"][0]
    assert first["epoch"] == run.pruner.milestones[0]
    assert first["came"] == len(run.pruner.rungs[first["epoch"]])


def test_state_follows_the_lock_and_the_end(run, capsys):
    root = run.store.root
    assert told(capsys, root)["state"] == "ended"
    with alone_in(root):
        assert told(capsys, root)["state"] == "running"
    assert told(capsys, root)["state"] == "ended"
    run.store.update_meta(finished="2026-11-24T08:00:00+00:00")
    assert told(capsys, root)["state"] == "finished"


def test_looking_holds_nothing(run):
    status.look(run.store.root)
    with alone_in(run.store.root):  # refused if the first look still held it
        assert status.look(run.store.root).has_driver is True
    assert status.look(run.store.root).has_driver is False


def test_a_run_that_was_killed_is_read_with_its_torn_line(tmp_path, capsys):
    anchors = [("default", flat(weights="interrupt", fold=5))]
    search = start(tmp_path, budget=4, anchors=anchors)
    assert not run_inline(search, tmp_path, run_toy)
    (trial,) = search.rows
    with (tmp_path / "trials" / trial / "history.jsonl").open("ab") as file:
        file.write(b'{"epoch": 5, "sc')
    there = told(capsys, tmp_path)
    assert there["trials"]["unfinished"] == 1
    assert there["best"]["epoch"] == 4 < EPOCHS


def test_a_page_fits_a_terminal_and_tells_the_reasons(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert status.main([str(run.store.root)]) == 0
    page = capsys.readouterr().out
    assert "8 of 8 begun" in page
    assert f"best     {run.results[best(run)].metrics['score']:.4f} {best(run)}" in page
    assert "at epoch 1: RuntimeError: a bug at this epoch" in page
    assert "GPU-hours" in page


def test_a_folder_of_runs_is_a_list(run, tmp_path, capsys):
    start(tmp_path / "fresh").store.update_meta(trials=3)
    assert [there["trials"]["begun"] for there in told(capsys, tmp_path)] == [0, 8]
    assert status.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "0/3" in lines[1]
    assert "8/8" in lines[2]


def test_watching_ends_with_the_run(run, capsys):
    assert status.main([str(run.store.root), "--watch"]) == 0
    assert "8 of 8 begun" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "error: no run at 'nowhere': no such folder"),
        (["."], "error: no run at '.': it has no run.json, and no folder in it has one"),
        (["damaged"], "error: the record of 'damaged' cannot be read"),
        ([], "error: the following arguments are required: run"),
        ([".", "--jsn"], "error: unknown flag '--jsn'; .*Did you mean '--json'"),
        ([".", "--json", "--watch"], "error: --json is told once"),
    ],
)
def test_bad_input_gets_one_message(place, capsys, words, message):
    if "damaged" in words:
        (place / "damaged").mkdir()
        (place / "damaged" / "run.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: status.main(words))
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert not out
    assert err.startswith("error: ")
    assert re.search(message, err)


def test_it_starts_without_what_is_slow(run):
    code = (
        "import sys; from search.status import main; main([sys.argv[1]]);"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run.store.root], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "search" in loaded
    assert not loaded & {"torch", "ray", "optuna", "pandas", "sklearn", "timm", "scipy"}
