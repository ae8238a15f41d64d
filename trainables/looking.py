"""A trained model's look at views of the validation and test images: mirrored, nearer, farther.

N images, S pixels a side, K classes, V views.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.bundle import Split
from trainables.geometry import warp
from trainables.heads import Additive
from trainables.loop import outputs
from trainables.model import FERModel
from trainables.ranks import Ranks
from trainables.views import FLIP, PLAIN, Views, affordable, file_of, pack

if TYPE_CHECKING:
    from trainables.trial import Training

LARGEST = 60000.0  # what 16 bits hold


def view(images: Tensor, name: str) -> Tensor:
    """The images (N, 3, S, S) as the view has them: "plain", "flip", "0.9", "1.1 flip".

    A scale zooms about the centre; what a smaller face leaves free repeats the edge.
    """
    scale, _, flip = name.partition(" ")
    if scale in (PLAIN, FLIP):
        scale, flip = "1", scale.replace(PLAIN, "")
    if float(scale) != 1:
        theta = torch.eye(2, 3, device=images.device) / float(scale)
        images = warp(images, theta.expand(len(images), 2, 3), "border")
    return images.flip(3) if flip else images


def look(trial: "Training", plain: Mapping[str, NDArray[np.float32]]) -> dict[str, bytes]:
    """The files of views of both splits, by name; of the plain one the logits are known.

    All ranks call this, each has its share.
    """
    model, bundle, config, ranks = trial.average.model, trial.bundle, trial.config, trial.ranks
    names = affordable(config.epochs, len(bundle.train), len(bundle.val), len(bundle.test))
    norms, files = class_norms(model, config), dict[str, bytes]()
    for which, split in (("val", bundle.val), ("test", bundle.test)):
        found = [
            ranks.gather(
                logits_of(model, split, name, trial.device, trial.stepper.dtype, ranks), len(split)
            )
            for name in names
            if name != PLAIN
        ]
        logits = np.stack([plain[which], *found]).clip(-LARGEST, LARGEST)
        files[file_of(which)] = pack(Views(split.ids, names, logits, norms))
    return files


@torch.inference_mode()
def logits_of(
    model: nn.Module,
    split: Split,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks,
) -> NDArray[np.float32]:  # six: those of `loop.outputs`
    """This rank's logits (n, K) of a view of its share of the images."""
    found = outputs(model, split, device, dtype, ranks, partial(view, name=name))
    logits: NDArray[np.float32] = torch.cat([out.logits.float() for out in found]).cpu().numpy()
    return logits


def class_norms(model: nn.Module, config: TrialConfig) -> NDArray[np.float32]:
    """The norm of each class's weights (K,) where logits are linear in the embedding, else (0,)."""
    assert isinstance(model, FERModel)
    head = model.heads.emotion
    weight = None
    if config.au_reading.name == "none" and isinstance(head, nn.Linear):
        weight = head.weight
    if config.au_reading.name == "none" and isinstance(head, Additive):
        weight = head.pairs @ head.basic.weight
        weight = weight if head.residual is None else weight + head.residual.weight
    if weight is None:
        return np.zeros(0, np.float32)
    norms: NDArray[np.float32] = weight.detach().norm(dim=1).float().cpu().numpy()
    return norms
