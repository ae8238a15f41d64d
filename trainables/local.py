"""The local branch. N batch, B boxes, C channels, D embedding.

A feature map (N, C, h, w) and boxes (N, B, 4), as x0, y0, x1, y1 in shares of the side, give what
is added to the embedding (N, D). Global and local features together: Zhao et al. 2021 (MA-Net,
10.1109/TIP.2021.3093397); regions pooled from the map as in Girshick 2015 (1504.08083), by He et
al. 2017 (1703.06870). Boxes come from the AU region table (methods 3.4), for aligned faces; in a
batch they move with the pixels (`augment.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from trainables.config import TrialConfig
from trainables.data.tables import box_around
from trainables.device import constant
from trainables.registry import Registry

GATE = 0.1  # as that of attention: near identity at the start
CELLS = 3  # of a box, a side
EYES, NOSE, MOUTH, CHIN = (1, 2, 5, 7), (9, 11), (10, 12, 15, 16, 20, 25), (17,)  # by their AUs


@dataclass(frozen=True)
class Local:
    """Which boxes a branch looks at, and how."""

    boxes: Tensor  # (B, 4); none, and there is no branch
    jitter: float = 0.0  # the most that a box is moved in training, as a share of the side
    drop: float = 0.0  # chance in training that a box is not seen
    width: int = 0  # of what is read of a box


LocalBuilder = Callable[..., Local]  # (seed, *, hyper-parameters)

LOCALS: Registry[LocalBuilder] = Registry("local branch")


@LOCALS.register
def none_(seed: int) -> Local:
    """No local branch."""
    return Local(torch.zeros(0, 4))


@LOCALS.register
def face(
    seed: int, *, boxes: int = 3, jitter: float = 0.05, drop: float = 0.1, width: int = 64
) -> Local:
    """Boxes on an aligned face: eyes, nose and mouth, or 5 with each eye apart and the chin."""
    return Local(_face_boxes(boxes), jitter, drop, width)


@LOCALS.register
def anywhere(
    seed: int, *, boxes: int = 3, jitter: float = 0.05, drop: float = 0.1, width: int = 64
) -> Local:
    """The control: boxes of the same sizes at places that the trial's seed decides."""
    sizes = _face_boxes(boxes)[:, 2:] - _face_boxes(boxes)[:, :2]
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(len(sizes), 2, generator=generator) * (1 - sizes)
    return Local(torch.cat([corner, corner + sizes], 1), jitter, drop, width)


def local_of(config: TrialConfig) -> Local:
    """The local branch that a trial asks for, the same wherever it is asked."""
    return LOCALS[config.local.name](config.seed, **config.local.args)


def _face_boxes(count: int) -> Tensor:
    if count not in (3, 5):
        raise ValueError(f"a local branch has 3 or 5 boxes, not {count}")
    nose, mouth = box_around(NOSE), box_around(MOUTH)
    if count == 3:
        return torch.tensor([box_around(EYES), nose, mouth])
    return torch.tensor(
        [box_around(EYES, "R"), box_around(EYES, "L"), nose, mouth, box_around(CHIN)]
    )


class LocalBranch(nn.Module):
    """A small addition to the embedding from the boxes of a map."""

    boxes: Tensor

    def __init__(self, local: Local, channels: int, dim: int) -> None:
        super().__init__()
        self.jitter, self.drop = local.jitter, local.drop
        self.register_buffer("boxes", local.boxes, persistent=False)  # the configuration knows them
        self.read = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, local.width), nn.GELU()
        )
        self.project = nn.Linear(len(local.boxes) * local.width, dim)
        self.gate = nn.Parameter(torch.tensor([GATE]))

    def forward(self, features: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Of images that nothing has moved, the boxes are those of an aligned face."""
        if boxes is None:
            boxes = self.boxes.expand(features.shape[0], -1, -1)  # len() would be a constant
        if self.training:
            boxes = shaken(boxes, self.jitter)
        cells = pool_boxes(features, boxes, CELLS).flatten(3).transpose(2, 3)
        seen = self.read(cells).mean(2)  # (N, B, width)
        if self.training and self.drop:
            seen = functional.dropout(seen.new_ones(*seen.shape[:2], 1), self.drop) * seen
        added: Tensor = self.gate * self.project(seen.flatten(1))
        return added


def pool_boxes(features: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """(N, B, C, cells, cells): means of the map over a grid of cells in each box."""
    n, _, height, width = features.shape
    scaled = boxes.float() * constant([width, height, width, height], boxes)
    owner = torch.arange(n, device=boxes.device).repeat_interleave(boxes.shape[1])
    places = torch.cat([owner[:, None], scaled.flatten(0, 1)], 1)
    found = roi_align(features.float(), places, cells, sampling_ratio=2, aligned=True)
    cells_of: Tensor = found.unflatten(0, boxes.shape[:2]).to(features.dtype)
    return cells_of


def shaken(boxes: Tensor, jitter: float) -> Tensor:
    """The boxes, each moved by up to `jitter` along both axes, but not out of the image."""
    draws = torch.rand(*boxes.shape[:2], 2, device=boxes.device)
    moves = jitter * (2 * draws - 1)
    moves = torch.minimum(torch.maximum(moves, -boxes[..., :2]), 1 - boxes[..., 2:])
    return boxes + moves.repeat(1, 1, 2)
