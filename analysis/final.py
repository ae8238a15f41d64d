"""The sealed test split: opened on request only, and every look is written down."""

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from analysis import statistics
from analysis.contenders import Contender, contenders
from analysis.findings import Findings
from analysis.leaderboard import mean_au_f1
from analysis.prepared import bundle_of, place_of
from analysis.seeds import spread
from analysis.statistics import Estimate, Goal
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
    leads: Mapping[str, Estimate]  # of each one's score over the baseline's
    notes: Sequence[str]  # what the rows are
    missing: Sequence[str]  # what could not be scored, and why


def looks(root: Path) -> int:
    """How often the test split of this run has been looked at."""
    path = root / LEDGER
    return (
        sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) if path.exists() else 0
    )


def look(findings: Findings, command: Sequence[str], other: Path | None = None) -> Look:
    """Score what was chosen on validation on the test split, and write the look down.

    `other` is an ensemble.json to score too. Raises ValueError where the data, its labels or all
    predictions are missing.
    """
    field = contenders(findings, other)
    labels, units = _truth(findings, field.ids)
    scores, leads, spreads = _scored(field.contenders, labels, units, findings.board.goal)
    missing = [*field.missing, *_unseen(findings, labels)]
    roots = [findings.board.run.root, *field.roots]
    found = Look(
        *(looks(roots[0]), len(labels), scores, leads, (*field.notes, *spreads)),
        missing,
    )
    for root in roots:
        _write_down(root, replace(found, earlier_looks=looks(root)), command)
    return found


def _unseen(findings: Findings, labels: Ints) -> list[str]:
    """The classes of the validation score that no test image shows."""
    names, goal = findings.board.class_names, findings.board.goal
    found = np.bincount(labels, minlength=len(names)) > 0
    gone = [name for name, kept, n in zip(names, goal.keep, found, strict=True) if kept and not n]
    if goal.name != "macro_f1" or not gone:
        return []
    return [f"no test image shows {', '.join(gone)}: the test score is of the other classes"]


def _truth(findings: Findings, ids: Sequence[str]) -> tuple[Ints, Ints]:
    """The sealed labels and AUs of these images."""
    from trainables.data import cache

    meta = findings.board.meta
    bundle = bundle_of(meta)
    if set(bundle.test.ids) != set(ids):
        raise ValueError("the test predictions are of other images than the test split holds")
    labels, units = cache.unseal(place_of(meta))
    place = {image: row for row, image in enumerate(bundle.test.ids)}
    order = [place[image] for image in ids]
    return labels[order], units[order]


def _scored(
    contenders: Mapping[str, Contender], labels: Ints, units: Ints, goal: Goal
) -> tuple[dict[str, dict[str, Estimate]], dict[str, Estimate], list[str]]:
    """Scores, leads over the baseline, and how far seeds lie apart, in words.

    The goal is of the classes of the validation score: what was chosen for.
    """
    if not contenders:
        return {}, {}, []
    weights = statistics.resample(labels, ROUNDS, np.random.default_rng(2))
    sampled, values = dict[str, dict[str, Floats]](), dict[str, dict[str, Floats]]()
    scores, leads, spreads = dict[str, dict[str, Estimate]](), dict[str, Estimate](), list[str]()
    for who, contender in contenders.items():
        calls = contender.probs.argmax(2)
        sampled[who] = statistics.bootstrap(labels, calls, goal, weights)
        values[who] = _values(contender, labels, units, goal)
        scores[who] = {
            name: _estimate(own, sampled[who].get(name)) for name, own in values[who].items()
        }
        own = values[who]["score"]
        if len(own) > 1:
            spreads.append(
                f"{who}: {own.mean():.3f} ± {own.std(ddof=1):.3f} over {len(own)} seeds "
                f"({own.min():.3f} to {own.max():.3f})"
            )
    for who in scores:
        if who != "baseline" and "baseline" in scores:
            base, base_rounds = values["baseline"]["score"], sampled["baseline"]["score"]
            mine = values[who]["score"]
            if len(mine) != len(base):  # else seed against seed
                base, base_rounds = base.mean(), base_rounds.mean(1, keepdims=True)
            leads[who] = _estimate(mine - base, sampled[who]["score"] - base_rounds)
    return scores, leads, spreads


def _values(contender: Contender, labels: Ints, units: Ints, goal: Goal) -> dict[str, Floats]:
    """Every measure of each seed (S,)."""
    counts = statistics.tally(labels, contender.probs.argmax(2), goal.classes)
    each = [metrics.scores(labels, probs, goal.name) for probs in contender.probs]
    found = {
        name: np.array([measured[name] for measured in each])
        for name in ("score", "accuracy", "uar", "macro_f1_all", "ece")
    }
    found["score"] = goal.scores(counts)
    if contender.aus.size and not np.isnan(contender.aus).any():
        means = np.array([mean_au_f1(units, said) for said in contender.aus])
        if np.isfinite(means).all():
            found["AU-F1"] = means
    return found


def _estimate(values: Floats, rounds: Floats | None) -> Estimate:
    """The mean over seeds (S,); its interval is of images, and of seeds where there are several."""
    value = float(values.mean())
    if rounds is None:
        return Estimate(value, float("nan"), float("nan"))
    if len(values) > 1:
        found = spread(values, rounds)
        return Estimate(value, found.low, found.high)
    return statistics.estimated(value, rounds[:, 0])


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
