"""Face-pretrained backbones: the published networks, tensor names and normalisations.

The published weights are not at hand. What is proven: each network, with weights filled by a rule,
gives the values that the publisher's own code gave for the same weights (facenet-pytorch 2.6.0, and
insightface's arcface_torch/backbones/iresnet.py, both run on 2026-11-27; no difference in any bit),
and files under the published names load whole.
"""

import hashlib
import os
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from trainables import pickled
from trainables.backbones import BACKBONES, build_backbone
from trainables.weights import load_weights, read_state

FACES = ("inception_resnet_v1", "iresnet50", "hsemotion_b0")
PUBLISHED = {  # pixels, digest of all tensor names and shapes, first channel means, embedding
    "inception_resnet_v1": (
        160,
        "7a1c1ff0dc79",
        (2.0242, 2.7357, 2.3723, 1.447, -0.3799, -0.9705),
        {"last_linear.weight": (512, 1792), "last_bn.weight": (512,), "logits.weight": (8, 512)},
    ),
    "iresnet50": (
        112,
        "e413d950ccd5",
        (1.8249, 1.0782, -2.248, -0.9601, 2.0404, 0.4409),
        {"fc.weight": (8, 25088), "fc.bias": (8,), "features.weight": (8,)},
    ),
}
NAMES = {  # some of them spelled out
    "inception_resnet_v1": (
        "conv2d_1a.conv.weight",
        "repeat_1.4.branch2.2.bn.running_mean",
        "mixed_6a.branch0.conv.weight",
        "repeat_2.9.branch1.1.conv.weight",
        "mixed_7a.branch2.2.bn.weight",
        "block8.conv2d.bias",
    ),
    "iresnet50": (
        "conv1.weight",
        "prelu.weight",
        "layer1.0.downsample.0.weight",
        "layer3.13.prelu.weight",
        "layer4.2.bn3.running_var",
        "bn2.bias",
    ),
}


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by a rule that any machine can repeat; matrices keep the scale of activations."""
    out = {}
    for i, (name, value) in enumerate(sorted(state.items())):
        if not value.is_floating_point():
            out[name] = value
            continue
        wave = torch.sin(1.7 * torch.arange(value.numel(), dtype=torch.float64) + i)
        wave = wave.float().view(value.shape)
        if value.ndim > 1:
            out[name] = wave * (2 / value[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            out[name] = 1 + 0.2 * wave
        elif name.endswith("prelu.weight"):
            out[name] = 0.25 + 0.1 * wave
        elif name.endswith((".bias", "running_mean")):
            out[name] = 0.1 * wave
        else:
            out[name] = 1 + 0.1 * wave
    return out


def digest(state: dict[str, Tensor]) -> str:
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_gives_the_published_values(name: str, tmp_path: Path) -> None:
    pixels, names, means, embedding = PUBLISHED[name]
    backbone = build_backbone(name, pixels).eval()
    state = filled(backbone.net.state_dict())
    assert digest(state) == names
    assert set(NAMES[name]) <= set(state)
    torch.save({**state, **{k: torch.zeros(s) for k, s in embedding.items()}}, tmp_path / "x.pt")
    report = load_weights(backbone, name, str(tmp_path / "x.pt"))
    assert report.fraction == 1
    assert report.missing == ()
    assert set(report.unexpected) == set(embedding)
    pixel = torch.sin(0.37 * torch.arange(3 * pixels**2, dtype=torch.float64)).float()
    with torch.no_grad():
        last = backbone(pixel.view(1, 3, pixels, pixels))[-1]
    found = last.mean((2, 3))[0, :6].tolist()
    assert found == pytest.approx(means, abs=2e-3)


@pytest.mark.parametrize("name", ["b0", "b2"])
def test_hsemotion_gives_the_maps_of_the_network_that_was_trained(name: str) -> None:
    whole = timm.create_model(f"tf_efficientnet_{name}", num_classes=8).eval()
    backbone = build_backbone(f"hsemotion_{name}", 64).eval()
    backbone.net.load_state_dict(whole.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps, theirs = backbone(images), whole.forward_intermediates(images)[1][-3:]
    assert all(torch.equal(a, b) for a, b in zip(maps, theirs, strict=True))


@pytest.mark.parametrize("form", ["network", "state"])
def test_hsemotion_files_are_read_without_their_code(form: str, tmp_path: Path) -> None:
    # their files hold the network itself, its classifier in a Sequential, or its state alone
    whole = timm.create_model("tf_efficientnet_b0", num_classes=8)
    whole.classifier = nn.Sequential(nn.Linear(1280, 8))
    path = tmp_path / "hsemotion_b0.pt"
    torch.save(whole if form == "network" else whole.state_dict(), path)
    state = read_state(path)
    assert all(torch.equal(state[k], v) for k, v in whole.state_dict().items())
    backbone = build_backbone("hsemotion_b0", 64)
    report = load_weights(backbone, "hsemotion_b0", str(tmp_path))  # found by name in the folder
    assert report.fraction == 1
    assert "classifier.0.weight" in report.unexpected
    own = backbone.net.state_dict()
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in own.items())


class Trap:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickled_network_is_not_run(tmp_path: Path) -> None:
    net = nn.Linear(2, 3)
    net.trap = Trap(tmp_path / "sprung")
    torch.save(net, tmp_path / "net.pt")
    assert torch.equal(read_state(tmp_path / "net.pt")["weight"], net.weight)
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "net.pt", weights_only=False)  # the trap works
    assert (tmp_path / "sprung").exists()


def test_a_pickled_network_cannot_leave_a_mark_on_what_makes_tensors() -> None:
    maker = pickled.Maker(torch.zeros)
    maker.__setstate__({"_make": print, "mark": 1})
    assert torch.equal(maker(2), torch.zeros(2))
    assert not hasattr(maker, "mark")


def test_pickled_tensors_keep_their_strides_and_types(tmp_path: Path) -> None:
    net = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last).half()
    net.register_buffer("part", torch.arange(10)[3:7])
    torch.save(net, tmp_path / "net.pt")
    state = read_state(tmp_path / "net.pt")
    assert {k: v.dtype for k, v in state.items()} == {
        k: v.dtype for k, v in net.state_dict().items()
    }
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())


def test_each_face_network_normalises_as_it_was_trained() -> None:
    white, black = {}, {}
    for name in FACES:
        backbone = build_backbone(name, 96)
        white[name], black[name] = (
            backbone.normalised(torch.full((1, 3, 1, 1), value)).flatten().tolist()
            for value in (1.0, 0.0)
        )
    assert white["iresnet50"] == pytest.approx(3 * [1.0])
    assert black["iresnet50"] == pytest.approx(3 * [-1.0])
    assert white["inception_resnet_v1"] == pytest.approx(3 * [127.5 / 128])
    assert black["inception_resnet_v1"] == pytest.approx(3 * [-127.5 / 128])
    assert black["hsemotion_b0"] == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


def test_image_too_small_for_facenet_is_told() -> None:
    assert build_backbone("inception_resnet_v1", 75).strides == (11, 25, 75)
    with pytest.raises(ValueError, match="'inception_resnet_v1' cannot work at 74 px"):
        build_backbone("inception_resnet_v1", 74)


def test_drop_path_rises_with_depth_to_what_was_asked() -> None:
    for name in ("inception_resnet_v1", "iresnet50"):
        modules = BACKBONES[name](0.2).modules()
        rates = [m.drop_prob for m in modules if isinstance(m, DropPath)]
        assert rates == sorted(rates)
        assert (rates[0], rates[-1]) == (0, pytest.approx(0.2))
