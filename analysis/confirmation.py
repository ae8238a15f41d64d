"""The best of a run trained anew: fresh seeds, fresh folds, and whether any is worth its name.

Whoever led a search was chosen for the score it led with. Its confirmation is scored with seeds and
folds that chose nothing, paired with the default and the baseline under the same seeds and folds.
The winner is the one with the highest lower bound of its lead over the better of these two, if that
lead stands up to Holm's correction for all that were tried; else the verdict is that none is better
than that one. Seeds are averaged in their score, the folds of a seed are pooled (`groups.py`).
S seeds, N images, B rounds of the bootstrap, K folds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import leaderboard as lb
from analysis import rerun, statistics
from analysis.comparisons import CorrectedT, McNemar, corrected_t, mcnemar
from analysis.groups import wanted_folds
from analysis.leaderboard import Board
from analysis.seeds import Spread, holm, spread, within
from analysis.statistics import bracketed, signed
from trainables.config import REPEATED, Flat, TrialConfig
from trainables.store import Record

FOLDER, RERUN, FILE = "confirmation", rerun.NAME, "confirmation.json"
ROUNDS = 2000
FOLDS = 5  # where the run itself had none
ALPHA = 0.05
ANCHORS = ("default", "baseline")


@dataclass(frozen=True)
class Arm:
    """A configuration that is confirmed, and what it seemed to be worth."""

    role: str  # default, baseline, or "rank 1" and so on
    config: Flat  # without what repeats differ in
    trial: str  # of the run, or its first fold and seed
    seeming: float | None  # its score in the run


@dataclass(frozen=True)
class Plan:
    """All that is decided before a confirmation is trained."""

    arms: tuple[Arm, ...]
    top: int
    seeds: int
    folds: int
    first_seed: int
    fold_seed: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """An arm as it did anew."""

    arm: Arm
    score: Spread
    lead: Spread | None = None  # over the reference, seed against seed on the same images
    p: float = float("nan")  # of the lead, corrected for all leads (Holm)
    images: McNemar | None = None  # of the first seed, against the reference
    folds: CorrectedT | None = None  # the lead over single folds (Nadeau & Bengio)


@dataclass(frozen=True)
class Confirmation:
    """What a confirmation has shown."""

    plan: Plan
    rows: tuple[Row, ...]  # best lower bound first, then default and baseline
    reference: str  # default or baseline, whichever did better
    winner: str | None  # None: no better than the reference
    verdict: str


def make_plan(board: Board, top: int, seeds: int, folds: int | None = None) -> Plan:
    """The best `top` configurations of a run, with the default and the baseline.

    Raises ValueError where nothing was completed, or there is neither default nor baseline.
    """
    table, notes = lb.frame(board), list[str]()
    ended = lb.completed(table)
    arms, known = list[Arm](), dict[str, str]()
    for role in ANCHORS:
        record = next((r for r in board.records if r.role == role), None)
        if record is None:
            continue
        arm = _arm(record, role, table)
        same = known.setdefault(TrialConfig.from_flat(arm.config).group_id, role)
        if same == role:
            arms.append(arm)
    if not arms:
        raise ValueError(f"'{board.run.root}' has no default and no baseline to compare with")
    for place, trial in enumerate(ended["trial"], 1):
        if place > top:
            break
        arm = _arm(board.record(trial), f"rank {place}", table)
        same = known.setdefault(TrialConfig.from_flat(arm.config).group_id, arm.role)
        if same == arm.role:
            arms.append(arm)
        else:
            notes.append(f"{arm.role} of the run is the {same} itself")
    if ended.empty:
        raise ValueError(f"'{board.run.root}' has nothing completed: let it run to its end")
    configs = [TrialConfig.from_flat(r.config) for own in board.folds.values() for r in own]
    own_folds = max(wanted_folds(record) for record in board.records)
    return Plan(
        tuple(arms),
        top,
        seeds,
        folds or (own_folds if own_folds > 1 else FOLDS),
        1 + max(config.seed for config in configs),
        1 + max(config.fold_seed for config in configs),
        tuple(notes),
    )


def _arm(record: Record, role: str, table: Any) -> Arm:
    flat = TrialConfig.from_flat(record.config).flat()
    score = table.loc[table["trial"] == record.id, "score"]
    seeming = float(score.iloc[0]) if len(score) and not np.isnan(score.iloc[0]) else None
    return Arm(role, {n: v for n, v in flat.items() if n not in REPEATED}, record.id, seeming)


def save_plan(plan: Plan, folder: Path) -> Path:
    """Keep the plan in the folder; the path of the file for `search.run --configs`."""
    return rerun.save(asdict(plan), folder)


def load_plan(folder: Path) -> Plan | None:
    """The plan that was saved; None where there is none. Raises ValueError for a damaged one."""
    return rerun.load(folder, _plan)


def _plan(data: dict[str, Any]) -> Plan:
    arms, notes = tuple(Arm(**arm) for arm in data.pop("arms")), tuple(data.pop("notes"))
    return Plan(arms=arms, notes=notes, **data)


def judge(plan: Plan, board: Board) -> Confirmation:
    """What the rerun of a plan has shown. Raises ValueError as long as nothing can be compared."""
    trials = rerun.trials_of(plan.arms, board)
    place = {trial: m for m, trial in enumerate(board.votes.trials)}
    arms = [arm for arm in plan.arms if trials[arm.role]]
    anchors = [arm.role for arm in arms if arm.role in ANCHORS]
    if not anchors:
        raise ValueError(f"'{board.run.root}': neither default nor baseline has ended well yet")
    values, rounds = _scores(board)
    at = {arm.role: {s: place[t] for s, t in trials[arm.role].items()} for arm in arms}
    means = {role: float(values[list(own.values())].mean()) for role, own in at.items()}
    reference = max(anchors, key=lambda role: (means[role], role == "default"))
    rows = []
    for arm in arms:
        own, base = at[arm.role], at[reference]
        score = within(spread(values[list(own.values())], rounds[:, list(own.values())]))
        shared = sorted(set(own) & set(base))
        if arm.role == reference or not shared:
            rows.append(Row(arm, score))
            continue
        mine, theirs = [own[s] for s in shared], [base[s] for s in shared]
        lead = spread(values[mine] - values[theirs], rounds[:, mine] - rounds[:, theirs])
        pair = trials[arm.role], trials[reference]
        rows.append(
            Row(arm, score, lead, lead.p, _images(board, *pair), _folds(plan, board, *pair))
        )
    return _verdict(plan, rows, reference)


def _scores(board: Board) -> tuple[Any, Any]:
    """The score of every repeat on all images (M,), and in each round (B, M)."""
    votes, goal = board.votes, board.goal
    values = goal.scores(statistics.tally(votes.labels, votes.predicted, goal.classes))
    weights = statistics.resample(votes.labels, ROUNDS, np.random.default_rng(4))
    sampled = statistics.bootstrap(votes.labels, votes.predicted, goal, weights)["score"]
    return values, sampled


def _images(board: Board, own: Mapping[int, str], base: Mapping[int, str]) -> McNemar:
    """McNemar's test under the first seed: images of further seeds are the same images."""
    seed, votes = min(set(own) & set(base)), board.votes
    right = votes.predicted == votes.labels
    return mcnemar(right[votes.row(own[seed])], right[votes.row(base[seed])])


def _folds(
    plan: Plan, board: Board, own: Mapping[int, str], base: Mapping[int, str]
) -> CorrectedT | None:
    """The lead over each fold of each repeat; None without folds."""
    if plan.folds == 1:
        return None
    gaps: list[float] = []
    for seed in sorted(set(own) & set(base)):
        pairs = zip(board.folds[own[seed]], board.folds[base[seed]], strict=True)
        gaps += [_score(board, mine) - _score(board, theirs) for mine, theirs in pairs]
    return corrected_t(np.array(gaps), 1 / (plan.folds - 1))


def _score(board: Board, fold: Record) -> float:
    said = board.run.trial(fold.id).predictions("val")
    assert said is not None  # the repeat is whole
    counts = statistics.tally(said.labels, said.probs.argmax(1)[None], board.goal.classes)
    return float(board.goal.scores(counts)[0])


def _verdict(plan: Plan, rows: Sequence[Row], reference: str) -> Confirmation:
    corrected = holm({row.arm.role: row.p for row in rows if row.lead is not None})
    rows = [
        Row(r.arm, r.score, r.lead, corrected.get(r.arm.role, r.p), r.images, r.folds) for r in rows
    ]
    rivals = [row for row in rows if row.arm.role not in ANCHORS and row.lead is not None]
    rivals.sort(key=lambda row: (-row.lead.low if row.lead else 0, row.arm.role))
    others = [row for row in rows if row not in rivals]
    sure = [r for r in rivals if r.lead and r.lead.low > 0 and (r.p < ALPHA or np.isnan(r.p))]
    base = next(row for row in rows if row.arm.role == reference)
    if sure:
        best = sure[0]
        verdict = (
            f"{best.arm.role} of the search (trial {best.arm.trial}) is confirmed: score "
            f"{bracketed(best.score)}, {signed(best.lead)} over the {reference}."
        )
    elif rivals:
        verdict = (
            f"No better than the {reference} ({bracketed(base.score)}): the best of the search, "
            f"{rivals[0].arm.role} (trial {rivals[0].arm.trial}), leads by "
            f"{signed(rivals[0].lead)}, which may be chance."
        )
    else:
        verdict = f"No better than the {reference}: nothing else was left to confirm."
    winner = sure[0].arm.role if sure else None
    return Confirmation(plan, (*rivals, *others), reference, winner, verdict)


def as_facts(found: Confirmation) -> dict[str, Any]:
    """All numbers, for a file; what is not known is None."""
    return {
        "verdict": found.verdict,
        "winner": found.winner,
        "reference": found.reference,
        **{name: getattr(found.plan, name) for name in ("top", "seeds", "folds", "notes")},
        "rows": [_facts(row) for row in found.rows],
    }


def _facts(row: Row) -> dict[str, Any]:
    parts = {"score": row.score, "lead": row.lead, "mcnemar": row.images, "folds": row.folds}
    numbers = {
        name: None if part is None else {k: _known(v) for k, v in asdict(part).items()}
        for name, part in parts.items()
    }
    arm = {"role": row.arm.role, "trial": row.arm.trial, "seeming": row.arm.seeming}
    return {**arm, **numbers, "p holm": _known(row.p)}


def _known(value: float) -> float | None:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read_facts(root: Path) -> dict[str, Any] | None:
    """What the confirmation of a run has shown; None where there was none.

    Raises ValueError for a file that cannot be read.
    """
    path = root / FOLDER / FILE
    if not path.is_file():
        return None
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    return facts


def confirmed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the winner or, if there is none, of the best of the search."""
    rows: list[dict[str, Any]] = facts["rows"]
    return next((row for row in rows if row["role"] == facts["winner"]), rows[0])
