"""The ladder of an ablation, from its run: every arm over its seeds, paired differences, words.

M trials, S seeds, N images, A action units, B bootstrap rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import leaderboard as lb
from analysis import statistics
from analysis.ablation import AS_LONG, Arm, Plan
from analysis.leaderboard import Board
from analysis.rerun import check_data, trials_of
from analysis.seeds import Spread, holm, spread, within
from analysis.votes import Votes
from trainables.config import TrialConfig
from trainables.metrics import MIN_SUPPORT, Floats

ROUNDS = 1000
MEASURES = ("macro_f1", "uar", "accuracy", "au_f1")
NAMES = {**lb.NAMES, "au_f1": "AU-F1"}
OVER_CONTROL = "winner over control"  # the name of that gap among the rows' own
Scores = dict[str, tuple[Floats, Floats]]  # measure -> (M,) on all images, (B, M) in each round


@dataclass(frozen=True)
class Row:
    """An arm over its seeds."""

    arm: Arm
    seeds: tuple[int, ...]
    measures: Mapping[str, Spread]  # without au_f1 where the arm has no AU head
    gap: Spread | None = None  # of the tested measure, to the arm it is compared with
    against: str = ""  # its role
    p: float = float("nan")  # Holm-corrected over all gaps
    cost: float = float("nan")  # seconds of training, over those of the baseline under a like seed
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ladder:
    """All that an ablation has shown so far."""

    plan: Plan
    board: Board
    measure: str  # that is tested
    measures: tuple[str, ...]  # that are shown, the tested one first
    rows: tuple[Row, ...]
    majority: Mapping[str, float]
    ceiling: Mapping[str, float]
    # The winner against the control, whose techniques and training length are told apart by it.
    over_control: Spread | None = None
    over_control_p: float = float("nan")  # corrected with all other gaps

    def row(self, role: str) -> Row | None:
        return next((row for row in self.rows if row.arm.role == role), None)

    @property
    def compared(self) -> list[Row]:
        return [row for row in self.rows if row.gap is not None and not np.isnan(row.p)]


def read(plan: Plan, board: Board) -> Ladder:
    """What the run of the plan has shown. Raises ValueError where it is of other data, or empty."""
    check_data(board, plan.fingerprint, "the runs of the plan")
    trials = trials_of(plan.arms, board)
    if not any(trials.values()):
        raise ValueError(f"no trial of '{board.run.root}' has ended well: there is nothing to tell")
    measure = board.goal.name
    measures = (measure, *(name for name in MEASURES if name != measure))
    scores = _scores(board, measures)
    place = {trial: m for m, trial in enumerate(board.votes.full.trials)}
    at = {role: {seed: place[t] for seed, t in own.items()} for role, own in trials.items()}
    rows = [_row(arm, at, scores, plan, board) for arm in plan.arms if at[arm.role]]
    rows = [replace(row, cost=_cost(trials[row.arm.role], trials, board)) for row in rows]
    over = _gap(plan.winner, AS_LONG, at, scores[measure])
    gaps = {row.arm.role: row.gap for row in rows} | {OVER_CONTROL: over}
    corrected = holm({name: gap.p for name, gap in gaps.items() if gap is not None})
    rows = [replace(row, p=corrected.get(row.arm.role, float("nan"))) for row in rows]
    ceiling = board.meta["data"].get("ceiling") or {}
    majority = _majority(board, measure)
    p = corrected.get(OVER_CONTROL, float("nan"))
    return Ladder(plan, board, measure, measures, tuple(rows), majority, ceiling, over, p)


def _scores(board: Board, measures: Sequence[str]) -> Scores:
    """Every measure of every trial, on all images and in each round of the bootstrap."""
    votes, goal = board.votes.full, board.goal
    weights = statistics.resample(votes.labels, ROUNDS, np.random.default_rng(3))
    every = np.ones((1, len(votes.labels)), np.float32)
    counts = [
        statistics.weighted_tally(votes.labels, votes.predicted, goal.classes, w)
        for w in (every, weights)
    ]
    out: Scores = {}
    for name in measures:
        if name == "au_f1":
            out[name] = _unit_scores(votes, every)[0], _unit_scores(votes, weights)
        else:
            whole, rounds = (statistics.Goal(name, goal.keep).scores(c) for c in counts)
            out[name] = whole[0], rounds
    return out


def _unit_scores(votes: Votes, weights: NDArray[np.float32]) -> Floats:
    """Mean F1 (B, M) over the AUs that enough images show; NaN for a trial without an AU head."""
    enough = (votes.aus == 1).sum(0) >= MIN_SUPPORT
    aus = votes.aus[:, enough]
    out = np.full((len(weights), len(votes.trials)), np.nan)
    if not enough.any():
        return out
    positives = weights @ (aus == 1).astype(np.float32)
    for m, said in enumerate(votes.au_probs[:, :, enough]):
        if not np.isnan(said).any():
            is_said = said >= 0.5
            hits = weights @ ((aus == 1) & is_said).astype(np.float32)
            false = weights @ ((aus == 0) & is_said).astype(np.float32)
            out[:, m] = (2 * hits / np.maximum(hits + false + positives, 1)).mean(1)
    return out


def _row(
    arm: Arm, at: Mapping[str, Mapping[int, int]], scores: Scores, plan: Plan, board: Board
) -> Row:
    own = at[arm.role]
    seeds, models = tuple(sorted(own)), [own[seed] for seed in sorted(own)]
    measures = {
        name: within(spread(values[models], rounds[:, models]))
        for name, (values, rounds) in scores.items()
        if not np.isnan(values[models]).any()
    }
    against = {"baseline": "", "without": plan.winner}.get(arm.kind, "baseline")
    gap = _gap(arm.role, against, at, scores[board.goal.name])
    return Row(arm, seeds, measures, gap, against, failures=_failures(arm, plan, board))


def _gap(
    role: str, against: str, at: Mapping[str, Mapping[int, int]], scores: tuple[Floats, Floats]
) -> Spread | None:
    """Difference of two arms under the seeds that both have; None where they share none."""
    shared = [seed for seed in sorted(at.get(role, {})) if seed in at.get(against, {})]
    if not shared:
        return None
    values, rounds = scores
    mine, theirs = ([at[name][seed] for seed in shared] for name in (role, against))
    return spread(values[mine] - values[theirs], rounds[:, mine] - rounds[:, theirs])


def _failures(arm: Arm, plan: Plan, board: Board) -> tuple[str, ...]:
    """Why seeds of the arm have failed."""
    group = TrialConfig.from_flat(arm.config).group_id
    return tuple(
        f"seed {record.config['seed']}: {lb.last_line(record.result.error)}"
        for record in board.records
        if record.result is not None
        and record.result.status == "failed"
        and TrialConfig.from_flat(record.config).group_id == group
    )


def _cost(own: Mapping[int, str], trials: Mapping[str, Mapping[int, str]], board: Board) -> float:
    """Mean ratio of training seconds to the baseline's under the same seed; NaN without one."""
    seconds = {r.id: r.result.seconds for r in board.records if r.result is not None}
    base = trials.get("baseline", {})
    ratios = [seconds[own[s]] / seconds[base[s]] for s in own if s in base and seconds[base[s]]]
    return float(np.mean(ratios)) if ratios else float("nan")


def _majority(board: Board, measure: str) -> dict[str, float]:
    found = lb.majority(board) or {}
    return {(measure if name == "score" else name): value for name, value in found.items()}


def cells(row: Row, measures: Sequence[str]) -> list[str]:
    """Mean ± SD over seeds with the interval, for each measure."""
    out = []
    for name in measures:
        s = row.measures.get(name)
        sd = "" if s is None or np.isnan(s.sd) else f" ± {s.sd:.3f}"
        out.append("–" if s is None else f"{s.value:.3f}{sd} [{s.low:.3f}, {s.high:.3f}]")
    return out


def facts(row: Row) -> dict[str, Any]:
    """A row with all its numbers, flat."""
    out: dict[str, Any] = {
        "role": row.arm.role, "kind": row.arm.kind, "change": row.arm.change,
        "source": row.arm.source, "seeds": len(row.seeds),
    }  # fmt: skip
    for name, s in row.measures.items():
        out |= {name: s.value, f"{name} sd": s.sd, f"{name} low": s.low, f"{name} high": s.high}
    out |= {"cost": row.cost, "against": row.against}
    if row.gap is not None:
        g = row.gap
        out |= {"difference": g.value, "difference low": g.low, "difference high": g.high}
        out |= {"standard error": g.error, "degrees of freedom": g.freedom}
        out |= {"p": g.p, "p holm": row.p}
    return out
