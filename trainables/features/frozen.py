"""Features of a network that is not trained: means and maxima of its maps. n images, D features.

Decoupled training (Kang et al. 2020, 1910.09217) and few-shot heads (methods 2.4, 2.11) begin here.
"""

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from trainables.backbones import Backbone, build_backbone, check_backbone
from trainables.config import NAMED_WEIGHTS, TrialConfig
from trainables.data.bundle import DataBundle, Split
from trainables.data.entry import file_hash
from trainables.data.folds import fold_of
from trainables.device import default_device
from trainables.features.extractors import EXTRACTORS, Extractor, Floats
from trainables.pretraining.leaks import refuse_leaks, warn_of_leaks
from trainables.weights import file_of, load_weights

SEED = 0  # of what the weights leave random: one network for all trials, whatever their seeds


@EXTRACTORS.register
def frozen(
    config: TrialConfig, bundle: DataBundle, *, maps: int = 1, pool: str = "mean"
) -> Extractor:
    """The `maps` coarsest maps of the backbone with its weights, pooled over places.

    `pool`: mean, or mean_max for both, twice as long. Without weights it is a random network: the
    control.
    """
    if pool not in ("mean", "mean_max") or not 1 <= maps <= 3:
        raise ValueError(f"pool '{pool}' of {maps} maps: take mean or mean_max, of 1 to 3 maps")
    name, arguments = config.backbone.name, config.backbone.args
    check_backbone(name, arguments)
    if config.weights not in NAMED_WEIGHTS:
        refuse_leaks(config, bundle.name)
        warn_of_leaks(config, fold_of(bundle, config))
    trunk = lru_cache(1)(partial(network, config, bundle.image_size))
    return Extractor(
        lambda part: _see(trunk(), part, maps, pool),
        f"{name} {sorted(arguments.items())} {_digest(config.weights, name)}",
        parameters=lambda: sum(p.numel() for p in trunk().parameters()),
    )


def network(config: TrialConfig, size: int) -> Backbone:
    """The network, in no mode but that of use."""
    state = torch.get_rng_state()
    torch.manual_seed(SEED)
    net = build_backbone(config.backbone.name, size, 0.0, False, **config.backbone.args)
    if config.weights != "none":
        load_weights(net, config.backbone.name, config.weights)
    torch.set_rng_state(state)
    return (
        net.eval().requires_grad_(False).to(default_device()).to(memory_format=torch.channels_last)
    )


@torch.inference_mode()
def _see(net: Backbone, part: Split, maps: int, pool: str) -> Floats:
    pixels = torch.from_numpy(np.array(part.images)).to(net.mean.device).float() / 255
    images = net.normalised(pixels)
    seen = [pooled(found, pool) for found in net(images)[-maps:]]
    return torch.cat(seen, 1).float().cpu().numpy()


def pooled(found: Tensor, pool: str) -> Tensor:
    """(n, C, h, w) -> (n, C) or, with the maxima, (n, 2 C)."""
    mean = found.mean((2, 3))
    return mean if pool == "mean" else torch.cat([mean, found.amax((2, 3))], 1)


def _digest(weights: str, backbone: str) -> str:
    """Which weights they are: of a file, what is in it."""
    if weights in NAMED_WEIGHTS:
        return weights
    path = file_of(weights, backbone)
    if not path.is_file():
        raise FileNotFoundError(f"no weights for backbone '{backbone}' at '{path}'")
    return file_hash(path)
