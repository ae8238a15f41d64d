"""Averages of weights: exponential, and the mean over the tail of the training."""

import numpy as np
import pytest
import torch
from test_trial import QUICK, new_trial, timeless
from torch import Generator, nn

from trainables.augment import Batch
from trainables.averages import AVERAGES, Average, Tail, estimate_norms
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.schedules import warmup_cosine
from trainables.trial import Training, run_trial

SWA = {"average": "swa", "average.start": 0.5, "average.rate": 0.3, "epochs": 4}


def test_the_mean_starts_anew_at_the_tail_and_weighs_all_alike() -> None:
    model = nn.Linear(3, 2)
    average = Average(model, 0.5, Tail(0.5, 0.1))
    seen = list[torch.Tensor]()
    for progress in (0.0, 0.25, 0.5, 0.75):
        average.begin(progress)
        for _ in range(5):
            with torch.no_grad():
                model.weight.copy_(torch.randn(2, 3))
            average.update(model)
            if progress >= 0.5:
                seen.append(model.weight.detach().clone())
        assert average.is_mean == (progress >= 0.5)
    torch.testing.assert_close(average.model.weight, torch.stack(seen).mean(0))
    assert average.updates == 10


def test_swa_is_the_mean_of_the_weights_that_were_stepped_to(faces, monkeypatch) -> None:
    training = Training(TrialConfig.from_flat({**QUICK, **SWA}), cache.load(faces))
    stored = list[list[torch.Tensor]]()
    update = Average.update

    def watched(self, model) -> None:
        update(self, model)
        if training.epoch >= 2:
            stored.append([p.detach().double().clone() for p in model.parameters()])

    monkeypatch.setattr(Average, "update", watched)
    rates = [training.run_epoch()["lr"] for _ in range(4)]
    means = [torch.stack(each).mean(0).float() for each in zip(*stored, strict=True)]
    for found, wanted in zip(training.average.model.parameters(), means, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    top = training.base_rates[0]
    assert rates[2:] == pytest.approx([0.3 * top] * 2)  # constant
    assert rates[1] > 0.3 * top


def test_a_tail_that_starts_within_the_last_epoch_has_this_epoch(faces) -> None:
    flat = {**QUICK, **SWA, "average.start": 0.9, "epochs": 3}
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    seen = list[bool]()
    for _ in range(3):
        training.run_epoch()
        seen.append(training.average.is_mean)
    assert seen == [False, False, True]
    assert Tail().within(3) == Tail()
    assert Tail(0.5, 0.2).within(3) == Tail(0.5, 0.2)


def test_the_learning_rate_falls_to_its_rest_and_stays_there() -> None:
    factors = [warmup_cosine(s, 6, 2, 0.4) for s in (0, 2, 4, 6, 9)]
    assert factors == pytest.approx([0.01, 1.0, 0.7, 0.4, 0.4])


def test_before_its_tail_swa_is_scored_like_the_exponential_average(faces) -> None:
    bundle = cache.load(faces)
    flat = {**QUICK, **SWA, "warmup_epochs": 2.0}  # until the tail: the same learning rates
    plain = {k: v for k, v in flat.items() if not k.startswith("average")}
    one, other = (Training(TrialConfig.from_flat(f), bundle) for f in (flat, plain))
    for _ in range(2):
        assert timeless(one.run_epoch()) == timeless(other.run_epoch())
    assert timeless(one.run_epoch()) != timeless(other.run_epoch())


def test_swa_resumes_exactly_within_its_tail(faces, tmp_path) -> None:
    wanted = [timeless(row) for row in run_trial(new_trial(tmp_path / "a", SWA), faces)]
    broken = new_trial(tmp_path / "b", SWA)
    rows = run_trial(broken, faces)
    for _ in range(3):
        next(rows)
    rows.close()
    list(run_trial(broken, faces))
    assert [timeless(row) for row in broken.history()] == wanted


def test_batch_norms_are_estimated_by_what_they_normalise() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images, boxes=None):
            assert not model[1].training  # nothing is dropped
            return self.inner(images)

    batches = [Batch(torch.randn(8, 3, 4, 4) + k, torch.ones(8, 1), torch.zeros(8, 0))
               for k in range(3)]  # fmt: skip
    estimate_norms(Takes().eval(), batches, torch.float32)
    norm = model[0]
    means = torch.stack([b.images.mean((0, 2, 3)) for b in batches]).mean(0)
    variances = torch.stack([b.images.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert (norm.training, norm.momentum) == (False, 0.1)


def test_without_batch_norms_no_image_is_looked_at() -> None:
    def never():
        raise AssertionError
        yield

    estimate_norms(nn.Linear(1, 1), never(), torch.float32)


def test_the_mean_is_scored_with_its_own_batch_statistics(faces) -> None:
    training = Training(TrialConfig.from_flat({**QUICK, **SWA}), cache.load(faces))
    norms = [m for m in training.average.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for _ in range(3):
        training.run_epoch()
    before = [norm.running_mean.clone() for norm in norms]
    order = training.plan.order(0.9, np.random.default_rng(0))
    batches = training.plan.batches(0.9, order, Generator().manual_seed(5))
    estimate_norms(training.average.model, batches, torch.float32)
    model_norms = [m for m in training.model.modules() if isinstance(m, nn.BatchNorm2d)]
    far = [(a - b.running_mean).norm() for a, b in zip(before, model_norms, strict=True)]
    near = [(a - b.running_mean).norm() for a, b in zip(before, norms, strict=True)]
    assert sum(near) < 0.5 * sum(far)  # drawn anew, they hardly move; the model's are others


@pytest.mark.parametrize("args", [{"start": 1.0}, {"start": -0.1}, {"rate": 0.0}, {"rate": 1.5}])
def test_a_tail_that_cannot_be_is_refused(args) -> None:
    with pytest.raises(ValueError, match="average 'swa' cannot start at"):
        AVERAGES["swa"](**args)
