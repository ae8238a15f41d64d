"""Sharpness-aware minimisation: the step is taken by the gradient from a point up the slope.

L(w) is replaced by L(w + rho g / |g|), g the gradient at w (Foret et al. 2021, 2010.01412): two
passes a step, hence at equal cost half the epochs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Ascent:
    """How far to climb, and the model whose batch norms must not learn from it."""

    rho: float
    model: nn.Module

    @contextmanager
    def climbed(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        """In this context the weights are rho up the gradient that stands in them, and running
        statistics stay as they are; afterwards the weights are what they were, to the bit.

        The length is over all parameters and ranks, whose gradient is one; loss scaling cancels.
        A gradient of zero, or one that overflowed, moves nothing.
        """
        moved = [p for p in parameters if p.grad is not None]
        before = [p.detach().clone() for p in moved]
        norms = learning_norms(self.model)
        try:
            for norm in norms:
                norm.track_running_stats = False  # it still normalises by the batch
            self._climb(moved)
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(moved, before, strict=True):
                    parameter.copy_(value)
            for norm in norms:
                norm.track_running_stats = True

    @torch.no_grad()
    def _climb(self, parameters: list[nn.Parameter]) -> None:
        slopes = [p.grad for p in parameters if p.grad is not None]
        length = float(torch.nn.utils.get_total_norm(slopes))
        if 0 < length < float("inf"):
            torch._foreach_add_(list(parameters), slopes, alpha=self.rho / length)


def learning_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms whose running statistics move when the model looks at a batch."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return [norm for norm in norms if norm.training and norm.track_running_stats]
