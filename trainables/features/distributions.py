"""Feature vectors drawn from what is assumed of a class. N images, D features, B basic emotions.

Classes of many images ("heads": at least the mean of all, and two) lend what those of few cannot
tell: how features scatter.
"""

from dataclasses import dataclass

import numpy as np

from trainables.features.examples import Examples, Floats, Ints
from trainables.features.oversampling import by_class, check
from trainables.features.synthesis import SYNTHESES, Synthesis

RIDGE = 1.0  # images of mean features that each basic emotion is taken to have besides its own


@dataclass(frozen=True)
class Head:
    """A class of many images."""

    label: int
    mean: Floats  # (D,)
    away: Floats  # (n, D) images less their mean

    @property
    def variance(self) -> float:
        """The mean over features."""
        return float((self.away**2).sum(0).mean() / (len(self.away) - 1))


def heads_of(real: Examples, least: int = 1) -> list[Head]:
    """The head classes; the largest ones where fewer than `least` reach the mean.

    Raises ValueError where no class has two images.
    """
    counts = real.counts()
    order = np.argsort(-counts, kind="stable")
    mean = counts.sum() / max(1, (counts > 0).sum())
    chosen = [k for rank, k in enumerate(order) if counts[k] >= mean or rank < least]
    found = []
    for k in sorted(k for k in chosen if counts[k] >= 2):
        features = real.features[real.labels == k]
        middle = features.mean(0)
        found.append(Head(int(k), middle, features - middle))
    if not found:
        raise ValueError("no class has two images: nothing can be told of how features scatter")
    return found


@SYNTHESES.register
def calibration(
    *, ratio: float = 0.5, classes: str = "all", alpha: float = 0.2, nearest: int = 2
) -> Synthesis:
    """Draws from N(mean, covariance) of a row and the heads nearest to it (Yang et al. 2021,
    2101.06395): mean (sum of theirs + row) / (k + 1), covariance the mean of theirs.

    A row of a head borrows of its own class alone. The paper adds alpha to every element of the
    covariance and first takes roots of features, which it knows to be positive; ours are
    standardised, and `alpha` times their borrowed variance is added to the diagonal.
    """
    if not 0 <= alpha <= 10 or nearest < 1:
        raise ValueError(f"alpha {alpha:g} of {nearest} nearest: give 0 to 10, and 1 or more")
    check(ratio, classes)

    def synthesise(real: Examples, rng: np.random.Generator) -> Examples:
        heads = heads_of(real, nearest)

        def make(real: Examples, members: Ints, count: int, rng: np.random.Generator) -> Examples:
            rows = rng.choice(members, count)
            label = int(real.labels[members[0]])
            own = [h for h in heads if h.label == label]
            features = _calibrated(real.features[rows], own or heads, nearest, alpha, rng)
            return _as_class(real, members, features)

        return by_class(ratio, classes, make)(real, rng)

    return synthesise


def _calibrated(
    rows: Floats, heads: list[Head], nearest: int, alpha: float, rng: np.random.Generator
) -> Floats:
    """(M, D) one draw from the calibrated distribution of each row."""
    means = np.stack([head.mean for head in heads])
    k = min(nearest, len(heads))
    gaps = ((rows[:, None] - means) ** 2).sum(2)
    lenders = np.argsort(gaps, 1, kind="stable")[:, :k]  # (M, k)
    drawn = (rows + means[lenders].sum(1)) / (k + 1)
    variance = np.array([head.variance for head in heads])[lenders].mean(1)
    for number, head in enumerate(heads):  # a sum of images, weighted by chance, scatters as they
        asked = np.flatnonzero((lenders == number).any(1))
        weights = rng.standard_normal((len(asked), len(head.away)), np.float32)
        drawn[asked] += weights @ head.away / np.sqrt(k * (len(head.away) - 1), dtype=np.float32)
    noise = rng.standard_normal(rows.shape, np.float32)
    drawn += np.sqrt(alpha * variance, dtype=np.float32)[:, None] * noise
    return np.asarray(drawn, np.float32)


@SYNTHESES.register
def pair(*, ratio: float = 0.5, classes: str = "all", noise: float = 1.0) -> Synthesis:
    """A compound as the sum of its two basic emotions, with the scatter of a head's images:
    effect_a + effect_b + `noise` (x - mean of x's class), x an image of a head (methods 2.12).

    The effects are least squares over all training images, with a ridge of one image each.
    """
    if not 0 <= noise <= 10:
        raise ValueError(f"noise {noise:g} cannot be: give 0 to 10")
    check(ratio, classes)

    def synthesise(real: Examples, rng: np.random.Generator) -> Examples:
        effects = pair_effects(real)
        away = np.concatenate([head.away for head in heads_of(real)])
        pairs = np.array(real.components)

        def make(real: Examples, members: Ints, count: int, rng: np.random.Generator) -> Examples:
            a, b = pairs[real.labels[members[0]]]
            scatter = away[rng.integers(len(away), size=count)]
            return _as_class(real, members, effects[a] + effects[b] + np.float32(noise) * scatter)

        return by_class(ratio, classes, make)(real, rng)

    return synthesise


def pair_effects(real: Examples) -> Floats:
    """(B, D) what each basic emotion adds to the features of a compound. Raises ValueError where
    classes are no compounds."""
    if real.components is None:
        raise ValueError(
            "synthesis 'pair' adds up two basic emotions, and these classes are not compounds: "
            "take another synthesis"
        )
    parts = real.pairs()[real.labels]
    gram = parts.T @ parts + RIDGE * np.eye(real.basics)
    return np.asarray(np.linalg.solve(gram, parts.T @ real.features), np.float32)


def _as_class(real: Examples, members: Ints, features: Floats) -> Examples:
    """Rows taught as the images of a class are on average."""
    target = real.targets[members].mean(0, keepdims=True)
    return Examples(
        np.asarray(features, np.float32),
        np.repeat(target, len(features), 0),
        np.repeat(real.labels[members[:1]], len(features)),
        real.components,
        real.basics,
    )
