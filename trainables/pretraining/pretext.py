"""What a method of pretraining is. N images, S pixels a side.

METHODS: builder(backbone, image_size, *, hyper-parameters) -> Pretext: a task that images set
themselves, whose answer needs no label. `methods.py` holds all that are registered.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from trainables.registry import Registry

Found = dict[str, Tensor]  # "loss", and what else a row of the log shows, scalars
Picture = tuple[Tensor, Tensor, Tensor]  # (N, 3, S, S) each: the images, masked, reconstructed


def nothing(progress: float) -> None:
    """What most methods do after a step."""


@dataclass(frozen=True)
class Pretext:
    """A task, and the network that learns it: the backbone and what is thrown away afterwards."""

    module: nn.Module  # all that learns or is saved
    loss: Callable[[Tensor, Generator], Found]  # of images (N, 3, S, S) in [0, 1]
    after_step: Callable[[float], None] = nothing  # given the progress, from 0 to 1
    picture: Callable[[Tensor, Generator], Picture] | None = None
    needs_whole_batch: bool = False  # its images are compared with each other


PretextBuilder = Callable[..., Pretext]
METHODS: Registry[PretextBuilder] = Registry("method")


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless the value is a share between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise ValueError(f"{name} {value:g} is not between 0 and 1")
