"""What every plug-in must do, asked of every registered one. N = 6 images, K = 7, A = 5."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.attention import ATTENTIONS, AU_AWARE, Attended
from trainables.backbones import BACKBONES, Backbone, build_backbone
from trainables.balance import BALANCES, Balance
from trainables.fusion import FUSIONS
from trainables.heads import HEADS
from trainables.local import LOCALS
from trainables.losses import AU_LOSSES, LOSSES, Loss
from trainables.prototypes import PRIORS, Prior
from trainables.reading import READINGS
from trainables.rebalance import REBALANCE, Rebalance
from trainables.registry import Registry
from trainables.schedules import SCHEDULES, Schedule
from trainables.state import unpack, writing

N, K, A = 6, 7, 5
COUNTS = np.array([400, 120, 90, 40, 17, 6, 1])
LABELS = np.repeat(np.arange(K), COUNTS)
PAIRS = tuple((i % 4, (i + 1) % 4) for i in range(K))
REGISTRIES: tuple[Registry, ...] = (
    *(ATTENTIONS, AU_LOSSES, BACKBONES, BALANCES, FUSIONS, HEADS, LOCALS, LOSSES),
    *(PRIORS, READINGS, REBALANCE, SCHEDULES),
)


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


# --- every registry ------------------------------------------------------------------------------


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_unknown_name_says_which_is_near(registry: Registry) -> None:
    name = list(registry)[-1]
    with pytest.raises(LookupError, match=f"Did you mean '{name}'"):
        registry[name + "x"]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_every_plug_in_says_what_it_is(registry: Registry) -> None:
    assert all(registry[name].__doc__ for name in registry)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_every_hyper_parameter_has_a_default_of_a_plain_type(registry: Registry) -> None:
    defaults = [d for name in registry for d in registry.arguments(name).values()]
    assert all(type(d) in (int, float, bool, str) for d in defaults)


# --- losses --------------------------------------------------------------------------------------


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param](COUNTS)


def soft_targets() -> Tensor:
    return torch.rand(N, K).softmax(1)


def test_loss_is_one_finite_number_an_image(loss: Loss) -> None:
    value = loss(torch.randn(N, K), soft_targets())
    assert value.shape == (N,)
    assert value.isfinite().all()


def test_loss_does_not_depend_on_the_order_of_the_batch(loss: Loss) -> None:
    logits, targets, order = torch.randn(N, K), soft_targets(), torch.randperm(N)
    torch.testing.assert_close(loss(logits, targets)[order], loss(logits[order], targets[order]))


@pytest.mark.parametrize("label", range(K))
def test_right_answer_costs_less_than_wrong(loss: Loss, label: int) -> None:
    target, wrong_label = torch.eye(K)[[label]], (label + 1) % K
    right, wrong = 9 * torch.eye(K)[[label]], 9 * torch.eye(K)[[wrong_label]]
    assert loss(right, target) < loss(wrong, target)


@pytest.mark.parametrize("sureness", [1e2, 1e4, -1e2, -1e4])
def test_loss_has_a_finite_gradient_when_sure(loss: Loss, sureness: float) -> None:
    logits = (sureness * torch.eye(K)).requires_grad_()
    loss(logits, torch.eye(K)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_loss_is_linear_in_soft_targets(loss: Loss) -> None:
    logits, a, b = torch.randn(N, K), torch.eye(K)[:N], torch.eye(K)[1 : N + 1]
    mixed = loss(logits, 0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * loss(logits, a) + 0.7 * loss(logits, b))


def test_loss_is_computed_in_float32(loss: Loss) -> None:
    assert loss(torch.randn(N, K).bfloat16(), soft_targets()).dtype == torch.float32


# --- AU losses -----------------------------------------------------------------------------------


@pytest.fixture(params=AU_LOSSES)
def au_loss(request: pytest.FixtureRequest) -> Loss:
    return AU_LOSSES[request.param](np.array([400, 90, 30, 4, 0]), np.full(A, 600))


def au_targets() -> Tensor:
    targets = torch.randint(0, 2, (N, A)).float()
    targets[0], targets[1, 2], targets[2, 3] = -1, -1, 0.4
    return targets


def test_au_loss_is_one_finite_number_an_image(au_loss: Loss) -> None:
    value = au_loss(torch.randn(N, A), au_targets())
    assert value.shape == (N,)
    assert value.isfinite().all()
    assert value[0] == 0  # nothing is known of this image


def test_unknown_aus_carry_no_gradient(au_loss: Loss) -> None:
    logits, targets = torch.randn(N, A, requires_grad=True), au_targets()
    (au_loss(logits, targets) + 0 * logits.sum(1)).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[targets < 0] == 0).all()


def test_unknown_aus_do_not_change_the_loss(au_loss: Loss) -> None:
    logits, targets = torch.randn(N, A), au_targets()
    other = torch.where(targets < 0, logits + 5, logits)
    torch.testing.assert_close(au_loss(logits, targets), au_loss(other, targets))


@pytest.mark.parametrize("sureness", [1e2, 1e4, -1e2, -1e4])
def test_au_loss_has_a_finite_gradient_when_sure(au_loss: Loss, sureness: float) -> None:
    logits, targets = torch.full((2, A), sureness, requires_grad=True), torch.tensor([[0.0], [1.0]])
    (au_loss(logits, targets.expand(2, A)) + 0 * logits.sum(1)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", [n for n in AU_LOSSES if n != "none"])
@pytest.mark.parametrize("present", [0.0, 1.0])
def test_right_au_costs_less_than_wrong(name: str, present: float) -> None:
    loss, target = AU_LOSSES[name](np.full(A, 9), np.full(A, 90)), torch.full((1, A), present)
    right = torch.full((1, A), 4 * (2 * present - 1))
    assert loss(right, target) < loss(-right, target)


# --- AU priors -----------------------------------------------------------------------------------


@pytest.fixture(params=PRIORS)
def prior(request: pytest.FixtureRequest) -> Prior:
    shown = np.random.default_rng(0).integers(0, 9, (K, A))
    return PRIORS[request.param](shown, np.full((K, A), 9))


@pytest.mark.parametrize("sureness", [1.0, 1e2, 1e4])
def test_prior_is_finite_and_so_is_its_gradient(prior: Prior, sureness: float) -> None:
    logits = (sureness * torch.randn(N, K)).requires_grad_()
    au_logits = (sureness * torch.randn(N, A)).requires_grad_()
    value = prior(logits, au_logits, soft_targets(), au_targets())
    assert value.shape == (N,)
    assert (value.detach() >= -1e-6).all()
    (value.sum() + 0 * logits.sum() + 0 * au_logits.sum()).backward()
    for leaf in (logits, au_logits):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_prior_does_not_depend_on_the_order_of_the_batch(prior: Prior) -> None:
    order = torch.randperm(N)
    inputs = torch.randn(N, K), torch.randn(N, A), soft_targets(), au_targets()
    torch.testing.assert_close(prior(*inputs)[order], prior(*(x[order] for x in inputs)))


# --- balances ------------------------------------------------------------------------------------

LESSONS = [((2.6, 0.2), (1.0, 0.1)), ((2.2, 0.19), (0.8, 0.3)), ((2.3, 0.1), (0.9, 0.2))]


@pytest.fixture(params=BALANCES)
def balance(request: pytest.FixtureRequest) -> Balance:
    return BALANCES[request.param]()


def test_balance_starts_with_lambda_as_given(balance: Balance) -> None:
    assert balance.weights == (1, 1)


def test_balance_keeps_weights_positive(balance: Balance) -> None:
    for _ in range(500):
        balance.learn((9.0, 1e-3), (7.0, 1e-4))
    assert all(0 < weight < np.inf for weight in balance.weights)


def test_balance_adds_gradients_that_agree(balance: Balance) -> None:
    emotion = torch.rand(9)
    au = torch.rand(9)
    torch.testing.assert_close(balance.rule.join(emotion, au), emotion + au)


def test_balance_learns_nothing_of_what_was_not_there(balance: Balance) -> None:
    balance.learn((2.0, 0.0), (1.0, 0.0))  # no AU label in the batch
    balance.learn((2.0, 1.0), (1.0, float("nan")))
    assert balance.weights == (1, 1)


@pytest.mark.parametrize("name", BALANCES)
def test_balance_goes_on_from_its_state_as_if_never_stopped(name: str) -> None:
    straight, again = BALANCES[name](), BALANCES[name]()
    for lesson in LESSONS[:2]:
        straight.learn(*lesson)
    file = io.BytesIO()
    writing(straight.state())(file)
    again.restore(unpack(file.getvalue()))
    assert again.weights == straight.weights
    for balance in (straight, again):
        balance.learn(*LESSONS[2])
    assert again.weights == straight.weights
    assert (again.weights != (1, 1)) == again.learns


# --- attention -----------------------------------------------------------------------------------

CHANNELS = 32


@pytest.fixture(params=ATTENTIONS)
def attention(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = ATTENTIONS[request.param](CHANNELS, A)
    return module


def feature_map() -> Tensor:
    return torch.randn(N, CHANNELS, 6, 5).relu()


def test_attention_keeps_the_shape_and_starts_near_identity(attention: nn.Module) -> None:
    x = feature_map()
    for mode in (True, False):
        out: Attended = attention.train(mode)(x)
        assert out.features.shape == x.shape
        assert (out.features - x).norm() < 0.08 * x.norm()


LEARNED = [name for name in ATTENTIONS if name != "none"]


@pytest.mark.parametrize("name", LEARNED)
def test_attention_learns_with_every_parameter_from_the_first_step(name: str) -> None:
    attention = ATTENTIONS[name](CHANNELS, A)
    out = attention(feature_map())
    (out.features * torch.randn_like(out.features)).sum().backward()
    idle = [n for n, p in attention.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", LEARNED)
def test_attention_varies_with_its_input(name: str) -> None:
    attention, x = ATTENTIONS[name](CHANNELS, A).eval(), feature_map() + 0.1
    gain = attention(x).features / x
    assert (gain[0] - gain[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", AU_AWARE)
def test_au_aware_attention_tells_which_and_where(name: str) -> None:
    out = ATTENTIONS[name](CHANNELS, A)(feature_map())
    assert out.au_logits.shape == (N, A)
    assert out.au_maps.shape == (N, A, 6, 5)
    assert out.au_maps.std(0).min() > 1e-3  # they vary with the image,
    assert out.au_maps.flatten(2).std(2).min() > 1e-3  # with the place,
    assert out.au_maps.std(1).min() > 1e-3  # and with the AU


@pytest.mark.parametrize("name", AU_AWARE)
def test_au_aware_attention_refuses_data_without_aus(name: str) -> None:
    with pytest.raises(ValueError, match="names none"):
        ATTENTIONS[name](CHANNELS, 0)


# --- fusion and heads ----------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_takes_any_number_of_scales(name: str, scales: int) -> None:
    channels = (8, 12, 16, 24)[:scales]
    maps = [torch.randn(N, c, 9 - 2 * i, 9 - 2 * i) for i, c in enumerate(channels)]
    fusion = FUSIONS[name](channels)
    embedding, fused = fusion(maps)
    assert embedding.shape == (N, fusion.dim)
    assert fused.ndim == 4
    assert fusion.sees[-1] == scales - 1


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_sees_the_maps_that_it_says(name: str) -> None:
    maps = [torch.randn(N, 8, 4, 4, requires_grad=True) for _ in range(3)]
    fusion = FUSIONS[name]((8, 8, 8))
    embedding, _ = fusion(maps)
    embedding.square().sum().backward()
    assert [i for i, x in enumerate(maps) if x.grad is not None] == list(fusion.sees)


@pytest.mark.parametrize("name", HEADS)
def test_head_learns_with_every_parameter_from_the_first_step(name: str) -> None:
    head = HEADS[name](16, PAIRS, K, 4)
    logits = head(torch.randn(N, 16))
    nn.functional.cross_entropy(logits, torch.arange(N)).backward()
    assert logits.shape == (N, K)
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


@pytest.mark.parametrize("name", READINGS)
def test_reading_changes_nothing_at_the_start_and_learns_from_the_first_step(name: str) -> None:
    reading, logits = READINGS[name](A, K), torch.randn(N, K)
    out = reading(logits, torch.randn(N, A))
    assert torch.equal(out, logits)
    nn.functional.cross_entropy(out + 0 * logits.requires_grad_(), torch.arange(N)).backward()
    assert all(p.grad is not None and p.grad.all() for p in reading.parameters())


@pytest.mark.parametrize("name", READINGS)
def test_reading_leaves_the_aus_to_their_own_loss(name: str) -> None:
    reading, au_logits = READINGS[name](A, K), torch.randn(N, A, requires_grad=True)
    for parameter in reading.parameters():
        nn.init.ones_(parameter)
    (reading(torch.randn(N, K), au_logits).sum() + 0 * au_logits.sum()).backward()
    assert au_logits.grad is not None
    assert not au_logits.grad.any()


# --- schedules, rebalancing ----------------------------------------------------------------------

PROGRESS = np.linspace(0, 1, 101)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]()


def test_schedule_stays_in_range_and_never_falls(schedule: Schedule) -> None:
    values = [schedule(float(p)) for p in PROGRESS]
    assert all(0 < v <= 1 for v in values)
    assert values == sorted(values)
    assert values[-1] == 1


@pytest.fixture(params=REBALANCE)
def rebalance(request: pytest.FixtureRequest) -> Rebalance:
    return REBALANCE[request.param](COUNTS)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_class_weights_have_mean_one_over_the_images(rebalance: Rebalance, progress: float) -> None:
    weights = rebalance.class_weights(progress)
    assert weights.shape == (K,)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_sample_weights_are_a_distribution_over_images(rebalance: Rebalance) -> None:
    weights = rebalance.sample_weights(LABELS)
    assert weights is None or (weights.shape == LABELS.shape and weights.sum() == pytest.approx(1))


# --- backbones: our own, and one timm network of each kind ---------------------------------------

TIMM = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit", "mobilenetv3_small_050")
SIDE = 80  # FaceNet sees nothing smaller


@pytest.fixture(scope="module", params=[*BACKBONES, *TIMM])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(request.param, SIDE)


def test_backbone_gives_three_maps_as_it_says(backbone: Backbone) -> None:
    maps = backbone(torch.randn(2, 3, SIDE, SIDE))
    assert len(maps) == 3
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    assert tuple(round(SIDE / m.shape[2]) for m in maps) == backbone.strides
    assert list(backbone.strides) == sorted(backbone.strides)


def test_backbone_learns_with_every_parameter(backbone: Backbone) -> None:
    model = copy.deepcopy(backbone)
    sum(m.square().mean() for m in model(torch.randn(2, 3, SIDE, SIDE))).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_coarsest_map_needs_all_of_the_backbone(backbone: Backbone) -> None:
    model = copy.deepcopy(backbone)
    model(torch.randn(2, 3, SIDE, SIDE))[-1].square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", [*BACKBONES, *TIMM])
def test_same_seed_gives_the_same_weights(name: str) -> None:
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in build_backbone(name, SIDE).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
