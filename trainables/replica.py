"""A model on several ranks: averaged gradients, and batch norms that see the images of all ranks.

N images of this rank, C channels, K statistics.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from trainables.ranks import Ranks


class Replica(nn.Module):
    """A model that is the same on every rank: gradients are averaged, batch norms see all ranks."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        super().__init__()
        self.ranks, self.is_alone = ranks, False
        self.inner = DistributedDataParallel(model, gradient_as_bucket_view=True)

    def forward(self, images: Tensor, boxes: Tensor | None = None) -> Any:
        if self.is_alone:
            return self.inner.module(images, boxes)
        on_cpu = images.device.type == "cpu"  # on a GPU, torch's SyncBatchNorm sees to it
        with SharedStatistics(self.ranks) if on_cpu else nullcontext():
            return self.inner(images, boxes)

    def hold(self) -> AbstractContextManager[None]:
        """A context in which gradients add up on each rank instead of being averaged."""
        return self.inner.no_sync()

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, in one exchange."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, mean in zip(
            tensors, (flat / self.ranks.size).split([t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(mean.view(tensor.shape))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """In this context nothing is exchanged and no batch statistic moves."""
        norms = [m for m in self.inner.modules() if isinstance(m, _BatchNorm) and m.training]
        for norm in norms:
            norm.eval()
        self.is_alone = True
        try:
            yield
        finally:
            self.is_alone = False
            for norm in norms:
                norm.train()


def share_batch_norm(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Let batch norms see all ranks, where that needs other modules than the model has: on GPUs."""
    if ranks.size == 1 or device.type == "cpu":
        return
    from timm.layers import convert_sync_batchnorm  # knows timm's batch norms with activations

    for name, child in model.named_children():
        setattr(model, name, convert_sync_batchnorm(child))


class SharedStatistics(TorchFunctionMode):
    """In this context, batch norms of any kind that train take their statistics over all ranks.

    For CPUs, where torch's SyncBatchNorm does not work; a mode reaches timm's own kinds too.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is functional.batch_norm:
            return batch_norm(self.ranks, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def batch_norm(
    ranks: Ranks,
    input: Tensor,  # noqa: A002  # the names are those of torch's function
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of the images (N, C, ...) of all ranks together.

    Means and squares are joined as in Chan, Golub and LeVeque 1979, which loses no digits.
    """
    if not training:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, False, momentum, eps
        )
    axes, shape = [0, *range(2, input.ndim)], [1, -1, *[1] * (input.ndim - 2)]
    var, mean = torch.var_mean(input, axes, correction=0)
    own = input.numel() // input.shape[1]
    stats = torch.cat([mean, var, mean.new_tensor([float(own)])])
    every: Tensor = Gather.apply(stats, ranks)
    means, variances, counts = every.split([len(mean), len(mean), 1], 1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    var = (counts * (variances + (means - mean).square())).sum(0) / total
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(var.detach() * total / (total - 1), momentum)
    gain = (var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * gain
    normed: Tensor = input * gain.view(shape) + shift.view(shape)
    return normed


class Gather(torch.autograd.Function):
    """(K,) of each rank -> (ranks, K); backwards, what all ranks ask of ours adds up."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks) -> Tensor:
        ctx.rank = ranks.rank
        parts = [torch.empty_like(mine) for _ in range(ranks.size)]
        distributed.all_gather(parts, mine)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        asked = grads[0].contiguous()
        distributed.all_reduce(asked)
        return asked[ctx.rank], None
