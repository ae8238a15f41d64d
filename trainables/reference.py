"""A reference classifier that tells easy images from hard ones, without any other run.

Histograms of gradients, and a logistic regression on them in cross-validation: what it loses on
images that it has not seen. Computed once for a data set and kept beside the prepared one.
N images, F features.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables import npz
from trainables.data.bundle import DataBundle
from trainables.store import replace_file

log = logging.getLogger(__name__)

FOLDS, SIDE, COMPONENTS = 5, 64, 100
LEAST_CHANCE = 1e-6  # of a class that the classifier has never seen
VERSION = 2  # part of the file's name: raise it when the losses change


def reference_losses(bundle: DataBundle) -> NDArray[np.float64]:
    """Out-of-fold cross-entropy of each training image (N,), from the file where there is one."""
    if bundle.folder is None:
        return out_of_fold_losses(bundle)
    path = bundle.folder / f"reference_losses-{_content(bundle)}.npz"
    with _one_at_a_time(bundle.folder):
        if (found := _stored(path, len(bundle.train))) is not None:
            return found
        losses = out_of_fold_losses(bundle)
        try:
            replace_file(path, npz.pack(losses=losses))
        except OSError as error:  # somebody else's cache, or a full disk: then every trial computes
            log.warning("the reference losses cannot be kept in '%s': %s", path, error)
    return losses


def out_of_fold_losses(bundle: DataBundle) -> NDArray[np.float64]:
    """The same, computed."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = gradient_histograms(bundle.train.images), bundle.train.labels
    fold = folds(labels, FOLDS, np.random.default_rng(0))[first_alike(features)]
    chances = np.full((len(labels), len(bundle.class_names)), LEAST_CHANCE)
    for k in range(FOLDS):
        seen, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if not len(held) or len(np.unique(labels[seen])) < 2:
            continue
        width = min(COMPONENTS, len(seen), features.shape[1])
        model = make_pipeline(
            PCA(width, svd_solver="randomized", random_state=0),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=2000),
        )
        model.fit(features[seen], labels[seen])
        chances[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    own = chances[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.clip(own, LEAST_CHANCE, 1)))


def gradient_histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 3, S, S) -> (N, F) histograms of oriented gradients (Dalal & Triggs 2005,
    10.1109/CVPR.2005.177) of the grey faces at 64 px."""
    from skimage.feature import hog

    found = []
    for image in images:
        grey = cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        found.append(hog(grey, 9, (8, 8), (2, 2)).astype(np.float32))  # now: there may be many
    return np.asarray(found, np.float32)


def first_alike(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first image with the same features, of each (N,): itself, but for an image again.

    The copy of an image in another fold would give it away (`synthetic: repeated`).
    """
    first: dict[bytes, int] = {}
    digests = (hashlib.sha256(row.tobytes()).digest() for row in features)
    return np.array([first.setdefault(digest, n) for n, digest in enumerate(digests)], np.int64)


def folds(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which fold each image is held out in, (N,): each class as evenly as its size allows."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % count
    return fold


def _content(bundle: DataBundle) -> str:
    """Which images and labels the losses are of: a trial may train on a part of the data."""
    digest = hashlib.sha256(f"{VERSION} {bundle.fingerprint} {bundle.train.ids}".encode())
    digest.update(bundle.train.labels.tobytes())
    digest.update(np.ascontiguousarray(bundle.train.images[:, :, ::16, ::16]).tobytes())
    return digest.hexdigest()[:16]


def _stored(path: Path, count: int) -> NDArray[np.float64] | None:
    """The losses of the file; None where there is none, or half a one."""
    try:
        losses: NDArray[np.float64] = npz.read(path.read_bytes())["losses"]
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a torn file may look like
        log.warning("'%s' cannot be read and is made anew: %s", path, error)
        return None
    return losses if losses.shape == (count,) and np.isfinite(losses).all() else None


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Trials of a node that start together: one computes, the others read."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network disk may know no locks: then all compute
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
