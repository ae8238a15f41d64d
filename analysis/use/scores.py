"""The scores of what is exported, with intervals, as the model card shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from analysis import posthoc, statistics
from analysis.corrections import After, Corrected
from analysis.findings import Findings
from analysis.leaderboard import mean_au_f1
from analysis.statistics import Estimate
from analysis.use.card import Score
from trainables import metrics

ROUNDS = 1000
NAN = float("nan")
INTERVAL = ("value", "low", "high")
CHOSE = "on the images that chose it"


def of_trial(findings: Findings, trial: str) -> list[Score]:
    """What the trial itself scores on validation images; of the best also what it is worth."""
    votes, goal = findings.board.votes.full, findings.board.goal
    if trial not in votes.trials:
        return []
    k = votes.row(trial)
    measured = metrics.scores(votes.labels, votes.probs[k], goal.name)
    weights = statistics.resample(votes.labels, ROUNDS, np.random.default_rng(0))
    rounds = statistics.bootstrap(votes.labels, votes.predicted[[k]], goal, weights)
    out = []
    for name in ("score", "accuracy", "uar", "macro_f1_all", "nll", "ece"):
        value = float(measured[name])
        found = Estimate(value, NAN, NAN)
        if name in rounds:
            found = statistics.estimated(value, rounds[name][:, 0])
        note = CHOSE if name == "score" and len(findings.board.votes.trials) > 1 else ""
        label = f"score ({goal.name})" if name == "score" else name
        out.append(Score(label, found, note))
    if trial == findings.best:
        out[1:1] = _corrected(findings)
    return [*out, *_recalls(findings, k), *_units(findings, k)]


def _corrected(findings: Findings) -> Iterator[Score]:
    if findings.corrected is not None:
        yield Score("score, corrected for the choice", findings.corrected, "BBC-CV, on new images")
    if findings.lead is not None and findings.baseline != findings.best:
        yield Score("lead over the baseline", findings.lead, "BBC-CV, on new images")


def _recalls(findings: Findings, k: int) -> Iterator[Score]:
    """Recall by class, with Wilson intervals."""
    board, votes = findings.board, findings.board.votes.full
    counts = metrics.confusion(votes.labels, votes.predicted[k], len(board.class_names))
    low, high = statistics.wilson(counts.diagonal(), counts.sum(1))
    for name, hits, n, a, b in zip(
        board.class_names, counts.diagonal(), counts.sum(1), low, high, strict=True
    ):
        if n:
            share = Estimate(float(hits / n), float(a), float(b))
            yield Score(f"recall of {name}", share, f"{n} images")


def _units(findings: Findings, k: int) -> Iterator[Score]:
    """F1 by AU, where the trial knows them and an image shows them."""
    board, votes = findings.board, findings.board.votes.full
    said = votes.au_probs[k]
    if not said.size or np.isnan(said).any():
        return
    mean = mean_au_f1(votes.aus, said)
    if np.isfinite(mean):
        yield Score("AU F1", Estimate(mean, NAN, NAN), "mean of the AUs with enough images")
    shown = (votes.aus == 1).sum(0)
    for name, value, n in zip(board.au_names, metrics.au_f1(votes.aus, said), shown, strict=True):
        if n:
            yield Score(f"F1 of {name}", Estimate(float(value), NAN, NAN), f"{n} images show it")


def of_correction(row: Corrected, found: After) -> Iterator[Score]:
    """What a trial scores after a correction, each image by what the others chose."""
    for name in posthoc.SHOWN:
        label = "score, cross-fitted" if name == "score" else name
        before = found.rows[0].scores[name]
        yield Score(label, Estimate(row.scores[name], NAN, NAN), f"as trained {before:.3f}")
    if row.gap is not None:
        yield Score("gain in score", row.gap, "on images that did not choose the correction")


def notes(findings: Findings, trial: str) -> list[str]:
    """What to know of these scores."""
    board = findings.board
    own = board.repeats(trial)
    out = list(findings.notes)
    if len(own) > 1:
        out.append(f"one of {len(own)} seeds of its configuration, which was chosen by their mean")
    if len(board.folds[trial]) > 1:
        out.append(
            "each validation image was scored by the fold that did not train on it; the mean of "
            "the folds, which is what was exported, has no such score and is as a rule better"
        )
    return out


def of_ensemble(said: Mapping[str, Any]) -> list[Score]:
    """What ensemble.json says."""
    names = {
        "ensemble": "score on images that did not choose it",
        "single": "best single trial, in the same way",
        "lead over single": "lead over it",
        "lead over baseline": "lead over the baseline",
    }
    out = []
    for key, name in names.items():
        found = (said.get("honest") or {}).get(key)
        if found:
            value, low, high = (NAN if found[k] is None else float(found[k]) for k in INTERVAL)
            out.append(Score(name, Estimate(value, low, high)))
    chosen = (said.get("optimistic") or {}).get("ensemble")
    if chosen is not None:
        out.append(Score(f"score {CHOSE}", Estimate(float(chosen), NAN, NAN), "too high"))
    return out
