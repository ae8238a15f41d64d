"""Backbones that others have trained on faces: images (N, 3, S, S) -> three maps, fine to coarse.

Each carries the input normalisation it was trained with, and the tensor names of the published
files, so that these load as they are (`--weights FILE`, or a folder of <backbone>.pt); the layers
after the last map (embedding, classifier) are left out. Trained for identity, ArcFace and FaceNet
suppress expression in their last layers: attention or fusion on earlier maps may serve better.
"""

from itertools import pairwise
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath
from torch import Tensor, nn

Kernel = int | tuple[int, int]
Conv = tuple[int, Kernel, int]  # width, kernel, stride
Branches = tuple[tuple[Conv, ...], ...]  # side by side; of each, its convolutions in a row
HALF = (0.5, 0.5, 0.5)
FIXED_STD = 128 / 255  # (x - 127.5) / 128 on bytes is (x - 1/2) / FIXED_STD on [0, 1]


def inception_resnet_v1(drop_path: float) -> nn.Module:
    """FaceNet's Inception-ResNet-v1 (Schroff et al. 2015, 1503.03832; Szegedy et al. 2017,
    1602.07261) as in facenet-pytorch 2.6.0, whose file is trained on VGGFace2 at 160 px."""
    return _trained_on(HALF, 3 * (FIXED_STD,), InceptionResnetV1(drop_path))


def iresnet50(drop_path: float) -> nn.Module:
    """ArcFace's IR-50 (Deng et al. 2019, 1801.07698; Duta et al. 2020, 2004.04989) as `iresnet50`
    of insightface's arcface_torch, trained at 112 px: twice as fine as a ResNet, and as costly."""
    return _trained_on(HALF, HALF, IResNet((3, 4, 14, 3), drop_path))


def hsemotion_b0(drop_path: float) -> nn.Module:
    """HSEmotion's EfficientNet-B0 (Savchenko 2021, 2103.17107), trained on the identities of
    VGGFace2, then on the emotions of AffectNet, at 224 px."""
    return _hsemotion("tf_efficientnet_b0", drop_path)


def hsemotion_b2(drop_path: float) -> nn.Module:
    """HSEmotion's EfficientNet-B2 (Savchenko 2021, 2103.17107), trained likewise, at 260 px."""
    return _hsemotion("tf_efficientnet_b2", drop_path)


FACE_BACKBONES = (inception_resnet_v1, iresnet50, hsemotion_b0, hsemotion_b2)


def _hsemotion(architecture: str, drop_path: float) -> nn.Module:
    net = timm.create_model(
        architecture, features_only=True, out_indices=(2, 3, 4), drop_path_rate=drop_path
    )
    return _trained_on(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, net)


def _trained_on(mean: tuple[float, ...], std: tuple[float, ...], net: Any) -> nn.Module:
    """The network, saying in timm's way how RGB in [0, 1] is normalised for it."""
    net.pretrained_cfg = {"mean": mean, "std": std}
    normalised: nn.Module = net
    return normalised


# --- FaceNet -------------------------------------------------------------------------------------


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self, width_in: int, width: int, kernel: Kernel, stride: int = 1, is_padded: bool = False
    ) -> None:
        super().__init__()
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (high // 2, wide // 2) if is_padded else (0, 0)
        self.conv = nn.Conv2d(width_in, width, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)  # of the TensorFlow original

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Reduction(nn.Module):
    """Half the scale: branches of stride 2 and a maximum, side by side."""

    def __init__(self, width: int, branches: Branches) -> None:
        super().__init__()
        add_branches(self, width, branches)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*run_branches(self, x), self.pool(x)], 1)


class InceptionBlock(nn.Module):
    """x + scale * the branches of x, brought to its width; then ReLU, but for the very last."""

    def __init__(
        self, width: int, branches: Branches, scale: float, drop: float, has_relu: bool = True
    ) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(add_branches(self, width, branches), width, 1)
        self.scale, self.drop_path = scale, DropPath(drop)
        self.last = nn.ReLU() if has_relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv2d(torch.cat(run_branches(self, x), 1))
        out: Tensor = self.last(x + self.drop_path(self.scale * change))
        return out


def add_branches(module: nn.Module, width_in: int, branches: Branches) -> int:
    """Give the module its branch0, branch1, ...; their widths together."""
    for i, convs in enumerate(branches):
        module.add_module(f"branch{i}", _branch(width_in, convs))
    return sum(convs[-1][0] for convs in branches)


def run_branches(module: nn.Module, x: Tensor) -> list[Tensor]:
    """What each of a module's branches makes of x."""
    return [branch(x) for name, branch in module.named_children() if name.startswith("branch")]


def _branch(width_in: int, convs: tuple[Conv, ...]) -> nn.Module:
    """Convolutions in a row; those of stride 2 have no padding."""
    widths = (width_in, *(width for width, _, _ in convs))
    layers = [
        ConvNorm(before, width, kernel, stride, is_padded=stride == 1)
        for (before, width), (_, kernel, stride) in zip(pairwise(widths), convs, strict=True)
    ]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


BLOCK_35: Branches = (
    ((32, 1, 1),),
    ((32, 1, 1), (32, 3, 1)),
    ((32, 1, 1), (32, 3, 1), (32, 3, 1)),
)
BLOCK_17: Branches = (((128, 1, 1),), ((128, 1, 1), (128, (1, 7), 1), (128, (7, 1), 1)))
BLOCK_8: Branches = (((192, 1, 1),), ((192, 1, 1), (192, (1, 3), 1), (192, (3, 1), 1)))
MIXED_6: Branches = (((384, 3, 2),), ((192, 1, 1), (192, 3, 1), (256, 3, 2)))
MIXED_7: Branches = (
    ((256, 1, 1), (384, 3, 2)),
    ((256, 1, 1), (256, 3, 2)),
    ((256, 1, 1), (256, 3, 1), (256, 3, 2)),
)


class InceptionResnetV1(nn.Module):
    """See `inception_resnet_v1`; no padding in the stem, so that 75 px is the least it can see."""

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.conv2d_1a = ConvNorm(3, 32, 3, 2)
        self.conv2d_2a = ConvNorm(32, 32, 3)
        self.conv2d_2b = ConvNorm(32, 64, 3, is_padded=True)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvNorm(64, 80, 1)
        self.conv2d_4a = ConvNorm(80, 192, 3)
        self.conv2d_4b = ConvNorm(192, 256, 3, 2)
        drops = [drop_path * k / 20 for k in range(21)]
        self.repeat_1 = _repeat(256, BLOCK_35, 0.17, drops[:5])
        self.mixed_6a = Reduction(256, MIXED_6)
        self.repeat_2 = _repeat(896, BLOCK_17, 0.10, drops[5:15])
        self.mixed_7a = Reduction(896, MIXED_7)
        self.repeat_3 = _repeat(1792, BLOCK_8, 0.20, drops[15:20])
        self.block8 = InceptionBlock(1792, BLOCK_8, 1.0, drops[20], has_relu=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(images)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        fine = self.repeat_1(x)
        middle = self.repeat_2(self.mixed_6a(fine))
        return [fine, middle, self.block8(self.repeat_3(self.mixed_7a(middle)))]


def _repeat(width: int, branches: Branches, scale: float, drops: list[float]) -> nn.Sequential:
    return nn.Sequential(*(InceptionBlock(width, branches, scale, drop) for drop in drops))


# --- ArcFace -------------------------------------------------------------------------------------


class IResNet(nn.Module):
    """See `iresnet50`: a stem of stride 1, then four stages that halve the scale; the last three
    are the maps, the coarsest after its batch norm."""

    def __init__(self, depths: tuple[int, int, int, int], drop_path: float) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = _conv3(3, 64), nn.BatchNorm2d(64), nn.PReLU(64)
        total, done, width_in = sum(depths), 0, 64
        for stage, depth in enumerate(depths):
            width, blocks = 64 << stage, []
            for k in range(depth):
                drop = drop_path * (done + k) / (total - 1)
                blocks.append(IBlock(width if k else width_in, width, 1 if k else 2, drop))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            done, width_in = done + depth, width
        self.bn2 = nn.BatchNorm2d(width_in)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.prelu(self.bn1(self.conv1(images))), []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return [*maps[1:3], self.bn2(x)]


class IBlock(nn.Module):
    """Batch norm before the first convolution and after the second, PReLU between them only."""

    def __init__(self, width_in: int, width: int, stride: int, drop: float) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(width_in), _conv3(width_in, width)
        self.bn2, self.prelu = nn.BatchNorm2d(width), nn.PReLU(width)
        self.conv2, self.bn3 = _conv3(width, width, stride), nn.BatchNorm2d(width)
        self.drop_path = DropPath(drop)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            short = nn.Conv2d(width_in, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(short, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
        out: Tensor = self.drop_path(self.bn3(change)) + self.downsample(x)
        return out


def _conv3(width_in: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
