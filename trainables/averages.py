"""Averages of the weights over the training: what a trial is scored by.

AVERAGES: builder(*, hyper-parameters) -> Tail, what becomes of the last part of the training.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.augment import Batch
from trainables.device import mixed_precision
from trainables.registry import Registry


@dataclass(frozen=True)
class Tail:
    """From which progress on the average is a plain mean, and the share of the top learning rate
    that training goes on with from there."""

    start: float = 1.0
    rate: float = 0.0

    def within(self, epochs: int) -> "Tail":
        """The same, but that one which starts within the last epoch starts with it."""
        last = (epochs - 1) / epochs
        return self if self.start == 1 else replace(self, start=min(self.start, last))


AVERAGES: Registry[Callable[..., Tail]] = Registry("average")


@AVERAGES.register
def ema() -> Tail:
    """Exponential moving average to the end, of the decay `ema` (Polyak averaging): the control."""
    return Tail()


@AVERAGES.register
def swa(*, start: float = 0.75, rate: float = 0.25) -> Tail:
    """The mean of the weights from `start` on, at a constant learning rate (stochastic weight
    averaging, Izmailov et al. 2018, 1803.05407), batch norms estimated anew.

    We average each step's weights, the paper each epoch's: the same mean, of more weights, which
    short trainings need. Before, the exponential average is scored, so that early rungs compare.
    """
    if not 0 <= start < 1 or not 0 < rate <= 1:
        raise ValueError(
            f"average 'swa' cannot start at {start:g} with rate {rate:g}: start must be 0 or more "
            "and below 1, rate above 0 and 1 at most"
        )
    return Tail(start, rate)


class Pairs(NamedTuple):
    """The tensors of an average, and those of the model that they are the averages of."""

    model: nn.Module
    means: list[Tensor]
    floats: list[Tensor]  # in the order of `means`
    last: list[Tensor]  # of counters and the like, of which the last value counts
    counts: list[Tensor]  # in the order of `last`


class Average(nn.Module):
    """Running average of a model's weights and buffers: exponential, then the mean over the tail.

    Early on the decay is lower, so that the random start is soon forgotten. State: `updates`, how
    many weights are in it, and whether it `is_mean`.
    """

    def __init__(self, model: nn.Module, decay: float, tail: Tail | None = None) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.tail = decay, tail or Tail()
        self.updates, self.is_mean = 0, False
        self._pairs: Pairs | None = None

    def begin(self, progress: float) -> None:
        """Before an epoch: when the tail begins, what was averaged is forgotten."""
        self._pairs = None
        if not self.is_mean and progress >= self.tail.start:
            self.updates, self.is_mean = 0, True

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decayed = 1 - min(self.decay, self.updates / (10 + self.updates))
        share = 1 / self.updates if self.is_mean else decayed
        if self._pairs is None or self._pairs.model is not model:
            self._pairs = pairs_of(self.model, model)  # to find them takes longer than to average
        average_in(self._pairs.means, self._pairs.floats, share)
        if self._pairs.counts:
            torch._foreach_copy_(self._pairs.last, self._pairs.counts)

    def state(self) -> dict[str, Any]:
        """All that a resumed trial needs, but for the weights."""
        return {"updates": self.updates, "is_mean": self.is_mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.updates, self.is_mean = state["updates"], state["is_mean"]


def pairs_of(average: nn.Module, model: nn.Module) -> Pairs:
    """The tensors of both, side by side."""
    mine, theirs = ((*module.parameters(), *module.buffers()) for module in (average, model))
    both = list(zip(mine, theirs, strict=True))
    floats = [pair for pair in both if pair[0].is_floating_point()]
    counts = [pair for pair in both if not pair[0].is_floating_point()]
    sides = [[pair[side] for pair in pairs] for pairs in (floats, counts) for side in (0, 1)]
    return Pairs(model, *sides)


@torch.no_grad()
def average_in(average: Iterable[Tensor], model: Iterable[Tensor], share: float) -> None:
    """Move each weight of an average by a share towards that of the model."""
    torch._foreach_lerp_(list(average), list(model), share)


def estimate_norms(model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype) -> None:
    """Set the running statistics of all batch norms to the mean over the batches.

    As torch.optim.swa_utils.update_bn, but that no units are dropped: ranks drop others, and have
    to come to the same statistics.
    """

    def see() -> None:
        for batch in batches:
            with mixed_precision(batch.images.device, dtype):
                model(batch.images, batch.boxes)

    measure_norms(model, see)


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Its batch norms, as far as they keep statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def measure_norms(model: nn.Module, see: Callable[[], None]) -> None:
    """Set the running statistics of all batch norms to the plain mean over what the model is shown
    by `see`, which is not called where there are none."""
    norms = norms_of(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that is seen
        norm.train()
    see()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
