"""Model-agnostic meta-learning of a head: a control only (methods 2.11). D features, K classes.

Fourteen classes give no distribution of tasks to learn from; it is here to be beaten.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.features.classifiers import CLASSIFIERS, Fit, Fitted
from trainables.features.descent import Descent, check_count, descend, fitted, seeded
from trainables.features.examples import Examples, Lesson
from trainables.features.nearest import Episodes, check_episodes

Parameters = dict[str, Tensor]


@CLASSIFIERS.register
def maml(
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 5,
    episodes: int = 100,
    width: int = 64,
    inner_lr: float = 0.05,
    inner_steps: int = 3,
) -> Fit:
    """A hidden layer and a head whose start is learned (Finn et al. 2017, 1703.03400).

    It is such that a few steps on the `shots` images of some classes tell their other images apart,
    by all second derivatives. Of that start, as many steps on all images, classes weighing alike,
    are the classifier. The K outputs are the classes themselves, not places dealt anew in each
    episode. Classes with fewer than shots + queries images are in no episode.
    """
    check_episodes(ways, shots, queries, episodes, width)
    if not inner_lr > 0 or inner_steps < 1:
        raise ValueError(f"{inner_steps} steps at inner_lr {inner_lr:g}: give 1 or more, above 0")
    check_count("inner_steps", inner_steps, most=1000)

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        seen = lesson.seen
        draw = Episodes.of(lesson, ways, shots, queries)
        shape = (seen.features.shape[1], width, seen.classes)
        net = seeded(partial(two_layers, *shape), rng)
        features, labels = torch.from_numpy(seen.features), torch.from_numpy(seen.labels)
        how = Descent.of(lesson.config, 1, "adamw")

        def loss(rows: Tensor, progress: float) -> Tensor:
            support, query, _ = draw.episode(rng)
            support = support.reshape(-1)
            start: Parameters = dict(net.named_parameters())
            inner = partial(_loss, net, features[support], labels[support], None)
            adapted = adapt(start, inner, inner_lr, inner_steps)
            return _loss(net, features[query], labels[query], None, adapted)

        descend(net, loss, lambda progress: np.arange(episodes * how.batch_size), how)
        return fitted(_adapted(net, seen, inner_lr, inner_steps))

    return fit


def two_layers(dim: int, width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, classes))


def adapt(start: Parameters, loss: "partial[Tensor]", lr: float, steps: int) -> Parameters:
    """The parameters after some steps down the slope; differentiable by where they start."""
    now = start
    for _ in range(steps):
        slopes = torch.autograd.grad(loss(now), list(now.values()), create_graph=True)
        now = {name: v - lr * g for (name, v), g in zip(now.items(), slopes, strict=True)}
    return now


def _adapted(net: nn.Module, seen: Examples, lr: float, steps: int) -> nn.Module:
    """The network after the steps on all rows."""
    counts = np.maximum(seen.counts(), 1)
    weights = torch.from_numpy((1 / counts / (1 / counts[seen.labels]).sum()).astype(np.float32))
    features, labels = torch.from_numpy(seen.features), torch.from_numpy(seen.labels)
    inner = partial(_loss, net, features, labels, weights[labels] * len(labels))
    end = adapt(dict(net.named_parameters()), inner, lr, steps)
    net.load_state_dict({name: value.detach() for name, value in end.items()})
    return net


def _loss(
    net: nn.Module, x: Tensor, labels: Tensor, weights: Tensor | None, parameters: Parameters
) -> Tensor:
    """Mean cross-entropy under these parameters."""
    each = nn.functional.cross_entropy(
        functional_call(net, parameters, (x,)), labels, reduction="none"
    )
    return (each if weights is None else weights * each).mean()
