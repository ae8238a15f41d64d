"""Features: computed once, kept by all that they depend on; and the trials on them."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables import metrics
from trainables.config import TrialConfig
from trainables.data import cache, entry
from trainables.device import default_device
from trainables.features import cache as kept
from trainables.features.extractors import Extractor
from trainables.features.plugins import EXTRACTORS
from trainables.features.settings import check_features
from trainables.features.trial import Scale, features_for, run
from trainables.store import RunStore, TrialStore
from trainables.trial import run_trial

BASE = {"features": "frozen", "backbone": "test_resnet", "image_size": 48, "epochs": 1,
        "classifier": "linear", "classifier.passes": 5, "lr": 0.01, "batch_size": 64}  # fmt: skip


def config_of(**flat) -> TrialConfig:
    own = {k: v for k, v in BASE.items() if "classifier" not in flat or "." not in k}
    return TrialConfig.from_flat({**own, **flat})


def new_trial(folder: Path, **flat) -> TrialStore:
    store = RunStore.create(folder, {})
    trial = store.create_trial(config_of(**flat), 0)
    return store.trial(trial, store.hand_out(trial))


@pytest.fixture
def data(faces, tmp_path):
    """The prepared faces where no features have been kept yet."""
    (tmp_path / "cache").mkdir()
    place = tmp_path / "cache" / faces.name
    place.symlink_to(faces)
    return place


def folders(data: Path) -> list[Path]:
    return sorted(data.parent.glob("features-*"))


def counting(calls: list[int]) -> Extractor:
    def see(part):
        calls.append(len(part))
        return part.images.mean((2, 3)).astype(np.float32)

    return Extractor(see, "counted")


# --- the cache -----------------------------------------------------------------------------------


def test_features_are_computed_once(data) -> None:
    bundle, calls = cache.load(data), []
    first = kept.features_of(config_of(), data, bundle, counting(calls))
    images = len(bundle.train) + len(bundle.val) + len(bundle.test)
    assert sum(calls) == 2 * images + kept.WARM_UP + kept.REPEATS  # both views; what one costs
    calls.clear()
    second = kept.features_of(config_of(seed=5, lr=0.1), data, bundle, counting(calls))
    assert calls == []
    np.testing.assert_array_equal(first.train, second.train)
    assert isinstance(second.train, np.memmap)
    assert len(folders(data)) == 1


def test_the_second_view_is_of_mirrored_images(data) -> None:
    bundle = cache.load(data)
    seen = features_for(config_of(features="frozen"), data, bundle)
    extractor = EXTRACTORS["frozen"](config_of(), bundle)
    part = kept.hidden(bundle.val, slice(3, 6))
    mirrored = replace(part, images=part.images[..., ::-1].copy())
    np.testing.assert_allclose(seen.val[0, 3:6], extractor.see(part), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.val[1, 3:6], extractor.see(mirrored), rtol=1e-4, atol=1e-5)
    assert not np.allclose(seen.val[0], seen.val[1])


def test_features_without_a_mirror_have_one_view(data) -> None:
    alone = replace(counting([]), has_mirror=False)
    seen = kept.features_of(config_of(), data, cache.load(data), alone)
    assert seen.train.shape[0] == 1


def test_other_features_are_kept_elsewhere(data, tmp_path) -> None:
    bundle, keys = cache.load(data), set()
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        from trainables.backbones import build_backbone

        weights.append(tmp_path / "w.safetensors")
        net = build_backbone("test_resnet", 48).net
        save_file({f"backbone.net.{k}": v for k, v in net.state_dict().items()}, weights[-1])
        kept_now = features_for(config_of(weights=str(weights[-1])), data, bundle)
        keys |= {(f.name, float(np.load(f / "val.npy").sum())) for f in folders(data)}
        assert len(folders(data)) == seed + 1  # by the content, not the name of the file
        assert np.isfinite(kept_now.train).all()
    for flat in ({"features.pool": "mean_max"}, {"features.maps": 2}, {"backbone": "small_resnet"},
                 {}):  # fmt: skip
        features_for(config_of(**flat), data, bundle)
    assert len(folders(data)) == 6
    assert len({total for _, total in keys}) == 2
    features_for(config_of(seed=9, classifier="lda"), data, bundle)  # the network stays the same
    assert len(folders(data)) == 6


def test_torn_features_are_computed_anew(data) -> None:
    bundle = cache.load(data)
    wanted = np.array(features_for(config_of(), data, bundle).train)
    (folder,) = folders(data)
    whole = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(features_for(config_of(), data, bundle).train, wanted)
    (folder / "meta.json").write_text("{")
    np.testing.assert_array_equal(features_for(config_of(), data, bundle).train, wanted)


def test_features_that_are_not_finite_are_refused_and_leave_nothing(data) -> None:
    bad = Extractor(lambda part: np.full((len(part), 2), np.nan, np.float32), "bad")
    with pytest.raises(ValueError, match="features of train are not finite"):
        kept.features_of(config_of(), data, cache.load(data), bad)
    assert [p.name for p in data.parent.iterdir() if not p.name.endswith(".lock")] == [data.name]


def _ask(data: Path, ready, results) -> None:
    calls: list[int] = []
    bundle = cache.load(data)
    ready.wait()
    found = kept.features_of(config_of(), data, bundle, counting(calls))
    results.put((sum(calls), float(found.train.sum())))


def test_processes_that_ask_at_once_compute_once(data) -> None:
    fork = multiprocessing.get_context("fork")
    ready, results = fork.Barrier(3), fork.Queue()
    asking = [fork.Process(target=_ask, args=(data, ready, results)) for _ in range(3)]
    for process in asking:
        process.start()
    said = [results.get(timeout=60) for _ in asking]
    for process in asking:
        process.join()
    assert sorted(count > 0 for count, _ in said) == [False, False, True]
    assert len({total for _, total in said}) == 1


def test_an_extractor_is_shown_no_labels(data) -> None:
    bundle, seen = cache.load(data), set()

    def see(part):
        seen.update(part.labels.tolist(), part.aus.ravel().tolist())
        return np.ones((len(part), 1), np.float32)

    kept.features_of(config_of(), data, bundle, Extractor(see))
    assert seen == {-1}


# --- the trial -----------------------------------------------------------------------------------


def test_a_trial_on_features_has_one_row_and_stores_all_it_owes(data, tmp_path) -> None:
    trial = new_trial(tmp_path / "r", epochs=9, au_loss="bce", au_weight=1.0)
    (row,) = run_trial(trial, data)
    bundle, result, val = cache.load(data), trial.result(), trial.predictions("val")
    assert row["done"]
    assert row["epoch"] == 9
    assert trial.history() == [row]
    assert result is not None
    assert (result.status, result.epoch) == ("completed", 9)
    assert val is not None
    assert metrics.scores(val.labels, val.probs)["score"] == pytest.approx(row["score"], abs=0.02)
    assert val.au_probs.shape == (len(bundle.val), len(bundle.au_names))
    assert row["au_f1"] > 0
    test = trial.predictions("test")
    assert test is not None
    assert set(test.labels) == {-1}
    learned = load_file(trial.path / "weights.safetensors")
    assert {"weight", "bias", "features.mean", "features.factor", "au.weight"} <= set(learned)
    seen = features_for(config_of(), data, bundle)
    assert row["parameters"] == seen.parameters + sum(v.numel() for v in learned.values())
    assert row["latency_ms"] > 0


def test_a_trial_that_ended_is_not_fitted_again(data, tmp_path, monkeypatch) -> None:
    trial = new_trial(tmp_path / "r")
    (row,) = run_trial(trial, data)
    (trial.path / "result.json").unlink()  # killed between the row and the verdict
    monkeypatch.setattr("trainables.features.trial.run", None)
    assert list(run_trial(trial, data)) == [row]
    result = trial.result()
    assert result is not None
    assert result.metrics["score"] == row["score"]


def test_a_trial_killed_before_its_row_is_done_over_to_the_same_end(data, tmp_path) -> None:
    straight, broken = (new_trial(tmp_path / n, classifier="protonet") for n in "ab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialStore, "append", _killed)
        with pytest.raises(OSError, match="killed"):
            list(run_trial(broken, data))
    rows = [next(iter(run_trial(t, data))) for t in (straight, broken)]
    assert rows[0]["score"] == rows[1]["score"]
    np.testing.assert_array_equal(
        straight.predictions("test").probs, broken.predictions("test").probs
    )


def _killed(*_) -> None:
    raise OSError("killed")


def test_a_trial_never_opens_the_labels_of_test(data, tmp_path, monkeypatch) -> None:
    opened = []
    load = np.load
    monkeypatch.setattr(
        np, "load", lambda path, **k: (opened.append(str(path)), load(path, **k))[1]
    )
    monkeypatch.setattr(entry, "unseal", None)
    list(run_trial(new_trial(tmp_path / "r"), data))
    assert any("val_labels" in path for path in opened)
    assert not any("test_labels" in path or "test_aus" in path for path in opened)


def test_seeds_tell_trials_apart_and_repeat_them(data) -> None:
    one, same, other = (run(config_of(seed=s, classifier="protonet"), data)[1] for s in (1, 1, 2))
    np.testing.assert_array_equal(one.val.probs, same.val.probs)
    assert not np.array_equal(one.val.probs, other.val.probs)


def test_both_views_and_synthetic_rows_are_taught(data, monkeypatch) -> None:
    from trainables.features import trial as module

    lessons = []
    make = module.make_lesson
    monkeypatch.setattr(module, "make_lesson", lambda *a: lessons.append(make(*a)) or lessons[-1])
    bundle = cache.load(data)
    row, _ = run(config_of(synthesis="repeat"), data)
    (lesson,) = lessons
    n = len(bundle.train)
    assert row["synthetic"] > 0
    assert len(lesson.seen) == 2 * n + row["synthetic"]
    np.testing.assert_array_equal(lesson.real, bundle.class_counts())
    assert lesson.counts.sum() == n + row["synthetic"]
    assert not np.allclose(lesson.seen.features[:n], lesson.seen.features[n : 2 * n])
    np.testing.assert_array_equal(lesson.seen.labels[:n], lesson.seen.labels[n : 2 * n])
    both = lesson.seen.features[: 2 * n]
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-3)
    deviation = both.std(0)
    assert np.all((np.abs(deviation - 1) < 1e-3) | (deviation == 0))  # units that are never on


def test_a_feature_that_never_changes_becomes_zero() -> None:
    train = np.ones((2, 5, 2), np.float32)
    train[..., 1] = np.arange(10).reshape(2, 5)
    scale = Scale.of(train)
    assert (scale(train)[..., 0] == 0).all()
    assert scale(train)[..., 1].std() == pytest.approx(1)
    assert scale.center[0] == 0
    np.testing.assert_allclose((scale(train) + scale.center)[..., 1] / scale.factor[1],
                               train[..., 1], atol=1e-5)  # fmt: skip


def test_decoupling_starts_from_the_trunk_of_a_trial(data, tmp_path) -> None:
    flat = {"features": "none", "classifier": "none", "epochs": 2, "lr": 3e-3, "batch_size": 32}
    plain = {k: v for k, v in {**BASE, **flat}.items() if not k.startswith("classifier.")}
    store = RunStore.create(tmp_path / "r", {})
    trial = store.trial(store.create_trial(TrialConfig.from_flat(plain), 0))
    list(run_trial(trial, data))
    weights = str(trial.path / "weights.safetensors")
    bundle = cache.load(data)
    extractor = EXTRACTORS["frozen"](config_of(weights=weights), bundle)
    part = kept.hidden(bundle.val, slice(0, 4))
    from trainables.model import build_model

    model = build_model(TrialConfig.from_flat(plain), len(bundle.class_names),
                        len(bundle.au_names)).eval()  # fmt: skip
    model.load_state_dict(load_file(weights))
    pixels = torch.from_numpy(np.array(part.images)).float() / 255
    with torch.inference_mode():
        maps = model.backbone(model.backbone.normalised(pixels))
    near = 1e-4 if default_device().type == "cpu" else 2e-3  # convolutions of a GPU are of TF32
    np.testing.assert_allclose(extractor.see(part), maps[-1].mean((2, 3)), rtol=1e-3, atol=near)


# --- what goes together --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"classifier": "none"}, "need a classifier"),
        ({"features": "none"}, "classifier 'linear' works on features"),
        ({"attention": "se"}, "attention 'se' is of a network"),
        ({"au_balance": "pcgrad", "au_loss": "bce", "au_weight": 1.0}, "au_balance 'pcgrad'"),
        ({"classifier": "lda", "head": "cosine"}, "has its own"),
        ({"classifier": "tau_norm", "head": "additive"}, "has its own"),
        ({"classifier": "prototypes", "loss": "focal"}, "is not what classifier 'prototypes'"),
        ({"classifier": "svm", "soft_labels": 0.5}, "knows no soft labels"),
        ({"classifier": "crt", "loss": "balanced_softmax"}, "two corrections multiply"),
        ({"classifier": "lws", "rebalance": "sampler"}, "set rebalance to 'none'"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(flat, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_features(
            TrialConfig.from_flat({"features": "frozen", "classifier": "linear", **flat})
        )


def test_features_kept_say_where_they_come_from(data) -> None:
    features_for(config_of(), data, cache.load(data))
    meta = json.loads((folders(data)[0] / "meta.json").read_text())
    assert meta["of"][1] == "frozen"
    assert meta["of"][4] == cache.load(data).fingerprint
