"""Combinations that need an optimiser: weights by CMA-ES, stacking. m members, n images, K classes.

probs (m, n, K) of the members, best first; labels (n,).
"""

import numpy as np
from numpy.typing import NDArray

from analysis import statistics
from analysis.library import TINY
from analysis.selection import Weights, log_likelihood
from analysis.statistics import Goal, Tally
from trainables.metrics import Floats, Ints

GENERATIONS = 20
POPULATION = 8
SIGMA = 0.5
STRENGTH = 1000.0  # of the pull of stacking to the geometric mean; 1 / C of a logistic regression
STEPS = 15
TIE = 1e-3  # what a nat of log-likelihood counts beside the score, which jumps


def evolved(
    probs: NDArray[np.float32], labels: Ints, goal: Goal, importance: Floats, seed: int
) -> Weights:
    """Weights (m,) that raise the score itself, by CMA-ES on their logits from uniform ones.

    Purucker and Beel 2023 (2307.00286) over-fit with thousands of steps; here 160 evaluations from
    the uniform start are all there is. Images that all members call alike are counted once.
    """
    from cmaes import CMA  # with all of scipy.stats

    members, _, classes = probs.shape
    calls = probs.argmax(2)
    open_ = (calls != calls[0]).any(0)  # no convex combination changes the call of the others
    fixed = statistics.tally(labels[~open_], calls[:1, ~open_], classes)
    part = np.ascontiguousarray(probs[:, open_]).reshape(members, -1)
    likely = probs[:, np.arange(len(labels)), labels]

    def values(weights: NDArray[np.float32]) -> Floats:
        said = (weights @ part).reshape(len(weights), -1, classes).argmax(2)
        now = statistics.tally(labels[open_], said, classes)
        counts = Tally(*(getattr(now, n) + getattr(fixed, n) for n in ("hits", "said", "support")))
        total: Floats = goal.scores(counts) + TIE * log_likelihood(weights @ likely, importance)
        return total

    weights = np.full((1, members), 1 / members, np.float32)
    if not open_.any() or members < 2:
        return np.full(members, 1 / members)
    best, kept = float(values(weights)[0]), weights[0]
    search = CMA(np.zeros(members), SIGMA, seed=seed, population_size=POPULATION)
    for _ in range(GENERATIONS):
        asked = [search.ask() for _ in range(POPULATION)]
        weights = _softmax(np.array(asked)).astype(np.float32)
        found = values(weights)
        search.tell([(x, -float(v)) for x, v in zip(asked, found, strict=True)])
        if found.max() > best:
            best, kept = float(found.max()), weights[found.argmax()]
    out: Weights = kept.astype(np.float64)
    out /= out.sum()
    return out


def stacked(probs: NDArray[np.float32], labels: Ints) -> Weights:
    """Coefficients (m K + 1, K) of a multinomial regression on the members' log-probabilities.

    The penalty pulls towards the geometric mean of the members instead of towards zero, so that few
    images leave an average. All images weigh the same: with rare classes made heavier it lost 1 to
    12 points of macro-F1 in simulation.
    """
    from scipy.optimize import minimize

    members, images, classes = probs.shape
    x = features(probs)
    start = np.concatenate(
        [np.tile(np.eye(classes), (members, 1)) / members, np.zeros((1, classes))]
    )

    def loss(flat: Floats) -> tuple[float, Floats]:
        away = flat.reshape(start.shape) - start
        said = _softmax(x @ (away + start).astype(np.float32))
        cost = -np.log(np.maximum(said[np.arange(images), labels], TINY)).sum()
        said[np.arange(images), labels] -= 1
        slope = x.T @ said + STRENGTH * away
        return float(cost) + STRENGTH / 2 * float((away**2).sum()), slope.ravel().astype(np.float64)

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    out: Weights = found.x.reshape(start.shape)
    return out


def features(probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What stacking reads (n, m K + 1): log-probabilities, member after member, and a one."""
    logs = np.log(np.maximum(probs, TINY))
    flat = np.moveaxis(logs, 0, 1).reshape(probs.shape[1], -1)
    return np.concatenate([flat, np.ones((len(flat), 1), np.float32)], 1)


def applied(coefficients: Floats, probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (n, K) of the regression."""
    return _softmax(features(probs) @ coefficients.astype(np.float32))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    out: Floats = powers / powers.sum(-1, keepdims=True)
    return out
