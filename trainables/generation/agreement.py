"""Whether images show the AUs they were asked for, as classifiers of real ones see it. No torch.

N images, A action units, D looks.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainables.data.bundle import Split
from trainables.generation.looks import Floats, fit_looks
from trainables.metrics import MIN_SUPPORT

UNSEEN = 1e-3  # the least chance that a classifier may give: one AU does not decide


def classifier(inputs: Floats, labels: NDArray[np.integer]) -> Any:
    """A logistic regression on standardised features, as far as its iterations bring it."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, labels)


def can_be_learned(column: NDArray[np.int8]) -> bool:
    """Whether enough images show an AU and enough do not."""
    return min(int((column == 1).sum()), int((column == 0).sum())) >= MIN_SUPPORT


def agreement(
    train: Split, images: NDArray[np.uint8], aus: NDArray[np.int8]
) -> NDArray[np.float32]:
    """(N,) mean log-likelihood of the AUs that images were asked to show, those that training
    images teach; 0 where none is known. By training images alone, so trials may choose by it."""
    seen, looks = fit_looks(np.asarray(train.images))
    asked = looks(images)
    total, known = np.zeros(len(images)), np.zeros(len(images))
    for k in np.flatnonzero([can_be_learned(column) for column in train.aus.T]):
        rows = train.aus[:, k] >= 0
        model = classifier(seen[rows], train.aus[rows, k])
        chance = model.predict_proba(asked)[:, 1]
        right = np.where(aus[:, k] == 1, chance, 1 - chance).clip(UNSEEN)
        total += np.where(aus[:, k] >= 0, np.log(right), 0.0)
        known += aus[:, k] >= 0
    return np.asarray(total / known.clip(1), np.float32)
