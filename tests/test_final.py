"""The sealed test split: scored on request, every look written down, other data refused."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import FakeData, edit_json, make_run
from page import Page, printed
from sklearn.metrics import f1_score

from analysis import contenders, ensemble, posthoc, report
from analysis.corrections import log_prior, log_softmax
from analysis.findings import find
from analysis.leaderboard import read_board
from analysis.pool import read_runs
from analysis.record import save
from trainables import cli, metrics
from trainables.config import TrialConfig
from trainables.metrics import Ints
from trainables.store import Predictions, RunStore
from trainables.views import FLIP, PLAIN, Views, file_of, pack, unpack


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


# --- as it would be put to use -------------------------------------------------------------------


def set_views(run: RunStore, trial: str, better: float, rng: np.random.Generator) -> None:
    """Views of both splits; the flipped one is right by a margin, the plain one as it was."""
    from trainables.data import cache

    sealed, _ = cache.unseal(Path(run.meta()["data"]["cache"]))
    ids = cache.load(Path(run.meta()["data"]["cache"])).test.ids
    place = dict(zip(ids, sealed.tolist(), strict=True))
    for split in ("val", "test"):
        said = run.trial(trial).predictions(split)
        assert said is not None
        labels = said.labels if split == "val" else np.array([place[image] for image in said.ids])
        plain = np.log(np.maximum(said.probs, 1e-3)) + rng.normal(0, 0.1, said.probs.shape)
        flipped = better * np.eye(said.probs.shape[1])[labels]
        logits = np.stack([plain, flipped]).astype(np.float32)
        views = Views(said.ids, (PLAIN, FLIP), logits, np.zeros(0, np.float32))
        run.trial(trial).write(file_of(split), pack(views))


def truth_of(run: RunStore, ids: Sequence[str]) -> Ints:
    from trainables.data import cache

    folder = Path(run.meta()["data"]["cache"])
    place = dict(zip(cache.load(folder).test.ids, cache.unseal(folder)[0].tolist(), strict=True))
    return np.array([place[image] for image in ids])


def last_look(run: RunStore) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (run.root / "test_ledger.jsonl").read_text().splitlines()[-1]
    )
    return found


def test_the_correction_chosen_on_validation_is_scored_beside_the_best(tested: RunStore) -> None:
    best = find(read_board(tested)).best
    assert best is not None
    set_views(tested, best, 8.0, np.random.default_rng(0))
    found, _ = posthoc.of_trial(read_board(tested), best)
    assert found is not None
    row = posthoc.taken(found)
    assert "flips" in row.name
    text = printed(tested, final=True, width=300)
    assert f"best, corrected is the best single with {row.name}" in text
    views = unpack((tested.trial(best).path / file_of("test")).read_bytes(), Path("views"))
    probs = np.exp(log_softmax(views.logits)).mean(0)
    if row.name != "mean of flips":
        prior = log_prior(read_board(tested).meta["data"]["train_counts"])
        probs = probs ** (1 / row.chosen["temperature"]) * np.exp(-row.chosen["tau"] * prior)
    wanted = metrics.scores(truth_of(tested, views.ids), probs / probs.sum(1, keepdims=True))
    scores = last_look(tested)["scores"]
    assert scores["best, corrected"]["accuracy"] == pytest.approx(wanted["accuracy"])
    assert scores["best, corrected"]["ece"] == pytest.approx(wanted["ece"], abs=1e-5)
    assert scores["best, corrected"]["accuracy"] > scores["best single"]["accuracy"]


def test_where_no_correction_is_sure_to_help_the_temperature_is_taken(tested: RunStore) -> None:
    best = find(read_board(tested)).best
    assert best is not None
    set_views(tested, best, 0.0, np.random.default_rng(0))
    assert "best, corrected is the best single with temperature" in printed(tested, True, 300)
    scores = last_look(tested)["scores"]
    assert scores["best, corrected"]["accuracy"] == pytest.approx(
        scores["best single"]["accuracy"], abs=0.01
    )


def test_the_best_of_several_seeds_is_the_mean_of_their_scores(tested: RunStore) -> None:
    board = read_board(tested)
    best = board.record(str(find(board).best))
    config = TrialConfig.from_flat(best.config)
    for number in (1, 2):
        again = tested.trial(
            tested.create_trial(replace(config, seed=config.seed + number), 90 + number)
        )
        for split in ("val", "test"):
            said = tested.trial(best.id).predictions(split)
            assert said is not None
            if split == "test":  # some more mistakes
                said = replace(said, probs=np.roll(said.probs, number, 0))
            again.save_predictions(split, said)
        for row in best.history:
            again.append(row)
        assert best.result is not None
        again.finish(best.result)
    assert "over 3 seeds" in printed(tested, final=True, width=300)
    seeds = contenders.seeds_of(read_board(tested), best.id)
    assert len(seeds) == 3
    each = []
    for trial in seeds:
        said = tested.trial(trial).predictions("test")
        assert said is not None
        each.append(metrics.scores(truth_of(tested, said.ids), said.probs)["accuracy"])
    assert np.std(each) > 0.05
    assert last_look(tested)["scores"]["best single"]["accuracy"] == pytest.approx(np.mean(each))


def test_an_ensemble_of_several_runs_is_scored_and_each_has_the_look(
    tested: RunStore, tmp_path: Path
) -> None:
    shutil.copytree(tested.root, tmp_path / "second")
    second = RunStore.open(tmp_path / "second")
    for trial in second.records():  # another run: other predictions
        for split in ("val", "test"):
            said = second.trial(trial.id).predictions(split)
            assert said is not None
            rng = np.random.default_rng(trial.index)
            noisy = said.probs + rng.uniform(0, 0.4, said.probs.shape)
            probs = (noisy / noisy.sum(1, keepdims=True)).astype(np.float32)
            second.trial(trial.id).save_predictions(split, replace(said, probs=probs))
    runs = read_runs([tested.root, second.root])
    names = [t for t in runs.votes.trials if t.startswith("second/")][:1]
    names += [t for t in runs.votes.trials if not t.startswith("second/")][:1]
    found = ensemble.build(runs.votes.pick(names), runs.goal, known=runs.known)
    both = dict.fromkeys(names, 0.5)
    found = replace(found, members=both, temperatures={names[0]: 2.0, names[1]: 1.0})
    found = replace(found, coefficients=(), shift=())
    save(found, runs.votes, tmp_path / "both", runs.origin)
    file = tmp_path / "both" / "ensemble.json"
    assert report.main([str(tested.root), "--final", "--ensemble", str(file)]) == 0
    probs = []
    for name, power in ((names[0], 0.5), (names[1], 1.0)):
        run = second if name.startswith("second/") else tested
        said = run.trial(name.rpartition("/")[2]).predictions("test")
        assert said is not None
        order = np.argsort(said.ids)
        own = np.maximum(said.probs[order], 1e-6) ** power
        probs.append(own / own.sum(1, keepdims=True))
    wanted = metrics.scores(truth_of(tested, sorted(said.ids)), np.mean(probs, 0))
    for run in (tested, second):
        look = last_look(run)
        assert look["earlier_looks"] == 0
        assert look["scores"]["other ensemble"]["accuracy"] == pytest.approx(wanted["accuracy"])
    text = (tested.root / "report" / "index.html").read_text()
    assert "of 2 runs; the look is in all their ledgers" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ensemble", "x.json"], "it needs --final"),
        (["--final", "--ensemble", "RUN/report/ensemble.json"], "another folder"),
        (["--final", "--ensemble", "nowhere.json"], "no ensemble at 'nowhere.json'"),
    ],
)
def test_an_ensemble_that_cannot_be_scored_opens_nothing(
    tested: RunStore, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    said = [word.replace("RUN", str(tested.root)) for word in words]
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: report.main([str(tested.root), *said]))
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tested.root / "test_ledger.jsonl").exists()
