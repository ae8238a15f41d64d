"""Weights of our own trials, where another fold is scored: what they were taught is told."""

import json

import pytest
import torch
from safetensors.torch import save_file

from trainables.config import TrialConfig
from trainables.data import cache
from trainables.pretraining.leaks import warn_of_leaks


@pytest.mark.parametrize(
    ("theirs", "ours", "is_told"),
    [
        ({}, {}, False),
        ({}, {"folds": 5, "fold": 1}, True),
        ({"folds": 5, "fold": 1}, {"folds": 5, "fold": 1}, False),
        ({"folds": 5, "fold": 1}, {"folds": 5, "fold": 2}, True),
        ({"folds": 5, "fold": 1}, {}, True),
    ],
)
def test_a_trunk_taught_on_another_fold_is_told(
    faces, tmp_path, caplog, theirs, ours, is_told: bool
) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"backbone.net.weight": torch.zeros(1)}, file)
    record = {"index": 0, "role": "sampled", "config": TrialConfig.from_flat(theirs).flat()}
    (tmp_path / "config.json").write_text(json.dumps(record))
    config = TrialConfig.from_flat({"backbone": "test_resnet", "weights": str(file), **ours})
    warn_of_leaks(config, cache.load(faces))
    assert ("taught the labels" in caplog.text) == is_told
