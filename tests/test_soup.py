"""Weight soups: who may be averaged, what the average is, and that it is a trial like others."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from analysis import ensemble, pool, soup
from analysis.leaderboard import read_board
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.model import build_model
from trainables.store import RunStore
from trainables.trial import run_trial

QUICK = {"backbone": "test_resnet", "image_size": 48, "epochs": 1, "ema": 0.0}


@pytest.fixture(scope="module")
def cooked(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A run of three trials of one start, and one of another seed."""
    bundle = cache.load(faces)
    data = {
        "class_names": list(bundle.class_names), "au_names": list(bundle.au_names),
        "fingerprint": bundle.fingerprint, "cache": str(faces), "source": "faces:300:easy",
    }  # fmt: skip
    root = tmp_path_factory.mktemp("runs") / "run"
    run = RunStore.create(root, {"name": "run", "data": data, "metric": "accuracy"})
    flats = [{"lr": 3e-3}, {"lr": 2e-3}, {"lr": 3e-3, "weight_decay": 0.0}, {"seed": 1}]
    for index, flat in enumerate(flats):
        trial = run.create_trial(TrialConfig.from_flat({**QUICK, **flat}), index)
        list(run_trial(run.trial(trial, run.hand_out(trial)), faces))
    assert soup.main([str(root)]) == 0
    return run


def test_trials_of_one_start_are_averaged_and_no_others(cooked: RunStore) -> None:
    (group,) = soup.kettles(read_board(cooked))
    assert [record.index for record in group] == [0, 1, 2]
    (record,) = RunStore.open(cooked.root / "soups").records()
    head = json.loads((cooked.root / "soups" / "trials" / record.id / "config.json").read_text())
    assert head["members"] == [r.id for r in group]


def test_each_training_setting_is_one_of_a_trial() -> None:
    assert set(soup.TRAINING) <= {field.name for field in fields(TrialConfig)}


@pytest.mark.parametrize(
    ("setting", "is_alike"),
    [
        ({"lr": 1.0}, True),
        ({"loss": "focal", "loss.gamma": 2.0}, True),
        ({"loss": "ldam"}, False),
        ({"seed": 3}, False),
        ({"weights": "package"}, False),
        ({"attention": "se"}, False),
        ({"au_loss": "bce"}, True),  # without a weight it makes no head
        ({"au_loss": "bce", "au_weight": 0.3}, False),
        ({"a setting of tomorrow": 1}, False),
    ],
)
def test_only_what_leaves_network_and_start_alone_may_differ(
    setting: dict[str, object], is_alike: bool
) -> None:
    base = TrialConfig().flat()
    assert (soup.start_of(base) == soup.start_of({**base, **setting})) == is_alike


def test_the_weights_are_the_mean_and_the_predictions_theirs(cooked: RunStore, faces: Path) -> None:
    (group,) = soup.kettles(read_board(cooked))
    states = [load((cooked.trial(r.id).path / soup.WEIGHTS).read_bytes()) for r in group]
    out = RunStore.open(cooked.root / "soups")
    (record,) = out.records()
    stored = load((out.trial(record.id).path / soup.WEIGHTS).read_bytes())
    for name, tensor in stored.items():
        if "running_" not in name and "num_batches" not in name:
            mean = torch.stack([s[name] for s in states]).mean(0)
            torch.testing.assert_close(tensor, mean)
    bundle = cache.load(faces)
    model = build_model(
        out.trial(record.id).config(), len(bundle.class_names), len(bundle.au_names),
        bundle.components, len(bundle.basic_names),
    )  # fmt: skip
    model.load_state_dict(stored)
    model.eval()
    with torch.inference_mode():
        images = torch.from_numpy(np.array(bundle.val.images[:8])).float() / 255
        probs = model(images).logits.softmax(1)
    predictions = out.trial(record.id).predictions("val")
    assert predictions is not None
    assert predictions.probs[:8] == pytest.approx(probs.numpy(), abs=5e-3)
    assert record.history[-1]["score"] == pytest.approx(
        float((predictions.probs.argmax(1) == predictions.labels).mean()), abs=0.02
    )


def test_a_soup_competes_like_any_trial(cooked: RunStore) -> None:
    runs = pool.read_runs([cooked.root, cooked.root / "soups"])
    assert len(runs.votes.trials) == 5
    assert len(runs.known.latency_ms) == 5
    assert len(set(runs.known.group.values())) == 5  # the soup is no seed of its first member
    assert ensemble.build(runs.votes, runs.goal, known=runs.known).members


def test_a_second_call_makes_nothing_anew(
    cooked: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert soup.main([str(cooked.root)]) == 0
    assert "score" not in capsys.readouterr().out
    assert len(RunStore.open(cooked.root / "soups").records()) == 1


def test_equal_weights_make_the_same_soup_and_other_shapes_none() -> None:
    one = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}
    mean = soup.mean_weights([one, one])
    assert all(torch.equal(mean[name], one[name]) for name in one)
    with pytest.raises(soup.MismatchError, match="at 'w'"):
        soup.mean_weights([one, {**one, "w": torch.zeros(3, 2)}])


def test_batch_norm_is_estimated_on_the_training_images(faces: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.norm(images)

    bundle, net = cache.load(faces), Net()
    soup.simmer(net, bundle, torch.device("cpu"))
    mean = np.array(bundle.train.images, np.float64).mean((0, 2, 3)) / 255
    assert net.norm.running_mean.numpy() == pytest.approx(mean, abs=0.02)
    assert not net.training


def test_a_run_without_two_of_a_kind_is_told(cooked: RunStore, tmp_path: Path) -> None:
    board = read_board(cooked)
    lonely = replace(board, records=board.records[2:])
    assert soup.kettles(lonely) == []
    RunStore.create(tmp_path / "run", cooked.meta())
    with pytest.raises(ValueError, match="nothing to average"):
        soup.main([str(tmp_path / "run")])


def test_soups_do_not_go_into_another_run(cooked: RunStore, tmp_path: Path) -> None:
    other = RunStore.create(tmp_path / "other", cooked.meta())
    for folder in (other.root, cooked.root):
        with pytest.raises(FileExistsError, match="is a search, not the soups of"):
            soup.main([str(cooked.root), "--out", str(folder)])
    RunStore.create(tmp_path / "soups", {**cooked.meta(), "soups_of": str(other.root)})
    with pytest.raises(FileExistsError, match="the soups of .*other, not the soups"):
        soup.main([str(cooked.root), "--out", str(tmp_path / "soups")])
    assert not other.records()
