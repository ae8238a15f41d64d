"""The training images of a trial as batches. N images, K classes, A action units, S pixels, R map
size, B boxes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from trainables.augment import AUGMENTS, Batch, Transform
from trainables.config import TrialConfig
from trainables.data import aus
from trainables.data.bundle import DataBundle
from trainables.data.tables import region_maps
from trainables.device import bring, streamed
from trainables.local import local_of
from trainables.mixing import mixing
from trainables.targets import training_targets

CARRIED = 1024  # images at a time to the device
REGION_SIZE = 16  # region maps are supervision for feature maps, which are no finer


@dataclass(frozen=True)
class Feed:
    """Training images as batches: whole on the device when they fit, else from the memory map."""

    images: Tensor | NDArray[np.uint8]  # (N, 3, S, S): on the device, or memory-mapped
    targets: Tensor  # (N, K)
    aus: Tensor  # (N, A)
    regions: Tensor | None  # (A, R, R), the same template for every image
    boxes: Tensor | None  # (B, 4), likewise
    mirror: Tensor | None  # (A,) which AU each becomes in a mirror, where sides are kept
    augment: Transform
    mixing: Callable[[float], Transform]  # by progress
    batch_size: int
    device: torch.device
    size: int = 0  # to which images are made smaller; 0: as they are

    def batches(
        self, order: NDArray[np.int64], generator: Generator, progress: float = 0.0
    ) -> Iterator[Batch]:
        """The images in this order, augmented; a last batch of one is left out (batch norm)."""
        mix, size = self.mixing(progress), self.batch_size
        pieces = [order[at : at + size] for at in range(0, len(order), size)]
        pieces = [rows for rows in pieces if len(rows) > 1]
        places = [bring(torch.from_numpy(rows), self.device) for rows in pieces]
        for at, images in zip(places, self._images(pieces, places), strict=True):
            regions, boxes = (
                None if template is None else template.expand(len(at), *template.shape)
                for template in (self.regions, self.boxes)
            )
            pixels = self._resized(images.float().div_(255))
            batch = Batch(pixels, self.targets[at], self.aus[at], regions, boxes, self.mirror)
            yield mix(self.augment(batch, generator), generator)

    def _resized(self, pixels: Tensor) -> Tensor:
        if self.size in (0, pixels.shape[-1]):
            return pixels
        small = functional.interpolate(pixels, (self.size,) * 2, mode="bilinear", antialias=True)
        return small.clamp(0, 1)

    def _images(
        self, pieces: Sequence[NDArray[np.int64]], places: Sequence[Tensor]
    ) -> Iterator[Tensor]:
        """uint8 images (N, 3, S, S) on the device, batch by batch; `places` are `pieces` there."""
        if isinstance(self.images, Tensor):
            return map(self.images.__getitem__, places)
        return streamed(self.images, pieces, self.device)


def on_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The images there, brought piece by piece: the host may have no room for them all."""
    out = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), CARRIED):
        piece = np.array(images[start : start + CARRIED])
        out[start : start + CARRIED] = torch.from_numpy(piece)
    return out


def make_feed(config: TrialConfig, bundle: DataBundle, device: torch.device) -> Feed:
    """The training images of a trial, ready to be indexed."""
    train = bundle.train
    targets = training_targets(bundle, config.soft_labels)
    pastes = "cutmix" in (config.mix.name, config.basics.args.get("mixing"))
    uses_regions = bool(bundle.au_names) and (config.region_weight > 0 or pastes)
    regions = torch.from_numpy(region_maps(bundle.au_names, REGION_SIZE)) if uses_regions else None
    boxes = local_of(config).boxes.to(device)
    mirror = aus.mirror(bundle.au_names)
    images: Tensor | NDArray[np.uint8] = train.images
    if device.type != "cpu" and train.images.nbytes < 0.5 * _free_bytes():
        images = on_device(train.images, device)
    counts, augment = bundle.class_counts(), config.augment
    return Feed(
        images,
        targets.to(device),
        torch.from_numpy(train.aus.astype(np.float32)).to(device),
        None if regions is None else regions.to(device),
        boxes if len(boxes) else None,
        None if mirror is None else torch.tensor(mirror, device=device),
        AUGMENTS[augment.name](counts, bundle.au_names, **augment.args),
        mixing(config.mix, counts, config.mix_off, config.epochs),
        config.batch_size,
        device,
    )


def _free_bytes() -> float:
    """Of the GPU, as far as a process that has only a share of it may count on them."""
    return torch.cuda.mem_get_info()[0] * torch.cuda.get_per_process_memory_fraction()
