"""Attention by hand; of the AU-aware kinds, what the emotion sees must go through the AU maps."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

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


# --- gates by hand: what a module gates by, inside the residual that keeps it near identity -------


def inner_of(name: str, **arguments: int) -> nn.Module:
    torch.manual_seed(0)
    return ATTENTIONS[name](C, A, **arguments).eval().inner


def test_residual_around_a_gate_by_hand() -> None:
    attention, x = ATTENTIONS["se"](C, A), feature_map()
    expected = 0.9 * x + 0.1 * attention.inner(x) / 0.5
    torch.testing.assert_close(attention(x).features, expected)


def test_squeeze_excitation_by_hand() -> None:
    se, x = inner_of("se", reduction=4), feature_map()
    first, second = (layer.weight.flatten(1) for layer in (se.fc1, se.fc2))
    assert first.shape[1] == C
    squeezed = torch.relu(x.mean((2, 3)) @ first.T + se.fc1.bias)
    gates = torch.sigmoid(squeezed @ second.T + se.fc2.bias)
    torch.testing.assert_close(se(x), x * gates[:, :, None, None])


@pytest.mark.parametrize("reduction", [4, 8, 16])
def test_reduction_sets_the_width_of_the_bottleneck(reduction: int) -> None:
    widths = [
        ATTENTIONS["se"](256, A, reduction=reduction).inner.fc1.out_channels,
        ATTENTIONS["cbam"](256, A, reduction=reduction).inner.channel.fc1.out_channels,
        ATTENTIONS["gather_excite"](256, A, reduction=reduction).inner.excite[0].out_channels,
    ]
    assert widths == 3 * [256 // reduction]


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (64, 3), (128, 5), (512, 5), (2048, 7)])
def test_eca_kernel_follows_from_the_channels(channels: int, kernel: int) -> None:
    # |log2(C) / 2 + 1 / 2|, the next odd number up (their equation 12), 3 at least
    assert ATTENTIONS["eca"](channels, A).inner.conv.kernel_size == (kernel,)
    assert ATTENTIONS["eca"](channels, A, kernel=9).inner.conv.kernel_size == (9,)


def test_eca_by_hand() -> None:
    eca, x = inner_of("eca"), feature_map()
    padded = functional.pad(x.mean((2, 3)), (1, 1))
    weight = eca.conv.weight.flatten()
    gates = torch.sigmoid(sum(weight[k] * padded[:, k : k + C] for k in range(3)))
    torch.testing.assert_close(eca(x), x * gates[:, :, None, None])


def test_cbam_gates_channels_then_places() -> None:
    cbam, x = inner_of("cbam", kernel=3), feature_map()
    channel, spatial = cbam.channel, cbam.spatial
    pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
    gated = x * torch.sigmoid(sum(channel.fc2(torch.relu(channel.fc1(p))) for p in pooled))
    seen = torch.cat([gated.mean(1, keepdim=True), gated.amax(1, keepdim=True)], 1)
    torch.testing.assert_close(cbam(x), gated * torch.sigmoid(spatial.conv(seen)))


def test_coordinate_attention_pools_rows_and_columns_apart() -> None:
    coordinate, x = inner_of("coordinate"), feature_map()

    def squeeze(means: Tensor) -> Tensor:
        return coordinate.act(coordinate.bn1(coordinate.conv1(means)))

    by_row = torch.sigmoid(coordinate.conv_h(squeeze(x.mean(3, keepdim=True))))
    by_column = torch.sigmoid(coordinate.conv_w(squeeze(x.mean(2, keepdim=True))))
    assert (by_row.shape[2:], by_column.shape[2:]) == ((5, 1), (1, 7))
    torch.testing.assert_close(coordinate(x), x * by_row * by_column)


def test_gather_excite_over_the_whole_map_is_squeeze_excitation() -> None:
    se, ge = inner_of("se", reduction=2), inner_of("gather_excite", extent=0, reduction=2)
    with torch.no_grad():
        for to, source in ((ge.excite[0], se.fc1), (ge.excite[2], se.fc2)):
            to.weight.copy_(source.weight)
            to.bias.copy_(source.bias)
    torch.testing.assert_close(ge(feature_map()), se(feature_map()))


def test_gather_excite_gathers_the_means_of_neighbourhoods() -> None:
    ge, x = inner_of("gather_excite", extent=2), feature_map()
    gathered = ge.gather(x)
    assert gathered.shape[2:] == (3, 4)
    torch.testing.assert_close(gathered[:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(gathered[:, :, 1, 1], x[:, :, 1:4, 1:4].mean((2, 3)))
    gates = functional.interpolate(torch.sigmoid(ge.excite(gathered)), size=(5, 7))
    torch.testing.assert_close(ge(x), x * gates)


def test_gather_excite_works_on_maps_smaller_than_its_windows() -> None:
    x = torch.randn(2, C, 2, 2)
    assert inner_of("gather_excite", extent=8)(x).shape == x.shape
