"""How two tasks share a step, by hand and on a toy: weights, projections, and what a trial logs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.au_task import watch
from trainables.augment import Batch
from trainables.balance import BALANCES, Balance, Losses, without_conflict
from trainables.config import Flat, TrialConfig
from trainables.contradictions import check_au_settings
from trainables.data import cache
from trainables.optim import Stepper
from trainables.store import Predictions
from trainables.taskwise import TaskGradients
from trainables.trial import Training

TAUGHT: Flat = {
    "backbone": "test_resnet", "image_size": 48, "epochs": 4, "batch_size": 8, "augment": "none",
    "au_loss": "bce", "au_weight": 0.5,
}  # fmt: skip

# --- weights -------------------------------------------------------------------------------------


def test_uncertainty_follows_the_slope_of_its_loss() -> None:
    s, losses = torch.tensor([0.3, 0.3], requires_grad=True), torch.tensor([2.0, 0.1])
    (torch.exp(-s) * losses + s / 2).sum().backward()
    balance = BALANCES["uncertainty"](start=0.3)
    balance.learn((2.0, 0.1))
    assert s.grad is not None
    assert balance.values.grad.tolist() == pytest.approx(s.grad.tolist())


def test_uncertainty_ends_where_its_loss_is_least() -> None:
    balance = BALANCES["uncertainty"](rate=0.05)
    for _ in range(1000):
        balance.learn((2.0, 0.1))
    assert balance.weights == pytest.approx((1 / 4, 1 / 0.2), rel=1e-3)  # exp(-s) = 1 / 2L


def test_gradnorm_follows_the_slope_of_its_loss() -> None:
    alpha, norms, speed = 1.5, torch.tensor([3.0, 0.5]), torch.tensor([0.5, 0.9])
    w = torch.ones(2, requires_grad=True)
    grown = w * norms
    target = (grown.mean() * (speed / speed.mean()) ** alpha).detach()
    (grown - target).abs().sum().backward()
    balance = BALANCES["gradnorm"](alpha=alpha)
    balance.first = torch.tensor([4.0, 2.0], dtype=torch.float64)
    balance.learn((2.0, 1.8), (3.0, 0.5))
    assert w.grad is not None
    assert balance.values.grad.tolist() == pytest.approx(w.grad.tolist())
    assert sum(balance.weights) == pytest.approx(2)


class Toy(nn.Module):
    """y = shared * x for two tasks, of which the second is 10 times the first."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.own = nn.ParameterList(nn.Parameter(torch.tensor([3.0])) for _ in range(2))

    def forward(self, batch: Batch, _: Batch | None = None) -> Losses:
        x = batch.images.mean((2, 3))[:, :2] * self.shared
        emotion = (x.sum(1) + self.own[0] - 1).square().mean()
        au = 10 * (x[:, 0] - x[:, 1] + self.own[1] + 2).square().mean()
        return Losses(emotion, au)


def batch(n: int = 6) -> Batch:
    images = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.ones(n, 1), torch.zeros(n, 1))


def stepper(model: nn.Module, balance: Balance, rate: float = 1e-3) -> Stepper:
    return Stepper(torch.optim.SGD(model.parameters(), rate), 1e9, torch.device("cpu"), balance)


@pytest.mark.parametrize("name", ["gradnorm", "uncertainty"])
def test_a_task_that_drowns_the_other_loses_weight(name: str) -> None:
    model, balance = Toy(), BALANCES[name](rate=0.05)
    steps = stepper(model, balance, rate=0.0)
    for _ in range(60):
        steps.step(batch(), model)
    assert balance.weights[1] < 0.75 * balance.weights[0]


def test_gradnorm_levels_the_gradients() -> None:
    model, balance = Toy(), BALANCES["gradnorm"](alpha=0.0, rate=0.05)
    steps = stepper(model, balance, rate=0.0)
    for _ in range(200):
        steps.step(batch(), model)
    assert steps.norms is not None
    assert steps.norms[0] == pytest.approx(steps.norms[1], rel=0.2)


# --- gradients -----------------------------------------------------------------------------------


def test_pcgrad_removes_exactly_what_conflicts() -> None:
    e, a = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([-1.0, 0.0, 3.0])  # e . a = -2
    of_e, of_a = e + 2 / 10 * a, a + 2 / 5 * e
    assert torch.dot(of_e, a) == pytest.approx(0, abs=1e-6)
    assert torch.dot(of_a, e) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(without_conflict(e, a), of_e + of_a)


@pytest.mark.parametrize("a", [[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
def test_pcgrad_leaves_gradients_that_agree(a: list[float]) -> None:
    e = torch.tensor([2.0, 1.0, 0.0])
    assert torch.equal(without_conflict(e, torch.tensor(a)), e + torch.tensor(a))


def by_hand(model: Toy) -> list[tuple[Tensor | None, ...]]:
    losses, parameters = model(batch()), list(model.parameters())
    return list(
        zip(
            torch.autograd.grad(losses.emotion, parameters, retain_graph=True, allow_unused=True),
            torch.autograd.grad(losses.au, parameters, allow_unused=True),
            strict=True,
        )
    )


def test_only_shared_parameters_are_joined() -> None:
    model = Toy()
    (shared_e, shared_a), (own_e, _), (_, own_a) = by_hand(model)
    gradients = TaskGradients(list(model.parameters()), by_task=True)
    gradients.add(*model(batch())[:2])
    norms = gradients.join(torch.maximum)
    assert torch.equal(model.shared.grad, torch.maximum(shared_e, shared_a))
    assert torch.equal(model.own[0].grad, own_e)
    assert torch.equal(model.own[1].grad, own_a)
    assert norms == pytest.approx((float(shared_e.norm()), float(shared_a.norm())))


def test_a_step_by_task_is_the_same_step() -> None:
    models = Toy(), Toy()
    for model, by_task in zip(models, (True, False), strict=True):
        stepper(model, BALANCES["fixed"]()).step(batch(), model, by_task)
    torch.testing.assert_close(models[0].shared, models[1].shared)
    torch.testing.assert_close(models[0].own[1], models[1].own[1])


@pytest.mark.parametrize("name", BALANCES)
def test_a_batch_in_pieces_gives_the_same_step_and_lesson(name: str) -> None:
    found = []
    for parts in (1, 3):
        model, balance = Toy(), BALANCES[name]()
        steps = stepper(model, balance, rate=0.01)
        steps.parts = parts
        for _ in range(3):
            steps.step(batch(), model)
        found.append((model.shared.detach(), torch.tensor(balance.weights)))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", BALANCES)
def test_a_scaled_loss_gives_the_same_step_and_lesson(name: str) -> None:
    found = []
    for scale in (1.0, 1024.0):
        model, balance = Toy(), BALANCES[name]()
        steps = stepper(model, balance, rate=0.01)
        steps.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for _ in range(3):
            steps.step(batch(), model, by_task=True)
        found.append((model.shared.detach(), *map(torch.tensor, (balance.weights, steps.norms))))
    torch.testing.assert_close(found[0], found[1])


def test_a_gradient_that_overflows_teaches_nothing() -> None:
    balance = BALANCES["gradnorm"]()
    steps = stepper(nn.Linear(1, 1), balance)

    def loss(*_: Batch) -> Losses:
        weight = steps.parameters[0]
        return Losses(weight.sum() * float("inf"), weight.square().sum())

    steps.step(batch(), loss)
    assert steps.norms is None
    assert balance.weights == (1, 1)


# --- in a trial ----------------------------------------------------------------------------------


def trained(faces, **settings) -> Training:
    training = Training(TrialConfig.from_flat({**TAUGHT, **settings}), cache.load(faces))
    training.train_on(24)
    return training


@pytest.mark.parametrize("name", [n for n in BALANCES if n != "fixed"])
def test_a_balance_changes_the_training(faces, name) -> None:
    plain, other = (trained(faces, au_balance=n).model.state_dict() for n in ("fixed", name))
    assert not torch.equal(plain["heads.au.weight"], other["heads.au.weight"]) or not torch.equal(
        plain["heads.norm.weight"], other["heads.norm.weight"]
    )


def test_the_warm_up_of_lambda_is_in_force(faces) -> None:
    flat = {**TAUGHT, "curriculum": "linear", "curriculum.start": 0.2, "curriculum.full_at": 0.5,
            "curriculum_drives": "au_weight"}  # fmt: skip
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    weights = [training.plan.objective(p).au_weight for p in (0.0, 0.25, 0.5, 1.0)]
    assert weights == pytest.approx([0.1, 0.3, 0.5, 0.5])
    row = training.run_epoch()
    assert row["lambda"] == pytest.approx(0.1)
    assert row["train_loss"] == pytest.approx(row["emotion_loss"] + 0.1 * row["au_loss"])


def first_ratio(training: Training) -> float:
    (first, *_) = training.plan.feed.batches(np.arange(8), torch.Generator())
    training.stepper.step(
        first, partial(training.plan.objective(0.0), training.model.train()), True
    )
    emotion, au = training.stepper.norms
    return au / emotion


def test_the_gradient_ratio_is_measured_with_lambda(faces) -> None:
    bundle = cache.load(faces)
    ratios = []
    for weight in (0.2, 0.4):
        config = TrialConfig.from_flat({**TAUGHT, "au_weight": weight})
        ratios.append(first_ratio(Training(config, bundle)))
    assert ratios[1] == pytest.approx(2 * ratios[0], rel=1e-3)


def test_a_dead_au_head_shows(faces) -> None:
    bundle = cache.load(faces)
    blind = replace(bundle, train=replace(bundle.train, aus=np.full_like(bundle.train.aus, -1)))
    config = TrialConfig.from_flat(TAUGHT)
    alive, dead = (Training(config, data).run_epoch() for data in (bundle, blind))
    assert (alive["au_dead"], dead["au_dead"]) == (False, True)
    assert alive["gradient_ratio"] > 1e-3
    assert dead["gradient_ratio"] == 0
    assert alive["au_supported"] > 0
    alone = Training(TrialConfig.from_flat({**TAUGHT, "au_loss": "none"}), bundle).run_epoch()
    assert not {"au_dead", "lambda", "gradient_ratio"} & set(alone)


def test_the_watch_by_hand() -> None:
    aus = np.zeros((30, 2), np.int8)
    aus[:10, 0], aus[:9, 1] = 1, 1
    val = Predictions((), np.zeros(30, int), np.zeros((30, 2)), aus, np.zeros((30, 2)))
    assert watch(val, 0.3, (2.0, 1.0), (4.0, 1.0)) == {
        "au_supported": 1, "lambda": 0.15, "gradient_ratio": 0.25, "au_dead": False,
    }  # fmt: skip
    for au, is_dead in ((1.4e-4, True), (1.6e-4, False)):  # against lambda / 1000
        assert watch(val, 0.15, (1.0, 1.0), (1.0, au))["au_dead"] == is_dead


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"au_balance": "pcgrad"}, "au_balance 'pcgrad' needs AU supervision"),
        ({"au_prior": "co_annotation"}, "au_prior 'co_annotation' needs AU supervision"),
        ({"au_reading": "linear"}, "au_reading 'linear' needs AU supervision"),
        ({**TAUGHT, "au_reading": "linear", "loss": "ldam"}, "'ldam' is defined on cosines"),
    ],
)
def test_au_settings_that_contradict_are_refused(flat: Flat, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_au_settings(TrialConfig.from_flat(flat))
