"""Nearest class means, and embeddings learned for them. N rows, D features, K classes, P width.

Prototypes need no training at all and hold for classes of a handful of images (methods 2.11).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.data.listing import several
from trainables.features.classifiers import CLASSIFIERS, Fit, Fitted
from trainables.features.descent import Descent, array_of, check_count, descend, seeded
from trainables.features.examples import Examples, Floats, Ints, Lesson
from trainables.registry import unknown

DISTANCES = ("cosine", "euclidean")
Wide = NDArray[np.float64]


@CLASSIFIERS.register
def prototypes(*, distance: str = "cosine", temperature: float = 0.1, shrink: float = 10.0) -> Fit:
    """p ~ softmax(-d(x, c_k) / temperature), c_k the mean of the class (NCM; Snell et al. 2017,
    1703.05175, without the embedding), shrunk to what its two basic emotions say of it.

    c_k = (n mean + shrink pair) / (n + shrink): a class of few images leans on the others. d is 1 -
    cosine, or the squared distance over D, so that one range of temperatures serves any D. Single
    emotions have no pair and are not shrunk.
    Raises ValueError for classes without images unless the pair prior tells them.
    """
    if distance not in DISTANCES:
        raise LookupError(unknown("distance", distance, DISTANCES))
    if not temperature > 0 or not shrink >= 0:
        raise ValueError(
            f"temperature {temperature:g} must be above 0, shrink {shrink:g} not below"
        )

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        centers = shrunk_means(lesson, shrink).astype(np.float32)

        def probs(features: Floats) -> Floats:
            return softmax(-distances(features, centers, distance) / temperature)

        return Fitted(probs, {"prototypes": centers})

    return fit


@CLASSIFIERS.register
def protonet(
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 5,
    episodes: int = 200,
    width: int = 64,
) -> Fit:
    """Prototypes in a linear embedding learned by episodes (Snell et al. 2017, 1703.05175).

    An episode draws `ways` classes, `shots` images of each for the prototypes and others to be told
    by them; squared distances, no temperature. Classes with fewer than shots + queries images are
    in no episode, but have a prototype in the end. Raises ValueError where fewer than two are left.
    """
    check_episodes(ways, shots, queries, episodes, width)

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        draw = Episodes.of(lesson, ways, shots, queries)
        require_images(lesson)
        embed = seeded(lambda: nn.Linear(lesson.seen.features.shape[1], width, bias=False), rng)
        features = torch.from_numpy(lesson.seen.features)
        how = Descent.of(lesson.config, 1, "adamw")

        def loss(rows: Tensor, progress: float) -> Tensor:
            support, query, labels = draw.episode(rng)
            means = embed(features[support]).mean(1)
            return nn.functional.cross_entropy(
                -torch.cdist(embed(features[query]), means).square(), labels
            )

        descend(embed, loss, lambda progress: np.arange(episodes * how.batch_size), how)
        return _nearest(embed, lesson.seen)

    return fit


def _nearest(embed: nn.Module, seen: Examples) -> Fitted:
    """The classifier by the mean of each class in the embedding."""

    @torch.inference_mode()
    def placed(features: Floats) -> Floats:
        out: Floats = embed(torch.from_numpy(features)).numpy()
        return out

    centers = class_means(placed(seen.features), seen.targets).astype(np.float32)

    def probs(features: Floats) -> Floats:
        x = placed(features)
        return softmax(-distances(x, centers, "euclidean") * x.shape[1])

    tensors = {name: array_of(value) for name, value in embed.named_parameters()}
    return Fitted(probs, {**tensors, "prototypes": centers})


class Episodes:
    """Draws episodes of the classes that have enough images. State: (n, V) rows of each class, the
    views of its images. One view of an image is drawn, or its mirror image would ask for it."""

    def __init__(self, rows: list[Ints], ways: int, shots: int, queries: int) -> None:
        self.rows, self.ways, self.shots, self.queries = rows, ways, shots, queries

    @classmethod
    def of(cls, lesson: Lesson, ways: int, shots: int, queries: int) -> "Episodes":
        """Raises ValueError where fewer than two classes have shots + queries images."""
        able = np.flatnonzero(lesson.counts >= shots + queries)
        if len(able) < 2:
            raise ValueError(
                f"episodes of {shots} + {queries} images need two classes that have as many, and "
                f"there are {len(able)}: set fewer shots or queries, or take classifier "
                "'prototypes'"
            )
        views = lesson.views()
        rows = [views[lesson.seen.labels[views[:, 0]] == k] for k in able]
        return cls(rows, min(ways, len(able)), shots, queries)

    def episode(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of support (ways, shots) and of query (ways * queries,), classes of the query."""
        of = rng.choice(len(self.rows), self.ways, replace=False)
        each = self.shots + self.queries
        images = [rng.choice(self.rows[k], each, replace=False) for k in of]
        drawn = np.stack([rng.permuted(views, axis=1)[:, 0] for views in images])
        labels = np.repeat(np.arange(self.ways), self.queries)
        support, query = drawn[:, : self.shots], drawn[:, self.shots :].reshape(-1)
        return torch.from_numpy(support), torch.from_numpy(query), torch.from_numpy(labels)


def check_episodes(ways: int, shots: int, queries: int, episodes: int, width: int) -> None:
    """Raise ValueError for episodes that cannot be drawn."""
    if ways < 2 or min(shots, queries, episodes, width) < 1:
        raise ValueError(
            f"{episodes} episodes of {ways} ways, {shots} shots and {queries} queries at width "
            f"{width} cannot be: give 2 or more ways, and 1 or more of the others"
        )
    check_count("episodes", episodes, most=100_000)
    check_count("width", width)


def require_images(lesson: Lesson) -> None:
    """Raise ValueError for classes that no row is of."""
    if len(without := np.flatnonzero(lesson.counts == 0)):
        raise ValueError(
            f"there is no training image of {several([f'class {k}' for k in without])}, so it has "
            "no prototype: take classifier 'prototypes' with shrink above 0, if the classes are "
            "compounds, or another classifier"
        )


def class_means(features: Floats, targets: Floats) -> Wide:
    """(K, D) mean of each class, weighted by how much a row is of it; 0 for one of no row."""
    wide = targets.astype(np.float64)
    total = wide.sum(0)[:, None]
    means: Wide = wide.T @ features.astype(np.float64)
    return means / np.where(total > 0, total, 1.0)


def shrunk_means(lesson: Lesson, shrink: float) -> Wide:
    """(n mean + shrink pair) / (n + shrink) of each class (K, D), n its images.

    Raises ValueError for classes without images that the pairs do not tell.
    """
    seen = lesson.seen
    means, n = class_means(seen.features, seen.targets), lesson.counts.astype(np.float64)
    if not shrink or seen.components is None:
        require_images(lesson)
        return means
    prior, is_told = pair_means(means, n, seen.pairs())
    if not is_told[n == 0].all():
        require_images(lesson)
    k = np.where(is_told, shrink, 0.0)  # a pair that no other class tells of is no prior
    mixed: Wide = (n[:, None] * means + k[:, None] * prior) / (n + k)[:, None]
    return mixed


def pair_means(means: Wide, n: Wide, pairs: Wide) -> tuple[Wide, NDArray[np.bool_]]:
    """What sums of basic emotions say of each class (K, D), and of which they say anything (K,).

    The vectors u of the basic emotions minimise sum_k n_k ||mean_k - u_a - u_b||^2, as in the
    additive head; without images of a basic emotion, they are all that can be had of it.
    """
    weights = np.sqrt(n)[:, None]
    inverse = np.linalg.pinv(weights * pairs)  # (B, K)
    u = inverse @ (weights * means)
    seen = np.linalg.norm(pairs - pairs @ inverse @ (weights * pairs), axis=1) < 1e-6
    return pairs @ u, seen


def distances(x: Floats, centers: Floats, distance: str) -> Floats:
    """(M, K): 1 - cosine, or the squared distance over the number of features."""
    if distance == "cosine":
        return 1 - unit(x) @ unit(centers).T
    squares = (x**2).sum(1)[:, None] + (centers**2).sum(1) - 2 * x @ centers.T
    return np.asarray(np.maximum(squares, 0) / x.shape[1], np.float32)


def unit(rows: Floats) -> Floats:
    """Rows at length 1; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def softmax(logits: Floats) -> Floats:
    """Of each row."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    out: Floats = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return out
