"""Pretrained weights are tried before a search, and never silently random."""

import pytest
import torch
from safetensors.torch import save_file

from search.pretrained import fit_to_weights, weights_path
from spaces.space import Choice, Space
from trainables.backbones import build_backbone

SPACE = Space("two", {"backbone": Choice(("test_resnet", "small_resnet"), "small_resnet")})


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "test_resnet.safetensors"
    save_file(build_backbone("test_resnet", 48).net.state_dict(), path)
    return path


def test_backbones_that_the_file_does_not_fit_are_left_out_and_named(file) -> None:
    space, notes = fit_to_weights(SPACE, str(file), 48)
    assert space.settings["backbone"] == "test_resnet"
    assert "test_resnet: weights from" in notes[0]
    assert "100.0%" in notes[0]
    assert notes[1].startswith("small_resnet is left out")


def test_a_folder_is_searched_by_the_backbones_name(file) -> None:
    space, notes = fit_to_weights(SPACE, str(file.parent), 48)
    assert space.settings["backbone"] == "test_resnet"
    assert "small_resnet.safetensors" in notes[1]


def test_weights_that_fit_nothing_are_refused_with_every_reason(tmp_path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match="fit no backbone of space 'two': test_resnet: .*small_resnet: "
    ):
        fit_to_weights(SPACE, str(tmp_path / "x.safetensors"), 48)


def test_from_scratch_nothing_is_tried() -> None:
    assert fit_to_weights(SPACE, "none", 48) == (SPACE, [])


def test_face_networks_are_left_out_without_their_weights() -> None:
    names = ("test_resnet", "small_resnet", "iresnet50", "hsemotion_b0")
    space = Space("faces", {"backbone": Choice(names, "test_resnet")})
    fitted, notes = fit_to_weights(space, "none", 48)
    assert fitted.settings["backbone"].options == ("test_resnet", "small_resnet")
    assert notes[0].startswith("iresnet50, hsemotion_b0: left out")
    asked = space.without("backbone", names[:2])
    assert fit_to_weights(asked, "none", 48) == (asked, [])


def test_a_reason_for_all_is_told_once(tmp_path) -> None:
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="test_resnet, small_resnet: '.*' is no file") as refusal:
        fit_to_weights(SPACE, str(tmp_path / "x.pth"), 48)
    assert str(refusal.value).count("x.pth") == 2
    assert "weights_only" not in str(refusal.value)  # torch would have us trust it


def test_a_folder_without_weights_of_a_backbone_says_what_it_holds(tmp_path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds weights\.safetensors: name a file itself"):
        fit_to_weights(SPACE, str(tmp_path), 48)
    with pytest.raises(FileNotFoundError, match="no weights at ''"):
        weights_path("")
