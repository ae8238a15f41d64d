"""Gradient descent on features in memory. N rows, B of them a step, D features, K classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainables.config import Part, TrialConfig
from trainables.device import constant
from trainables.features.classifiers import Fitted
from trainables.features.examples import Examples, Floats, Ints
from trainables.heads import penalty_of
from trainables.losses import LOSSES, Loss
from trainables.rebalance import REBALANCE, Rebalance
from trainables.registry import unknown
from trainables.schedules import warmup_cosine

OPTIMIZERS = ("adamw", "sgd")
MOST_PASSES = 10_000
MOMENTUM, WARMUP = 0.9, 0.05  # of SGD; the share of the steps in which the rate rises
Order = Callable[[float], Ints]  # progress -> the rows of a pass, in their order
StepLoss = Callable[[Tensor, float], Tensor]  # rows (B,), progress -> scalar


@dataclass(frozen=True)
class Descent:
    """How often all rows are passed through, and by which steps."""

    passes: int
    optimizer: str
    batch_size: int
    lr: float
    weight_decay: float

    @classmethod
    def of(cls, config: TrialConfig, passes: int, optimizer: str) -> "Descent":
        """Raises LookupError or ValueError for what cannot be."""
        if optimizer not in OPTIMIZERS:
            raise LookupError(unknown("optimizer", optimizer, OPTIMIZERS))
        check_count("passes", passes)
        return cls(passes, optimizer, config.batch_size, config.lr, config.weight_decay)


def check_count(name: str, value: float, least: int = 1, most: int = MOST_PASSES) -> None:
    """Raise ValueError for an argument that is no whole number within bounds."""
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} {value} cannot be: give a whole number, {least} to {most}")


def descend(module: nn.Module, loss: StepLoss, order: Order, how: Descent) -> None:
    """Train the parameters; the rate rises shortly, then falls to 0 by a cosine.

    Raises FloatingPointError when the loss is not finite.
    """
    groups = [  # gains and biases do not decay
        {
            "params": [p for p in module.parameters() if p.ndim > 1],
            "weight_decay": how.weight_decay,
        },
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(groups, how.lr, momentum=MOMENTUM)
        if how.optimizer == "sgd"
        else torch.optim.AdamW(groups, how.lr, foreach=True)
    )
    module.train()
    value = torch.zeros(())
    for at in range(how.passes):
        rows = torch.from_numpy(order(at / how.passes)).split(how.batch_size)
        for step, chosen in enumerate(rows):
            progress = (at + step / len(rows)) / how.passes
            for group in optimizer.param_groups:
                group["lr"] = how.lr * warmup_cosine(progress, 1.0, WARMUP)
            optimizer.zero_grad(set_to_none=True)
            value = loss(chosen, at / how.passes)
            value.backward()
            optimizer.step()
        if not math.isfinite(value.item()):
            raise FloatingPointError(f"the training loss is {value.item()} in pass {at + 1}")
    module.eval()


@dataclass(frozen=True)
class Teaching:
    """What a head is taught, and how its classes are weighed against each other."""

    loss: Loss
    rebalance: Rebalance
    dropout: float = 0.0

    @classmethod
    def of(cls, config: TrialConfig, counts: Ints, rebalance: Part | None = None) -> "Teaching":
        """By the configuration; `rebalance` stands in for its own."""
        part = rebalance or config.rebalance
        return cls(
            LOSSES[config.loss.name](counts, **config.loss.args),
            REBALANCE[part.name](counts, **part.args),
            config.dropout,
        )


def train_head(
    head: nn.Module, seen: Examples, teaching: Teaching, how: Descent, rng: np.random.Generator
) -> None:
    """Train a head (N, D) -> (N, K) on the examples as a trial trains its network's."""
    features, targets = torch.from_numpy(seen.features), torch.from_numpy(seen.targets)
    chances = teaching.rebalance.sample_weights(seen.labels)

    def order(progress: float) -> Ints:
        if chances is None:
            return rng.permutation(len(seen))
        return rng.choice(len(seen), len(seen), p=chances)

    def loss(rows: Tensor, progress: float) -> Tensor:
        x, wanted = features[rows], targets[rows]
        logits = head(functional.dropout(x, teaching.dropout) if teaching.dropout else x)
        weights = (wanted * constant(teaching.rebalance.class_weights(progress), wanted)).sum(1)
        return (teaching.loss(logits, wanted) * weights).mean() + penalty_of(head, logits)

    with torch.random.fork_rng(devices=[]):  # for dropout
        torch.manual_seed(seed_of(rng))
        descend(head, loss, order, how)


def zero_linear(dim: int, outputs: int, has_bias: bool = True) -> nn.Linear:
    """A linear layer that starts at zero: what is fitted is convex, and no chance is needed."""
    layer = nn.utils.skip_init(nn.Linear, dim, outputs, bias=has_bias)
    assert isinstance(layer, nn.Linear)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def seed_of(rng: np.random.Generator) -> int:
    """A seed for torch."""
    return int(rng.integers(2**31))


def seeded(build: Callable[[], nn.Module], rng: np.random.Generator) -> nn.Module:
    """What `build` gives with weights drawn by `rng`; torch's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(rng))
        return build()


def fitted(module: nn.Module, shift: Floats | None = None) -> Fitted:
    """A trained module as a classifier by softmax, of features plus a shift."""

    @torch.inference_mode()
    def probs(features: Floats) -> Floats:
        x = features if shift is None else features + shift
        out: Floats = module(torch.from_numpy(x)).float().softmax(1).numpy()
        return out

    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return Fitted(probs, {name: array_of(value) for name, value in named.items()})


def array_of(value: Tensor) -> NDArray[np.float32]:
    return value.detach().float().cpu().contiguous().numpy().copy()
