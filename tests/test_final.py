"""The sealed test split: scored on request, every look written down, other data refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake_run import FakeData, edit_json, make_run
from page import Page, printed
from sklearn.metrics import f1_score

from analysis import report
from analysis.leaderboard import read_board
from trainables import metrics
from trainables.store import Predictions, RunStore


@pytest.fixture
def tested(tmp_path: Path, faces: Path) -> RunStore:
    """A run on the prepared faces, with test predictions that are right nine times in ten."""
    from trainables.data import cache

    bundle, (labels, _) = cache.load(faces), cache.unseal(faces)
    meta = {"cache": str(faces), "fingerprint": bundle.fingerprint}
    data = FakeData(bundle.class_names, (60,) * len(bundle.class_names), ("AU1",), 0.5, meta)
    run = make_run(tmp_path / "run", 4, data)
    for number, record in enumerate(run.records()):
        rng = np.random.default_rng(number)
        said = np.where(rng.random(len(labels)) < 0.9, labels, 0)
        probs = np.eye(len(bundle.class_names))[said].astype(np.float32)
        order = rng.permutation(len(labels))
        sealed = np.full(len(labels), -1)
        none = np.zeros((len(labels), 0))
        run.trial(record.id).save_predictions(
            "test",
            Predictions(
                tuple(bundle.test.ids[i] for i in order),
                sealed,
                probs[order],
                np.full(bundle.test.aus.shape, -1, np.int8),
                none.astype(np.float32),
            ),
        )
    return run


def test_the_sealed_split_is_scored_and_the_look_is_written_down(tested: RunStore) -> None:
    text = printed(tested, final=True)
    assert "earlier looks: 0" in text
    lines = (tested.root / "test_ledger.jsonl").read_text().splitlines()
    look = json.loads(lines[0])
    assert len(lines) == 1
    assert look["earlier_looks"] == 0
    assert {"baseline", "best single"} <= set(look["scores"])
    assert 0.85 < look["scores"]["baseline"]["accuracy"] < 0.97
    assert "earlier looks: 1" in printed(tested, final=True)
    page = Page((tested.root / "report" / "index.html").read_text())
    row = next(row for row in page.rows["final"] if row[0] == "baseline")
    assert row[2].startswith(f"{look['scores']['baseline']['accuracy']:.3f}")


def test_without_final_the_test_split_stays_sealed(
    tested: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.data import cache

    monkeypatch.setattr(cache, "unseal", lambda path: pytest.fail("opened"))
    report.write_report(tested)
    assert not (tested.root / "test_ledger.jsonl").exists()


def test_a_contender_without_test_predictions_is_not_scored(tested: RunStore) -> None:
    (tested.trial(tested.records()[0].id).path / "test.npz").unlink()
    text = printed(tested, final=True)
    assert "baseline is not scored" in text
    look = json.loads((tested.root / "test_ledger.jsonl").read_text())
    assert "baseline" not in look["scores"]


def test_the_test_score_is_of_the_classes_of_the_validation_score(
    tested: RunStore, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.data import cache

    labels, units = cache.unseal(faces)
    gone = np.where(labels == 1, 0, labels)  # no test image shows class 1
    monkeypatch.setattr(cache, "unseal", lambda path: (gone, units))
    names = cache.load(faces).class_names
    rare = np.bincount(gone, minlength=len(names))
    assert ((rare > 0) & (rare < metrics.MIN_SUPPORT)).any()  # they count all the same
    text = printed(tested, final=True, width=300)
    assert f"no test image shows {names[1]}:" in text
    board = read_board(tested)
    assert board.goal.keep.all()
    base = next(r.id for r in board.records if r.role == "baseline")
    stored = tested.trial(base).predictions("test")
    assert stored is not None
    place = {image: row for row, image in enumerate(cache.load(faces).test.ids)}
    truth = gone[[place[image] for image in stored.ids]]
    present = np.unique(truth)
    wanted = f1_score(truth, stored.probs.argmax(1), average="macro", labels=present)
    look = json.loads((tested.root / "test_ledger.jsonl").read_text())
    assert look["scores"]["baseline"]["score"] == pytest.approx(wanted)


def test_the_table_of_the_sealed_split_fits_80_columns(tested: RunStore) -> None:
    lines = printed(tested, final=True, width=80).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("Sealed test split"))
    rows = [line for line in lines[start + 2 :] if line.startswith(("best", "ensemble", "average"))]
    assert rows
    interval = r"[+-]?\d\.\d{3} \[[+-]?\d\.\d{3}, [+-]?\d\.\d{3}\]"
    for row in rows:
        assert re.search(rf" {interval}  \d\.\d{{3}}  \d\.\d{{3}}  {interval}", row)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fingerprint": "other"}, "these are other images"),
        ({"cache": "/nowhere"}, "prepare 'faces:4000' again"),
    ],
)
def test_data_that_changed_is_refused(tested, change, told) -> None:  # type: ignore[no-untyped-def]  # parametrised
    edit_json(tested.root / "run.json", data={**tested.meta()["data"], **change})
    with pytest.raises(ValueError, match=told):
        report.main([str(tested.root), "--final"])
    assert not (tested.root / "test_ledger.jsonl").exists()


def test_test_predictions_of_other_images_are_refused(tested: RunStore) -> None:
    for record in tested.records():
        stored = tested.trial(record.id).predictions("test")
        assert stored is not None
        rest = (stored.labels, stored.probs, stored.aus, stored.au_probs)
        ids = tuple(f"x{n}" for n in range(len(stored.ids)))
        tested.trial(record.id).save_predictions("test", Predictions(ids, *rest))
    with pytest.raises(ValueError, match="other images"):
        report.write_report(tested, final=True)
