"""Two ranks with what a training may be driven by: they do what one rank does."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gangs import as_ranks
from test_trial import QUICK, new_trial

from trainables import orders
from trainables.augment import Batch
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.ranks import here
from trainables.store import TrialStore
from trainables.trial import Training, run_trial


def climbed_gradients(data) -> dict[str, np.ndarray]:
    """Of one batch of 31 images in two pieces: where it ends after the second pass of SAM."""
    found = {}
    for by_task in (False, True):
        flat = {**QUICK, "au_loss": "bce", "au_weight": 0.5, "sam": 0.1, "clip": 1e9}
        training = Training(TrialConfig.from_flat(flat), cache.load(data), here())
        training.model.double().train()
        batch = next(training.plan.feed.batches(np.arange(31), torch.Generator().manual_seed(1)))
        batch = Batch(batch.images.double(), batch.targets.double(), batch.aus)
        model, steps = training.trained.train(), training.stepper
        steps.parts = 2
        steps.step(batch, partial(training.plan.objective(0.0), model), by_task)
        for name, parameter in training.model.named_parameters():
            if parameter.grad is not None:
                found[f"{by_task} {name}"] = parameter.grad.numpy()
    return found


def whole_training(data) -> tuple[list[Any], list[np.ndarray]]:
    """Basics first, lambda from almost 0 on, a mean of the tail: all parameters need a gradient."""
    flat = {
        **QUICK, "basics": "three_stage", "basics.first": 0.3, "basics.second": 0.3, "epochs": 4,
        "average": "swa", "average.start": 0.7, "dropout": 0.2, "au_loss": "bce", "au_weight": 0.3,
        "curriculum": "linear", "curriculum_drives": "au_weight", "curriculum.start": 1e-9,
    }  # fmt: skip
    bundle = cache.load(data)
    rows = np.arange(60)
    train = replace(
        bundle.train,
        images=bundle.train.images[rows], labels=bundle.train.labels[rows],
        aus=bundle.train.aus[rows], ids=bundle.train.ids[:60],
    )  # fmt: skip
    training = Training(TrialConfig.from_flat(flat), replace(bundle, train=train), here())
    losses = [training.run_epoch()["train_loss"] for _ in range(4)]
    return losses, [b.numpy() for b in training.average.model.state_dict().values()]


def both(data) -> tuple[dict[str, np.ndarray], tuple[list[Any], list[np.ndarray]]]:
    return climbed_gradients(data), whole_training(data)


def orders_of_machines_that_differ(data, folder) -> tuple[list[int], list[int]]:
    """The order that a rank computes, where the other's differences are the other way, and the one
    that it trains by."""
    turned = -1.0 if here().rank else 1.0
    orders.reference_losses = lambda bundle: turned * np.arange(len(bundle.train))
    flat = {"curriculum": "linear", "curriculum_order": "reference_loss"}
    own = Training(TrialConfig.from_flat({**QUICK, **flat}), cache.load(data), here())
    used: list[list[int]] = []
    epoch = Training.run_epoch

    def watched(self, *rest):
        used.append(self.plan.easy_to_hard.tolist())
        return epoch(self, *rest)

    Training.run_epoch = watched  # this process ends with the test
    if here().is_first:
        new_trial(folder / "run", flat)
    here().tell("the trial is there")
    trial = TrialStore(next((folder / "run" / "trials").iterdir()))
    next(run_trial(trial, data))
    return own.plan.easy_to_hard.tolist(), used[0]


def test_all_ranks_train_by_the_order_of_the_first(faces, tmp_path) -> None:
    found = as_ranks(2, tmp_path, orders_of_machines_that_differ, faces, tmp_path)
    (first, used), (other, also) = found
    assert first == other[::-1]
    assert used == also == first


def test_two_ranks_climb_as_one_and_go_through_all_stages_to_one_average(faces, tmp_path) -> None:
    alone, (losses, _) = both(faces)
    (one, (first, average)), (other, (second, again)) = as_ranks(2, tmp_path, both, faces)
    assert one.keys() == other.keys() == alone.keys()
    for name, gradient in alone.items():
        for found in (one, other):
            np.testing.assert_allclose(found[name], gradient, rtol=1e-7, atol=1e-11, err_msg=name)
    assert first == second == pytest.approx(losses, rel=0.15)  # they drop other units
    for a, b in zip(average, again, strict=True):
        np.testing.assert_array_equal(a, b)


def stopped_and_resumed(data, folder) -> list[dict[str, Any]]:
    """The row of the first epoch, the same from the record, and the next."""
    if here().is_first:
        new_trial(folder / "run", {"epochs": 3})
    here().tell("the trial is there")
    trial = TrialStore(next((folder / "run" / "trials").iterdir()))
    rows = run_trial(trial, data)
    found = [next(rows)]
    rows.close()
    again = run_trial(trial, data)
    found += [next(again), next(again)]
    again.close()
    return found


def test_ranks_go_on_together_from_what_the_first_has_stored(faces, tmp_path) -> None:
    one, other = as_ranks(2, tmp_path, stopped_and_resumed, faces, tmp_path)
    assert one == other
    first, told, second = one
    assert first == told
    assert (first["epoch"], second["epoch"]) == (1, 2)
    (trial,) = (tmp_path / "run" / "trials").iterdir()
    assert TrialStore(trial).history() == [first, second]
    assert not list(trial.glob(".last.pt.*"))
