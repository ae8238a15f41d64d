"""The gradient of each task by itself, on the parameters (shared or not) that are trained.

P entries of the parameters on which both tasks have a gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.balance import Join, Pair
from trainables.replica import Replica


class TaskGradients:
    """Gradients of the emotion and the AU loss, added up over the pieces of a batch.

    Unless wanted `by_task`, they are added up on the parameters, as usual.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], by_task: bool) -> None:
        self.parameters, self.by_task = parameters, by_task
        self.sums: tuple[list[Tensor | None], list[Tensor | None]] = (
            [None] * len(parameters),
            [None] * len(parameters),
        )

    def add(self, emotion: Tensor | None, au: Tensor | None) -> None:
        """Add those of one piece, whose graph is spent."""
        losses = [loss for loss in (emotion, au) if loss is not None]
        if not self.by_task or len(losses) == 1:
            sum(losses[1:], losses[0]).backward()
            return
        for sums, loss, is_first in zip(self.sums, losses, (True, False), strict=True):
            found = torch.autograd.grad(
                loss, self.parameters, retain_graph=is_first, allow_unused=True
            )
            for at, gradient in enumerate(found):
                if gradient is not None:
                    total = sums[at]
                    if total is None:  # in the layout of the parameter, which optimisers expect
                        total = sums[at] = torch.zeros_like(self.parameters[at])
                    total.add_(gradient)

    def join(self, join: Join, replica: Replica | None = None) -> Pair:
        """Make of them the gradients of the parameters; the norms of the two on shared ones.

        `join` has a say in the shared parameters; the others have the gradient of their task.
        """
        if replica is not None:
            replica.average([g for sums in self.sums for g in sums if g is not None])
        shared = list[tuple[Tensor, Tensor]]()
        for parameter, emotion, au in zip(self.parameters, *self.sums, strict=True):
            if emotion is not None or au is not None:
                parameter.grad = au if emotion is None else emotion
            if emotion is not None and au is not None:
                shared.append((emotion, au))
        if not shared:
            return 0.0, 0.0
        flat = [torch.cat([g.flatten() for g in of_task]) for of_task in zip(*shared, strict=True)]
        joined = join(flat[0], flat[1]).split([emotion.numel() for emotion, _ in shared])
        for (emotion, _), gradient in zip(shared, joined, strict=True):
            emotion.copy_(gradient.view(emotion.shape))  # in place: it is the parameter's gradient
        return float(flat[0].norm()), float(flat[1].norm())
