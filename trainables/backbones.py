"""Backbones. N images, S pixels a side: (N, 3, S, S) -> three maps [(N, C_i, h_i, w_i)].

Every timm model is a backbone by its timm name; `BACKBONES` holds our own: one made for small
faces, and those of `face_backbones.py`, made for pretrained weights.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath
from torch import Tensor, nn

from trainables.face_backbones import FACE_BACKBONES
from trainables.registry import Registry

BackboneBuilder = Callable[..., nn.Module]  # (drop_path, *, hyper-parameters) -> images to maps
Run = Callable[[nn.Module, Tensor], list[Tensor]]

BACKBONES: Registry[BackboneBuilder] = Registry("backbone")
MAPS = 3


class Backbone(nn.Module):
    """A network without classifier that gives three feature maps, from fine to coarse."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, run: Run, image_size: int) -> None:
        super().__init__()
        self.net = net
        self._run = run
        config = getattr(net, "pretrained_cfg", {})
        for name, usual in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            values = torch.tensor(config.get(name, usual)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        sizes = _dry_run(net, run, image_size)
        self.channels: tuple[int, ...] = tuple(size[0] for size in sizes)
        self.strides: tuple[int, ...] = tuple(round(image_size / size[1]) for size in sizes)

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as `forward` wants them: scaled by channel, then channels last.

        In the other order, scaling takes eight times as long on a CPU.
        """
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def as_pixels(self, values: Tensor) -> Tensor:
        """The way back, to [0, 1]."""
        return (values * self.std + self.mean).clamp(0, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self._run(self.net, images)


def build_backbone(
    name: str,
    image_size: int,
    drop_path: float = 0.0,
    takes_smaller: bool = False,
    **arguments: object,
) -> Backbone:
    """The backbone of that name, with random weights; for smaller images too, where it can.

    Raises LookupError for an unknown name, ValueError for what the network cannot do.
    """
    check_backbone(name, arguments)
    is_own = name in BACKBONES
    build = BACKBONES[name] if is_own else partial(_timm_net, name, image_size, takes_smaller)
    net = build(drop_path, **arguments)
    try:
        return Backbone(net, _call, image_size) if is_own else _timm_backbone(net, image_size)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error) or "it gives no reason"
        raise ValueError(f"backbone '{name}' cannot work at {image_size} px: {reason}") from error


def check_backbone(name: str, arguments: Iterable[str] = ()) -> None:
    """Raise LookupError unless the backbone exists and takes all these hyper-parameters."""
    if name in BACKBONES:
        return BACKBONES.check(name, arguments)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise LookupError(_unknown(architecture, [*BACKBONES, *timm.list_models()]))
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise LookupError(f"unknown weights '{tag}' of {architecture}; known: {', '.join(tags)}")
    if extra := sorted(arguments):
        raise LookupError(f"backbone '{name}' takes no arguments, but got: {', '.join(extra)}")
    return None


def _unknown(name: str, known: Sequence[str]) -> str:
    """What to say of an unknown name when a thousand are known."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f". Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    own = ", ".join(BACKBONES)
    return f"unknown backbone '{name}'; known: {own} and the {len(known)} models of timm{hint}"


def _timm_net(name: str, image_size: int, takes_smaller: bool, drop_path: float) -> nn.Module:
    """The whole network; `img_size` goes to those that take it (transformers, mostly)."""
    asked: dict[str, object] = {"img_size": image_size}
    if takes_smaller:
        asked["dynamic_img_size"] = True
    if drop_path:
        asked["drop_path_rate"] = drop_path
    while True:
        try:
            net: nn.Module = timm.create_model(name, pretrained=False, **asked)
            return net
        except TypeError as error:
            refused = [key for key in asked if f"'{key}'" in str(error)]
            if not refused:
                raise
            if "drop_path_rate" in refused:
                raise ValueError(
                    f"backbone '{name}' has no drop path; set drop_path to 0"
                ) from error
            del asked[refused[0]]


def _timm_backbone(net: Any, image_size: int) -> Backbone:
    """Prune what the three maps do not need: the classifier, its norm, later layers."""
    with torch.no_grad():
        maps = net.eval().forward_intermediates(_probe(image_size), intermediates_only=True)
    indices, is_pyramid = _pick([m.shape[-1] for m in maps])
    net.prune_intermediate_layers(indices, prune_norm=is_pyramid, prune_head=True)
    return Backbone(net, partial(_intermediates, indices=indices, norm=not is_pyramid), image_size)


def _pick(widths: Sequence[int]) -> tuple[list[int], bool]:
    """Which three maps: the last three scales of a pyramid, else blocks spread over the depth."""
    last = {width: index for index, width in enumerate(widths)}  # of each scale
    if len(last) >= MAPS:
        return sorted(last.values())[-MAPS:], True
    if len(widths) < MAPS:
        raise ValueError(f"it gives {len(widths)} feature maps, {MAPS} are needed")
    return [round(len(widths) * (i + 1) / MAPS) - 1 for i in range(MAPS)], False


def _intermediates(net: Any, images: Tensor, indices: list[int], norm: bool) -> list[Tensor]:
    return list(
        net.forward_intermediates(
            images, indices=indices, norm=norm, stop_early=True, intermediates_only=True
        )
    )


def _call(net: nn.Module, images: Tensor) -> list[Tensor]:
    return list(net(images))


def _dry_run(net: nn.Module, run: Run, image_size: int) -> list[tuple[int, int]]:
    """Channels and height of each map; freezes parameters no map depends on (DDP needs that)."""
    net.eval()  # so that no batch statistic moves and no random number is drawn
    maps = run(net, _probe(image_size))
    torch.stack([m.float().mean() for m in maps]).sum().backward()
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
    net.train()
    return [(m.shape[1], m.shape[2]) for m in maps]


def _probe(image_size: int) -> Tensor:
    return torch.linspace(-1, 1, 3 * image_size**2).view(1, 3, image_size, image_size)


for builder in FACE_BACKBONES:
    BACKBONES.register(builder)


# --- our own, for faces of 48 to 96 px: maps at strides 4, 8 and 16 instead of 8, 16 and 32 ------


@BACKBONES.register
def small_resnet(drop_path: float, *, width: int = 16, depth: int = 1) -> nn.Module:
    """A ResNet (He et al. 2016, 1512.03385) of three stages of `depth` blocks, width doubling."""
    return SmallResNet(width, depth, drop_path)


class SmallResNet(nn.Module):
    """See `small_resnet`."""

    def __init__(self, width: int, depth: int, drop_path: float) -> None:
        super().__init__()
        self.stem = _conv_norm(3, width, 3, stride=2)
        rates = [drop_path * k / max(1, MAPS * depth - 1) for k in range(MAPS * depth)]
        stages = []
        for stage in range(MAPS):
            width, blocks = 2 * width, rates[stage * depth : (stage + 1) * depth]
            first = Residual(width // 2, width, 2, blocks[0])
            stages.append(nn.Sequential(first, *(Residual(width, width, 1, r) for r in blocks[1:])))
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = torch.relu(self.stem(images)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Residual(nn.Module):
    """Two convolutions beside a short cut; `rate` of the images take the short cut alone."""

    def __init__(self, width_in: int, width_out: int, stride: int, rate: float) -> None:
        super().__init__()
        self.first = _conv_norm(width_in, width_out, 3, stride)
        self.second = _conv_norm(width_out, width_out, 3)
        self.drop_path = DropPath(rate)
        pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        is_same = stride == 1 and width_in == width_out
        self.short = pool if is_same else nn.Sequential(pool, _conv_norm(width_in, width_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        change = self.drop_path(self.second(torch.relu(self.first(x))))
        return torch.relu(change + self.short(x))


def _conv_norm(width_in: int, width_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(width_out))
