"""Backbones: which maps are taken, what is refused, what is left out."""

import pytest
import timm
import torch
from timm.layers import DropPath

from spaces.sprint2 import GENERAL, OF_FACES
from spaces.tiers import NEEDS_WEIGHTS, TIERS
from trainables.backbones import BACKBONES, _pick, build_backbone, check_backbone
from trainables.face_backbones import FACE_BACKBONES


def test_pyramid_gives_its_last_three_scales() -> None:
    assert _pick([32, 16, 16, 8, 4, 4]) == ([2, 3, 5], True)


def test_transformer_gives_three_blocks_spread_over_its_depth() -> None:
    assert _pick([4] * 12) == ([3, 7, 11], False)
    assert _pick([4] * 3) == ([0, 1, 2], False)


def test_too_shallow_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="2 feature maps"):
        _pick([4, 4])


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_no_classifier_is_left(name: str) -> None:
    whole = timm.create_model(name)
    head = set(dict(whole.named_parameters())) - set(
        dict(build_backbone(name, 64).net.named_parameters())
    )
    assert {n for n in head if whole.default_cfg["classifier"] in n}


def test_maps_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", 64).eval()
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet").eval()
    images = torch.randn(2, 3, 64, 64)
    for mine, theirs in zip(
        backbone(images), whole.forward_intermediates(images)[1][-3:], strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_last_map_of_a_transformer_is_its_normed_output() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("test_vit", 64).eval()
    torch.manual_seed(0)
    whole = timm.create_model("test_vit", img_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    tokens = whole.forward_features(images)[:, whole.num_prefix_tokens :]
    torch.testing.assert_close(backbone(images)[-1].flatten(2).transpose(1, 2), tokens)


def test_patches_need_not_divide_the_image() -> None:
    backbone = build_backbone("vit_tiny_patch16_224", 60)
    assert backbone(torch.rand(1, 3, 60, 60))[-1].shape[2:] == (3, 3)


def test_backbone_carries_the_normalisation_it_was_trained_with() -> None:
    assert build_backbone("test_vit", 64).mean.flatten().tolist() == [0.5, 0.5, 0.5]
    mean = build_backbone("mobilenetv3_small_050", 64).mean.flatten().tolist()
    assert mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize("name", ["test_convnext", "small_resnet"])
def test_drop_path_goes_to_networks_that_have_it(name: str) -> None:
    modules = build_backbone(name, 64, 0.3).modules()
    rates = [m.drop_prob for m in modules if isinstance(m, DropPath)]
    assert max(rates) == pytest.approx(0.3)


def test_drop_path_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="ghostnet_050' has no drop path"):
        build_backbone("ghostnet_050", 64, 0.1)


def test_unknown_name_is_told_briefly_with_what_is_near() -> None:
    with pytest.raises(LookupError, match="Did you mean 'resnet50'") as caught:
        check_backbone("resnett50")
    assert len(str(caught.value)) < 200


def test_unknown_pretraining_is_refused() -> None:
    check_backbone("resnet50.a1_in1k")
    with pytest.raises(
        LookupError, match="unknown weights 'a1_in2k' of resnet50; known: .*a1_in1k"
    ):
        check_backbone("resnet50.a1_in2k")


def test_unknown_argument_is_refused() -> None:
    with pytest.raises(LookupError, match="takes no arguments, but got: width"):
        check_backbone("test_vit", ["width"])
    with pytest.raises(LookupError, match="Did you mean 'width'"):
        check_backbone("small_resnet", ["widht"])


def test_size_of_small_resnet_is_an_argument() -> None:
    wide = build_backbone("small_resnet", 64, width=8, depth=2)
    assert wide.channels == (16, 32, 64)
    assert wide.strides == (4, 8, 16)
    assert [len(stage) for stage in wide.net.stages] == [2, 2, 2]


def test_image_too_small_for_the_network_is_told() -> None:
    with pytest.raises(ValueError, match="'inception_v3' cannot work at 64 px"):
        build_backbone("inception_v3", 64)


@pytest.mark.parametrize("tier", TIERS)
def test_every_network_of_a_tier_exists_in_the_installed_timm(tier: str) -> None:
    for name in (*TIERS[tier].backbones.values(), *TIERS[tier].extra):
        check_backbone(name)  # the pretraining after the dot included


@pytest.mark.parametrize("tier", ["mid", "large"])
def test_every_family_has_a_pretrained_network_in_the_larger_tiers(tier: str) -> None:
    networks = TIERS[tier].backbones
    assert set(networks) == {*GENERAL, *OF_FACES}
    assert all("." in networks[family] for family in GENERAL)
    assert {networks[family] for family in OF_FACES} <= NEEDS_WEIGHTS


def test_networks_that_need_weights_are_those_trained_on_faces() -> None:
    assert {builder.__name__ for builder in FACE_BACKBONES} == NEEDS_WEIGHTS
    assert set(BACKBONES) >= NEEDS_WEIGHTS


def test_hybrid_transformer_gives_three_scales() -> None:
    assert build_backbone("tiny_vit_5m_224", 64).strides == (8, 16, 32)


def test_dinov2_works_at_sizes_its_patches_do_not_divide() -> None:
    backbone = build_backbone("vit_small_patch14_dinov2.lvd142m", 64)
    assert backbone.strides == (16, 16, 16)
    assert backbone(torch.rand(1, 3, 64, 64))[0].shape[2:] == (4, 4)
