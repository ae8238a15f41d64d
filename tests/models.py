"""Made-up models and their predictions, for tests of ensembles."""

import numpy as np
from numpy.typing import NDArray

from analysis.votes import Votes

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def draw(models: int, images: int, classes: int, seed: int) -> tuple[Floats, Ints]:
    """Models of unequal skill: probabilities and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.standard_normal((models, images, classes))
    logits += 0.8 * rng.standard_normal((images, classes))  # what is hard for one is for all
    skill = rng.uniform(0.5, 2.5, models)
    logits[:, np.arange(images), labels] += skill[:, None]
    probs = np.exp(logits)
    return (probs / probs.sum(2, keepdims=True)).astype(np.float32), labels


def likely_of(probs: Floats, labels: Ints) -> Floats:
    """The probability of the true class (M, N)."""
    return probs[:, np.arange(len(labels)), labels]


def votes_of(probs: Floats, labels: Ints, names: list[str] | None = None) -> Votes:
    models, images, _ = probs.shape
    trials = names or [f"t{m:03}" for m in range(models)]
    order = sorted(range(models), key=lambda m: trials[m])
    return Votes(
        tuple(trials[m] for m in order),
        tuple(f"i{n}" for n in range(images)),
        labels,
        probs[order],
        np.zeros((images, 0), np.int8),
        np.zeros((models, images, 0), np.float32),
        {},
    )
