"""The command that makes synthetic images, its judges, and its sheets."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file
from small_data import draw

from trainables import bars, cli
from trainables.data import cache
from trainables.generation import __main__ as command
from trainables.generation import judge, sheet
from trainables.generation.agreement import agreement
from trainables.generation.looks import describe, fit_looks
from trainables.generation.provenance import take
from trainables.generation.synthetic_set import SyntheticSet, read_set, set_for

WORDS = ("faces:200:easy", "--size", "32", "--steps", "3", "--batch", "4", "--width", "4")


@pytest.fixture(scope="module")
def written(tmp_path_factory, cache_home):
    """What the command writes for 200 faces."""
    root = tmp_path_factory.mktemp("generation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        assert command.main([*WORDS, "--ratio", "0.5", "--out", str(root)]) == 0
        yield root


@pytest.fixture
def ended(place, capsys):
    """The exit code of the command, and what it printed."""

    def ended_with(*words):
        with pytest.raises(SystemExit) as end:
            cli.run_command(lambda: command.main(words))
        return end.value.code, *capsys.readouterr()

    return ended_with


@pytest.fixture(scope="module")
def bundle(faces):
    return cache.load(faces)


# --- what it writes ------------------------------------------------------------------------------


def test_the_set_is_of_the_training_split_and_says_what_was_seen(written):
    bundle = cache.load(cache.prepare("faces:200:easy", 32))
    made = set_for(written, bundle)
    _, meta = read_set(written)
    evidence = meta["seen"]
    assert evidence["seen"] + len(evidence["excluded"]) == len(bundle.train)
    assert evidence["held_out"] == len(bundle.val) + len(bundle.test)
    assert len(evidence["sha256"]) == len(evidence["seen_digest"]) == 64
    assert made.images.shape[1:] == (3, 32, 32)
    assert set(made.labels) == set(bundle.train.labels)
    assert np.bincount(made.labels).sum() >= len(bundle.train) // 2
    assert meta["thousand_images"] == 0.012
    assert len(made.agreement) == len(made)
    assert (made.agreement < 0).all()


def test_the_averaged_generator_is_kept_and_makes_the_set(written):
    tensors = load_file(written / "generator.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert any(name.startswith("condition.units") for name in tensors)


def test_every_judge_has_spoken(written):
    found = json.loads((written / "judgement.json").read_text())
    assert set(found) == {"likeness", "memorisation", "probe", "action_units", "classification"}
    assert found["likeness"]["kid"] > found["likeness"]["kid_of_training_images"]
    assert found["probe"]["auc"] > 0.9  # three steps make no face
    assert set(found["classification"]) == {
        *("real_alone", "synthetic_alone", "generated", "repeated", "generated_minus_repeated")
    }
    lines = judge.lines(found)
    assert len(lines) == 5
    assert lines[-1].startswith("as training images: macro-F1 ")


def test_sheets_can_be_opened(written):
    for path in (written / "samples.png", *sorted((written / "samples").glob("*.png"))):
        assert cv2.imread(str(path)).shape == (
            *(14 * 36 + 4, sheet.NAME_WIDTH + 13 * 36 + 4),
            3,
        )
    assert len(list((written / "samples").glob("*.png"))) == 3


def test_called_again_it_goes_on_where_it_was(ended, written, monkeypatch):
    monkeypatch.setattr(command.judge, "judge", lambda bundle, made, tell: {})
    monkeypatch.setattr(command.judge, "lines", lambda found: ["judged"])
    monkeypatch.setattr("trainables.generation.fit.Fitting.step", None)  # there is nothing to do
    before = read_set(written)[0]
    code, out, _ = ended(*WORDS, "--ratio", "0.5", "--out", str(written))
    assert code == 0
    assert f"search with --synthetic {written}" in out
    assert (read_set(written)[0].images == before.images).all()


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "50"], "cannot generate images of 50 px"),
        (["--steps", "0"], "0 is too small; give 1 to 10000000"),
        (["--loss", "hnge"], "unknown adversarial loss 'hnge'"),
        (["--policy", "colour"], "unknown part of DiffAugment 'colour'"),
        (["--stepps", "3"], "Did you mean '--steps'"),
        (["--images", "5", "--ratio", "1"], "not allowed with argument"),
        (["--aus", "many"], "unknown AU vocabulary 'many'"),
        (["--images", "3", "--size", "32"], "--images 3: give 14 or more"),
        (["--ratio", "1e12"], "--ratio 1e+12 is more than trials may ask for: 10"),
    ],
)
def test_a_mistake_is_told_in_a_line(ended, words, message):
    code, _, err = ended(*WORDS[:1], "--out", "x", *words)
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_data_that_is_not_there_and_other_settings_are_mistakes(ended, written):
    code, _, err = ended("nowhere", "--out", "x")
    assert code == 2
    assert "nowhere" in err
    code, _, err = ended(*WORDS, "--gamma", "3", "--out", str(written))
    assert code == 2
    assert "holds a GAN of gamma 1.0, now 3.0" in err


def test_a_class_without_training_images_and_data_without_aus_are_no_hindrance(
    place, ended, monkeypatch
):
    monkeypatch.setattr(bars, "QUIET_SECONDS", 0.0)
    for split, kinds in (("train", "ab"), ("val", "abc"), ("test", "ab")):
        for seed, kind in enumerate(kinds):
            for k in range(6):
                draw(place / "data" / split / kind / f"{k}.png", len(split) * 100 + seed * 10 + k)
    code, out, err = ended("data", *WORDS[1:], "--ratio", "0.5", "--out", "x")
    assert code == 0, err
    assert "action units: not judged" in out
    assert "fit: 3 of 3" in err  # where there is no terminal, progress is lines
    assert set(read_set(place / "x")[0].labels.tolist()) == {0, 1}


def test_training_images_of_one_class_are_refused_before_the_fit(place, ended):
    for split, kinds in (("train", "a"), ("val", "ab"), ("test", "ab")):
        for seed, kind in enumerate(kinds):
            for k in range(3):
                draw(place / "data" / split / kind / f"{k}.png", len(split) * 100 + seed * 10 + k)
    code, _, err = ended("data", *WORDS[1:], "--out", "x")
    assert code == 2
    assert "has training images of 1 classes and 6 validation images: two of both" in err
    assert not (place / "x").exists()


def test_losses_that_are_no_numbers_are_a_mistake(ended, monkeypatch):
    def step(self):
        raise FloatingPointError("step 0: the losses are nan; lower lr")

    monkeypatch.setattr(command.Fitting, "step", step)
    code, _, err = ended(*WORDS, "--out", "x")
    assert code == 2
    assert "error: step 0: the losses are nan; lower lr" in err


def test_an_interrupted_fit_says_how_it_goes_on(ended, written, monkeypatch, place):
    shutil.copytree(written, place / "x")

    def step(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.Fitting, "step", step)
    words = (WORDS[0], *WORDS[1:3], "--steps", "4", *WORDS[5:], "--out", "x")
    code, _, err = ended(*words)
    assert code == 130
    assert "kept in 'x'; the same command goes on from there" in err


def set_of(images, labels, aus):
    return SyntheticSet(images, labels, aus, np.zeros(len(labels), np.float32))


# --- judges --------------------------------------------------------------------------------------


def test_looks_are_scaled_and_tell_images_apart(bundle):
    images = np.asarray(bundle.train.images[:40])
    known, looks = fit_looks(images, width=16)
    seen = looks(images)
    assert seen.shape == (40, 16)
    assert (seen**2).sum(1).mean() == pytest.approx(16)
    assert describe(images[:2]).shape == (2, 1568 + 192)


def test_judges_know_copies_from_noise_and_from_new_faces(bundle):
    train, val = bundle.train, bundle.val
    half = len(val) // 2
    fresh = set_of(np.array(val.images[:half]), val.labels[:half], val.aus[:half])
    _, looks = fit_looks(np.asarray(train.images))
    mirrored = looks(train.images[..., ::-1])
    noise = np.random.default_rng(0).integers(0, 256, (60, 3, 48, 48), np.uint8)
    copies = np.array(train.images[:60, :, :, ::-1])  # mirrored

    def seen(images, labels, aus):
        made = set_of(images, labels, aus)
        views = (looks(train.images), looks(val.images), looks(images))
        return judge.Seen(*views, train, val, made)

    of_copies = seen(copies, train.labels[:60], train.aus[:60])
    of_noise = seen(noise, train.labels[:60], train.aus[:60])
    of_new = seen(fresh.images, fresh.labels, fresh.aus)
    assert judge.memorised(of_copies, mirrored)["copied_share"] == 1
    assert judge.memorised(of_copies, mirrored)["alike_share"] == 1
    assert judge.memorised(of_new, mirrored)["copied_share"] < 0.2
    assert judge.memorised(of_new, mirrored)["alike_share"] < 0.1
    assert judge.likeness(of_noise)["kid"] > 10 * abs(judge.likeness(of_new)["kid"])
    assert judge.probes(of_noise, bundle.class_names)["auc"] > 0.99
    assert judge.probes(of_copies, bundle.class_names)["auc"] < 0.75


def test_aus_agree_where_images_show_them_and_not_where_they_are_shuffled(bundle):
    train, val = bundle.train, bundle.val
    _, looks = fit_looks(np.asarray(train.images))
    views = (looks(train.images), looks(val.images), looks(train.images))
    images = np.asarray(train.images)
    found = []
    for order in (np.arange(len(train)), np.random.default_rng(0).permutation(len(train))):
        made = set_of(images, train.labels, train.aus[order])
        found.append(judge.au_agreement(judge.Seen(*views, train, val, made), bundle.au_names))
    assert found[0]["auc_on_synthetic"] > 0.95
    assert found[0]["auc_on_validation"] > 0.75
    assert 0.4 < found[1]["auc_on_synthetic"] < 0.6


def test_agreement_is_higher_for_the_aus_that_an_image_shows(bundle):
    train, val = bundle.train, bundle.val
    right = agreement(train, np.asarray(val.images), val.aus)
    wrong = agreement(train, np.asarray(val.images), np.where(val.aus >= 0, 1 - val.aus, -1))
    assert right.shape == (len(val),)
    assert (right > wrong).mean() > 0.95
    assert (right < 0).all()
    unknown = agreement(train, np.asarray(val.images[:3]), np.full((3, val.aus.shape[1]), -1))
    assert unknown.tolist() == [0, 0, 0]


def test_real_images_held_out_help_as_training_images_and_noise_does_not(bundle):
    train = bundle.train
    kept = np.arange(len(train)) % 2 == 0
    part = take(train, np.flatnonzero(kept))
    small = replace(bundle, train=part)
    _, looks = fit_looks(np.asarray(part.images))
    gains = []
    others = np.asarray(train.images[~kept])
    for images in (others, np.zeros_like(others)):
        made = set_of(images, train.labels[~kept], train.aus[~kept])
        views = (looks(part.images), looks(bundle.val.images), looks(images))
        found = judge.classification(judge.Seen(*views, part, bundle.val, made), small)
        gains.append(found["generated_minus_repeated"]["accuracy"]["mean"])
    assert gains[0] > 0
    assert gains[1] <= 0
    assert gains[0] > gains[1]
