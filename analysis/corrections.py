"""Corrections after training: views averaged, temperature, adjustment; the mathematics.

Each parameter is chosen on other images than those that score it (cross-fitted). Order: views,
temperature, adjustment (methods 2.15). V views, N images, K classes, G values of a parameter, R
repeats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis import statistics
from analysis.crossfit import FOLDS, REPEATS, folds
from analysis.statistics import Estimate, Goal
from trainables import metrics
from trainables.metrics import Floats, Ints
from trainables.views import FLIP, PLAIN, SCALED, Views

TEMPERATURES = np.geomspace(0.5, 5, 41)
ADJUSTMENTS = np.round(np.arange(0, 2.01, 0.05), 2)  # tau of z - tau log pi
NORMALISATIONS = np.round(np.arange(0, 1.51, 0.05), 2)  # tau of z / norm^tau
ROUNDS = 1000
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """A correction with one parameter, and how it is chosen."""

    name: str
    values: NDArray[np.float64]  # (G,); of equally good ones the first that is tried is taken
    apply: Callable[[Logits, float], Logits]  # (N, K) and a value -> (N, K)
    aim: str  # "nll" or "score"


@dataclass(frozen=True)
class Corrected:
    """A trial after a correction, each image scored by what the others chose."""

    name: str
    chosen: Mapping[str, float]  # parameter -> its value when all images choose
    scores: Mapping[str, float]
    gap: Estimate | None  # of the score, to the trial as trained; None for itself


@dataclass(frozen=True)
class After:
    """All corrections of one trial."""

    trial: str
    rows: tuple[Corrected, ...]
    curve: Mapping[str, Floats]  # "tau", and accuracy, UAR and score by it, on all images


def log_softmax(logits: Floats) -> Logits:
    top = logits - logits.max(-1, keepdims=True)
    out: Logits = top - np.log(np.exp(top, dtype=np.float64).sum(-1, keepdims=True))
    return out


def averaged(logits: Floats) -> Logits:
    """Log-probabilities (N, K) of the mean probability over views (V, N, K)."""
    mean: Logits = np.log(np.maximum(np.exp(log_softmax(logits)).mean(0), 1e-12))
    return mean


def tempered(logits: Logits, temperature: float) -> Logits:
    """Guo et al. 2017 (1706.04599): decisions stay, confidences change."""
    return logits / temperature


def adjusted(prior: Floats) -> Callable[[Logits, float], Logits]:
    """z - tau log pi, pi the training frequencies (Menon et al. 2021, 2007.07314)."""
    return lambda logits, tau: logits - tau * prior


def normalised(norms: Floats) -> Callable[[Logits, float], Logits]:
    """z / (norm / g)^tau, the norm that of a class's weights (Kang et al. 2020, 1910.09217).

    We deviate twice: the bias, which they leave out, is scaled too, so that tau 0 is the model as
    trained; and g, the geometric mean, keeps the scale of the logits.
    """
    relative = norms / np.exp(np.log(norms).mean())
    return lambda logits, tau: logits / relative**tau


def log_prior(counts: Sequence[int] | Ints) -> Floats:
    """log pi (K,); a class without training images counts as one."""
    known = np.maximum(np.asarray(counts, np.float64), 1)
    prior: Floats = np.log(known / known.sum())
    return prior


def known_prior(counts: Sequence[int]) -> Floats | None:
    """log pi (K,) of the training images; None where their counts are not known."""
    return log_prior(counts) if counts else None


def fit(logits: Logits, labels: Ints, step: Step, goal: Goal, images: NDArray[np.bool_]) -> float:
    """The value that is best on these images."""
    there, truth = logits[images], labels[images]
    grid = np.stack([step.apply(there, float(value)) for value in step.values])
    if step.aim == "nll":
        losses = -log_softmax(grid)[:, np.arange(len(truth)), truth].mean(1)
        return float(step.values[losses.argmin()])
    counts = statistics.tally(truth, grid.argmax(2), goal.classes)
    return float(step.values[goal.scores(counts).argmax()])


def chain(
    logits: Logits, labels: Ints, steps: Sequence[Step], goal: Goal, images: NDArray[np.bool_]
) -> tuple[Logits, dict[str, float]]:
    """All images after the steps, each chosen on some images after the one before; the choices."""
    chosen = dict[str, float]()
    for step in steps:
        chosen[step.name] = fit(logits, labels, step, goal, images)
        logits = step.apply(logits, chosen[step.name])
    return logits, chosen


def crossfitted(
    logits: Logits, labels: Ints, steps: Sequence[Step], goal: Goal, rng: np.random.Generator
) -> Logits:
    """Every image after the steps as chosen without it (R, N, K); without steps (1, N, K)."""
    if not steps:
        return logits[None]
    out = np.empty((REPEATS, *logits.shape))
    for repeat in range(REPEATS):
        fold = folds(labels, rng)
        for held in range(FOLDS):
            found, _ = chain(logits, labels, steps, goal, fold != held)
            out[repeat][fold == held] = found[fold == held]
    return out


def corrections(views: Views, prior: Floats | None) -> dict[str, tuple[Logits, list[Step]]]:
    """Name -> the logits that it begins with, and its steps; those that the trial allows."""
    plain = views.of(PLAIN)[0].astype(np.float64)
    temperature = Step("temperature", TEMPERATURES, tempered, "nll")
    out: dict[str, tuple[Logits, list[Step]]] = {"as trained": (plain, [])}
    flipped = averaged(views.of(PLAIN, FLIP)) if FLIP in views.names else None
    if flipped is not None:
        out["mean of flips"] = (flipped, [])
    if set(SCALED) <= set(views.names):
        out["mean of flips and scales"] = (averaged(views.of(PLAIN, FLIP, *SCALED)), [])
    out["temperature"] = (plain, [temperature])
    if prior is not None:
        adjustment = Step("tau", ADJUSTMENTS, adjusted(prior), "score")
        out["logit adjustment"] = (plain, [adjustment])
    if len(views.norms) and (views.norms > 0).all():
        step = Step("tau of norms", NORMALISATIONS, normalised(views.norms), "score")
        out["tau-normalisation"] = (plain, [step])
    if flipped is not None and prior is not None:
        out["flips, temperature, adjustment"] = (flipped, [temperature, adjustment])
    return out


def correct(
    name: str, models: Sequence[Views], prior: Floats | None, chosen: Mapping[str, float]
) -> Logits:
    """The log-probabilities (N, K) after a correction with the parameters that were chosen.

    Of several models, the folds of a configuration, the mean comes before temperature and shift, as
    in an exported network.
    """
    starts, steps = [], list[Step]()
    for views in models:
        logits, steps = corrections(views, prior)[name]
        starts.append(logits)
    logits = starts[0] if len(starts) == 1 else averaged(np.stack(starts))
    for step in steps:
        logits = step.apply(logits, chosen[step.name])
    return log_softmax(logits)


def after(trial: str, views: Views, labels: Ints, goal: Goal, counts: Sequence[int]) -> After:
    """Every correction of a trial, scored on images that did not choose it; no `counts` of the
    training images, no adjustment by them."""
    prior = known_prior(counts)
    weights = statistics.resample(labels, ROUNDS, np.random.default_rng(5))
    rows, before = list[Corrected](), None
    for name, (logits, steps) in corrections(views, prior).items():
        found = crossfitted(logits, labels, steps, goal, np.random.default_rng(6))
        chosen = chain(logits, labels, steps, goal, np.ones(len(labels), bool))[1]
        sampled = statistics.bootstrap(labels, found.argmax(2), goal, weights)["score"].mean(1)
        scores = _scores(found, labels, goal)
        gap = None
        if before is not None:
            gain = scores["score"] - rows[0].scores["score"]
            gap = statistics.estimated(gain, sampled - before)
        before = sampled if before is None else before
        rows.append(Corrected(name, chosen, scores, gap))
    return After(trial, tuple(rows), _curve(views, labels, goal, prior))


def _scores(found: Logits, labels: Ints, goal: Goal) -> dict[str, float]:
    """The mean over repeats of every measure."""
    each = [
        {
            **metrics.decisions(labels, logits.argmax(1), goal.classes),
            "nll": metrics.nll(labels, np.exp(log_softmax(logits))),
            "ece": metrics.expected_calibration_error(labels, np.exp(log_softmax(logits))),
        }
        for logits in found
    ]
    mean = {name: float(np.mean([values[name] for values in each])) for name in each[0]}
    return {"score": mean[goal.name], **mean}


def _curve(views: Views, labels: Ints, goal: Goal, prior: Floats | None) -> dict[str, Floats]:
    """Accuracy, UAR and score by tau of the adjustment, on all images."""
    if prior is None:
        return {}
    plain = views.of(PLAIN)[0].astype(np.float64)
    calls = np.stack([adjusted(prior)(plain, float(tau)).argmax(1) for tau in ADJUSTMENTS])
    counts = statistics.tally(labels, calls, goal.classes)
    return {
        "tau": ADJUSTMENTS,
        "accuracy": statistics.accuracies(counts),
        "UAR": statistics.uars(counts),
        "score": goal.scores(counts),
    }
