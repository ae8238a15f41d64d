"""Judges of synthetic data, on features. N real, M synthetic, D features; every array is (., D).

They say whether synthetic samples are like real ones, copies of them, or easily told apart; none
says that training on them helps, which only real images held out can (Ravuri & Vinyals 2019,
1905.10887). Features may be of pixels that were generated, or generated themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
F64 = NDArray[np.float64]
Sample = tuple[Floats, Ints]  # features (n, D) and labels (n,)
_ROWS = 512  # of a distance or kernel matrix at a time, so that memory stays small
_FOLDS, _PROBED = 5, 2000  # folds of the probe, and the most samples of each kind it is shown
_COPY_QUANTILE = 0.05


@dataclass(frozen=True)
class Memorisation:
    """How near synthetic samples lie to training images, held against unseen real ones."""

    ratio: float  # median distance to the nearest training image: synthetic / held-out; copies: 0
    copied: float  # share nearer than the nearest 5 % of held-out ones: 0.05 if like new images
    nearest: Ints  # (M,) the training image that each lies nearest to
    distances: F64  # (M,) and how far


def kid(real: Floats, fake: Floats) -> float:
    """Unbiased squared MMD under the kernel (x.y / D + 1)^3: about 0 where the two are alike.

    Bińkowski et al. 2018 (1801.01401), over all pairs at once instead of a mean of subsets. It may
    be below 0, and unlike FID does not depend on how many samples there are.
    """
    real, fake = _pair(real, fake, least=2)
    n, m = len(real), len(fake)
    within_real = _kernel_sum(real, real) - _own_kernel(real).sum()
    within_fake = _kernel_sum(fake, fake) - _own_kernel(fake).sum()
    across = _kernel_sum(real, fake) / (n * m)
    return float(within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across)


def density_coverage(real: Floats, fake: Floats, neighbours: int = 5) -> tuple[float, float]:
    """Fidelity and diversity, each about 1 where the two are alike (Naeem et al. 2020, 2002.09797).

    Density: in how many neighbourhoods of real samples a synthetic one lies, over those it
    would. Coverage: the share of real samples with a synthetic one in their neighbourhood.
    """
    real, fake = _pair(real, fake, least=2)
    k = min(neighbours, len(real) - 1)
    radii = np.concatenate([np.partition(rows, k, 1)[:, k] for rows in distances(real, real)])
    inside = np.concatenate([rows <= radii for rows in distances(fake, real)])  # (M, N)
    return float(inside.sum() / (k * len(fake))), float(inside.any(0).mean())


def memorisation(
    train: Floats, fake: Floats, held_out: Floats, mirrored: Floats | None = None
) -> Memorisation:
    """Whether `fake` repeats training images: their nearest-neighbour distances, judged by real
    images that were not trained on. `mirrored`: the features of the training images mirrored."""
    train, fake = _pair(train, fake)
    _, held_out = _pair(train, held_out)
    known = train if mirrored is None else np.concatenate(_pair(train, mirrored))
    nearest, distances = nearest_of(fake, known)
    usual = nearest_of(held_out, known)[1]
    middle = float(np.median(usual))
    ratio = float(np.median(distances)) / middle if middle > 0 else float("nan")
    limit = np.quantile(usual, _COPY_QUANTILE)
    return Memorisation(ratio, float((distances < limit).mean()), nearest % len(train), distances)


def verdict(
    train: Floats, fake: Sample, held_out: Sample, seed: int = 0, most: int = 500
) -> dict[str, float]:
    """What a trial says of its synthetic rows: `synthetic_probe_auc` and
    `nearest_train_distance_ratio`, held against real rows of the same classes that nothing was
    made of. At most so many are looked at; what cannot be told is left out."""
    one, other = matched(fake[1], held_out[1], np.random.default_rng(seed))
    if not len(one):
        return {}
    new, real = fake[0][one[:most]], held_out[0][other[:most]]
    found = {
        "synthetic_probe_auc": probe_auc(real, new, seed),
        "nearest_train_distance_ratio": memorisation(train, new, real).ratio,
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def matched(one: Ints, other: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """As many rows of either, of equal labels, in a random order: else what is judged would be that
    classes are not equally frequent in the two."""
    rows: list[tuple[Ints, Ints]] = []
    for k in np.unique(one):
        a, b = (rng.permutation(np.flatnonzero(labels == k)) for labels in (one, other))
        n = min(len(a), len(b))
        rows.append((a[:n], b[:n]))
    first, second = (np.concatenate([part[i] for part in rows]) for i in (0, 1))
    order = rng.permutation(len(first))
    return first[order], second[order]


def probe_auc(real: Floats, fake: Floats, seed: int = 0) -> float:
    """Cross-validated AUC of a logistic "is it synthetic?" probe: 0.5 told by nothing, 1 by much.

    Where only some classes have synthetic samples, what the probe sees is a short cut to the
    label. NaN with fewer than five samples of either kind.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, seldom needed
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    real, fake = _pair(real, fake)
    if min(len(real), len(fake)) < _FOLDS:
        return float("nan")
    rng = np.random.default_rng(seed)
    shown = [part[np.sort(rng.permutation(len(part))[:_PROBED])] for part in (real, fake)]
    inputs = np.concatenate(shown)
    target = np.repeat([0, 1], [len(part) for part in shown])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(inputs, target)
    scores = []
    for train, test in folds:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        probe.fit(inputs[train], target[train])
        scores.append(roc_auc_score(target[test], probe.decision_function(inputs[test])))
    return float(np.mean(scores))


def probe_by_class(
    real: Floats, real_labels: Ints, fake: Floats, fake_labels: Ints, seed: int = 0
) -> dict[int, float]:
    """The AUC of the probe within each class that has five samples of both kinds."""
    found = {}
    for k in np.intersect1d(fake_labels, real_labels).tolist():
        auc = probe_auc(real[real_labels == k], fake[fake_labels == k], seed)
        if not np.isnan(auc):
            found[int(k)] = auc
    return found


def nearest_of(queries: Floats, known: Floats) -> tuple[Ints, F64]:
    """(M,) index of the nearest known sample, and (M,) the distance to it."""
    where, far = [], []
    for rows in distances(queries, known):
        index = rows.argmin(1)
        where.append(index)
        far.append(rows[np.arange(len(rows)), index])
    return np.concatenate(where).astype(np.int64), np.concatenate(far)


def _pair(one: Floats, other: Floats, least: int = 1) -> tuple[F64, F64]:
    """Both in double precision. Raises ValueError unless they are of one width and not empty."""
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"features of shapes {one.shape} and {other.shape}: give (N, D), (M, D)")
    if min(len(one), len(other)) < least:
        raise ValueError(f"{len(one)} and {len(other)} samples: give at least {least} of each")
    return one.astype(np.float64), other.astype(np.float64)


def distances(one: Floats, other: Floats) -> Iterator[F64]:
    """Euclidean distances (rows, M), some rows at a time."""
    one, other = _pair(one, other)
    length = (other * other).sum(1)
    for start in range(0, len(one), _ROWS):
        part = one[start : start + _ROWS]
        squared = (part * part).sum(1)[:, None] + length - 2 * part @ other.T
        yield np.sqrt(np.maximum(squared, 0))


def _kernel_sum(one: F64, other: F64) -> float:
    width = one.shape[1]
    starts = range(0, len(one), _ROWS)
    return float(sum(((one[k : k + _ROWS] @ other.T / width + 1) ** 3).sum() for k in starts))


def _own_kernel(values: F64) -> F64:
    """(N,) the kernel of each sample with itself, which an unbiased estimate leaves out."""
    own: F64 = ((values * values).sum(1) / values.shape[1] + 1) ** 3
    return own
