"""What all fits of an ensemble share: tallies by part of the images, members at a temperature.

M models, N images, K classes, P parts that the images are cut into, T temperatures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.selection import FLOOR
from analysis.statistics import Goal, Tally
from trainables.metrics import Floats, Ints

TEMPERATURES = 2.0 ** (np.arange(-3, 8) / 3)  # 0.5 to 5 (methods.md 2.15)
AS_IS = 3  # the number of temperature 1
TINY = 1e-6  # below what float16 keeps of a probability


@dataclass(frozen=True)
class Parts:
    """The counts that scores are made of, by part of the images; each (P, M, K) or (P, K)."""

    hits: Floats
    said: Ints
    logs: Floats  # sum of the log-likelihood over the images of the class
    support: Floats

    def without(self, *held: int) -> tuple[Tally, Floats]:
        """Tally and log-likelihood of all images but those of the parts held out."""
        keep = [p for p in range(len(self.support)) if p not in held]
        hits, said, logs, support = (
            part[keep].sum(0) for part in (self.hits, self.said, self.logs, self.support)
        )
        return Tally(hits, said, np.broadcast_to(support, hits.shape)), logs


class Library:
    """The predictions of M models and what is derived of them, each thing once.

    It outlives a fit, so that the fits of all folds share the work.
    """

    def __init__(self, probs: NDArray[np.float32], labels: Ints, goal: Goal) -> None:
        self.probs, self.labels, self.goal = probs, labels, goal
        self.models, self.images, self.classes = probs.shape
        self.predicted: NDArray[np.int64] = probs.argmax(2)
        likely = probs[:, np.arange(self.images), labels]
        self._logs = np.log(np.maximum(likely, FLOOR))
        self._graded: dict[int, NDArray[np.float32]] = {}
        self._tempered: dict[tuple[int, int], NDArray[np.float32]] = {}

    def parts(self, part: Ints, count: int) -> Parts:
        """The counts of every model by part (N,) of the images."""
        shape = (self.models, count, self.classes)
        cell = part * self.classes + self.labels
        own = np.zeros((self.images, count * self.classes), np.float32)
        own[np.arange(self.images), cell] = 1
        right = (self.predicted == self.labels).astype(np.float32)
        key = self.predicted + (np.arange(self.models)[:, None] * count + part) * self.classes
        said = np.bincount(key.ravel(), minlength=np.prod(shape)).reshape(shape)
        support = own.sum(0).reshape(count, self.classes)
        return Parts(
            np.moveaxis((right @ own).reshape(shape), 1, 0),
            np.moveaxis(said, 1, 0),
            np.moveaxis((self._logs @ own).reshape(shape), 1, 0),
            support,
        )

    def ranking(self, counts: Tally, logs: Floats) -> NDArray[np.int64]:
        """The models from best to worst: by score, then by balanced log-likelihood."""
        weights = class_weights(counts.support[0], self.goal)
        order: NDArray[np.int64] = np.lexsort((-(logs @ weights), -self.goal.scores(counts)))
        return order

    def graded(self, model: int) -> NDArray[np.float32]:
        """The probability of the true class at each temperature (T, N)."""
        if model not in self._graded:
            logs = np.log(np.maximum(self.probs[model], TINY))
            scaled = logs / TEMPERATURES[:, None, None].astype(np.float32)
            likely = scaled[:, np.arange(self.images), self.labels]
            likely = np.exp(likely) / np.exp(scaled).sum(2)
            self._graded[model] = likely.astype(np.float32)
        return self._graded[model]

    def tempered(self, model: int, temperature: int) -> NDArray[np.float32]:
        """The probabilities of a model at one of TEMPERATURES (N, K)."""
        if temperature == AS_IS:
            own: NDArray[np.float32] = self.probs[model]
            return own
        key = model, temperature
        if key not in self._tempered:
            self._tempered[key] = temper(self.probs[model], float(TEMPERATURES[temperature]))
        return self._tempered[key]

    def temperatures(self, models: Ints, images: Ints) -> NDArray[np.int64]:
        """The temperature (its number) at which each model is likeliest on these images."""
        best = [
            np.log(np.maximum(self.graded(m)[:, images], TINY)).mean(1).argmax() for m in models
        ]
        return np.array(best, np.int64)


def temper(probs: Floats, temperature: Floats | float) -> NDArray[np.float32]:
    """Probabilities (..., K) as a softmax at that temperature would have given them."""
    logs = np.log(np.maximum(probs, TINY)) / np.asarray(temperature, np.float32)
    powers = np.exp(logs)
    out: NDArray[np.float32] = powers / powers.sum(-1, keepdims=True)
    return out


def class_weights(support: Ints | Floats, goal: Goal) -> NDArray[np.float32]:
    """What an image of each class (K,) weighs: classes of the goal alike; images, for accuracy."""
    keep = goal.keep if goal.name == "macro_f1" else support > 0
    weights = (keep / np.maximum(support, 1)).astype(np.float32)
    is_even = goal.name == "accuracy" or not (weights * support).any()
    return np.ones(len(support), np.float32) if is_even else weights
