"""A Gaussian process over (configuration, training length), fitted by its posterior mode.

n observations, P dimensions, F feature columns. The `gap` of an observation is
1 - log(epoch) / log(last epoch): 1 after the first epoch, 0 after full training.

    y = f(x) + e[trial] + gap * (g(x) + c + d[trial]) + noise

f and g share length scales (Matern 5/2, one a dimension); e and d are one trial's own deviation
from its neighbours, so that a curve is believed beyond what its settings tell (freeze-thaw,
Swersky et al. 2014, arXiv 1406.3896, whose curve kernel this linear one replaces).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
JITTER = 1e-6
# logarithms of (f, e, g, c, d, noise): medians and spreads of their log-normal priors
MEDIANS = np.log([1.0, 0.1, 0.5, 0.5, 0.15, 0.03])
SPREADS = np.array([0.7, 1.0, 0.7, 0.7, 0.7, 0.7])
ITERATIONS = 25
FULL: Array = np.zeros(1)  # the gap at full training


@dataclass(frozen=True)
class Points:
    """Where something was observed."""

    x: Array  # (n, F)
    trial: Ints  # (n,)
    gap: Array  # (n,)

    def take(self, keep: Ints) -> "Points":
        return Points(self.x[keep], self.trial[keep], self.gap[keep])


@dataclass(frozen=True)
class Theta:
    """Logarithms of the length scales (P,) and of the six standard deviations (6,)."""

    scales: Array
    sizes: Array


def prior(dimensions: int) -> tuple[Array, Array]:
    """Median and spread (P + 6,) of the log-parameters."""
    scale = math.log(0.6 * math.sqrt(max(1, dimensions)))
    median = np.concatenate([np.full(dimensions, scale), MEDIANS])
    return median, np.concatenate([np.ones(dimensions), SPREADS])


def fit(points: Points, y: Array, groups: Ints, dimensions: int) -> Theta:
    """The most probable parameters, from the prior's medians: the same data, the same answer."""
    median, spread = prior(dimensions)
    terms = _Terms.of(points, groups, dimensions)
    options = {"maxiter": ITERATIONS, "maxfun": ITERATIONS + 8}
    found = minimize(
        lambda t: _loss(t, terms, y, median, spread), median, jac=True, method="L-BFGS-B",
        bounds=list(zip(median - 4 * spread, median + 4 * spread, strict=True)), options=options,
    )  # fmt: skip
    return Theta(found.x[:dimensions], found.x[dimensions:])


@dataclass(frozen=True)
class _Terms:
    """What of the kernel does not depend on the parameters, all flattened to (n * n,)."""

    squares: Array  # (P, n * n) squared distances
    same: Array  # the same trial
    gaps: Array  # gap * gap'
    eye: Array

    @classmethod
    def of(cls, points: Points, groups: Ints, dimensions: int) -> "_Terms":
        n = len(points.gap)
        squares = np.zeros((dimensions, n * n))
        for column, group in enumerate(groups):
            x = points.x[:, column]
            squares[group] += ((x[:, None] - x[None]) ** 2).ravel()
        same = (points.trial[:, None] == points.trial[None]).ravel() * 1.0
        return cls(squares, same, np.outer(points.gap, points.gap).ravel(), np.eye(n).ravel())


def _loss(
    theta: Array, terms: _Terms, y: Array, median: Array, spread: Array
) -> tuple[float, Array]:
    """Negative log posterior and its gradient."""
    p, n = len(terms.squares), len(y)
    inverse = np.exp(-2 * theta[:p])
    f, e, g, c, d, noise = variances = np.exp(2 * theta[p:])
    r = np.sqrt(5 * (inverse @ terms.squares))
    decay = np.exp(-r)
    shape = (1 + r + r * r / 3) * decay
    size = f + g * terms.gaps
    own = terms.gaps * terms.same
    matrix = size * shape + e * terms.same + c * terms.gaps + d * own + (noise + JITTER) * terms.eye
    try:
        lower = cholesky(matrix.reshape(n, n), lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    inverted = cho_solve((lower, True), np.eye(n), check_finite=False)
    weights = inverted @ y
    error = 0.5 * y @ weights + np.log(np.diag(lower)).sum()
    slope = (inverted - np.outer(weights, weights)).ravel()
    along = slope * size * (5 / 3) * (1 + r) * decay
    by_size = [shape, terms.same, terms.gaps * shape, terms.gaps, own, terms.eye]
    gradient = np.concatenate(
        [
            0.5 * (terms.squares @ along) * inverse,
            np.array([slope @ k for k in by_size]) * variances,
        ]
    )
    away = (theta - median) / spread
    return float(error + 0.5 * away @ away), gradient + away / spread


class Posterior:
    """What is believed after the observations."""

    def __init__(self, points: Points, y: Array, theta: Theta, groups: Ints) -> None:
        self.points, self.y = points, y
        self.variances = np.exp(2 * theta.sizes)
        self.widths = np.exp(theta.scales)[groups]
        self.x = points.x / self.widths
        f, e, g, c, d, noise = self.variances
        gaps = np.outer(points.gap, points.gap)
        same = points.trial[:, None] == points.trial[None]
        matrix = (f + g * gaps) * _matern(self.x, self.x) + c * gaps + (e + d * gaps) * same
        matrix[np.diag_indices(len(y))] += noise + JITTER
        self.lower = cholesky(matrix, lower=True, check_finite=False)
        self.weights = cho_solve((self.lower, True), y, check_finite=False)

    def predict(
        self, x: Array, trial: Ints | None = None, gap: Array = FULL
    ) -> tuple[Array, Array]:
        """Mean and standard deviation (N,) at the gaps (N,) or (1,), of these trials if any."""
        f, e, g, c, d, _ = self.variances
        gaps = gap[:, None] * self.points.gap[None]
        cross = (f + gaps * g) * _matern(x / self.widths, self.x) + gaps * c
        if trial is not None:
            cross = cross + (e + gaps * d) * (trial[:, None] == self.points.trial[None])
        half = solve_triangular(self.lower, cross.T, lower=True, check_finite=False)
        variance = f + e + gap * gap * (g + c + d) - (half * half).sum(0)
        return cross @ self.weights, np.sqrt(np.maximum(variance, 1e-9))

    def are_new(self, x: Array) -> NDArray[np.bool_]:
        """Which points (N, F) may differ by their settings from every trial believed in: the
        variance of that difference is that of a trial beyond its settings, or more."""
        f, e, *_ = self.variances
        return np.asarray(2 * f * (1 - _matern(x / self.widths, self.x).max(1)) >= e)


class Lines:
    """What is believed of N points at any gap, which both mean and covariance are linear in.

    State: the products of the points with the Cholesky factor, at gap 0 and by gap; `believe` adds
    a row to each, so that one more observation costs a product and no factorisation.
    """

    def __init__(
        self, posterior: Posterior, x: Array, trial: Ints | None = None, room: int = 0
    ) -> None:
        f, e, g, c, d, noise = posterior.variances
        points = posterior.points
        self.x, self.f, self.noise = x / posterior.widths, f, noise + JITTER
        shape = _matern(self.x, posterior.x)
        start, slope = f * shape, (g * shape + c) * points.gap
        if trial is not None:
            same = trial[:, None] == points.trial[None]
            start, slope = start + e * same, slope + d * same * points.gap
        self.start, self.slope = start @ posterior.weights, slope @ posterior.weights
        self.own = f + e, g + c + d
        self.known, total = len(points.gap), len(points.gap) + room
        self.at_end, self.by_gap = np.zeros((total, len(x))), np.zeros((total, len(x)))
        for into, cross in ((self.at_end, start), (self.by_gap, slope)):
            into[: self.known] = solve_triangular(
                posterior.lower, cross.T, lower=True, check_finite=False
            )
        self.squares = [
            (a * b).sum(0)
            for a, b in ((self.at_end,) * 2, (self.at_end, self.by_gap), (self.by_gap,) * 2)
        ]

    def at(self, gap: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at the gaps: (N,), or (K, 1) for K of each point."""
        ends, mixed, gaps = self.squares
        variance = self.own[0] - ends + gap * (-2 * mixed + gap * (self.own[1] - gaps))
        return self.start + gap * self.slope, np.sqrt(np.maximum(variance, 1e-9))

    def believe(self, point: int) -> None:
        """Take the expected end of a point, of a trial of its own, as observed."""
        own, n = self.at_end[: self.known, point], self.known
        variance = self.own[0] - own @ own + self.noise
        end = self.f * _matern(self.x, self.x[[point]])[:, 0] - own @ self.at_end[:n]
        new = end / np.sqrt(variance), -(own @ self.by_gap[:n]) / np.sqrt(variance)
        self.at_end[n], self.by_gap[n] = new
        for square, (a, b) in zip(self.squares, ((0, 0), (0, 1), (1, 1)), strict=True):
            square += new[a] * new[b]
        self.known += 1


def _matern(a: Array, b: Array) -> Array:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    r = np.sqrt(5 * np.maximum(squares, 0))
    return np.asarray((1 + r + r * r / 3) * np.exp(-r))
