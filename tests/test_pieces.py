"""A batch cut into pieces for want of memory: it teaches the same, and ranks agree on the cut."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_trial import QUICK, OneWeight, images
from torch import Generator

from trainables.augment import Batch
from trainables.balance import Losses
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.loop import train_epoch
from trainables.optim import Stepper
from trainables.ranks import ALONE
from trainables.trial import Training

GUIDED = {
    "backbone": "test_convnext", "drop_path": 0.0, "attention": "au_spatial",
    "attention_stage": "middle", "region_weight": 0.1, "au_loss": "bce", "au_weight": 0.5,
    "au_prior": "co_annotation", "clip": 1e9,
}  # fmt: skip


def trained_on_sparse_labels(data, parts: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients of one batch, of which the first three images alone have AU labels."""
    training = Training(TrialConfig.from_flat({**QUICK, **GUIDED}), cache.load(data))
    training.model.double()
    training.average.double()
    batch = next(training.plan.feed.batches(np.arange(12), Generator().manual_seed(1)))
    aus = batch.aus.clone()
    aus[3:] = -1
    batch = replace(batch, images=batch.images.double(), targets=batch.targets.double(), aus=aus)
    training.stepper.parts = parts
    losses = train_epoch(
        training.trained,
        training.average,
        iter([batch]),
        training.plan.objective(0.0),
        training.stepper,
        lambda: None,
    )
    named = training.model.named_parameters()
    return losses, {n: p.grad for n, p in named if p.grad is not None}


@pytest.fixture(scope="module")
def in_one(faces):
    return trained_on_sparse_labels(faces, 1)


@pytest.mark.parametrize("parts", [2, 4])
def test_pieces_weigh_sparse_au_labels_as_the_batch_does(faces, in_one, parts: int) -> None:
    (wanted, gradients), (losses, found) = in_one, trained_on_sparse_labels(faces, parts)
    assert wanted["au_loss"] > 0
    assert wanted["region_loss"] > 0
    assert losses == pytest.approx(wanted, rel=1e-5)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


class Lonely:
    """A replica without others."""

    ranks = ALONE

    @contextmanager
    def alone(self) -> Iterator[None]:
        yield

    hold = alone


def test_a_larger_batch_is_rehearsed_before_the_ranks_step_on_it() -> None:
    model: Any = OneWeight()
    stepper = Stepper(torch.optim.SGD(model.parameters(), 0.1), 1e9, torch.device("cpu"))
    replica: Any = Lonely()
    stepper.replica, stepper.rehearsed = replica, 0.0

    def loss(batch: Batch, _: Batch) -> Losses:
        if len(batch.images) > 6:
            raise torch.OutOfMemoryError("too much")
        return Losses((model.weight * batch.images.mean((1, 2, 3))).square().mean())

    stepper.step(images(4), loss)
    assert stepper.parts == 1
    stepper.step(images(12), loss)  # as by mixaugment, or images that have grown
    assert stepper.parts == 2
