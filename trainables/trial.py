"""One trial from top to bottom, as a generator that yields an epoch's row after storing it.

Whoever drives it decides whether to ask for the next epoch; nothing after the last `yield` matters.
"""

import time
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as safetensors_bytes
from torch import nn

from trainables import cost, metrics, state
from trainables.au_task import make_au_task, mean_f1, watch
from trainables.balance import BALANCES
from trainables.config import TrialConfig, check_au_settings, check_rebalancing, check_synthetic
from trainables.data import cache
from trainables.data.bundle import DataBundle, Split
from trainables.features.settings import check_features
from trainables.looking import look
from trainables.loop import Objective, make_feed, predict, train_epoch
from trainables.losses import LOSSES, REBALANCE
from trainables.model import build_model, parameter_groups
from trainables.optim import Average, Stepper
from trainables.pretraining.leaks import warn_of_leaks
from trainables.ranks import ALONE, Ranks, here
from trainables.replica import Replica, share_batch_norm
from trainables.schedules import ORDERS, SCHEDULES, warmup_cosine
from trainables.store import Predictions, Row, TrialResult, TrialStore, finite
from trainables.synthetic import extended


def run_trial(store: TrialStore, data: Path) -> Iterator[Row]:
    """Train the stored configuration on a prepared data set, epoch by epoch.

    After a crash the last stored row is yielded again, then training goes on from `last.pt`.
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
    trial = ranks.together(lambda: Training(store.config(), cache.load(data), ranks))
    row = trial.resume(store)
    if row is not None:
        yield row
    while trial.epoch < trial.config.epochs:
        row = trial.run_epoch()
        trial.save(store, row)
        yield row


def seed_everything(*parts: object) -> int:
    """Seed the global generators (weights, dropout) from anything printable; the seed."""
    seed = zlib.crc32(repr(parts).encode())
    torch.manual_seed(seed)
    return seed


class Training:
    """The state of one trial between epochs: model, average, optimiser, epoch."""

    def __init__(self, config: TrialConfig, bundle: DataBundle, ranks: Ranks = ALONE) -> None:
        check_rebalancing(config)
        check_au_settings(config)
        check_features(config)
        check_synthetic(config)
        if config.fold:
            raise ValueError(
                f"fold {config.fold}: cross-validation is not built yet, set fold to 0"
            )
        bundle = extended(config, bundle)
        seed_everything(config.seed, "weights")
        self.config, self.bundle, self.ranks = config, bundle, ranks
        self.epoch, self.seconds = 0, 0.0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the process may have run other trials before
        model = build_model(
            config,
            len(bundle.class_names),
            len(bundle.au_names),
            bundle.components,
            len(bundle.basic_names),
        )
        if ranks.is_first:
            warn_of_leaks(config, bundle)
        share_batch_norm(model, ranks, self.device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.average = Average(self.model, config.ema)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, config.lr, config.head_lr_multiplier, config.weight_decay),
            fused=True,
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        balance = BALANCES[config.au_balance.name](**config.au_balance.args)
        self.stepper = Stepper(self.optimizer, config.clip, self.device, balance)
        counts = bundle.class_counts()
        self.emotion = LOSSES[config.loss.name](counts, **config.loss.args)
        self.au = make_au_task(config, bundle)
        self.rebalance = REBALANCE[config.rebalance.name](counts, **config.rebalance.args)
        self.pacing = SCHEDULES[config.curriculum.name](**config.curriculum.args)
        rng = np.random.default_rng([config.seed, 1])
        self.easy_to_hard = ORDERS[config.curriculum_order](bundle.train.labels, counts, rng)
        self.feed = make_feed(config, bundle, self.device)

    @cached_property
    def trained(self) -> nn.Module:
        """The model as the loop trains it; with several ranks, made when all are there."""
        if self.ranks.size == 1:
            return self.model
        self.stepper.replica = Replica(self.model, self.ranks)
        return self.stepper.replica

    def run_epoch(self) -> Row:
        """Train one epoch and score it on the validation images."""
        started = time.monotonic()
        progress = self.epoch / self.config.epochs
        seed = seed_everything(self.config.seed, "epoch", self.epoch)  # so that a resume is exact
        generator = torch.Generator().manual_seed(seed)
        order = self._order(progress, np.random.default_rng(seed))
        if not self.ranks.is_first:  # else all would drop the same units of their images
            seed_everything(self.config.seed, "epoch", self.epoch, "rank", self.ranks.rank)
        losses = train_epoch(
            self.trained,
            self.average,
            self.feed.batches(order, generator, progress),
            self._objective(progress),
            self.stepper,
            self._learning_rate(len(order)),
        )
        self.epoch += 1
        self.val = self._predict(self.bundle.val)
        seconds, gib = self.ranks.most(time.monotonic() - started, peak_gib(self.device))
        self.seconds += seconds
        balance = self.stepper.balance
        row: Row = {
            "epoch": self.epoch,
            **metrics.scores(self.val.labels, self.val.probs, self.config.metric),
            "au_f1": mean_f1(self.val),
            **losses,
            **watch(self.val, self.au.weight(progress), balance.weights, self.stepper.norms),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images": len(order),
            "micro_batches": self.stepper.parts,  # above 1: memory was short
            "seconds": seconds,
            "peak_gib": gib,
            "done": self.epoch == self.config.epochs,
        }
        if row["done"]:
            row |= self._cost()
        if not finite(row):
            raise FloatingPointError(f"epoch {self.epoch}: a score is not finite: {row}")
        return row

    def _cost(self) -> Row:
        """What the model costs in use, for searches that weigh it."""
        model = self.average.model
        return {
            "parameters": cost.parameters(model),
            "latency_ms": cost.latency_ms(model, self.config.image_size),
        }

    def train_on(self, images: int) -> int:
        """Train on some images in their order, to see how long it takes; how many it were."""
        generator = torch.Generator().manual_seed(0)
        batches = self.feed.batches(np.arange(images), generator)
        train_epoch(
            self.trained, self.average, batches, self._objective(0.0), self.stepper, lambda: None
        )
        return images

    def _order(self, progress: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Which images this epoch sees, and in which order: curriculum, then sampler or shuffle."""
        share = self.pacing(progress)
        allowed = self.easy_to_hard[: max(2, round(share * len(self.easy_to_hard)))]
        weights = self.rebalance.sample_weights(self.bundle.train.labels)
        if weights is None:
            return rng.permutation(allowed)
        chances = weights[allowed] / weights[allowed].sum()
        return rng.choice(allowed, len(allowed), p=chances)

    def _objective(self, progress: float) -> Objective:
        weights = torch.as_tensor(self.rebalance.class_weights(progress), dtype=torch.float32)
        return Objective(
            self.emotion,
            self.au.loss,
            self.au.weight(progress),
            self.config.region_weight,
            weights.to(self.device),
            self.au.prior,
            self.ranks,
        )

    def _learning_rate(self, images: int) -> Any:
        """A callback before each step that sets the rate of every parameter group."""
        steps = max(1, -(-images // self.config.batch_size))
        done = 0

        def advance() -> None:
            nonlocal done
            at = self.epoch + done / steps
            factor = warmup_cosine(at, self.config.epochs, self.config.warmup_epochs)
            for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * factor
            done += 1

        return advance

    def _predict(self, split: Split) -> Predictions:
        probs, au_probs = predict(
            self.average.model, split, self.device, self.stepper.dtype, self.ranks
        )
        if not np.isfinite(probs).all():
            raise FloatingPointError(f"epoch {self.epoch}: predictions are not finite")
        return Predictions(split.ids, split.labels, probs, split.aus, au_probs)

    def save(self, store: TrialStore, row: Row) -> None:
        """Store the epoch: predictions, state, and last of all the row that says it is there."""
        test = self._predict(self.bundle.test) if row["done"] else None
        views = look(self) if row["done"] else {}
        if not self.ranks.is_first:
            return
        store.save_predictions("val", self.val)
        if test is not None:
            store.save_predictions("test", test)
            for name, data in views.items():
                store.write(name, data)
            tensors = {k: v.cpu().contiguous() for k, v in self.average.model.state_dict().items()}
            store.write("weights.safetensors", safetensors_bytes(tensors))
        store.save_state(self._state(row))
        store.append(row)
        self._close(store, row)

    def _close(self, store: TrialStore, row: Row) -> None:
        if row["done"]:
            store.finish(TrialResult("completed", row, self.epoch, self.seconds, row["peak_gib"]))

    def _state(self, row: Row) -> bytes:
        return state.pack(
            {
                "model": self.model.state_dict(),
                "average": self.average.model.state_dict(),
                "updates": self.average.updates,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.stepper.scaler.state_dict(),
                "balance": self.stepper.balance.state(),
                "parts": self.stepper.parts,
                "seconds": self.seconds,
                "row": row,
            }
        )

    def resume(self, store: TrialStore) -> Row | None:
        """Go back to the last state that is whole, if there is one; the row of its epoch."""
        found = state.whole(store) if self.ranks.is_first else None
        data = self.ranks.broadcast(found[0] if found else None)  # one reader decides for all
        if data is None:
            return None
        saved = found[1] if found else state.unpack(data)
        self.model.load_state_dict(saved["model"])
        self.average.model.load_state_dict(saved["average"])
        self.average.updates = saved["updates"]
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:  # empty where the precision needed none
            self.stepper.scaler.load_state_dict(saved["scaler"])
        if "balance" in saved:  # not in the states of earlier versions
            self.stepper.balance.restore(saved["balance"])
        self.stepper.parts, self.seconds = saved["parts"], saved["seconds"]
        row: Row = saved["row"]
        self.epoch = row["epoch"]
        if self.ranks.is_first:
            if self.epoch not in {r["epoch"] for r in store.history()}:
                store.append(row)  # killed between the two writes
            self._close(store, row)
        return row


def peak_gib(device: torch.device) -> float:
    """Most memory the trial has held on its GPU, in GiB; 0 on a CPU, where it is not measured."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
