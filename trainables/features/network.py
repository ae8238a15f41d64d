"""A trial on frozen features as one network: trunk, pooling, scale, heads. N images, D features.

For use after training only: the trial itself fits its classifier on stored features. Classifiers
that are layers can be had so; others (nearest neighbours, forests …) cannot.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainables.backbones import Backbone
from trainables.config import TrialConfig
from trainables.features.frozen import network, pooled
from trainables.features.linear import Scaled
from trainables.heads import HEADS, Components
from trainables.model import head_of

LAYERS = ("linear", "crt", "lws", "tau_norm")  # classifiers that are
SCALE = ("features.mean", "features.factor")


class Said(NamedTuple):
    """What it says of a batch; the names are those of `model.Output`."""

    logits: Tensor  # (N, K)
    au_logits: Tensor | None  # (N, A)


class FrozenNetwork(nn.Module):
    """Images (N, 3, S, S) in [0, 1] -> logits, by a trunk that was never trained here."""

    feature_mean: Tensor
    feature_factor: Tensor

    def __init__(
        self,
        trunk: Backbone,
        config: TrialConfig,
        head: nn.Module,
        au: nn.Linear | None,
        width: int,
    ) -> None:
        super().__init__()
        arguments = config.features.args
        self.maps, self.pool = int(arguments.get("maps", 1)), str(arguments.get("pool", "mean"))
        self.is_centred = config.classifier.name != "tau_norm"
        self.trunk, self.head, self.au = trunk, head, au
        for name, value in (("feature_mean", 0.0), ("feature_factor", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, images: Tensor) -> Said:
        found = self.trunk(self.trunk.normalised(images))[-self.maps :]
        features = torch.cat([pooled(x, self.pool) for x in found], 1)
        seen = (features - self.feature_mean) * self.feature_factor
        au_logits = None if self.au is None else self.au(seen)
        return Said(
            self.head(seen if self.is_centred else features * self.feature_factor), au_logits
        )


def build(
    config: TrialConfig, classes: int, aus: int, components: Components, basics: int
) -> FrozenNetwork:
    """The network of the configuration, its heads not fitted.

    Raises ValueError where features or classifier are no layers of a network.
    """
    if config.features.name != "frozen" or config.classifier.name not in LAYERS:
        raise ValueError(
            f"features '{config.features.name}' with classifier '{config.classifier.name}' are no "
            f"network: only features 'frozen' with {', '.join(LAYERS)} are"
        )
    trunk = network(config, config.image_size).to("cpu")
    maps, pool = int(config.features.args.get("maps", 1)), config.features.args.get("pool", "mean")
    width = sum(trunk.channels[-maps:]) * (1 if pool == "mean" else 2)
    learns_aus = bool(config.au_weight) and config.au_loss.name != "none"
    return FrozenNetwork(
        trunk,
        config,
        _head(config, width, classes, components, basics),
        nn.Linear(width, aus) if learns_aus else None,
        width,
    ).eval()


def _head(
    config: TrialConfig, width: int, classes: int, components: Components, basics: int
) -> nn.Module:
    if config.classifier.name == "tau_norm":
        return nn.Linear(width, classes, bias=False)
    if config.classifier.name == "lws":
        return Scaled(nn.Linear(width, classes))
    part = head_of(config)
    return HEADS[part.name](width, components, classes, basics, **part.args)


def load_fitted(model: FrozenNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Put what the trial has stored into the network. Raises RuntimeError where it does not fit."""
    mean, factor = (tensors[name] for name in SCALE)
    model.feature_mean.copy_(mean)
    model.feature_factor.copy_(factor)
    au = {k.removeprefix("au."): v for k, v in tensors.items() if k.startswith("au.")}
    head = {k: v for k, v in tensors.items() if k not in SCALE and not k.startswith("au.")}
    named = dict(model.head.named_buffers())
    stored = set(model.head.state_dict())
    model.head.load_state_dict({k: v for k, v in head.items() if k not in named or k in stored})
    if model.au is not None:
        model.au.load_state_dict(au)
