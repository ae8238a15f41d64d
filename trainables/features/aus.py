"""The AU task of a trial on features: one linear output an AU. V views, N images, A AUs.

Emotion and AUs share nothing but the frozen features, so lambda weighs nothing here: there is an AU
task where there is an AU loss.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainables.au_task import make_au_task
from trainables.config import TrialConfig
from trainables.data import aus
from trainables.data.bundle import DataBundle
from trainables.features.descent import Descent, array_of, descend, zero_linear
from trainables.features.examples import Floats, Ints

PASSES, BATCH, RATE = 20, 128, 0.01  # fixed: what is fitted is convex


def fit_aus(
    config: TrialConfig, bundle: DataBundle, views: Floats, rng: np.random.Generator
) -> tuple[Callable[[Floats], Floats], dict[str, Floats]]:
    """What gives AU probabilities (M, A) of features (M, D), and its tensors; (M, 0) if not asked.

    Where sides are kept a mirrored image shows other AUs, and the plain view alone is used.
    """
    if config.au_loss.name == "none":
        return lambda features: np.zeros((len(features), 0), np.float32), {}
    used = views if aus.mirror(bundle.au_names) is None else views[:1]
    targets = torch.from_numpy(np.tile(bundle.train.aus, (len(used), 1)).astype(np.float32))
    features = torch.from_numpy(used.reshape(-1, used.shape[2]))
    task, head = make_au_task(config, bundle), zero_linear(used.shape[2], len(bundle.au_names))

    def loss(rows: Tensor, progress: float) -> Tensor:
        wanted = targets[rows]
        known = (wanted >= 0).any(1).sum().clamp_min(1)
        total: Tensor = task.loss(head(features[rows]), wanted).sum() / known
        return total

    def order(progress: float) -> Ints:
        return rng.permutation(len(targets))

    descend(head, loss, order, Descent(PASSES, "adamw", BATCH, RATE, config.weight_decay))

    @torch.inference_mode()
    def probs(rows: Floats) -> Floats:
        out: Floats = head(torch.from_numpy(rows)).sigmoid().numpy()
        return out

    return probs, {f"au.{name}": array_of(v) for name, v in head.named_parameters()}
