"""Honest scores of ensemble methods: choose on some images, score on the others.

R repeats, N images; calls (R, methods, N) are the classes said of images that did not choose.
"""

import numpy as np
from numpy.typing import NDArray

from analysis import ensemble as ens
from analysis import statistics
from analysis.ensemble import Answers, Judged, Weights
from analysis.statistics import Estimate, Goal
from trainables.metrics import Floats, Ints

FOLDS = 5
REPEATS = 3
OUTER_REPEATS = 2
BOOTSTRAP = 300
FEW_IMAGES = 20  # fewer are not split any further


def folds(labels: Ints, rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold per image (N,): classes dealt evenly, sizes differing by at most one."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    out = np.empty(len(labels), np.int64)
    out[order] = (np.arange(len(labels)) + rng.integers(FOLDS)) % FOLDS
    return out


def out_of_fold(
    probs: Floats,
    answers: Answers,
    goal: Goal,
    repeats: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """What each method calls images that did not choose it (R, methods, N)."""
    count = len(ens.methods(len(probs)))
    out = np.empty((repeats, count, len(answers.labels)), np.int64)
    for repeat in range(repeats):
        fold = folds(answers.labels, rng)
        for held in range(FOLDS):
            weights = ens.fit(answers.at(fold != held), goal, rng)
            out[repeat][:, fold == held] = calls_of(weights, probs, fold == held)
    return out


def calls_of(weights: Weights, probs: Floats, images: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each row of weights calls the images (rows, n)."""
    used = np.flatnonzero(weights.any(0))
    part = probs[np.ix_(used, np.flatnonzero(images))]
    return np.stack([ens.mix(row[used], part).argmax(1) for row in weights])


def judge(
    calls: NDArray[np.int64], labels: Ints, goal: Goal, rng: np.random.Generator
) -> tuple[Floats, Floats, int]:
    """Score of each method, standard error of its distance to the best, and which one to take.

    The one-standard-error rule on the paired difference: the first method, in the order of trust,
    that is within one standard error of the best.
    """
    repeats, count, _ = calls.shape
    flat = calls.reshape(repeats * count, -1)
    counts = statistics.tally(labels, flat, goal.classes)
    means = goal.scores(counts).reshape(repeats, count).mean(0)
    weights = statistics.resample(labels, BOOTSTRAP, rng)
    sampled = statistics.bootstrap(labels, flat, goal, weights)["score"]
    sampled = sampled.reshape(BOOTSTRAP, repeats, count).mean(1)
    best = int(means.argmax())
    errors = (sampled[:, [best]] - sampled).std(0)
    return means, errors, int(np.flatnonzero(means >= means[best] - errors)[0])


def compare(
    probs: Floats,
    answers: Answers,
    goal: Goal,
    inside: Floats,
    rng: np.random.Generator,
) -> tuple[list[Judged], int, str]:
    """A row per method, the number of the one to take, and a remark."""
    names = ens.methods(len(probs))
    if len(answers.labels) < FEW_IMAGES:
        rows = [
            Judged(name, k, float("nan"), float("nan"), float("nan"), float(score))
            for (name, k), score in zip(names, inside, strict=True)
        ]
        return rows, 0, f"{len(answers.labels)} images are too few to compare methods on"
    calls = out_of_fold(probs, answers, goal, REPEATS, rng)
    means, errors, chosen = judge(calls, answers.labels, goal, rng)
    rows = [
        Judged(name, k, float(mean), float(means.max() - mean), float(error), float(score))
        for (name, k), mean, error, score in zip(names, means, errors, inside, strict=True)
    ]
    return rows, chosen, ""


def nested(
    probs: Floats,
    answers: Answers,
    goal: Goal,
    rng: np.random.Generator,
    baseline: Ints | None = None,
) -> dict[str, Estimate]:
    """Scores on images that chose neither members, weights nor method; {} for too few images.

    "ensemble", "single", "top" (the plain average) and, where its calls (N,) are given, "baseline",
    which nobody chose; then the ensemble's lead over each of the others.
    """
    labels = answers.labels
    if len(labels) < 2 * FEW_IMAGES:
        return {}
    names = ens.methods(len(probs))
    fixed = [names.index(("average", k)) for k in (1, min(ens.PLAIN, len(probs)))]
    calls = np.empty((OUTER_REPEATS, 3, len(labels)), np.int64)
    for repeat in range(OUTER_REPEATS):
        fold = folds(labels, rng)
        for held in range(FOLDS):
            inner = answers.at(fold != held)
            inner_calls = out_of_fold(probs[:, fold != held], inner, goal, 1, rng)
            chosen = judge(inner_calls, inner.labels, goal, rng)[2]
            weights = ens.fit(inner, goal, rng)[[chosen, *fixed]]
            calls[repeat][:, fold == held] = calls_of(weights, probs, fold == held)
    if baseline is not None:
        same = np.broadcast_to(baseline, (OUTER_REPEATS, 1, len(labels)))
        calls = np.concatenate([calls, same], 1)
    return _estimates(calls, labels, goal, rng)


def _estimates(
    calls: NDArray[np.int64], labels: Ints, goal: Goal, rng: np.random.Generator
) -> dict[str, Estimate]:
    names = ["ensemble", "single", "top", "baseline"][: calls.shape[1]]
    flat = calls.reshape(-1, len(labels))
    counts = statistics.tally(labels, flat, goal.classes)
    values = goal.scores(counts).reshape(OUTER_REPEATS, len(names)).mean(0)
    weights = statistics.resample(labels, 3 * BOOTSTRAP, rng)
    sampled = statistics.bootstrap(labels, flat, goal, weights)["score"]
    sampled = sampled.reshape(len(weights), OUTER_REPEATS, len(names)).mean(1)
    one = np.eye(len(names))
    minus = np.concatenate([one, one[0] - one[1:]]).T
    low, high = statistics.interval(sampled @ minus)
    names += [f"lead over {name}" for name in names[1:]]
    numbers = zip(names, values @ minus, low, high, strict=True)
    return {name: Estimate(float(v), float(a), float(b)) for name, v, a, b in numbers}
