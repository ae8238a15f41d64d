"""One trial from top to bottom, as a generator that yields an epoch's row after storing it.

Whoever drives it decides whether to ask for the next epoch; nothing after the last `yield` matters.
"""

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainables import checkpoint, cost, cuda_graphs, metrics
from trainables.au_task import mean_f1, watch
from trainables.averages import AVERAGES, Average, estimate_norms
from trainables.balance import BALANCES
from trainables.config import TrialConfig, drives_size
from trainables.contradictions import check_config
from trainables.data import entry
from trainables.data.bundle import DataBundle, Split
from trainables.data.folds import fold_of
from trainables.device import choose_device
from trainables.loop import predict, predictions, train_epoch
from trainables.model import build_model, parameter_groups
from trainables.optim import Stepper
from trainables.pacing import check_sizes
from trainables.plan import Order, agreed, make_plan
from trainables.pretraining.leaks import refuse_leaks, warn_of_leaks
from trainables.ranks import ALONE, Ranks, here
from trainables.replica import Replica, share_batch_norm
from trainables.sam import Ascent
from trainables.schedules import warmup_cosine
from trainables.store import Predictions, Row, TrialStore, finite
from trainables.synthetic import extended

HALFWAY = 0.5  # an epoch there costs what most do: curricula are over, mixing is not


def run_trial(store: TrialStore, data: Path) -> Iterator[Row]:
    """Train the stored configuration on a prepared data set, epoch by epoch.

    After a crash the row of the last stored state is yielded again, and training goes on from it.
    Ranks that this process has joined train the trial with it: all call this, all get the same
    rows, and the first writes the record.
    A trial on features has one row. Raises FloatingPointError when the loss is not finite,
    ValueError for a contradictory configuration; the caller files the failure.
    """
    if store.config().features.name != "none":
        from trainables.features.trial import run_features_trial  # only then: it takes a second

        yield from run_features_trial(store, data)
        return
    ranks = here()
    is_new = store.read("error.txt") is None  # a graph may be what an earlier attempt died of
    trial = ranks.together(lambda: Training(store.config(), entry.load(data), ranks, is_new))
    trial.plan = agreed(trial.plan)  # not while it is built: a rank may fail there
    with closing(checkpoint.Keeper(trial, store)) as keeper:
        if (row := keeper.resume()) is not None:
            yield row
        while trial.epoch < trial.config.epochs:
            yield keeper.save(trial.run_epoch(keeper.begin))


def seed_everything(*parts: object) -> int:
    """Seed the global generators (weights, dropout) from anything printable; the seed."""
    seed = zlib.crc32(repr(parts).encode())
    torch.manual_seed(seed)
    return seed


class Training:
    """The state of one trial between epochs: model, average, optimiser, epoch."""

    def __init__(
        self,
        config: TrialConfig,
        bundle: DataBundle,
        ranks: Ranks = ALONE,
        may_record: bool = True,
    ) -> None:
        check_config(config)
        refuse_leaks(config, bundle.name)
        bundle = extended(config, fold_of(bundle, config))
        seed_everything(config.seed, "weights")
        self.config, self.bundle, self.ranks = config, bundle, ranks
        self.epoch, self.seconds = 0, 0.0
        self.device = choose_device()
        model = build_model(
            config,
            len(bundle.class_names),
            len(bundle.au_names),
            bundle.components,
            len(bundle.basic_names),
        )
        if ranks.is_first:
            warn_of_leaks(config, bundle)
        if drives_size(config):
            check_sizes(model, config)
        share_batch_norm(model, ranks, self.device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        tail = AVERAGES[config.average.name](**config.average.args)
        self.average = Average(self.model, config.ema, tail.within(config.epochs))
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, config.lr, config.head_lr_multiplier, config.weight_decay),
            fused=True,
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        balance = BALANCES[config.au_balance.name](**config.au_balance.args)
        ascent = Ascent(config.sam, self.model) if config.sam else None
        self.stepper = Stepper(self.optimizer, config.clip, self.device, balance, ascent)
        if may_record and cuda_graphs.are_wanted(self.device, ranks.size):
            self.stepper.recorder = cuda_graphs.Recorder(self.stepper.parameters)
        self.plan = make_plan(config, bundle, model.backbone.strides, ranks, self.device)

    @cached_property
    def trained(self) -> nn.Module:
        """The model as the loop trains it; with several ranks, made when all are there."""
        if self.ranks.size == 1:
            return self.model
        self.stepper.replica = Replica(self.model, self.ranks)
        return self.stepper.replica

    def run_epoch(self, on_trained: Callable[[], None] = lambda: None) -> Row:
        """Train one epoch and score it on the validation images.

        `on_trained` is called in between, when there is more to train: what it does beside the
        scoring must not change the time that a model takes, which the last epoch measures.
        """
        started = time.monotonic()
        progress, balance = self.epoch / self.config.epochs, self.stepper.balance
        seed = seed_everything(self.config.seed, "epoch", self.epoch)  # so that a resume is exact
        order = self.plan.order(progress, np.random.default_rng(seed))
        if not self.ranks.is_first:  # else all would drop the same units of their images
            seed_everything(self.config.seed, "epoch", self.epoch, "rank", self.ranks.rank)
        self.average.begin(progress)
        objective = self.plan.objective(progress)
        losses = train_epoch(
            self.trained,
            self.average,
            self.plan.batches(progress, order, torch.Generator().manual_seed(seed)),
            objective,
            self.stepper,
            learning_rate(self, len(order)),
        )
        if self.average.is_mean:
            self._estimate_norms(progress, order, seed)
        self.epoch += 1
        if self.epoch < self.config.epochs:
            on_trained()
        self.val, self.val_logits = self.predict(self.bundle.val)
        seconds, gib = self.ranks.most(time.monotonic() - started, peak_gib(self.device))
        self.seconds += seconds
        row: Row = {
            "epoch": self.epoch,
            **metrics.scores(self.val.labels, self.val.probs, self.config.metric),
            "au_f1": mean_f1(self.val),
            **losses,
            **watch(self.val, objective.au_weight, balance.weights, self.stepper.norms),
            **self.plan.watched(progress),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images": len(order),
            "micro_batches": self.stepper.parts,  # above 1: memory was short
            "seconds": seconds,
            "peak_gib": gib,
            "done": self.epoch == self.config.epochs,
        }
        row |= self._cost() if row["done"] else {}
        return checked(row)

    def _estimate_norms(self, progress: float, order: Order, seed: int) -> None:
        """A mean of statistics is not the statistics of the mean: take them by the images."""
        batches = self.plan.batches(progress, order, torch.Generator().manual_seed(seed + 1))
        estimate_norms(self.average.model, batches, self.stepper.dtype)

    def _cost(self) -> Row:
        """What the model costs in use, for searches that weigh it."""
        model = self.average.model
        return {
            "parameters": cost.parameters(model),
            "latency_ms": cost.latency_ms(model, self.config.image_size),
        }

    def train_on(self, images: int) -> int:
        """Train on some images in their order, to see how long it takes; how many it were."""
        batches = self.plan.batches(HALFWAY, np.arange(images), torch.Generator().manual_seed(0))
        objective = self.plan.objective(HALFWAY)
        train_epoch(self.trained, self.average, batches, objective, self.stepper, lambda: None)
        return images

    def predict(self, split: Split) -> tuple[Predictions, NDArray[np.float32]]:
        """What the averaged weights say of a split, and their logits (N, K).

        Raises FloatingPointError if it is NaN.
        """
        logits, au_probs = predict(
            self.average.model, split, self.device, self.stepper.dtype, self.ranks
        )
        said = predictions(split, logits, au_probs)
        if not np.isfinite(said.probs).all():
            raise FloatingPointError(f"epoch {self.epoch}: predictions are not finite")
        return said, logits


def checked(row: Row) -> Row:
    """The row. Raises FloatingPointError for a number that is not finite."""
    if not finite(row):
        raise FloatingPointError(f"epoch {row['epoch']}: a score is not finite: {row}")
    return row


def learning_rate(training: Training, images: int) -> Callable[[], None]:
    """A callback before each step of an epoch that sets the rate of every parameter group."""
    config, tail = training.config, training.average.tail
    steps, groups = max(1, -(-images // config.batch_size)), training.optimizer.param_groups
    done = 0

    def advance() -> None:
        nonlocal done
        at = training.epoch + done / steps
        factor = warmup_cosine(at, tail.start * config.epochs, config.warmup_epochs, tail.rate)
        for group, rate in zip(groups, training.base_rates, strict=True):
            group["lr"] = rate * factor
        done += 1

    return advance


def peak_gib(device: torch.device) -> float:
    """Most memory the trial has held on its GPU, in GiB; 0 on a CPU, where it is not measured."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
