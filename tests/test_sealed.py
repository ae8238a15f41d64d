"""No path but --final reads the labels of the test split: all else runs with the files poisoned."""

from pathlib import Path

import numpy as np
import pytest

from analysis import ensemble, posthoc, report
from search import confirm, status
from trainables import cli
from trainables.data import cache, entry

WORDS = ["--space", "smoke", "--data", "faces:200:easy", "--image-size", "32", "--inline"]
WORDS += ["--epochs", "1", "--trials", "5", "--folds", "2", "--sampler", "random"]
POISON = b"the test labels were opened"


@pytest.fixture
def sealed(place, ended, tmp_path_factory, monkeypatch):
    """Prepared data whose sealed files cannot be read as labels, each as long as it was."""
    home = tmp_path_factory.mktemp("sealed")  # a cache of its own: others need theirs whole
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    data = cache.prepare("faces:200:easy", 32)
    for name in entry._SEALED:
        path = data / name
        path.write_bytes(POISON.ljust(path.stat().st_size, b"!")[: path.stat().st_size])
    monkeypatch.setattr(
        entry, "is_sound", lambda path: Path(path).is_dir()
    )  # it hashes them, unread
    monkeypatch.setattr(cache, "is_sound", lambda path: Path(path).is_dir())
    return data


def said(command, *words) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: command(list(map(str, words))))
    return int(ended.value.code or 0)


def test_all_but_the_final_look_works_without_the_test_labels(sealed, place, ended):
    before = {name: (sealed / name).read_bytes() for name in entry._SEALED}
    assert ended(*WORDS, "--pruner", "none", "--name", "a")[0] == 0
    run = place / "runs/a"
    assert ended(*WORDS, "--pruner", "none", "--name", "a", "--resume")[0] == 0
    assert said(report.main, run) == 0
    assert said(ensemble.main, run) == 0
    assert said(posthoc.main, run) == 0
    assert said(status.main, run) == 0
    words = (run, "--top", 1, "--seeds", 1, "--folds", 2, "--inline")
    assert said(confirm.main, *words) == 0
    assert said(confirm.main, run, "--skip-run") == 0
    assert not (run / "test_ledger.jsonl").exists()
    with pytest.raises(entry.CacheDamaged, match="test_labels.npy"):
        report.main([str(run), "--final"])
    assert not (run / "test_ledger.jsonl").exists()
    assert {name: (sealed / name).read_bytes() for name in entry._SEALED} == before


def test_predictions_of_test_carry_no_labels(sealed, place, ended):
    assert ended(*WORDS, "--pruner", "none", "--name", "a")[0] == 0
    for path in (place / "runs/a/trials").glob("*/test.npz"):
        with np.load(path) as file:
            assert (file["labels"] == -1).all()
            assert (file["aus"] == -1).all()
