"""The whole network, on tiny backbones at 64 px."""

import math

import pytest
import torch
from torch.nn import functional

from trainables.attention import ATTENTIONS
from trainables.config import Part, TrialConfig
from trainables.fusion import FUSIONS
from trainables.model import FERModel, build_model, head_of, parameter_groups

K, A = 14, 18
PAIRS = tuple((i % 6, (i + 1) % 6) for i in range(K))


def build(seed: int = 0, **settings: object) -> FERModel:
    torch.manual_seed(seed)
    flat = {"backbone": "test_resnet", **settings}
    return build_model(TrialConfig.from_flat(flat), K, A, PAIRS, 6)


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("stage", ["middle", "last"])
def test_every_combination_learns_with_every_parameter(
    attention: str, fusion: str, stage: str
) -> None:
    model = build(attention=attention, fusion=fusion, attention_stage=stage)
    out = model(images())
    functional.cross_entropy(out.logits, torch.arange(4)).backward()
    assert out.logits.shape == (4, K)
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    assert [n for n, p in model.named_parameters() if "attention" in n and not p.grad.any()] == []


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_attention_hardly_changes_a_network_at_the_start(attention: str, fusion: str) -> None:
    with_it = build(attention=attention, fusion=fusion).eval()
    without = build(fusion=fusion).eval()
    without.heads.load_state_dict(with_it.heads.state_dict())
    without.fusion.load_state_dict(with_it.fusion.state_dict())
    change = with_it(images()).embedding - without(images()).embedding
    assert change.norm() < 0.1 * without(images()).embedding.norm()


@pytest.mark.parametrize("fusion", ["none", "gated"])
@pytest.mark.parametrize("stage", ["middle", "last"])
def test_zeroing_an_au_map_changes_the_emotion(fusion: str, stage: str) -> None:
    model = build(attention="au_spatial", fusion=fusion, attention_stage=stage).eval()
    before = model(images()).logits
    with torch.no_grad():
        model.attention.maps.weight[3] = 0
        model.attention.maps.bias[3] = -1e4
    assert (model(images()).logits - before).abs().max() > 1e-5


def test_image_normalisation_is_inside() -> None:
    model = build(backbone="mobilenetv3_small_050").eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = (images() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    embedding = model.heads.norm(model.backbone(seen)[-1].mean((2, 3)))
    torch.testing.assert_close(model(images()).embedding, embedding)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "small_resnet"])
@pytest.mark.parametrize("head", ["flat", "additive", "additive_residual"])
def test_first_loss_is_near_the_logarithm_of_the_classes(backbone: str, head: str) -> None:
    out = build(backbone=backbone, head=head)(images(28))
    loss = functional.cross_entropy(out.logits, torch.arange(28) % K)
    assert loss.item() == pytest.approx(math.log(K), abs=0.2)


def test_baseline_has_no_au_head() -> None:
    model = build()
    assert model(images()).au_logits is None
    assert model.heads.au is None


@pytest.mark.parametrize("attention", ["none", "se", "au_spatial", "au_cross"])
def test_au_task_gives_au_logits(attention: str) -> None:
    model = build(attention=attention, au_loss="bce", au_weight=0.3)
    out = model(images())
    assert out.au_logits is not None
    assert out.au_logits.shape == (4, A)
    assert (model.heads.au is None) == (attention in ("au_spatial", "au_cross"))
    assert (out.au_maps is None) == (attention in ("none", "se"))


def test_untrained_au_logits_are_not_shown() -> None:
    assert build(attention="au_spatial")(images()).au_logits is None
    assert build(au_loss="bce", au_weight=0.0)(images()).au_logits is None
    assert build(au_loss="none", au_weight=0.3)(images()).au_logits is None


def test_au_task_without_au_data_is_refused() -> None:
    config = TrialConfig.from_flat({"backbone": "test_resnet", "au_loss": "bce", "au_weight": 1.0})
    with pytest.raises(ValueError, match="set au_weight to 0"):
        build_model(config, K, 0)


def test_penalty_of_the_head_is_in_the_output() -> None:
    model = build(head="additive_residual", **{"head.shrink": 0.5})
    assert model(images()).penalty == 0
    torch.nn.init.ones_(model.heads.emotion.residual.weight)
    assert model(images()).penalty.item() == pytest.approx(0.5 * 96)


TAUGHT = {"au_loss": "bce", "au_weight": 0.3}


def test_emotion_reads_the_au_probabilities() -> None:
    model = build(au_reading="linear", **TAUGHT).eval()
    before = model(images())
    torch.nn.init.normal_(model.reading.weight)
    after = model(images())
    assert after.au_logits is not None
    read = after.au_logits.sigmoid() @ model.reading.weight.T
    torch.testing.assert_close(after.logits, before.logits + read)


def test_reading_and_a_local_branch_do_not_touch_each_other() -> None:
    both = build(au_reading="linear", local="face", **TAUGHT).eval()
    other = build(local="face", **TAUGHT).eval()
    other.load_state_dict(both.state_dict(), strict=False)
    assert torch.equal(both(images()).logits, other(images()).logits)  # a reading begins at 0
    both(images()).logits.square().sum().backward()
    assert both.reading.weight.grad.any()
    assert both.local.gate.grad.any()


def test_the_control_of_reading_sees_chance() -> None:
    model = build(au_reading="random", **TAUGHT).train()
    torch.nn.init.ones_(model.reading.weight)
    logits, one = torch.zeros(2, K), torch.zeros(2, A)
    first, second = (model.reading(logits, one) for _ in range(2))
    assert not torch.equal(first, second)
    used = model.eval().reading(logits, one + 9)  # whatever the AUs
    assert torch.equal(used, torch.full((2, K), A / 2))


def test_same_seed_gives_the_same_network() -> None:
    settings = {"attention": "au_cross", "fusion": "gated", "head": "additive_residual"}
    states = [build(seed, **settings).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_unknown_stage_is_told() -> None:
    with pytest.raises(LookupError, match="attention_stage 'first'; known: middle, last"):
        build(attention_stage="first")


def test_every_parameter_is_in_one_group_of_the_optimiser() -> None:
    model = build(attention="au_spatial", attention_stage="middle")
    groups = parameter_groups(model, 1e-3, 5.0, 0.05)
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {
        *((1e-3, 0.05), (1e-3, 0.0)),
        *((5e-3, 0.05), (5e-3, 0.0)),
    }


def test_gains_biases_and_positions_do_not_decay() -> None:
    model = build(backbone="test_vit")
    groups = parameter_groups(model, 1e-3, 1.0, 0.05)
    decaying = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    names = {n for n, p in model.named_parameters() if id(p) in decaying}
    assert "heads.emotion.weight" in names
    assert not {n for n in names if n.endswith((".bias", "pos_embed", "cls_token", "norm.weight"))}


ALL_PARTS = {
    **{"attention": "gather_excite", "fusion": "attention_pool", "local": "face"},
    **{"local.boxes": 5, "head": "cosine"},
}


@pytest.mark.parametrize("parts", [{}, ALL_PARTS], ids=["plain", "all parts"])
def test_network_overfits_eight_images(parts: dict[str, object]) -> None:
    settings = {"backbone": "small_resnet", "backbone.width": 8, **parts}
    model, labels = build(**settings), torch.arange(8)
    optimiser = torch.optim.AdamW(parameter_groups(model, 3e-3, 1.0, 0.0))
    for _ in range(40):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(images(8)).logits, labels)
        loss.backward()
        optimiser.step()
    assert loss < 0.05


def test_ldam_gets_the_head_it_is_defined_on() -> None:
    ldam = Part("ldam", {"scale": 20.0})
    assert head_of(TrialConfig(loss=ldam)) == Part("cosine", {"scale": 20.0})
    assert head_of(TrialConfig(loss=ldam, head=Part("cosine", {"scale": 5.0}))).args["scale"] == 5.0
    assert head_of(TrialConfig()) == Part("flat")
    with pytest.raises(ValueError, match="'ldam' needs head 'flat'"):
        head_of(TrialConfig(loss=ldam, head=Part("additive")))
