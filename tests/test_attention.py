"""AU-aware attention: what the emotion sees must go through the AU maps."""

import pytest
import torch
from torch import Tensor, nn

from trainables.attention import ATTENTIONS, positions

C, A = 16, 4


def feature_map() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, C, 5, 7)


def test_zeroing_the_map_of_an_au_changes_what_the_emotion_sees() -> None:
    attention, x = ATTENTIONS["au_spatial"](C, A), feature_map()
    before = attention(x)
    with torch.no_grad():
        attention.maps.weight[2] = 0
        attention.maps.bias[2] = -1e4  # a mask of 0 everywhere
    after = attention(x)
    assert (after.features - before.features).norm() > 1e-3 * x.norm()
    assert after.au_logits[:, 2].ne(before.au_logits[:, 2]).all()
    kept = [0, 1, 3]
    torch.testing.assert_close(after.au_logits[:, kept], before.au_logits[:, kept])


def test_au_logit_reads_only_where_its_map_is() -> None:
    attention, x = ATTENTIONS["au_spatial"](C, A), feature_map()
    mask = torch.full((1, A, 5, 7), -1e4)
    mask[..., :2, :] = 0.0  # the upper rows

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return mask.expand(len(x), -1, -1, -1)

    attention.maps = Fixed()
    below = x.clone()
    below[:, :, 2:] += 1
    torch.testing.assert_close(attention(x).au_logits, attention(below).au_logits)


def test_au_spatial_feature_by_hand() -> None:
    attention, x = ATTENTIONS["au_spatial"](C, A), feature_map()
    mask = torch.sigmoid(attention.maps(x))[:, 1:2]
    feature = attention.norm((mask * x).sum((2, 3)) / mask.sum((2, 3)))
    logit = feature @ attention.score.weight[1] + attention.score.bias[1]
    torch.testing.assert_close(attention(x).au_logits[:, 1], logit)


def test_what_an_au_says_changes_what_the_emotion_sees() -> None:
    for name in ("au_spatial", "au_cross"):
        attention, x = ATTENTIONS[name](C, A).eval(), feature_map()
        before = attention(x).features
        with torch.no_grad():
            attention.score.bias[0] += 5
        assert not torch.allclose(attention(x).features, before, atol=1e-4)


def test_cross_attention_is_that_of_torch() -> None:
    attention = ATTENTIONS["au_cross"](C, A, width=8, heads=2).eval()
    layer = attention.layers[0]
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        parts = (layer.query, layer.key, layer.value)
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        biases = [layer.query.bias, torch.zeros(8), layer.value.bias]
        reference.in_proj_bias.copy_(torch.cat(biases))
        reference.out_proj.load_state_dict(layer.out.state_dict())
    queries, tokens = torch.randn(3, A, 8), torch.randn(3, 35, 8)
    read, _ = reference(layer.norm_queries(queries), tokens, tokens)
    after = queries + read
    expected = after + layer.mlp(layer.norm_mlp(after))
    torch.testing.assert_close(layer(queries, tokens)[0], expected)


def test_cross_attention_knows_where_a_token_is() -> None:
    attention, x = ATTENTIONS["au_cross"](C, A).eval(), feature_map()
    assert not torch.allclose(attention(x).au_logits, attention(x.flip(3)).au_logits, atol=1e-5)


def test_every_place_has_a_position_of_its_own() -> None:
    codes = positions(7, 5, 16, torch.device("cpu"))
    distances = torch.cdist(codes, codes) + 9 * torch.eye(35)
    assert codes.shape == (35, 16)
    assert distances.min() > 0.1


@pytest.mark.parametrize("layers", [1, 2])
def test_cross_attention_learns_with_every_layer(layers: int) -> None:
    attention = ATTENTIONS["au_cross"](C, A, layers=layers)
    attention(feature_map()).features.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in attention.parameters())


def test_cross_attention_refuses_a_width_its_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="multiple of 4 and of heads 3"):
        ATTENTIONS["au_cross"](C, A, width=128, heads=3)
