"""Pretraining from top to bottom, as a generator that yields an epoch's row after storing it.

N images, S pixels a side.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from trainables import state
from trainables.augment import Batch
from trainables.averages import measure_norms
from trainables.backbones import Backbone, build_backbone
from trainables.balance import Losses
from trainables.device import default_device
from trainables.optim import Stepper
from trainables.pretraining.files import Files
from trainables.pretraining.methods import METHODS
from trainables.pretraining.picture import draw
from trainables.pretraining.pool import Pool
from trainables.pretraining.pretext import Pretext
from trainables.pretraining.record import Record, versions
from trainables.pretraining.settings import Settings
from trainables.pretraining.views import CONTROLS
from trainables.registry import unknown
from trainables.schedules import warmup_cosine
from trainables.store import Row
from trainables.trial import peak_gib, seed_everything
from trainables.weights import load_weights

log = logging.getLogger(__name__)

BETAS = (0.9, 0.95)  # of MAE and SimMIM
CLIP = 5.0  # of SimMIM
COLLAPSED = 0.3  # of the spread of embeddings that fill the sphere
SETTLE_IMAGES, PICTURED = 2048, 8
SAVE_SECONDS = 10.0  # of work, at most, that an interruption loses beside the epoch it falls in


def pretrain(settings: Settings, pool: Pool, files: Files, is_fresh: bool = False) -> Iterator[Row]:
    """Pretrain a backbone, epoch by epoch; with the last row the file of weights is there.

    Goes on from the state in `files`, if there is one, as if it had never stopped, unless it is to
    begin afresh.
    Raises ValueError for what does not fit together, FloatingPointError for a loss that is none.
    """
    run = Pretraining(settings, pool)
    if is_fresh:
        files.forget_state()  # only now that the settings are known to fit together
    resume(run, files)
    saved_at = time.monotonic()
    while run.epoch < settings.epochs:
        row = run.run_epoch()
        if row["done"]:
            finish(run, files)
        elif time.monotonic() - saved_at >= SAVE_SECONDS:
            files.save_state(state.writing(state_of(run)))
            saved_at = time.monotonic()
        files.log(run.rows)
        yield row


class Pretraining:
    """The state of a pretraining between epochs."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        seed_everything(settings.seed, "pretraining")
        self.settings, self.pool, self.rows = settings, pool, list[Row]()
        if len(pool.rows) < 2:
            raise ValueError(
                f"one image of '{pool.source}' is too few to pretrain on: give at least two"
            )
        self.device = default_device()
        self.backbone, self.pretext, self.loaded = build(settings)
        if self.loaded:
            log.info(self.loaded)
        self.backbone.to(self.device)  # what scales pixels need not be a part of the module
        self.module = self.pretext.module.to(self.device).to(memory_format=torch.channels_last)
        groups = decay_groups(self.module, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, settings.lr, betas=BETAS, fused=True)
        self.stepper = Stepper(optimizer, CLIP, self.device)

    @property
    def epoch(self) -> int:
        return len(self.rows)

    def run_epoch(self) -> Row:
        """Train one epoch; its row."""
        started = time.monotonic()
        seed = seed_everything(self.settings.seed, "pretraining", self.epoch)
        generator = torch.Generator().manual_seed(seed)
        batches = list(self._batches(np.random.default_rng(seed)))
        self.module.train()
        sums: dict[str, float] = {}
        for number, chosen in enumerate(batches):
            at = self.epoch + number / len(batches)
            self._set_rate(at)
            found = self._step(self.images(chosen, generator), generator)
            self.pretext.after_step(at / self.settings.epochs)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        row: Row = {
            "epoch": self.epoch + 1,
            **sums,
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            "images": sum(map(len, batches)),
            "seconds": time.monotonic() - started,
            "peak_gib": peak_gib(self.device),
            "done": self.epoch + 1 == self.settings.epochs,
        }
        self._watch(row)
        self.rows.append(row)
        return row

    def _batches(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """The images in random order; an incomplete batch is left out, unless there is no other."""
        order = rng.permutation(self.pool.rows)
        size = min(self.settings.batch_size, len(order))
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]

    def images(self, chosen: NDArray[np.int64], generator: Generator) -> Tensor:
        """These images (N, 3, S, S) in [0, 1], or what the control makes of them."""
        images = torch.from_numpy(self.pool.images[chosen]).to(self.device).float() / 255
        return CONTROLS[self.settings.control](images, generator)

    def _step(self, images: Tensor, generator: Generator) -> dict[str, float]:
        nobody = images.new_zeros((len(images), 0))
        loss = partial(self._loss, generator=generator)
        step = self.stepper.step(Batch(images, nobody, nobody), loss)
        found = {name: float(value) for name, value in step.items()}
        value = found.pop("train_loss")
        if not np.isfinite(value):
            raise FloatingPointError(
                f"epoch {self.epoch + 1}: the loss is {value}; try a lower --base-lr"
            )
        return {"loss": value, **found}

    def _loss(self, batch: Batch, whole: Batch, generator: Generator) -> Losses:
        images = len(whole.images)
        if len(batch.images) < images and self.pretext.needs_whole_batch:
            raise MemoryError(
                f"out of memory with {images} images, and method '{self.settings.method.name}' "
                "cannot take them piece by piece: give a smaller --batch-size"
            )
        found = self.pretext.loss(batch.images, generator)
        return Losses(found.pop("loss"), None, {k: v.detach() for k, v in found.items()})

    def _set_rate(self, at: float) -> None:
        settings = self.settings
        factor = warmup_cosine(at, settings.epochs, settings.warmup * settings.epochs)
        for group in self.stepper.optimizer.param_groups:
            group["lr"] = settings.lr * factor

    def _watch(self, row: Row) -> None:
        """Warn, once, of embeddings that have all become the same."""
        was_well = all(earlier.get("spread", 1.0) >= COLLAPSED for earlier in self.rows)
        if row.get("spread", 1.0) < COLLAPSED and was_well:
            log.warning(
                "epoch %d: the embeddings collapse: their spread is %.2f of that of embeddings "
                "that fill the sphere; such weights tell images apart no better than chance",
                row["epoch"],
                row["spread"],
            )


def build(settings: Settings) -> tuple[Backbone, Pretext, str]:
    """The backbone, what teaches it, and which weights it begins with, if any.

    Raises LookupError, ValueError or OSError for settings that cannot be.
    """
    if settings.control not in CONTROLS:
        raise LookupError(unknown("control", settings.control, CONTROLS))
    METHODS.check(settings.method.name, settings.method.args)
    backbone, loaded = build_backbone(settings.backbone, settings.image_size), ""
    if settings.weights != "none":
        loaded = load_weights(backbone, settings.backbone, settings.weights).summary()
    method = METHODS[settings.method.name]
    return backbone, method(backbone, settings.image_size, **settings.method.args), loaded


def identity(settings: Settings, pool: Pool) -> dict[str, Any]:
    """What a state must have in common with a pretraining to be gone on from."""
    return {**settings.as_json(), "images": pool.proof.seen_digest}


def state_of(run: Pretraining) -> dict[str, Any]:
    """What a pretraining goes on from."""
    return {
        "identity": identity(run.settings, run.pool),
        "module": run.module.state_dict(),
        "optimizer": run.stepper.optimizer.state_dict(),
        "scaler": run.stepper.scaler.state_dict(),
        "parts": run.stepper.parts,
        "rows": run.rows,
    }


def resume(run: Pretraining, files: Files) -> None:
    """Go back to the state that is stored, if there is one.

    Raises ValueError when it is damaged, of other settings, or of other images.
    """
    data = files.read_state()
    if data is None:
        return
    try:
        saved = state.unpack(data)
    except Exception as error:  # whatever a damaged file may look like
        raise ValueError(f"'{files.state}' is damaged ({error}); --force begins anew") from error
    check_same(str(files.state), saved["identity"], identity(run.settings, run.pool))
    run.module.load_state_dict(saved["module"])
    run.stepper.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:  # empty where the precision needed none
        run.stepper.scaler.load_state_dict(saved["scaler"])
    run.stepper.parts, run.rows = saved["parts"], saved["rows"]


def check_same(path: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless a file is of the pretraining asked for."""
    changed = [
        f"{name} was {was.get(name)}, is {value}"
        for name, value in now.items()
        if was.get(name) != value
    ]
    if changed:
        raise ValueError(
            f"'{path}' is of another pretraining: {'; '.join(changed)}. Give what was given then, "
            "another --out, or --force to begin anew"
        )


def finish(run: Pretraining, files: Files) -> None:
    """Write the weights, and what is to be known of them."""
    settings, rows, generator = run.settings, run.pool.rows, torch.Generator()
    chosen = np.random.default_rng(settings.seed).permutation(rows)[:SETTLE_IMAGES]
    parts = np.array_split(chosen, max(1, len(chosen) // settings.batch_size))
    generator.manual_seed(settings.seed)
    settle(run.backbone, (run.images(part, generator) for part in parts))
    net = run.backbone.net.state_dict()
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in net.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise FloatingPointError("the weights are not finite at the end; try a lower --base-lr")
    picture = draw(run.pretext, run.images(rows[:PICTURED], generator), generator)
    files.finish(tensors, _record(run), picture)


def settle(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Measure the statistics of batch norms on images as they are: so far, masked ones or crops."""

    def see() -> None:
        for images in batches:
            backbone(backbone.normalised(images))

    measure_norms(backbone, see)


def _record(run: Pretraining) -> Record:
    method, last = run.settings.method, run.rows[-1]
    return {
        "settings": run.settings.as_json(),
        "arguments": {**METHODS.arguments(method.name), **method.args},
        "continued_from": run.loaded,
        "source": run.pool.source,
        "notes": list(run.pool.notes),
        "proof": asdict(run.pool.proof),
        "last": {name: last[name] for name in ("loss", "spread") if name in last},
        "seconds": round(sum(row["seconds"] for row in run.rows), 1),
        "versions": versions(),
    }


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Gains, biases and tokens do not decay."""
    learning = [p for p in module.parameters() if p.requires_grad]
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in learning:
        is_weight = parameter.ndim > 1 and parameter.shape[0] > 1  # tokens, positions: (1, …)
        groups.setdefault(weight_decay if is_weight else 0.0, []).append(parameter)
    return [{"params": group, "weight_decay": decay} for decay, group in groups.items()]
