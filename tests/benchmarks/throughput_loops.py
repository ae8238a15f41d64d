"""Training loops that `throughput.py` compares: each trains and scores the same network, an epoch
at a time, and says how many images it trained on. On a GPU all compute in 16 bits, as trials do.

Limit      one random batch that stays where it is: forward, backward, optimiser; forward alone for
           as many images as are scored
Ours       `run_trial`, stored epochs and all
Timm       timm's data set, loader, transforms, optimiser, clipping, EMA and accuracy
Plain      torchvision's ImageFolder and transforms v2, DataLoader, torch's AdamW and averaged model

All pay for the layout that the network asks for, which is made within it (`Backbone.normalised`).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy, dispatch_clip_grad
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from trainables.config import TrialConfig
from trainables.data.bundle import DataBundle
from trainables.device import default_device, mixed_precision, training_dtype
from trainables.model import FERModel, build_model, parameter_groups
from trainables.store import RunStore
from trainables.trial import run_trial

DEVICE = default_device()
DTYPE = training_dtype(DEVICE)
LOG = 50  # --log-interval of timm's train.py: reading a loss makes a GPU wait


def network(config: TrialConfig, bundle: DataBundle) -> FERModel:
    torch.manual_seed(0)
    classes, aus = len(bundle.class_names), len(bundle.au_names)
    return build_model(config, classes, aus, bundle.components).to(DEVICE)


def sent(batch: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.to(DEVICE, non_blocking=True) for tensor in batch]


def write_jpegs(bundle: DataBundle, root: Path) -> Path:
    """The images as JPEG files of quality 95 at the size they are trained at, by split and class:
    smaller than what a camera gives, so a decoder has as little to do as it can have."""
    for name, split in (("train", bundle.train), ("val", bundle.val)):
        for place, label in enumerate(split.labels):
            folder = root / name / f"{label:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = split.images[place].transpose(1, 2, 0)[..., ::-1]
            code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            (folder / f"{place}.jpg").write_bytes(code.tobytes())
    return root


class Limit:
    """What the network itself costs."""

    def __init__(self, config: TrialConfig, bundle: DataBundle) -> None:
        self.config, self.sizes = config, (len(bundle.train), len(bundle.val))
        self.model = network(config, bundle).to(memory_format=torch.channels_last)
        groups = parameter_groups(self.model, config.lr, 1.0, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        shape = (config.batch_size, 3, config.image_size, config.image_size)
        self.images = torch.rand(shape, device=DEVICE)
        classes, count = len(bundle.class_names), config.batch_size
        self.labels = torch.randint(classes, (count,), device=DEVICE)

    def epoch(self) -> int:
        size = self.config.batch_size
        train, val = (math.ceil(count / size) for count in self.sizes)
        self.model.train()
        for _ in range(train):
            self.step()
        self.model.eval()
        with torch.inference_mode(), mixed_precision(DEVICE, DTYPE):
            for _ in range(val):
                self.model(self.images)
        return train * size

    def step(self) -> None:
        with mixed_precision(DEVICE, DTYPE):
            loss = self.loss()
        self.update(loss)

    def loss(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        out = self.model(self.images)
        loss = functional.cross_entropy(out.logits, self.labels)
        for more in (out.au_logits, out.au_maps):
            loss = loss if more is None else loss + more.float().sigmoid().mean()
        return loss

    def update(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()


class Ours:
    """A trial as a search runs it."""

    def __init__(self, config: TrialConfig, bundle: DataBundle, entry: Path, root: Path) -> None:
        run = RunStore.create(root, {})
        name = run.create_trial(config, 0)
        self.rows = run_trial(run.trial(name, run.hand_out(name)), entry)

    def epoch(self) -> int:
        return int(next(self.rows)["images"])


class Timm:
    """The loop of timm's train.py: --opt adamw --clip-grad --model-ema --channels-last."""

    def __init__(self, config: TrialConfig, bundle: DataBundle, root: Path, workers: int) -> None:
        self.config = config
        self.model = network(config, bundle).to(memory_format=torch.channels_last)
        self.optimizer = create_optimizer_v2(
            self.model, opt="adamw", lr=config.lr, weight_decay=config.weight_decay
        )
        self.ema = ModelEmaV3(self.model, decay=config.ema)
        self.train, self.val = (self._loader(root, split, workers) for split in ("train", "val"))

    def _loader(self, root: Path, split: str, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Flip, zoom, brightness and contrast as `light` has them; it has no rotation as such."""
        is_training, size = split == "train", self.config.image_size
        data = create_dataset("", root=str(root), split=split, is_training=is_training)
        return create_loader(
            data,
            input_size=(3, size, size),
            batch_size=self.config.batch_size,
            is_training=is_training,
            scale=(0.85, 1.0),
            ratio=(1.0, 1.0),
            color_jitter=(0.2, 0.2, 0.0),
            mean=(0.0, 0.0, 0.0),  # the network normalises
            std=(1.0, 1.0, 1.0),
            crop_pct=1.0,
            num_workers=workers,
            persistent_workers=workers > 0,
            device=DEVICE,
        )

    def epoch(self) -> int:
        seen, losses = 0, AverageMeter()
        self.model.train()
        for step, (images, labels) in enumerate(self.train):
            with mixed_precision(DEVICE, DTYPE):
                logits = self.model(images).logits
                loss = functional.cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            dispatch_clip_grad(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            self.ema.update(self.model)
            if step % LOG == 0:
                losses.update(loss.item(), len(images))
            seen += len(images)
        self.ema.module.eval()
        top1 = AverageMeter()
        with torch.inference_mode(), mixed_precision(DEVICE, DTYPE):
            for images, labels in self.val:
                found = self.ema.module(images)
                top1.update(accuracy(found.logits, labels)[0].item(), len(images))
        return seen


class Plain:
    """What one writes by hand."""

    def __init__(self, config: TrialConfig, bundle: DataBundle, root: Path, workers: int) -> None:
        self.config, self.model = config, network(config, bundle)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.lr, weight_decay=config.weight_decay
        )
        average = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        changes = [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                8,
                translate=(0.04, 0.04),
                scale=(0.92, 1.08),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
        ]
        self.train, self.val = (
            DataLoader(
                ImageFolder(str(root / split), transform),
                config.batch_size,
                shuffle=split == "train",
                drop_last=split == "train",
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=DEVICE.type == "cuda",
            )
            for split, transform in (
                ("train", v2.Compose([v2.ToImage(), *changes, to_float.transforms[1]])),
                ("val", to_float),
            )
        )

    def epoch(self) -> int:
        seen, right = 0, 0
        self.model.train()
        for images, labels in map(sent, self.train):
            with mixed_precision(DEVICE, DTYPE):
                loss = functional.cross_entropy(self.model(images).logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            self.average.update_parameters(self.model)
            seen += len(images)
        self.average.eval()
        with torch.inference_mode(), mixed_precision(DEVICE, DTYPE):
            for images, labels in map(sent, self.val):
                right += int((self.average(images).logits.argmax(1) == labels).sum())
        return seen
