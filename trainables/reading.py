"""Emotion logits that read the AU probabilities. N batch, K classes, A action units.

READINGS: builder(aus, classes, *, hyper-parameters) -> module: (N, K) logits, (N, A) AU logits ->
(N, K) logits, unchanged at the start. The AU logits get no gradient from it: what they say is left
to the AU loss (as in py-feat v2, whose emotion head is given the detached probabilities).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.registry import Registry

READINGS: Registry[Callable[..., nn.Module]] = Registry("AU reading")


@READINGS.register
def none_(aus: int, classes: int) -> nn.Module:
    """The emotion logits as they are."""
    return Unread()


@READINGS.register
def linear(aus: int, classes: int) -> nn.Module:
    """z + W sigmoid(s): with a linear head, one on the embedding and the probabilities together."""
    return Reading(aus, classes, is_blind=False)


@READINGS.register
def random_(aus: int, classes: int) -> nn.Module:
    """The control: as many weights, which read chance instead of the probabilities."""
    return Reading(aus, classes, is_blind=True)


class Unread(nn.Module):
    """Identity on the emotion logits."""

    def forward(self, logits: Tensor, au_logits: Tensor | None) -> Tensor:
        return logits


class Reading(nn.Module):
    """See `linear` and `random_`."""

    def __init__(self, aus: int, classes: int, is_blind: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, aus))
        self.is_blind = is_blind

    def forward(self, logits: Tensor, au_logits: Tensor | None) -> Tensor:
        assert au_logits is not None, "checked by contradictions.check_au_settings"
        probs = au_logits.detach().sigmoid()
        if self.is_blind:  # in use, the mean of what it was trained on
            probs = torch.rand_like(probs) if self.training else torch.full_like(probs, 0.5)
        return logits + probs @ self.weight.T
