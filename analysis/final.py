"""The sealed test split: opened on request only, and every look is written down."""

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from analysis import ensemble as ens
from analysis import statistics
from analysis.findings import Findings
from analysis.leaderboard import mean_au_f1
from analysis.statistics import Estimate, Goal
from analysis.votes import Votes, read_votes
from trainables import metrics
from trainables.metrics import Floats, Ints

ROUNDS = 1000
LEDGER = "test_ledger.jsonl"


@dataclass(frozen=True)
class Look:
    """One look at the test split; scores: who -> measure -> value with its interval."""

    earlier_looks: int
    images: int
    scores: Mapping[str, Mapping[str, Estimate]]
    leads: Mapping[str, Estimate]  # of the ensemble's and the best trial's score over the baseline
    missing: Sequence[str]  # what could not be scored, and why


def looks(root: Path) -> int:
    """How often the test split of this run has been looked at."""
    path = root / LEDGER
    return (
        sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) if path.exists() else 0
    )


def look(findings: Findings, command: Sequence[str]) -> Look:
    """Score the trials chosen on validation on the test split, and write the look down.

    Raises ValueError where the data, its labels or all predictions are missing.
    """
    votes = read_votes(
        findings.board.run,
        [findings.board.record(trial) for trial in sorted(_wanted(findings))],
        len(findings.board.class_names),
        "test",
        findings.board.folds,
    )
    labels, units = _truth(findings, votes)
    contenders, missing = _contenders(findings, votes)
    goal = findings.board.goal  # the classes of the validation score: what was chosen for
    missing += _unseen(findings, labels)
    scores, leads = _scored(contenders, labels, goal)
    for who, measures in scores.items():
        said = contenders[who][1]
        if said.size and not np.isnan(said).any():
            mean = mean_au_f1(units, said)
            if np.isfinite(mean):
                measures["AU-F1"] = Estimate(mean, float("nan"), float("nan"))
    earlier = looks(findings.board.run.root)
    found = Look(earlier, len(labels), scores, leads, missing)
    _write_down(findings.board.run.root, found, command)
    return found


def _wanted(findings: Findings) -> set[str]:
    wanted = {trial for trial in (findings.baseline, findings.best) if trial}
    if findings.ensemble:
        wanted |= {*findings.ensemble.members, *findings.ensemble.top}
    return wanted


def _unseen(findings: Findings, labels: Ints) -> list[str]:
    """The classes of the validation score that no test image shows."""
    names, goal = findings.board.class_names, findings.board.goal
    found = np.bincount(labels, minlength=len(names)) > 0
    gone = [name for name, kept, n in zip(names, goal.keep, found, strict=True) if kept and not n]
    if goal.name != "macro_f1" or not gone:
        return []
    return [f"no test image shows {', '.join(gone)}: the test score is of the other classes"]


def _truth(findings: Findings, votes: Votes) -> tuple[Ints, Ints]:
    """The sealed labels and AUs in the order of the votes."""
    from trainables.data import cache

    if not votes.trials:
        reasons = "; ".join(f"{t}: {why}" for t, why in sorted(votes.problems.items()))
        raise ValueError(f"no test predictions to score ({reasons or 'no trial was chosen'})")
    data = findings.board.meta["data"]
    path = Path(data.get("cache") or "")
    if not data.get("cache") or not path.is_dir():
        raise ValueError(
            f"the prepared data '{path}' is gone: prepare '{data.get('source')}' again"
        )
    bundle = cache.load(path)
    if bundle.fingerprint != data.get("fingerprint"):
        raise ValueError(
            f"the data at '{path}' has fingerprint {bundle.fingerprint}, the run was made on "
            f"{data.get('fingerprint')}: these are other images"
        )
    if set(bundle.test.ids) != set(votes.ids):
        raise ValueError("the test predictions are of other images than the test split holds")
    labels, units = cache.unseal(path)
    place = {image: row for row, image in enumerate(bundle.test.ids)}
    order = [place[image] for image in votes.ids]
    return labels[order], units[order]


def _contenders(
    findings: Findings, votes: Votes
) -> tuple[dict[str, tuple[Floats, Floats]], list[str]]:
    """Who is scored: (class, AU) probabilities by name; and who cannot be."""
    ensemble = findings.ensemble
    wanted: dict[str, dict[str, float]] = {}
    if findings.baseline:
        wanted["baseline"] = {findings.baseline: 1.0}
    if findings.best:
        wanted["best single"] = {findings.best: 1.0}
    if ensemble and len(ensemble.members) > 1:
        wanted["ensemble"] = dict(ensemble.members)
    if ensemble and len(ensemble.top) > 1:
        wanted[f"average of best {len(ensemble.top)}"] = dict.fromkeys(ensemble.top, 1.0)
    out: dict[str, tuple[Floats, Floats]] = {}
    missing: list[str] = []
    for who, weights in wanted.items():
        absent = sorted(set(weights) - set(votes.trials))
        if absent:
            why = "; ".join(f"trial {t}: {votes.problems.get(t, 'missing')}" for t in absent)
            missing.append(f"{who} is not scored ({why})")
        elif ensemble and who == "ensemble":
            out[who] = ens.predict(ensemble, votes)
        else:
            out[who] = ens.average(votes, weights)
    return out, missing


def _scored(
    contenders: Mapping[str, tuple[Floats, Floats]], labels: Ints, goal: Goal
) -> tuple[dict[str, dict[str, Estimate]], dict[str, Estimate]]:
    names = list(contenders)
    if not names:
        return {}, {}
    predicted = np.stack([contenders[who][0].argmax(1) for who in names])
    weights = statistics.resample(labels, ROUNDS, np.random.default_rng(2))
    sampled = statistics.bootstrap(labels, predicted, goal, weights)
    main = goal.scores(statistics.tally(labels, predicted, goal.classes))
    scores: dict[str, dict[str, Estimate]] = {}
    for m, who in enumerate(names):
        values = metrics.scores(labels, contenders[who][0], goal.name) | {"score": float(main[m])}
        scores[who] = {
            name: _estimate(values[name], rounds[:, m]) for name, rounds in sampled.items()
        }
        for name in ("macro_f1_all", "ece"):
            scores[who][name] = Estimate(values[name], float("nan"), float("nan"))
    leads = {}
    if "baseline" in names:
        base = names.index("baseline")
        for who in names:
            if who != "baseline":
                gap = scores[who]["score"].value - scores["baseline"]["score"].value
                rounds = sampled["score"][:, names.index(who)] - sampled["score"][:, base]
                leads[who] = _estimate(gap, rounds)
    return scores, leads


def _estimate(value: float, rounds: Floats) -> Estimate:
    low, high = statistics.interval(rounds)
    return Estimate(value, float(low), float(high))


def _write_down(root: Path, found: Look, command: Sequence[str]) -> None:
    """Append the look to the ledger, before anybody sees it."""
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": _user(),
        "command": list(command),
        "earlier_looks": found.earlier_looks,
        "scores": {
            who: {name: estimate.value for name, estimate in measures.items()}
            for who, measures in found.scores.items()
        },
    }
    with (root / LEDGER).open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
        os.fsync(file.fileno())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return str(os.getuid())
