"""What classifiers and syntheses are given. N rows, D features, K classes, B basic emotions."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.heads import Components, pair_matrix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Feature vectors of training images, or made from them, and what they are taught as."""

    features: Floats  # (N, D), each column standardised over the training images
    targets: Floats  # (N, K), rows sum to 1
    labels: Ints  # (N,) the class of the image, or the class a synthetic row is made for
    components: Components  # per class, its two basic emotions; None: single emotions
    basics: int  # B

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return int(self.targets.shape[1])

    def pairs(self) -> NDArray[np.float64]:
        """(K, B) how often each basic emotion takes part in each class."""
        return pair_matrix(self.components, self.classes, self.basics).double().numpy()

    def counts(self) -> Ints:
        """Rows per class (K,)."""
        return np.bincount(self.labels, minlength=self.classes)


@dataclass(frozen=True)
class Lesson:
    """All that a classifier is fitted on: the training images only, never another split."""

    seen: Examples  # of every view of each image, synthetic rows last
    counts: Ints  # (K,) images and synthetic rows per class, views not counted
    real: Ints  # (K,) images per class
    center: Floats  # (D,) what was subtracted, in units of the standardised features
    config: TrialConfig

    def views(self) -> Ints:
        """(M, V) the rows of `seen` that are views of each image; a synthetic row is its own."""
        images, made = int(self.real.sum()), int((self.counts - self.real).sum())
        first = len(self.seen) - made
        rows, own = np.arange(first).reshape(-1, images).T, np.arange(first, len(self.seen))
        return np.concatenate([rows, np.repeat(own[:, None], rows.shape[1], 1)])


def joined(parts: list[Examples]) -> Examples:
    """The rows of all parts, one after another."""
    return replace(
        parts[0],
        features=np.concatenate([part.features for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
