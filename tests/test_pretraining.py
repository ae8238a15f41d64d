"""Pretraining from top to bottom: what is left out, resumed, written, and said of the weights."""

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_data import class_folders, draw

from trainables.backbones import build_backbone
from trainables.cli import run_command
from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.pretraining import command, fit
from trainables.pretraining.exclusion import (
    alike,
    equal,
    exclude,
    fingerprints,
    held_out,
    verify,
)
from trainables.pretraining.files import Files
from trainables.pretraining.fit import Pretraining, decay_groups, pretrain
from trainables.pretraining.leaks import warn_of_leaks
from trainables.pretraining.methods import METHODS
from trainables.pretraining.pool import Pool, gather, of_bundle
from trainables.pretraining.record import read_record
from trainables.pretraining.settings import Settings
from trainables.weights import load_weights

SIZE = 48
MAE = Settings("test_vit", Part("mae", {"decoder_width": 32}), SIZE, epochs=3, base_lr=4e-3)
CONV = replace(MAE, backbone="small_resnet", method=Part("masked_conv"))


@pytest.fixture(scope="module")
def pool(faces):
    """96 of the faces; the proof is of all that were not left out."""
    bundle = cache.load(faces)
    found = of_bundle(bundle, bundle, None)
    return replace(found, rows=found.rows[:96])


@pytest.fixture(scope="module")
def pretrained(pool, tmp_path_factory):
    """The folder of a test_vit pretrained for three epochs, and its rows."""
    out = tmp_path_factory.mktemp("pretrained")
    return out, list(pretrain(MAE, pool, Files.at(out, "test_vit")))


# --- what is left out ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A data set of coloured squares, and a folder with copies of what it scores on."""
    root = tmp_path_factory.mktemp("squares")
    source = class_folders(root / "data")
    scored = cache.load(cache.prepare(str(source), 32, cache_root=root / "cache"))
    pool = root / "pool"
    for k in range(6):
        draw(pool / "own" / f"{k}.png", 900 + k, pixels=48)
    shutil.copy(source / scored.val.ids[0], pool / "copy.png")
    image = cv2.imread(str(source / scored.val.ids[1]))
    cv2.imwrite(str(pool / "mirrored.png"), image[:, ::-1])
    image = cv2.imread(str(source / scored.test.ids[0]))
    larger = cv2.resize(image, (96, 96), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(pool / "again.jpg"), larger, [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(pool / "both.jpg"), larger[:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return root, source, pool


def test_copies_of_what_is_scored_are_left_out_and_named(squares):
    root, source, folder = squares
    found = gather(str(source), folder, 32, cache_root=root / "cache")
    assert set(found.proof.excluded) == {"copy.png", "mirrored.png", "again.jpg", "both.jpg"}
    assert (found.proof.excluded_equal, found.proof.excluded_alike) == (2, 2)
    assert (found.proof.candidates, found.proof.seen, len(found.rows)) == (10, 6, 6)
    assert found.proof.data == "data"
    again = gather(str(source), folder / "own", 32, cache_root=root / "cache")
    assert again.proof.seen_digest == found.proof.seen_digest  # of the set, not of the files
    assert again.proof.excluded == ()


def test_without_a_data_set_nothing_is_left_out(squares):
    root, _, folder = squares
    found = gather(None, folder, 32, cache_root=root / "cache")
    assert (found.proof.seen, found.proof.data, found.proof.excluded) == (10, "", ())


def test_training_images_alone_are_taken_of_a_data_set(squares):
    root, source, _ = squares
    data = cache.load(cache.prepare(str(source), 32, cache_root=root / "cache"))
    found = gather(str(source), None, 32, cache_root=root / "cache")
    assert len(found.rows) == len(data.train)
    assert np.array_equal(found.images, data.train.images)


def test_the_proof_fails_when_a_validation_image_is_smuggled_in(faces):
    data = cache.load(faces)
    names = [*data.train.ids[:5], "smuggled"]
    clean = data.train.images[of_bundle(data, data, None).rows[:6]]
    kept, proof = exclude(names, fingerprints(clean), data)
    assert kept.all()
    verify(names, fingerprints(clean), proof, data)
    for smuggled in (data.val.images[3], data.test.images[0][:, :, ::-1], data.val.images[1] + 1):
        mixed = np.concatenate([clean[:5], smuggled[None]])
        with pytest.raises(ValueError, match="test images of 'faces:300:easy': smuggled"):
            verify(names, fingerprints(mixed), proof, data)
    with pytest.raises(ValueError, match="not the images that the proof is of"):
        verify(names, fingerprints(clean[:5]), proof, data)
    with pytest.raises(ValueError, match="of other held-out images"):
        verify(names, fingerprints(clean), replace(proof, held_out_digest="x"), data)


def test_equal_and_alike_know_mirrors(faces):
    data = cache.load(faces)
    held, turned = held_out(data), fingerprints(data.val.images[:4, :, :, ::-1])
    assert len(held) == len(data.val) + len(data.test)
    assert equal(turned, held).all()
    assert alike(turned, held).all()
    assert not equal(fingerprints(data.train.images[:20]), held).any()


def test_alike_is_sought_among_any_number(monkeypatch, faces):
    data = cache.load(faces)
    found = fingerprints(np.concatenate([data.train.images[:7], data.val.images[:2]]))
    monkeypatch.setattr("trainables.pretraining.exclusion._BLOCK", 4)
    assert alike(found, held_out(data)).tolist()[-2:] == [True, True]


def test_a_folder_of_nothing_but_held_out_images_is_refused(faces):
    data = cache.load(faces)
    with pytest.raises(ValueError, match="all 3 images are validation or test images"):
        exclude("abc", fingerprints(data.val.images[:3]), data)


def test_unreadable_images_of_a_folder_are_left_out_and_told(tmp_path):
    for k in range(3):
        draw(tmp_path / "in" / f"{k}.png", k)
    (tmp_path / "in" / "1.png").write_text("hello")
    (tmp_path / "in" / ".hidden.png").write_text("hello")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    found = gather(None, tmp_path / "in", 32, cache_root=tmp_path / "cache")
    assert found.images.shape == (2, 3, 32, 32)
    assert found.notes == ("1 of 3 images cannot be read, left out: 1.png (not an image).",)
    whole = cv2.imread(str(tmp_path / "in" / "2.png"))[..., ::-1]
    assert np.abs(found.images[1][:, 2, 2].astype(int) - whole[2, 2]).max() < 3


# --- training ------------------------------------------------------------------------------------


def test_weights_fit_the_backbone_whole_and_change_what_it_makes(pretrained):
    out, rows = pretrained
    torch.manual_seed(5)
    backbone = build_backbone("test_vit", SIZE).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    before = backbone(images)[-1]
    report = load_weights(backbone, "test_vit", str(out))
    assert (report.fraction, report.missing, report.unexpected) == (1.0, (), ())
    assert "pretrained by mae on 177 images, without validation and test of" in report.summary()
    assert (backbone(images)[-1] - before).abs().max() > 0.1
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_what_is_left_beside_the_weights(pretrained):
    out, rows = pretrained
    assert sorted(p.name for p in out.iterdir()) == [
        "test_vit.jsonl", "test_vit.png", "test_vit.safetensors"
    ]  # fmt: skip
    lines = (out / "test_vit.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    record = read_record(out / "test_vit.safetensors")
    assert record is not None
    assert record["settings"]["epochs"] == 3
    assert record["arguments"]["mask_ratio"] == 0.75
    assert set(record["versions"]) == {"python", "torch", "timm", "numpy"}
    assert record["proof"]["held_out"] == 121


@pytest.mark.parametrize("settings", [MAE, CONV, replace(CONV, method=Part("byol"))],
                         ids=lambda s: s.method.name)  # fmt: skip
def test_resumed_equals_uninterrupted(settings, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    whole, cut = Files(tmp_path / "a.safetensors"), Files(tmp_path / "b.safetensors")
    rows = list(pretrain(settings, pool, whole))
    stopped = pretrain(settings, pool, cut)
    next(stopped)
    del stopped
    assert cut.state.exists()
    later = list(pretrain(settings, pool, cut))
    assert [row["epoch"] for row in later] == [2, 3]
    assert [row["loss"] for row in later] == [row["loss"] for row in rows[1:]]
    ours, theirs = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [json.loads(line)["loss"] for line in cut.rows.read_text().splitlines()] == [
        row["loss"] for row in rows
    ]
    assert not cut.state.exists()


def test_rows_after_the_state_have_not_happened(pool, tmp_path, monkeypatch):
    files = Files(tmp_path / "a.safetensors")
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    stopped = pretrain(MAE, pool, files)
    next(stopped)
    monkeypatch.setattr(fit, "SAVE_SECONDS", 1e9)
    next(stopped)
    assert len(files.rows.read_text().splitlines()) == 2
    assert [row["epoch"] for row in pretrain(MAE, pool, files)] == [2, 3]
    assert len(files.rows.read_text().splitlines()) == 3


def test_a_state_of_other_settings_or_images_is_refused(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    files = Files(tmp_path / "a.safetensors")
    next(pretrain(MAE, pool, files))
    with pytest.raises(ValueError, match="epochs was 3, is 9; seed was 0, is 1"):
        next(pretrain(replace(MAE, epochs=9, seed=1), pool, files))
    other = replace(pool, proof=replace(pool.proof, seen_digest="x"))
    with pytest.raises(ValueError, match="images was"):
        next(pretrain(MAE, other, files))
    files.state.write_bytes(b"torn")
    with pytest.raises(ValueError, match="is damaged.*--force begins anew"):
        next(pretrain(MAE, pool, files))


def test_the_control_sees_no_face_and_learns_less(pool, tmp_path):
    rows = {}
    for name in ("none", "shuffled"):
        files = Files(tmp_path / f"{name}.safetensors")
        settings = replace(CONV, control=name, batch_size=16, base_lr=0.05, epochs=5)
        rows[name] = list(pretrain(settings, pool, files))
        record = read_record(files.weights)
        assert record is not None
        assert record["settings"]["control"] == name
    assert [r["images"] for r in rows["none"]] == [r["images"] for r in rows["shuffled"]]
    assert rows["none"][-1]["loss"] < 0.95 * rows["shuffled"][-1]["loss"]


@pytest.mark.parametrize("method", METHODS)
def test_all_of_it_goes_to_the_device(pool, monkeypatch, method):
    """The backbone's scaling of pixels too, which a method may use without the backbone."""
    meta, adam = torch.device("meta"), torch.optim.AdamW
    monkeypatch.setattr(fit, "default_device", lambda: meta)
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, fused, **kw: adam(*args, **kw))
    backbone = "test_vit" if method == "mae" else "small_resnet"
    run = Pretraining(replace(MAE, backbone=backbone, method=Part(method)), pool)
    for module in (run.backbone, run.module):
        assert {value.device for value in (*module.parameters(), *module.buffers())} == {meta}


def test_the_control_is_fed_to_the_network(pool):
    run = Pretraining(replace(MAE, control="shuffled"), pool)
    images = run.images(pool.rows[:2], torch.Generator().manual_seed(0))
    plain = torch.from_numpy(pool.images[pool.rows[:2]]).float() / 255
    assert not torch.equal(images.cpu(), plain)
    assert torch.allclose(images.cpu().mean((2, 3)), plain.mean((2, 3)), atol=1e-4)


def test_pretraining_goes_on_from_given_weights(pretrained, pool, tmp_path):
    out, _ = pretrained
    run = Pretraining(replace(MAE, weights=str(out)), pool)
    given = load_file(out / "test_vit.safetensors")
    net = run.backbone.net.state_dict()
    assert all(torch.equal(net[name], given[name]) for name in given)
    assert "100.0%" in run.loaded
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="do not fit the backbone"):
        Pretraining(replace(MAE, weights=str(tmp_path / "other.safetensors")), pool)


def test_the_rate_is_warmed_up_and_falls_to_none(pool):
    run = Pretraining(replace(MAE, epochs=100, warmup=0.1, batch_size=64), pool)
    rates = []
    for at in (0, 5, 10, 55, 100):
        run._set_rate(at)
        rates.append(run.stepper.optimizer.param_groups[0]["lr"] / MAE.base_lr * 4)
    assert rates == pytest.approx([0.01, 0.505, 1, 0.5, 0], abs=1e-6)


def test_gains_biases_and_tokens_do_not_decay():
    net = build_backbone("test_vit", SIZE).net
    groups = {g["weight_decay"]: {id(p) for p in g["params"]} for g in decay_groups(net, 0.05)}
    assert {id(net.cls_token), id(net.pos_embed), id(net.norm.weight)} <= groups[0.0]
    assert {id(net.patch_embed.proj.weight), id(net.blocks[0].attn.qkv.weight)} <= groups[0.05]


def test_a_collapse_is_told_once(pool, caplog):
    run = Pretraining(replace(CONV, method=Part("byol")), pool)
    for spread in (0.9, 0.1, 0.05):
        row = {"epoch": len(run.rows) + 1, "spread": spread}
        run._watch(row)
        run.rows.append(row)
    assert [r.message.partition(":")[0] for r in caplog.records] == ["epoch 2"]
    assert "collapse" in caplog.text


def test_one_image_is_too_few_to_pretrain_on(pool):
    with pytest.raises(ValueError, match="one image of .* is too few"):
        Pretraining(CONV, replace(pool, rows=pool.rows[:1]))


def test_a_method_that_compares_images_is_not_cut_into_pieces(pool):
    run = Pretraining(replace(CONV, method=Part("simclr")), pool)
    run.stepper.parts = 2
    with pytest.raises(MemoryError, match="'simclr' cannot take them piece by piece.*--batch-size"):
        run.run_epoch()
    masked = Pretraining(CONV, pool)
    masked.stepper.parts = 2
    assert masked.run_epoch()["images"] == 64


# --- what the weights say when they are used -----------------------------------------------------


def test_weights_are_suspect_on_a_data_set_that_was_not_kept_out(pretrained, faces, caplog):
    out, _ = pretrained
    config = TrialConfig(backbone=Part("test_vit"), weights=str(out))
    data = cache.load(faces)
    warn_of_leaks(config, data)
    warn_of_leaks(replace(config, weights="none"), replace(data, name="other"))
    assert caplog.records == []
    warn_of_leaks(config, replace(data, name="other"))
    assert "validation and test images kept out: those of 'faces:300:easy' only" in caplog.text
    assert "may have seen those of 'other'" in caplog.text


def test_weights_of_no_exclusion_say_so(pool, tmp_path, faces, caplog):
    _, nothing = exclude(["a"], fingerprints(pool.images[:1]), None)
    files = Files(tmp_path / "test_vit.safetensors")
    list(pretrain(replace(MAE, epochs=1), Pool(pool.images, pool.rows, "x", nothing), files))
    report = load_weights(build_backbone("test_vit", SIZE), "test_vit", str(tmp_path))
    assert "WARNING: no validation or test image was kept out of them" in report.summary()
    config = TrialConfig(backbone=Part("test_vit"), weights=str(tmp_path))
    warn_of_leaks(config, cache.load(faces))
    assert "kept out: none" in caplog.text


def test_files_from_elsewhere_say_nothing(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "b.pth").write_bytes(b"x")
    (tmp_path / "c.safetensors").write_bytes(b"x")
    assert read_record(tmp_path / "a.safetensors") is None
    assert read_record(tmp_path / "b.pth") is None
    assert read_record(tmp_path / "none.safetensors") is None
    with pytest.raises(ValueError, match="is no file of weights"):
        read_record(tmp_path / "c.safetensors")


# --- the command ---------------------------------------------------------------------------------

DATA = ("--data", "faces:200:easy", "--size", "32")
SHORT = ("--backbone", "small_resnet", "--method", "masked_conv", "--epochs", "1")


@pytest.fixture
def told(place, capsys):
    """Runs the command: its exit code and what it says."""

    def run(*words):
        logging.getLogger().handlers.clear()
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: command.main(words))
        out, err = capsys.readouterr()
        assert out == ""
        return ended.value.code, " ".join(err.split())

    yield run
    logging.getLogger().handlers.clear()


def test_the_command_writes_weights_and_leaves_them_alone(told, place):
    words = (*DATA, *SHORT, "--set", "patch=16", "--set", "mask_ratio=0.5", "--out", "w")
    code, err = told(*words)
    assert code == 0
    assert "weights w/small_resnet.safetensors: pretrained by masked_conv on" in err
    path = Path("w/small_resnet.safetensors")
    record, before = read_record(path), path.read_bytes()
    assert record is not None
    assert record["arguments"] == {"mask_ratio": 0.5, "patch": 16}
    code, err = told(*words)
    assert code == 2
    assert "exists; give another --out, or --force" in err
    assert told(*words, "--resume")[0] == 0  # it is done
    code, err = told(*words, "--resume", "--seed", "4")
    assert code == 2
    assert "seed was 0, is 4" in err
    assert path.read_bytes() == before
    code, err = told(*words, "--force", "--set", "patch=7")
    assert code == 2
    assert path.read_bytes() == before  # a mistake costs nothing
    assert told(*words, "--force", "--seed", "4")[0] == 0
    assert path.read_bytes() != before


def test_an_interrupted_command_says_how_to_go_on_and_can(told, place, monkeypatch):
    real, words = command.pretrain, (*DATA, *SHORT[:-1], "3", "--out", "it's mine.safetensors")

    def interrupted(*arguments):
        yield next(real(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(command, "pretrain", interrupted)
    code, err = told(*words)
    assert code == 130
    assert f"Go on with: {sys.executable} -m trainables.pretraining --data" in err
    assert "'it'\"'\"'s mine.safetensors' --resume" in err
    monkeypatch.setattr(command, "pretrain", real)
    code, err = told(*words)
    assert code == 2
    assert "was interrupted; --resume goes on with it" in err
    assert told(*words, "--resume")[0] == 0
    monkeypatch.setattr(command, "pretrain", interrupted)
    assert told(*words, "--force", "--seed", "1")[0] == 130  # beside the weights of before
    monkeypatch.setattr(command, "pretrain", real)
    assert told(*words, "--seed", "1", "--resume")[0] == 0
    record = read_record(place / "it's mine.safetensors")
    assert record is not None
    assert record["settings"]["seed"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "maee"], "unknown method 'maee'; known:"),
        (["--method", "mae"], "plain vision transformers"),
        (["--backbone", "small_resnett"], "unknown backbone 'small_resnett'"),
        (["--set", "patch"], "--set patch has no value"),
        (["--set", "patch=x"], "patch of 'masked_conv' wants a value of type int"),
        (["--set", "pach=4"], "Did you mean 'patch'"),
        (["--control", "shufled"], "Did you mean 'shuffled'"),
        (["--images", "nowhere"], "no images at 'nowhere': no such folder"),
        (["--images", "."], "holds no image"),
        (["--no-exclusion"], "is for --images without --data"),
        (["--out", "w.pt"], "is neither a folder nor a .safetensors file"),
        (["--warmup", "3"], "give less than 1"),
        (["--weights", "gone.pt"], "no weights at 'gone.pt'"),
        (["--method", "simclr", "--set", "dim=0"], "dim 0 is not 2 or more"),
        (["--method", "byol", "--set", "dim=-5"], "dim -5 is not 2 or more"),
        (["--base-lr", "1e30", "--epochs", "1", "--warmup", "0"], "try a lower --base-lr"),
    ],
)
def test_a_mistake_is_told_in_a_message(told, place, words, message):
    code, err = told(*DATA, *SHORT, "--out", "w", *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(place.rglob("*.safetensors"))


def test_settings_are_refused_before_images_are_read(told, place, monkeypatch):
    monkeypatch.setattr(command, "gather", None)
    for words in (["--method", "mae"], ["--set", "patch=7"], ["--weights", "gone.pt"]):
        assert told(*DATA, *SHORT, "--out", "w", *words)[0] == 2


def test_what_to_leave_out_must_be_clear(told, place):
    draw(place / "in" / "a.png", 1)
    rest = (*SHORT, "--out", "w")
    assert "give --data SOURCE" in told(*rest)[1]
    code, err = told(*rest, "--images", "in")
    assert code == 2
    assert "--images may hold validation or test images" in err
    for seed in range(4):
        draw(place / "in" / f"{seed}.png", seed)
    code, err = told(*rest, "--images", "in", "--no-exclusion", "--size", "32")
    assert code == 0
    assert "nothing was excluded" in err
    assert "WARNING: no validation or test image was kept out" in err
