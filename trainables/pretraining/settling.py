"""Statistics of batch norm for images as they are, after training on masked images or crops."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.backbones import Backbone
from trainables.pretraining.pretext import normalised


@torch.no_grad()
def settle(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics anew: their mean over these batches."""
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    backbone.train()
    for images in batches:
        backbone(normalised(backbone, images))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
