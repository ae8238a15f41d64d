"""One row per trial, best first, from the stored validation predictions. M trials, N images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import intervals, measures, statistics
from analysis.board import GOALS, NAMES, Board, read_board, status, varying
from analysis.groups import Group, ended_folds
from analysis.seeds import spread, within
from trainables import metrics
from trainables.metrics import Floats, Ints
from trainables.store import Record, RunStore

__all__ = ["GOALS", "NAMES", "Board", "frame", "read_board", "status", "varying"]

TOLERANCE = 0.01  # between a stored score and the recomputed one: probabilities are kept as float16
NOTHING_YET = "no trial has usable predictions"


def leaderboard(run: RunStore) -> pd.DataFrame:
    """One row per trial: rank, settings, scores with intervals, and what went wrong."""
    return frame(read_board(run))


def candidates(board: Board) -> tuple[list[str], str]:
    """The trials among which the best is sought, and why not the completed ones if so."""
    for wanted, note in (
        ("completed", ""),
        ("stopped", "no trial was completed: the best is sought among the stopped ones"),
        ("running", "no trial has ended yet: the best is sought among the running ones"),
        ("unfinished", "no trial has ended: the best is sought among the unfinished ones"),
    ):
        found = [t for t in board.votes.trials if status(board.record(t), board.meta) == wanted]
        if found:
            return found, note
    return [], NOTHING_YET


def baseline(board: Board) -> tuple[str | None, str]:
    """The baseline trial that has predictions, or the reason why there is none."""
    records = [record for record in board.records if record.role == "baseline"]
    if not records:
        return None, "the run has no baseline trial"
    trial = records[0].id
    if trial in board.votes.trials:
        return trial, ""
    result = records[0].result
    if result and result.status == "failed":
        return None, f"the baseline, trial {trial}, failed: {last_line(result.error)}"
    return None, f"the baseline, trial {trial}, cannot be compared: {board.votes.problems[trial]}"


def majority(board: Board) -> dict[str, float] | None:
    """What always saying the commonest training class scores; None if its counts are unknown."""
    counts = board.train_counts
    if not counts or not len(board.votes.labels):
        return None
    train = np.repeat(np.arange(len(counts)), counts)
    return metrics.majority_scores(train, board.votes.labels, len(counts), board.goal.name)


def frame(board: Board) -> pd.DataFrame:
    """The leaderboard: best score first, those of some folds after those of all, then the rest.

    A row is a configuration: its seeds are averaged, its folds pooled (`groups.py`).
    """
    measured, rows = measure(board), []
    for group in groups(board):
        record = board.record(group.repeats[0])
        row = {**_identity(group, board), **_measured(group, measured, board)}
        row["note"] = _note(record, row, board)
        rows.append(row | {f"setting {name}": value for name, value in record.config.items()})
    rows.sort(key=_standing)
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank if "score" in row else None
    table = pd.DataFrame(rows, columns=_columns(board))
    table["rank"] = table["rank"].astype("Int64")
    return table


def completed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of configurations that ran to their end and have a score, best first."""
    return table[(table["status"] == "completed") & table["rank"].notna()]


def _standing(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By what rows are ordered; ties fall the same way on every machine."""
    has_score = "score" in row
    score = (-row["folds"], -row["score"]) if has_score else (0, 0)
    return not has_score, *score, row.get("nll", 0), row["index"], row["trial"]


def groups(board: Board) -> list[Group]:
    """The configurations of the run, repeats that stand alike together, in the order begun."""
    return board.groups


def _measured(
    group: Group, measured: Mapping[str, Mapping[str, float]], board: Board
) -> dict[str, float]:
    """The scores of a configuration: of its one repeat, or means with intervals of seeds too."""
    known = [trial for trial in group.repeats if trial in measured]
    if len(known) < 2 or any(trial in board.votes.partial for trial in known):
        return dict(measured[known[0]]) if known else {}
    names = [name for name in measured[known[0]] if all(name in measured[t] for t in known)]
    row = {name: float(np.mean([measured[t][name] for t in known])) for name in names}
    values = np.array([measured[t]["score"] for t in known])
    sampled = _sampled(board, known)
    found = within(spread(values, sampled))
    row |= {"score low": found.low, "score high": found.high}
    reference = baseline(board)[0]
    if reference is not None and reference not in known:
        base = [trial for trial in board.repeats(reference) if trial in measured]
        mine, rounds = np.array([measured[t]["score"] for t in base]), _sampled(board, base)
        if len(base) != len(known):  # else seed against seed
            mine, rounds = mine.mean(), rounds.mean(1, keepdims=True)
        gap = spread(values - mine, sampled - rounds)
        row |= {"vs baseline": gap.value, "vs baseline low": gap.low, "vs baseline high": gap.high}
    return row


def _sampled(board: Board, trials: Sequence[str]) -> Floats:
    """The score in each round of the bootstrap (B, M), the rounds the same for all trials."""
    rows = [board.votes.row(trial) for trial in trials]
    return intervals.sampled_scores(board.votes.labels, board.votes.predicted[rows], board.goal)


def _columns(board: Board) -> list[str]:
    settings = dict.fromkeys(name for record in board.records for name in record.config)
    return [
        *("rank", "trial", "index", "role", "status", "epochs", "seeds", "folds", "seconds"),
        *("score", "score low", "score high"),
        *("accuracy", "uar", "macro_f1", "macro_f1_all", "nll", "ece", "au_f1"),
        *("vs baseline", "vs baseline low", "vs baseline high"),
        *(recall_column(board, k) for k in range(len(board.class_names))),
        *(au_column(board, a) for a in range(len(board.au_names))),
        "note",
        *(f"setting {name}" for name in settings),
    ]


def recall_column(board: Board, k: int) -> str:
    return f"recall {board.class_names[k]} (n={board.support[k]})"


def au_column(board: Board, a: int) -> str:
    return f"au_f1 {board.au_names[a]} (n={int((board.votes.aus[:, a] == 1).sum())})"


def _identity(group: Group, board: Board) -> dict[str, Any]:
    """What the row is of; its trial is the first fold of the first seed."""
    record = board.record(group.repeats[0])
    last = record.history[-1] if record.history else {}
    result = record.result
    own = [f for t in group.repeats for f in board.folds.get(t, (board.record(t),))]
    return {
        "trial": record.id,
        "index": record.index,
        "role": record.role,
        "status": status(record, board.meta),
        "epochs": max(result.epoch if result else 0, last.get("epoch", 0)),
        "seeds": len(group.repeats),
        "folds": max(1, len(ended_folds(board.folds.get(record.id, ())))),
        "seconds": sum(map(_seconds, own)),
    }


def _seconds(record: Record) -> float:
    if record.result and record.result.seconds:
        return record.result.seconds
    return float(sum(row.get("seconds") or 0.0 for row in record.history))


def measure(board: Board) -> dict[str, dict[str, float]]:
    """All scores of all trials with predictions; trial id -> column -> value."""
    votes = board.votes
    partial = {trial: dict(found) for trial, found in votes.partial.items()}
    if not votes.trials:
        return partial
    counts = statistics.tally(votes.labels, votes.predicted, len(board.class_names))
    recalls, units = measures.recalls(counts), votes.unit_f1
    columns = measures.of_classes(counts, board.goal)
    columns |= {"nll": votes.nll, "ece": votes.ece}
    columns |= {recall_column(board, k): recalls[:, k] for k in range(len(board.class_names))}
    columns |= {au_column(board, a): units[:, a] for a in range(len(board.au_names))}
    columns["au_f1"] = measures.mean_of_units(votes.aus, units)
    reference = baseline(board)[0]
    base = None if reference is None else votes.row(reference)
    columns |= intervals.of_scores(
        votes.labels, votes.predicted, board.goal, columns["score"], base
    )
    return measures.as_rows(votes.trials, columns) | partial


def mean_au_f1(aus: Ints, au_probs: Floats) -> float:
    """Mean F1 over the AUs that enough images show; NaN if there is none."""
    return float(measures.mean_of_units(aus, metrics.au_f1(aus, au_probs)[None])[0])


def _note(record: Record, row: Mapping[str, Any], board: Board) -> str:
    """The reason for a missing score, or a doubt about the one there is."""
    if row["status"] == "failed":
        return (record.result.error if record.result else "").strip() or "failed without a message"
    if record.id in board.votes.problems:
        return board.votes.problems[record.id]
    stored = record.history[-1].get("score") if record.history else None
    slack = TOLERANCE + 2 / max(1, len(board.votes.labels))
    if row["status"] not in ("completed", "stopped") or stored is None:
        return ""  # a running trial writes its predictions before its row
    if row["seeds"] > 1 or int(record.config.get("folds", 1)) > 1:
        return ""  # a row of several trials
    if abs(stored - row["score"]) <= slack:
        return ""
    return f"its last epoch reports score {stored:.3f}, its predictions give {row['score']:.3f}"


def last_line(text: str) -> str:
    """The last line of a traceback, which names the error; at most 200 characters."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (lines[-1].strip() if lines else "no message")[:200]
