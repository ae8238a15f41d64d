"""How members differ. m members, N images, K classes; probs (m, N, K), weights (m,) sum to 1."""

from dataclasses import dataclass

import numpy as np

from trainables.metrics import Floats, Ints


@dataclass(frozen=True)
class Diversity:
    """Figures of one ensemble; pairs are weighed alike."""

    disagreement: tuple[tuple[float, ...], ...]  # share of images that two members call otherwise
    mean_disagreement: float
    mean_q: float  # Yule's Q of being right: 0 independent, 1 the same errors, below 0 others
    member_error: float  # Brier score, the members' weighted mean
    ambiguity: float  # how far the members are from their mean
    error: float  # Brier score of the mean: member_error - ambiguity


def diversity(probs: Floats, labels: Ints, weights: Floats) -> Diversity:
    """Pairwise disagreement, the Q statistic and the ambiguity decomposition.

    Kuncheva and Whitaker 2003; Krogh and Vedelsby 1995, whose decomposition is exact for the
    squared error of a weighted mean.
    """
    members, images, classes = probs.shape
    calls = probs.argmax(2)
    apart = (calls[:, None] != calls[None]).mean(2)
    pairs = np.triu_indices(members, 1)
    mean = np.tensordot(weights, probs, 1)
    truth = np.eye(classes)[labels]
    each = float(weights @ ((probs - truth) ** 2).sum(2).mean(1))
    ambiguity = float(weights @ ((probs - mean) ** 2).sum(2).mean(1))
    return Diversity(
        tuple(map(tuple, apart.tolist())),
        float(apart[pairs].mean()) if members > 1 else 0.0,
        float(q_statistic(calls == labels)[pairs].mean()) if members > 1 else 1.0,
        each,
        ambiguity,
        each - ambiguity,
    )


def q_statistic(right: Floats | Ints) -> Floats:
    """Yule's Q of each pair of rows (m, m): (ad - bc) / (ad + bc), 0 where both are 0.

    a, d are the images on which both are right or both wrong, b, c those on which one is.
    """
    hit = np.asarray(right, np.float64)
    both, neither = hit @ hit.T, (1 - hit) @ (1 - hit).T
    first, second = hit @ (1 - hit).T, (1 - hit) @ hit.T
    same, other = both * neither, first * second
    q: Floats = (same - other) / np.maximum(same + other, 1e-12)
    return q
