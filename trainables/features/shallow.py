"""Classifiers of scikit-learn, for classical features. M, N rows, D features, P components, K.

Each may first turn the features to the principal components that hold a share of their variance.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from trainables.features.classifiers import CLASSIFIERS, Fit, Fitted
from trainables.features.descent import seed_of
from trainables.features.examples import Floats, Ints, Lesson
from trainables.features.nearest import softmax

COMPONENTS = 256  # at most: more are noise in a few thousand images
MOST_STEPS = 200
Say = Callable[[Floats], Floats]  # what is fitted (M, P) -> (M, k) of the k classes it has seen


@CLASSIFIERS.register
def logistic(*, c: float = 0.1, pca: float = 0.95, balanced: bool = False) -> Fit:
    """Multinomial logistic regression, 1 / (2 c) times the squared weights added to the sum of the
    losses; `balanced` weighs each class by one over its images."""
    _check(c, pca)

    def fit(x: Floats, labels: Ints, rng: np.random.Generator) -> tuple[Any, Say]:
        from sklearn.linear_model import LogisticRegression

        weight = "balanced" if balanced else None
        model = LogisticRegression(C=c, class_weight=weight, max_iter=MOST_STEPS, tol=1e-3)
        model.fit(x, labels)
        return model, model.predict_proba

    return _reduced(fit, pca)


@CLASSIFIERS.register
def svm(*, c: float = 0.01, pca: float = 0.95, balanced: bool = False) -> Fit:
    """Linear support vector machines, each class against the others (squared hinge).

    Its probabilities are the softmax of the margins: as good for the decision, not calibrated.
    """
    _check(c, pca)

    def fit(x: Floats, labels: Ints, rng: np.random.Generator) -> tuple[Any, Say]:
        from sklearn.svm import LinearSVC

        weight = "balanced" if balanced else None
        model = LinearSVC(
            C=c, class_weight=weight, dual="auto", max_iter=MOST_STEPS, random_state=seed_of(rng)
        )
        model.fit(x, labels)
        return model, lambda rows: softmax(_margins(model, rows))

    return _reduced(fit, pca)


@CLASSIFIERS.register
def lda(*, shrinkage: float = 0.1, pca: float = 0.95, balanced: bool = False) -> Fit:
    """Linear discriminant analysis, the common covariance shrunk to a multiple of the identity;
    `balanced` gives all classes the same prior."""
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage {shrinkage:g} is not within 0 to 1")
    _check(1.0, pca)

    def fit(x: Floats, labels: Ints, rng: np.random.Generator) -> tuple[Any, Say]:
        model = discriminant(x, labels, shrinkage, balanced)
        return model, lambda rows: softmax(rows @ model.coef_.T + model.intercept_)

    return _reduced(fit, pca)


class Discriminant(NamedTuple):
    """A linear score for each of the k classes that have rows; named as scikit-learn's."""

    classes_: Ints
    coef_: Floats  # (k, P)
    intercept_: Floats


def discriminant(x: Floats, labels: Ints, shrinkage: float, is_balanced: bool) -> Discriminant:
    """What scikit-learn's solver `lsqr` finds. That takes singular values of the covariance, which
    shrinkage makes positive: of a thousand features and more, Cholesky's factors are far quicker.
    """
    classes, at, counts = np.unique(labels, return_inverse=True, return_counts=True)
    priors = np.full(len(counts), 1 / len(counts)) if is_balanced else counts / len(labels)
    wide = x.astype(np.float64)
    means = np.stack([wide[at == k].mean(0) for k in range(len(counts))])
    away = (wide - means[at]) * np.sqrt(priors / counts)[at, None]
    within = away.T @ away
    level = shrinkage * np.trace(within) / len(within)
    within *= 1 - shrinkage
    within.flat[:: len(within) + 1] += level
    try:
        coef = linalg.solve(within, means.T, assume_a="pos").T if level else None
    except linalg.LinAlgError:
        coef = None
    if coef is None:  # fewer rows than features, and nothing that makes up for it
        coef = linalg.lstsq(within, means.T, np.finfo(np.float32).eps)[0].T
    intercept = np.log(priors) - 0.5 * (means * coef).sum(1)
    return Discriminant(classes, coef.astype(np.float32), intercept.astype(np.float32))


def _reduced(
    model: Callable[[Floats, Ints, np.random.Generator], tuple[Any, Say]], pca: float
) -> Fit:
    """The fit of a model after the principal components; classes without a row get chance 0."""

    def fit(lesson: Lesson, rng: np.random.Generator) -> Fitted:
        seen = lesson.seen
        turn = principal(seen.features, pca, rng)

        def reduced(features: Floats) -> Floats:
            return features if turn is None else features @ turn

        with warnings.catch_warnings():
            # it has had its steps; and a singular covariance is what shrinkage is there for
            warnings.simplefilter("ignore")
            found, say = model(reduced(seen.features), seen.labels, rng)

        def probs(features: Floats) -> Floats:
            out = np.zeros((len(features), seen.classes), np.float32)
            out[:, found.classes_] = say(reduced(features))
            return out

        weights = {"coef": found.coef_, "intercept": found.intercept_}
        weights |= {} if turn is None else {"components": turn}
        return Fitted(probs, {k: np.ascontiguousarray(v, np.float32) for k, v in weights.items()})

    return fit


def principal(features: Floats, share: float, rng: np.random.Generator) -> Floats | None:
    """(D, P): the first principal components that hold the share of the variance, 256 at most;
    None for a share of 1, as then features stay what they are."""
    if share == 1.0:
        return None
    from sklearn.utils.extmath import randomized_svd

    most = min(COMPONENTS, *features.shape)
    centered = features - features.mean(0)
    _, sizes, turn = randomized_svd(centered, most, n_iter=2, random_state=seed_of(rng))
    held = np.cumsum(sizes.astype(np.float64) ** 2) / float(
        (centered.astype(np.float64) ** 2).sum()
    )
    count = min(most, int(np.searchsorted(held, share)) + 1)
    out: Floats = np.ascontiguousarray(turn[:count].T, np.float32)
    return out


def _margins(model: Any, rows: Floats) -> Floats:
    """(M, k) margins; of two classes, of which scikit-learn gives one column, both."""
    found: Floats = model.decision_function(rows).astype(np.float32)
    return found if found.ndim == 2 else np.stack([-found, found], 1)


def _check(c: float, pca: float) -> None:
    if not c > 0 or not 0 < pca <= 1:
        raise ValueError(f"c {c:g} must be above 0, and pca {pca:g} above 0 and at most 1")
