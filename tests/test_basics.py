"""Basic emotions before their compounds: targets by hand, and the stages in a training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_trial import QUICK, new_trial, timeless
from torch import Generator
from torch.nn import functional

from search import plan
from spaces.space import Choice
from trainables.augment import Batch
from trainables.basics import (
    BASICS,
    basic_loss,
    compositions,
    make_lessons,
    membership,
    virtual_compounds,
)
from trainables.config import TrialConfig, pacing_horizon
from trainables.data import cache
from trainables.heads import Additive
from trainables.model import build_model
from trainables.trial import Training, run_trial

PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3))  # of four basics; 1 and 2 make no class
STAGES = {"basics": "three_stage", "basics.first": 0.3, "basics.second": 0.3}


def test_members_by_hand() -> None:
    wanted = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]]
    assert membership(PAIRS, 4).tolist() == wanted


def test_the_loss_on_basics_by_hand() -> None:
    logits, members = torch.randn(2, 4), membership(PAIRS, 4)
    targets = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0]])
    present = torch.tensor([[1.0, 1, 0, 0], [0.5, 0, 1, 0.5]])
    wanted = functional.binary_cross_entropy_with_logits(logits, present, reduction="none")
    torch.testing.assert_close(basic_loss(logits, targets, members), wanted.sum(1))


def test_compositions_by_hand() -> None:
    table = compositions(PAIRS)
    # {0, 1} and {2, 3}: 0+2 is class 2, 0+3 is class 4, 1+2 is none, 1+3 is class 3
    assert table[0, 1].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])
    # {0, 1} with itself: 0+1
    assert table[0, 0].tolist() == [1, 0, 0, 0, 0]
    # {0, 1} and {0, 2}: 0+0 none, 0+2 class 2, 1+0 class 0, 1+2 none
    assert table[0, 2].tolist() == [0.5, 0, 0.5, 0, 0]
    assert torch.equal(table, table.transpose(0, 1))


def labelled(labels: list[int], classes: int = 5) -> Batch:
    images = torch.eye(len(labels))[:, :3, None, None].expand(-1, -1, 8, 8).clone()
    return Batch(images, torch.eye(classes)[labels], torch.zeros(len(labels), 0))


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_virtual_compounds_are_of_the_two_faces_in_the_picture(mixing: str) -> None:
    batch = labelled([0, 1, 2])
    made = virtual_compounds(PAIRS, mixing)(batch, Generator().manual_seed(1))
    table = compositions(PAIRS)
    parts = made.images.mean((2, 3))  # colour k: how much of face k
    assert parts.sum(1).tolist() == pytest.approx([1, 1, 1])
    for own, row in enumerate(parts):
        partner = int((row * (torch.arange(3) != own)).argmax()) if row[own] < 0.999 else own
        assert torch.equal(made.targets[own], table[own, partner])
        if partner != own:
            assert 0.1 < float(row[own]) < 0.9  # both faces are there
    assert any(float(row[own]) < 0.999 for own, row in enumerate(parts))


def test_where_two_faces_make_no_class_the_mixture_is_the_target() -> None:
    pairs = ((0, 1), (2, 3))
    made = virtual_compounds(pairs, "mixup")(labelled([0, 1], 2), Generator().manual_seed(3))
    share = made.images.mean((2, 3))[:, :2]
    torch.testing.assert_close(made.targets, share)
    assert 0.1 < float(share[0, 0]) < 0.9


def test_permuted_classes_have_the_basics_of_others() -> None:
    lessons = BASICS["two_stage"](PAIRS, 4, np.random.default_rng(0), permuted=True)
    plain = membership(PAIRS, 4)
    assert lessons.members is not None
    assert not (lessons.members == plain).all(1).any()  # none keeps its own
    assert sorted(lessons.members.tolist()) == sorted(plain.tolist())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"first": 0.6, "second": 0.4}, "must leave some of it for the classes"),
        ({"first": -0.1}, "each must be 0 or more"),
        ({"mixing": "remix"}, "by 'mixup' or 'cutmix'"),
    ],
)
def test_stages_that_cannot_be_are_refused(args, message) -> None:
    with pytest.raises(ValueError, match=message):
        BASICS["three_stage"](PAIRS, 4, np.random.default_rng(0), **args)


@pytest.mark.parametrize("epochs", [3, 4, 9, 30])
@pytest.mark.parametrize("first", [0.05, 0.12, 0.2])
@pytest.mark.parametrize("second", [0.05, 0.09, 0.2])
def test_no_stage_falls_between_two_epochs(epochs: int, first: float, second: float) -> None:
    args = {"basics": "three_stage", "basics.first": first, "basics.second": second}
    config = TrialConfig.from_flat({**args, "epochs": epochs})
    lessons = make_lessons(config, PAIRS, 4)
    stages = [lessons.stage(epoch / epochs) for epoch in range(epochs)]
    assert stages == sorted(stages)
    assert set(stages) == {1, 2, 3}
    assert stages.count(1) == max(1, math.ceil(first * epochs))
    assert pacing_horizon(config) == max(1, min(epochs, stages.index(3) + 1))


def test_with_epochs_for_the_classes_alone_there_is_no_other_stage() -> None:
    config = TrialConfig.from_flat({"basics": "three_stage", "epochs": 1})
    assert make_lessons(config, PAIRS, 4).stage(0.0) == 3


def test_basics_of_blended_faces_are_not_rounded_by_mixed_precision() -> None:
    logits, members = torch.randn(8, 4), membership(PAIRS, 4)
    targets = torch.rand(8, 5).softmax(1)
    wanted = basic_loss(logits, targets, members)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(basic_loss(logits, targets, members), wanted)


# --- in a training -------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["flat", "cosine", "additive", "additive_residual"])
def test_basic_logits_are_the_heads_own_where_it_has_any(head: str) -> None:
    config = TrialConfig.from_flat({"backbone": "small_resnet", "head": head, **STAGES})
    model = build_model(config, 5, 0, PAIRS, 4).train()
    out = model(torch.rand(2, 3, 64, 64))
    assert out.basic_logits is not None
    assert out.basic_logits.shape == (2, 4)
    assert (model.basic is None) == isinstance(model.heads.emotion, Additive)
    if head == "additive":
        pairs = model.heads.emotion.pairs
        torch.testing.assert_close(out.logits, out.basic_logits @ pairs.T)
    assert model.eval()(torch.rand(2, 3, 64, 64)).basic_logits is None


def test_without_basics_the_network_is_what_it_was() -> None:
    sizes, states = [], []
    for extra in ({}, STAGES):
        torch.manual_seed(0)
        model = build_model(
            TrialConfig.from_flat({"backbone": "small_resnet", **extra}), 5, 0, PAIRS, 4
        )
        sizes.append(len(list(model.parameters())))
        states.append(model.state_dict())
    assert sizes[1] == sizes[0] + 2
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def moved(training: Training) -> dict[str, bool]:
    """Which parts of the network an epoch trains, by Adam's memory of their gradients."""
    found = {}
    for name, parameter in training.model.named_parameters():
        state = training.optimizer.state.get(parameter, {})
        found[name] = bool(state and state["exp_avg"].abs().max() > 1e-12)
    return found


def test_each_stage_teaches_what_it_says(faces) -> None:
    training = Training(
        TrialConfig.from_flat({**QUICK, **STAGES, "clip": 1e9, "epochs": 4}), cache.load(faces)
    )
    rows = [training.run_epoch()]
    first = moved(training)
    assert first["basic.weight"]
    assert not first["heads.emotion.weight"]  # no class is taught yet
    before = training.model.basic.weight.detach().clone()
    decay = training.config.lr * training.config.weight_decay
    rows += [training.run_epoch() for _ in range(3)]
    assert moved(training)["heads.emotion.weight"]
    assert [row["basics_stage"] for row in rows] == [1, 1, 2, 3]
    assert decay < 1e-3
    assert not torch.equal(before, training.model.basic.weight)  # the second epoch, too, taught it
    assert rows[0]["emotion_loss"] > rows[1]["emotion_loss"]


def test_the_second_stage_feeds_virtual_compounds_only(faces) -> None:
    flat = {**QUICK, **STAGES, "augment": "none"}
    made = Training(TrialConfig.from_flat(flat), cache.load(faces)).plan
    order = np.arange(16)

    def mixed(progress: float) -> Batch:
        (found,) = made.batches(progress, order, Generator().manual_seed(0))
        return found

    assert torch.equal(mixed(0.1).targets.amax(1).cpu(), torch.ones(16))
    assert torch.equal(mixed(0.7).images, mixed(0.1).images)
    assert not torch.equal(mixed(0.5).images, mixed(0.1).images)
    totals = mixed(0.5).targets.sum(1).cpu()
    torch.testing.assert_close(totals, torch.ones(16))


@pytest.mark.parametrize("head", ["flat", "additive"])
def test_stages_resume_exactly(faces, tmp_path, head: str) -> None:
    flat = {**STAGES, "head": head, "epochs": 4, "au_loss": "bce", "au_weight": 0.3,
            "basics.mixing": "cutmix"}  # fmt: skip
    wanted = [timeless(row) for row in run_trial(new_trial(tmp_path / "a", flat), faces)]
    broken = new_trial(tmp_path / "b", flat)
    next(run_trial(broken, faces))
    list(run_trial(broken, faces))
    assert [timeless(row) for row in broken.history()] == wanted


def test_the_control_is_taught_other_basics(faces) -> None:
    rows = [
        Training(
            TrialConfig.from_flat({**QUICK, **STAGES, "basics.permuted": p}), cache.load(faces)
        ).run_epoch()
        for p in (False, True)
    ]
    assert rows[0]["train_loss"] != rows[1]["train_loss"]


def test_classes_that_are_no_compounds_leave_basics_out(faces) -> None:
    bundle = replace(cache.load(faces), components=None)
    with pytest.raises(ValueError, match="set basics to 'none'"):
        Training(TrialConfig.from_flat({**QUICK, "basics": "two_stage"}), bundle)
    from test_plan import space_of

    space = space_of(
        basics=Choice(("none", "two_stage"), "none"),
        curriculum=Choice(("none", "linear"), "none"),
        curriculum_order=Choice(("class_count", "crowd_entropy", "au_prototype"), "class_count"),
        curriculum_drives=Choice(("data", "au_weight"), "data"),
    )
    blind = replace(bundle, au_names=(), train=replace(bundle.train, distributions=None))
    fitted, notes = plan.fit_to_data(space, blind)
    assert fitted.settings["basics"] == "none"
    assert fitted.settings["curriculum_order"] == "class_count"
    assert fitted.settings["curriculum_drives"] == "data"
    assert [note.partition(": ")[2] for note in notes] == [
        "curricula by AUs are off",
        "learning basic emotions first is off",
        "the order by their entropy is off",
    ]
