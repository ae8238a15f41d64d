"""Fusion against sums by hand."""

import pytest
import torch
from torch import nn

from trainables.fusion import FUSIONS

CHANNELS = (6, 8, 10)


def maps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, c, s, s) for c, s in zip(CHANNELS, (8, 4, 2), strict=True)]


def test_none_is_the_mean_of_the_coarsest_map() -> None:
    embedding, fused = FUSIONS["none"](CHANNELS)(maps())
    torch.testing.assert_close(embedding, maps()[-1].mean((2, 3)))
    assert fused.shape == (2, 10, 2, 2)


def test_concat_keeps_every_scale_apart() -> None:
    fusion, parts = FUSIONS["concat"](CHANNELS, width=16), maps()
    before, _ = fusion(parts)
    parts[1] = torch.zeros_like(parts[1])
    after, _ = fusion(parts)
    changed = (before != after).any(0).unflatten(0, (3, 16)).any(1)
    assert changed.tolist() == [False, True, False]


def test_gated_embedding_is_a_weighted_mean_of_the_scales() -> None:
    fusion, parts = FUSIONS["gated"](CHANNELS, width=16), maps()
    nn.init.zeros_(fusion.inner.weigh.weight)
    with torch.no_grad():
        fusion.inner.weigh.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    embedding, _ = fusion(parts)
    torch.testing.assert_close(embedding, fusion.inner.bring[1](parts[1]).mean((2, 3)))


def test_gated_weights_depend_on_the_image() -> None:
    fusion = FUSIONS["gated"](CHANNELS, width=16)
    pooled = torch.randn(2, 48)
    weights = fusion.inner.weights(pooled)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert not torch.allclose(weights[0], weights[1])


def test_coarse_maps_reach_the_finest_level_of_fpn() -> None:
    fusion, parts = FUSIONS["fpn"](CHANNELS, width=16), maps()
    _, before = fusion(parts)
    parts[2] = parts[2] + torch.randn_like(parts[2])
    _, after = fusion(parts)
    assert before.shape == (2, 16, 8, 8)
    assert not torch.allclose(before, after)


def test_fpn_takes_maps_whose_sizes_are_no_multiples() -> None:
    odd = [torch.randn(2, c, s, s) for c, s in zip(CHANNELS, (7, 5, 2), strict=True)]
    embedding, fused = FUSIONS["fpn"](CHANNELS, width=16)(odd)
    assert embedding.shape == (2, 16)
    assert fused.shape == (2, 16, 7, 7)


def brought_by(fusion: nn.Module) -> list[torch.Tensor]:
    return [layer(x) for layer, x in zip(fusion.inner.bring, maps(), strict=True)]


def test_attention_pool_weights_sum_to_one_over_all_cells_and_depend_on_the_image() -> None:
    fusion = FUSIONS["attention_pool"](CHANNELS, width=16, heads=2)
    nn.init.normal_(fusion.inner.queries)
    weights = fusion.inner.weights(brought_by(fusion))
    assert weights.shape == (2, 64 + 16 + 4, 2)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 2))
    assert not torch.allclose(weights[0], weights[1], rtol=0.1)
    assert not torch.allclose(weights[..., 0], weights[..., 1], rtol=0.1)


def test_attention_pool_without_a_preference_is_the_mean_of_the_scales() -> None:
    fusion = FUSIONS["attention_pool"](CHANNELS, width=16, heads=2)
    nn.init.zeros_(fusion.inner.queries)
    means = torch.stack([x.mean((2, 3)) for x in brought_by(fusion)]).mean(0)
    torch.testing.assert_close(fusion(maps())[0], means)


def test_attention_pool_by_hand() -> None:
    fusion = FUSIONS["attention_pool"](CHANNELS, width=16, heads=2)
    nn.init.normal_(fusion.inner.queries)
    cells = torch.cat([x.flatten(2).transpose(1, 2) for x in brought_by(fusion)], 1)
    weights = fusion.inner.weights(brought_by(fusion))
    second = (weights[:, :, 1:] * cells[:, :, 8:]).sum(1)
    torch.testing.assert_close(fusion(maps())[0][:, 8:], second)


def test_attention_pool_refuses_a_width_its_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="multiple of 4 and of heads 3"):
        FUSIONS["attention_pool"](CHANNELS, width=64, heads=3)


@pytest.mark.parametrize("name", [name for name in FUSIONS if name != "none"])
def test_fusion_learns_with_every_parameter_from_the_first_step(name: str) -> None:
    fusion = FUSIONS[name](CHANNELS, width=16)
    embedding, _ = fusion(maps())
    (embedding * torch.randn_like(embedding)).sum().backward()
    assert [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []
