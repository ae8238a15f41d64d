"""Sharpness-aware minimisation: the step by hand, and with all that a step may have."""

import math

import pytest
import torch
from test_balance import Toy, batch
from test_trial import QUICK, new_trial, timeless
from torch import nn

from trainables.augment import Batch
from trainables.balance import BALANCES, Balance, Losses
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.optim import Stepper
from trainables.sam import Ascent
from trainables.trial import Training, run_trial

TAUGHT = {**QUICK, "au_loss": "bce", "au_weight": 0.5, "dropout": 0.2}


class Bowl(nn.Module):
    """(a w0^2 + b w1^2) / 2, the factors by the images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    def forward(self, batch: Batch, _: Batch | None = None) -> Losses:
        factors = batch.images[:, :2, 0, 0].double()
        return Losses((factors * self.weight.square() / 2).sum(1).mean())


def bowl_batch() -> Batch:
    factors = torch.tensor([[3.0, 1.0], [5.0, 2.0], [4.0, 6.0]])
    images = torch.zeros(3, 3, 1, 1)
    images[:, :2, 0, 0] = factors
    return Batch(images, torch.ones(3, 1), torch.zeros(3, 0))


def stepper(model: nn.Module, rho: float, balance: Balance | None = None) -> Stepper:
    ascent = Ascent(rho, model) if rho else None
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Stepper(optimizer, 1e9, torch.device("cpu"), balance, ascent)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_step_on_a_quadratic_by_hand(parts: int, scale: float) -> None:
    model = Bowl()
    steps = stepper(model, 0.05)
    steps.parts = parts
    if scale > 1:  # as with float16
        steps.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    found = steps.step(bowl_batch(), model)
    a, b = 4.0, 3.0  # means of the factors
    slope = (a * 1, b * -2)
    length = math.hypot(*slope)
    climbed = (1 + 0.05 * slope[0] / length, -2 + 0.05 * slope[1] / length)
    wanted = [1 - 0.1 * a * climbed[0], -2 - 0.1 * b * climbed[1]]
    assert model.weight.tolist() == pytest.approx(wanted, rel=1e-9)
    assert found["train_loss"] == pytest.approx((a * 1 + b * 4) / 2)  # of where the weights are


def test_a_rho_of_zero_is_no_ascent_and_a_tiny_one_hardly_any() -> None:
    models = [Bowl(), Bowl()]
    for model, rho in zip(models, (0.0, 1e-9), strict=True):
        stepper(model, rho).step(bowl_batch(), model)
    torch.testing.assert_close(models[0].weight, models[1].weight)


@pytest.mark.parametrize("is_broken", [False, True])
def test_the_weights_come_back_to_the_bit(is_broken: bool) -> None:
    model = nn.Linear(5, 3)
    model(torch.randn(4, 5)).square().sum().backward()
    before = model.weight.detach().clone()
    try:
        with Ascent(0.3, model).climbed(list(model.parameters())):
            moved = float((model.weight.detach() - before).norm())
            assert 0 < moved <= 0.3
            if is_broken:
                raise torch.OutOfMemoryError("in the second pass")
    except torch.OutOfMemoryError:
        assert is_broken
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("gradient", [0.0, math.inf, math.nan])
def test_a_gradient_of_no_direction_moves_nothing(gradient: float) -> None:
    model = nn.Linear(2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    before = model.weight.detach().clone()
    with Ascent(0.1, model).climbed(list(model.parameters())):
        assert torch.equal(model.weight, before)


def test_a_step_that_overflows_is_skipped() -> None:
    model = Bowl()
    steps = stepper(model, 0.05)
    steps.scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    big = bowl_batch()
    big.images.mul_(1e38)

    def loss(part: Batch, _: Batch) -> Losses:
        return Losses(model(part).emotion.float() * torch.tensor(1e38))

    before = model.weight.detach().clone()
    steps.step(big, loss)
    assert torch.equal(model.weight, before)
    assert steps.scaler.get_scale() == pytest.approx(0.5e38)


def test_running_statistics_move_once_a_step_and_masks_are_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    masks = list[torch.Tensor]()

    def loss(part: Batch, _: Batch) -> Losses:
        out = model(part.images)
        masks.append(out == 0)
        return Losses(out.square().mean())

    images = torch.randn(6, 3, 8, 8)
    start = {k: v.clone() for k, v in model[1].state_dict().items()}
    expected = nn.BatchNorm2d(4)
    expected(model[0](images))
    stepper(model, 0.05).step(Batch(images, torch.ones(6, 1), torch.zeros(6, 0)), loss)
    assert torch.equal(masks[0], masks[1])
    assert int(model[1].num_batches_tracked) == int(start["num_batches_tracked"]) + 1
    torch.testing.assert_close(model[1].running_mean, expected.running_mean)
    assert model[1].track_running_stats


@pytest.mark.parametrize("name", ["fixed", "pcgrad", "gradnorm"])
def test_by_task_the_climb_is_of_the_whole_and_the_step_is_joined(name: str) -> None:
    """The reference: climb by the sum's gradient, then the step that the balance makes there."""
    one, other = Toy(), Toy()
    other.load_state_dict(one.state_dict())
    balances = [BALANCES[name](), BALANCES[name]()]
    found = stepper(one, 0.1, balances[0]).step(batch(), one, by_task=True)
    losses = other(batch())
    weights = balances[1].weights
    total = weights[0] * losses.emotion + weights[1] * losses.au
    parameters = list(other.parameters())
    slopes = torch.autograd.grad(total, parameters, allow_unused=True)
    length = math.sqrt(sum(float(s.square().sum()) for s in slopes if s is not None))
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, s in zip(parameters, slopes, strict=True):
            if s is not None:
                p.add_(s, alpha=0.1 / length)
    steps = stepper(other, 0.0, balances[1])
    climbed = [p.detach().clone() for p in parameters]
    steps.step(batch(), other, by_task=True)
    for p, low, high, mine in zip(parameters, before, climbed, one.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), low + (p.detach() - high))
    assert found["train_loss"] == pytest.approx(losses.emotion.item() + losses.au.item(), rel=1e-5)


def test_sam_changes_the_training_and_resumes_exactly(faces, tmp_path) -> None:
    flat = {**TAUGHT, "sam": 0.05, "au_balance": "gradnorm"}
    wanted = [timeless(row) for row in run_trial(new_trial(tmp_path / "a", flat), faces)]
    broken = new_trial(tmp_path / "b", flat)
    next(run_trial(broken, faces))
    assert [timeless(row) for row in run_trial(broken, faces)] == wanted
    plain = Training(TrialConfig.from_flat({**flat, "sam": 0.0}), cache.load(faces)).run_epoch()
    assert plain["train_loss"] != wanted[0]["train_loss"]
