"""Methods of pretraining, by hand: masks, patches, losses, views, the slow average."""

import math

import pytest
import torch
from torch import nn

from trainables.backbones import build_backbone
from trainables.pretraining import masks
from trainables.pretraining.contrastive import (
    Branch,
    Byol,
    byol,
    negative_cosine,
    nt_xent,
    spread,
)
from trainables.pretraining.fit import settle
from trainables.pretraining.mae import (
    MaskedAutoencoder,
    mae,
    masked_mse,
    normalise_patches,
    sine_positions,
)
from trainables.pretraining.masked_conv import MaskedConv, masked_conv, masked_l1
from trainables.pretraining.views import make_view, random_crop, shuffle_pixels

SIZE = 48


def seeded(seed: int = 0) -> torch.Generator:
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 4, size: int = SIZE) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(9))


def autoencoder() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(build_backbone("test_vit", SIZE).net, 1, 32).eval()


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patches", "ratio", "hidden"), [(16, 0.75, 12), (9, 0.6, 5), (4, 0.99, 3), (4, 0.01, 1)]
)
def test_every_image_hides_exactly_the_share_asked_for(patches, ratio, hidden):
    mask = masks.draw_mask(50, patches, ratio, seeded(), torch.zeros(1))
    assert (mask.sum(1) == hidden).all()
    assert (mask.any(0)).all()  # each place is hidden in some image
    assert (~mask).any(0).all()
    again = masks.draw_mask(50, patches, ratio, seeded(), torch.zeros(1))
    assert torch.equal(mask, again)


def test_patches_go_row_by_row_and_back():
    images = pictures(2, 12)
    patches = masks.patchify(images, (4, 6))
    assert patches.shape == (2, 6, 72)
    second_row = images[:, :, 4:8, :6].permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(patches[:, 2], second_row)
    assert torch.equal(masks.unpatchify(patches, (3, 2), (4, 6)), images)


def test_patches_are_those_that_the_transformer_embeds():
    net = build_backbone("test_vit", SIZE).net
    values = pictures()
    weight = net.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
    by_hand = masks.patchify(values, (16, 16)) @ weight.T + net.patch_embed.proj.bias
    assert torch.allclose(net.patch_embed(values).reshape(by_hand.shape), by_hand, atol=1e-5)


def test_pixels_left_over_beyond_the_last_patch_are_not_told():
    assert masks.patchify(pictures(1, 10), (4, 4)).shape == (1, 4, 48)


def test_mask_of_the_pixels():
    mask = torch.tensor([[True, False, False, True]])
    pixels = masks.over_pixels(mask, (2, 2), (1, 2))
    assert pixels.int().tolist() == [[[[1, 1, 0, 0], [0, 0, 1, 1]]]]


# --- masked autoencoder --------------------------------------------------------------------------


def test_encoder_never_sees_a_masked_patch():
    model, values = autoencoder(), pictures()
    mask = masks.draw_mask(4, 9, 0.75, seeded(), values)
    before = model.encode(values, mask)
    assert before.shape == (4, 1 + 2, 64)  # the class token and the two patches seen
    hidden = masks.over_pixels(mask, (3, 3), (16, 16))
    assert torch.equal(model.encode(torch.where(hidden, 7.0, values), mask), before)
    assert not torch.equal(model.encode(torch.where(hidden, values, 7.0), mask), before)


def test_encoder_that_sees_all_is_the_backbone():
    torch.manual_seed(0)
    backbone = build_backbone("test_vit", SIZE).eval()
    model = MaskedAutoencoder(backbone.net, 1, 32).eval()
    values = pictures()
    encoded = model.encode(values, torch.zeros(4, 9, dtype=torch.bool))
    last = backbone(values)[-1].flatten(2).transpose(1, 2)
    assert torch.allclose(encoded[:, 1:], last, atol=1e-5)


def test_decoder_puts_what_is_seen_in_its_place():
    model, values = autoencoder(), pictures(1)
    seen = torch.ones(1, 9, dtype=torch.bool)
    seen[0, 4] = False
    model.blocks = nn.Sequential()  # each token by itself
    made = model(values, seen)
    assert not torch.equal(made[0, 4], model.decode(0 * model.encode(values, seen), seen)[0, 4])
    nothing = model.decode(0 * model.encode(values, seen), seen)
    hidden = seen[0]
    assert torch.equal(made[0, hidden], nothing[0, hidden])


def test_loss_counts_masked_patches_only():
    # errors of 1, 2 and 3 in patches of two pixels; the middle one is seen
    target = torch.zeros(1, 3, 2)
    made = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 0.0]]])
    mask = torch.tensor([[True, False, True]])
    assert masked_mse(made, target, mask).item() == pytest.approx((1 + 4.5) / 2)


def test_pixels_are_normalised_patch_by_patch():
    patches = torch.tensor([[[1.0, 3.0], [10.0, 10.0]]])
    # mean 2, unbiased variance 2; a flat patch stays finite
    expected = torch.tensor([[[-1.0, 1.0], [0.0, 0.0]]]) / math.sqrt(2)
    assert torch.allclose(normalise_patches(patches), expected, atol=1e-5)


def test_target_of_the_autoencoder_is_normalised_unless_asked_not_to_be():
    losses = []
    for flag in (True, False):
        torch.manual_seed(0)
        task = mae(build_backbone("test_vit", SIZE), SIZE, norm_pixels=flag, decoder_width=32)
        low_contrast = 0.5 + 0.01 * pictures()
        losses.append(task.loss(low_contrast, seeded())["loss"].item())
    assert losses[0] == pytest.approx(1, abs=0.7)
    assert losses[1] != pytest.approx(losses[0], abs=0.05)


def test_positions_tell_every_patch_apart():
    positions = sine_positions((3, 4), 16)[0]
    assert positions.shape == (12, 16)
    assert positions[0, :4].tolist() == [0, 0, 0, 0]  # sin 0 of the first row
    assert torch.pdist(positions).min() > 0.1


@pytest.mark.parametrize("name", ["test_resnet", "small_resnet", "test_convnext"])
def test_autoencoder_of_a_convolutional_network_says_what_fits(name):
    with pytest.raises(ValueError, match="plain vision transformers.*take method 'masked_conv'"):
        mae(build_backbone(name, 64), 64)


def test_autoencoder_needs_some_patches():
    with pytest.raises(ValueError, match="take a larger --size"):
        mae(build_backbone("test_vit", 16), 16)


# --- masked convolutions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small_resnet", "test_resnet"])
def test_what_is_hidden_does_not_change_the_reconstruction(name):
    torch.manual_seed(0)
    model = MaskedConv(build_backbone(name, SIZE), SIZE, 8).eval()
    values, mask = pictures(2), masks.draw_mask(2, 36, 0.6, seeded(), torch.zeros(1))
    hidden = masks.over_pixels(mask, (6, 6), (8, 8))
    made = model(values, hidden)
    assert made.shape == values.shape
    assert torch.equal(model(torch.where(hidden, 5.0, values), hidden), made)
    assert not torch.equal(model(torch.where(hidden, values, 5.0), hidden), made)


def test_absolute_error_counts_hidden_pixels_only():
    target = torch.zeros(1, 3, 1, 2)
    made = torch.tensor([[[[1.0, 9.0]], [[2.0, 9.0]], [[3.0, 9.0]]]])
    hidden = torch.tensor([[[[True, False]]]])
    assert masked_l1(made, target, hidden).item() == pytest.approx(2)


def test_patch_must_divide_the_image():
    with pytest.raises(ValueError, match="patch 7 does not divide an image of 48.*one of 2, 3, 4"):
        masked_conv(build_backbone("small_resnet", SIZE), SIZE, patch=7)


def test_probing_a_network_moves_no_statistic():
    backbone = build_backbone("small_resnet", SIZE)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    MaskedConv(backbone, SIZE, 8)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


# --- comparing views -----------------------------------------------------------------------------


def test_nt_xent_by_hand_on_two_pairs():
    # views a, b of the first image, c, d of the second; unit vectors in the plane
    first = torch.tensor([[2.0, 0.0], [0.0, 1.0]])  # a, c: lengths do not count
    second = torch.tensor([[1.0, 0.0], [0.6, 0.8]])  # b, d
    t = 0.5
    cos = {("a", "b"): 1.0, ("a", "c"): 0.0, ("a", "d"): 0.6, ("b", "c"): 0.0, ("b", "d"): 0.6,
           ("c", "d"): 0.8}  # fmt: skip
    cos |= {(y, x): v for (x, y), v in cos.items()}
    partner = {"a": "b", "b": "a", "c": "d", "d": "c"}
    terms = []
    for one, other in partner.items():
        among = sum(math.exp(cos[one, k] / t) for k in "abcd" if k != one)
        terms.append(-math.log(math.exp(cos[one, other] / t) / among))
    assert nt_xent(first, second, t).item() == pytest.approx(sum(terms) / 4, rel=1e-5)


def test_byol_loss_is_the_squared_distance_on_the_sphere():
    made, goal = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert negative_cosine(made, goal).item() == pytest.approx(2 - 2 * 0.8)
    assert negative_cosine(made, goal).item() == pytest.approx(0.6**2 + 0.2**2)


def byol_model() -> Byol:
    torch.manual_seed(0)
    return Byol(Branch(build_backbone("small_resnet", 32), 4), 4)


def test_target_is_an_exponential_average_by_hand():
    model = byol_model()
    weight, slow = (b.projection[0].weight for b in (model.online, model.target))
    assert torch.equal(weight, slow)  # it starts there
    start = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    model.follow(0.9)
    assert torch.allclose(slow, start + 0.1)
    model.follow(0.9)
    assert torch.allclose(slow, start + 0.19)
    assert not slow.requires_grad


def test_momentum_of_the_target_rises_to_one():
    torch.manual_seed(0)
    task = byol(build_backbone("small_resnet", 32), 32, momentum=0.5, dim=4)
    model = task.module
    weight, slow = (b.projection[0].weight for b in (model.online, model.target))
    start = slow.clone()
    with torch.no_grad():
        weight += 1
    task.after_step(1.0)
    assert torch.equal(slow, start)
    task.after_step(0.5)  # halfway: 0.75
    assert torch.allclose(slow, start + 0.25)
    task.after_step(0.0)
    assert torch.allclose(slow, start + 0.25 + 0.5 * 0.75)


def test_byol_target_gets_no_gradient():
    torch.manual_seed(0)
    task = byol(build_backbone("small_resnet", 32), 32, dim=4)
    task.loss(pictures(4, 32), seeded())["loss"].backward()
    assert all(p.grad is None for p in task.module.target.parameters())
    assert all(p.grad is not None for p in task.module.online.projection.parameters())


def test_spread_is_one_on_a_full_sphere_and_none_when_collapsed():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(2000, 32, generator=generator)
    assert spread(full).item() == pytest.approx(1, abs=0.02)
    same = torch.ones(100, 32) + 0.01 * torch.randn(100, 32, generator=generator)
    assert spread(same).item() < 0.05


# --- views ---------------------------------------------------------------------------------------


def test_whole_crop_is_the_image():
    images = pictures()
    assert torch.allclose(random_crop(images, 1.0, seeded()), images, atol=1e-5)


def test_crops_are_never_tighter_than_asked():
    ramp = torch.linspace(0, 1, 64).expand(200, 3, 64, 64)  # brightness tells the column
    crops = random_crop(ramp, 0.5, seeded())
    wide = crops[:, 0, 32, -1] - crops[:, 0, 32, 0]  # share of the width that is seen
    assert wide.min() > math.sqrt(0.5) - 0.03
    assert wide.max() > 0.95
    assert crops[:, 0, 32, 0].max() > 0.2
    assert crops[:, 0, 32, -1].min() < 0.8


@pytest.mark.parametrize("crop", [0.39, 1.2])
def test_tight_crops_are_refused(crop):
    with pytest.raises(ValueError, match="is not within 0.4 to 1: a tighter one shows no expres"):
        make_view(crop, "light")


def test_shuffled_pixels_are_the_same_colours_elsewhere():
    images = pictures(3, 16)
    shuffled = shuffle_pixels(images, seeded())
    assert shuffled.shape == images.shape
    for before, after in zip(images, shuffled, strict=True):
        assert not torch.equal(before, after)
        old = sorted(map(tuple, before.flatten(1).T.tolist()))  # whole pixels, not channels
        assert sorted(map(tuple, after.flatten(1).T.tolist())) == old


def test_normalising_goes_both_ways():
    backbone, images = build_backbone("small_resnet", 32), pictures(2, 32)
    values = backbone.normalised(images)
    assert values[0, 1, 0, 0].item() == pytest.approx((images[0, 1, 0, 0].item() - 0.456) / 0.224)
    assert torch.allclose(backbone.as_pixels(values), images, atol=1e-6)


def test_settled_statistics_are_those_of_whole_images():
    torch.manual_seed(0)
    backbone, images = build_backbone("small_resnet", 32), pictures(8, 32)
    norm = backbone.net.stem[1]
    norm.running_mean.fill_(99)
    settle(backbone, [images[:4], images[4:]])
    out = backbone.net.stem[0](backbone.normalised(images)).mean((0, 2, 3))
    assert torch.allclose(norm.running_mean, out, atol=1e-5)
    assert norm.momentum == 0.1
