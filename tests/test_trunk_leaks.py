"""Weights of our own trials, where another fold is scored: they were taught its labels."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import save_file
from test_trial import QUICK

from search.pretrained import folded, refuse_taught
from spaces.space import Space
from trainables.backbones import build_backbone
from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.data.folds import fold_of
from trainables.features.frozen import frozen
from trainables.pretraining.exclusion import exclude, fingerprints
from trainables.pretraining.leaks import refuse_leaks, warn_of_leaks
from trainables.pretraining.record import as_metadata
from trainables.trial import Training

CASES = [
    ({}, {}, False),
    ({}, {"folds": 5, "fold": 1}, True),
    ({}, {"fold_seed": 3}, False),  # there is nothing to deal
    ({"folds": 5, "fold": 1}, {"folds": 5, "fold": 1}, False),
    ({"folds": 5, "fold": 1}, {"folds": 5, "fold": 2}, True),
    ({"folds": 5, "fold": 1}, {"folds": 5, "fold": 1, "fold_seed": 1}, True),
    ({"folds": 5, "fold": 1}, {}, True),
]


def run_of(place, theirs, name="faces:300:easy"):
    """The weights of a trial of a run."""
    folder = place / "run" / "trials" / "0000"
    folder.mkdir(parents=True)
    (place / "run" / "run.json").write_text(json.dumps({"data": {"name": name}}))
    config = {**QUICK, **theirs}
    (folder / "config.json").write_text(
        json.dumps({"config": TrialConfig.from_flat(config).flat()})
    )
    net = build_backbone(config["backbone"], 48)
    state = {f"backbone.{k}": v for k, v in net.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def with_weights(file, **ours):
    return TrialConfig.from_flat({**QUICK, "weights": str(file), **ours})


@pytest.mark.parametrize(("theirs", "ours", "is_refused"), CASES)
def test_weights_taught_on_another_fold_are_refused(tmp_path, theirs, ours, is_refused) -> None:
    config = with_weights(run_of(tmp_path, theirs), **ours)
    refuse_leaks(config, "other data")
    if is_refused:
        with pytest.raises(ValueError, match="was taught the labels .*Take the weights of a trial"):
            refuse_leaks(config, "faces:300:easy")
    else:
        refuse_leaks(config, "faces:300:easy")


@pytest.mark.parametrize(("theirs", "ours", "is_told"), CASES)
def test_of_weights_that_left_their_run_there_is_a_warning(
    faces, tmp_path, caplog, theirs, ours, is_told
) -> None:
    file = run_of(tmp_path, theirs)
    moved = shutil.copytree(file.parent, tmp_path / "a" / "b" / "c") / file.name
    config, data = with_weights(moved, **ours), cache.load(faces)
    refuse_leaks(config, data.name)
    warn_of_leaks(config, data)
    assert ("if they are of the same data" in caplog.text) == is_told
    caplog.clear()
    warn_of_leaks(with_weights(file, **ours), data)
    assert caplog.text == ""


def test_a_trial_on_such_weights_does_not_begin(faces, tmp_path) -> None:
    file, data = run_of(tmp_path, {"folds": 3, "fold": 1}), cache.load(faces)
    with pytest.raises(ValueError, match=r"fold 1 of 3 \(fold seed 0\), here it is fold 2 of 3"):
        Training(with_weights(file, folds=3, fold=2), data)
    with pytest.raises(ValueError, match="here it is the data's own split"):
        frozen(with_weights(file), data)
    Training(with_weights(file, folds=3, fold=1), data)


def test_a_search_of_all_folds_on_such_weights_does_not_begin(tmp_path) -> None:
    file = run_of(tmp_path, {"folds": 3, "fold": 1})
    plain = {"backbone": QUICK["backbone"], "weights": str(file), "folds": 3, "fold_seed": 0}
    flats = list(folded(Space("mine", plain), 3))
    assert [flat["fold"] for flat in flats] == [0, 1, 2]
    with pytest.raises(ValueError, match="here it is fold 0 of 3"):
        refuse_taught(flats, "faces:300:easy")
    refuse_taught(flats[1:2], "faces:300:easy")
    assert list(folded(Space("mine", {"weights": "none"}), 3)) == []


def test_a_command_on_such_weights_ends_with_one_message(place, refused) -> None:
    file = run_of(place, {}, "faces:200:easy")
    words = ("--data", "faces:200:easy", "--image-size", "32", "--inline", "--weights", str(file))
    message = refused("--space", "smoke", *words, "--folds", "3", "--trials", "6")
    assert "are of a trial on the data's own split, here it is fold 0 of 3" in message
    entry = {"role": "baseline", "config": {"backbone": QUICK["backbone"], "epochs": 1}}
    (place / "one.json").write_text(json.dumps([entry]))
    message = refused("--configs", "one.json", *words, "--folds", "3")
    assert "here it is fold 0 of 3" in message


def test_a_frozen_trunk_that_saw_images_of_a_fold_is_told_as_of_a_network(
    faces, tmp_path, caplog
) -> None:
    data = cache.load(faces)
    images = data.train.images[:4]
    _, proof = exclude(data.train.ids[:4], fingerprints(images), data)
    record = {
        "proof": {"data": data.name, "held_out_ids": proof.held_out_ids},
        "settings": {"method": {"name": "mae"}, "control": "none"},
    }
    net = build_backbone(QUICK["backbone"], 48)
    file = tmp_path / f"{QUICK['backbone']}.safetensors"
    save_file(dict(net.state_dict()), file, as_metadata(record))
    plain = replace(with_weights(file), features=Part("frozen"))
    frozen(plain, data)
    assert caplog.text == ""
    folds = replace(plain, folds=3)
    frozen(folds, data)
    (told,) = [record.message for record in caplog.records]
    caplog.clear()
    warn_of_leaks(folds, fold_of(data, folds))  # as a network trial does
    assert [record.message for record in caplog.records] == [told]
