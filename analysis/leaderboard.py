"""One row per trial, best first, from the stored validation predictions. M trials, N images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import statistics
from analysis.statistics import Goal
from analysis.votes import Votes, read_votes
from trainables import metrics
from trainables.metrics import MIN_SUPPORT, Floats, Ints
from trainables.registry import unknown
from trainables.store import Record, RunStore

ROUNDS = 1000  # of the bootstrap
TOLERANCE = 0.01  # between a stored score and the recomputed one: probabilities are kept as float16
NOTHING_YET = "no trial has usable predictions"
NAMES = {
    "score": "score",
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1": "macro-F1",
    "macro_f1_all": "macro-F1 all",
    "ece": "ECE",
}
GOALS = {  # metrics.OBJECTIVES in words
    "macro_f1": f"macro-F1 over the classes with at least {MIN_SUPPORT} validation images",
    "macro_f1_all": "macro-F1 over all classes that have images",
    "accuracy": "accuracy",
    "uar": "the mean recall of all classes (UAR)",
}


@dataclass(frozen=True)
class Board:
    """A run, read once."""

    run: RunStore
    meta: Mapping[str, Any]
    records: tuple[Record, ...]
    votes: Votes  # of the trials that did not fail
    class_names: tuple[str, ...]
    au_names: tuple[str, ...]

    @property
    def goal(self) -> Goal:
        """What the search maximised."""
        keep = metrics.supported(self.votes.labels, len(self.class_names))
        return Goal(self.meta.get("metric") or "macro_f1", keep)

    @property
    def support(self) -> NDArray[np.int64]:
        """Validation images per class (K,)."""
        return np.bincount(self.votes.labels, minlength=len(self.class_names))

    def record(self, trial: str) -> Record:
        return next(record for record in self.records if record.id == trial)


def read_board(run: RunStore) -> Board:
    """Everything that the analysis reads of a run. Raises ValueError where run.json lacks names."""
    meta = run.meta()
    data = meta.get("data") or {}
    if not data.get("class_names"):
        raise ValueError(f"'{run.root / 'run.json'}' names no classes: data.class_names is missing")
    if (meta.get("metric") or "macro_f1") not in GOALS:
        raise ValueError(unknown("metric", str(meta["metric"]), GOALS))
    names = tuple(map(str, data["class_names"]))
    records = tuple(run.records())
    live = [record for record in records if status(record, meta) != "failed"]
    votes = read_votes(run, live, len(names), "val")
    units = tuple(map(str, data.get("au_names") or ()))
    if len(units) != votes.aus.shape[1]:
        units = tuple(f"AU column {number}" for number in range(1, votes.aus.shape[1] + 1))
    return Board(run, meta, records, votes, names, units)


def leaderboard(run: RunStore) -> pd.DataFrame:
    """One row per trial: rank, settings, scores with intervals, and what went wrong."""
    return frame(read_board(run))


def status(record: Record, meta: Mapping[str, Any]) -> str:
    """How the trial stands; "unfinished" is one that a finished run left open."""
    if record.result and record.result.status != "running":
        return record.result.status
    return "unfinished" if meta.get("finished") else "running"


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
    counts = board.meta["data"].get("train_counts")
    if not counts or len(counts) != len(board.class_names) or not len(board.votes.labels):
        return None
    train = np.repeat(np.arange(len(counts)), counts)
    return metrics.majority_scores(train, board.votes.labels, len(counts), board.goal.name)


def varying(records: Sequence[Record]) -> list[str]:
    """The settings that differ between trials, in the order of the configuration."""
    names = list(dict.fromkeys(name for record in records for name in record.config))
    missing = object()
    return [n for n in names if len({r.config.get(n, missing) for r in records}) > 1]


def frame(board: Board) -> pd.DataFrame:
    """The leaderboard: best score first, then the trials without one."""
    measured = measure(board)
    rows = []
    for record in board.records:
        row = {**_identity(record, board), **measured.get(record.id, {})}
        row["note"] = _note(record, row, board)
        rows.append(row | {f"setting {name}": value for name, value in record.config.items()})
    rows.sort(
        key=lambda row: (-row.get("score", -1), row.get("nll", 0), row["index"], row["trial"])
    )
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank if "score" in row else None
    table = pd.DataFrame(rows, columns=_columns(board))
    table["rank"] = table["rank"].astype("Int64")
    return table


def _columns(board: Board) -> list[str]:
    settings = dict.fromkeys(name for record in board.records for name in record.config)
    return [
        *("rank", "trial", "index", "role", "status", "epochs", "seconds"),
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


def _identity(record: Record, board: Board) -> dict[str, Any]:
    last = record.history[-1] if record.history else {}
    result = record.result
    spent = sum(row.get("seconds") or 0.0 for row in record.history)
    return {
        "trial": record.id,
        "index": record.index,
        "role": record.role,
        "status": status(record, board.meta),
        "epochs": max(result.epoch if result else 0, last.get("epoch", 0)),
        "seconds": result.seconds if result and result.seconds else spent,
    }


def measure(board: Board) -> dict[str, dict[str, float]]:
    """All scores of all trials with predictions; trial id -> column -> value."""
    votes, out = board.votes, {}
    for trial, probs, au_probs in zip(votes.trials, votes.probs, votes.au_probs, strict=True):
        row = metrics.scores(votes.labels, probs, board.goal.name)
        counts = metrics.confusion(votes.labels, probs.argmax(1), len(board.class_names))
        for k, recall in enumerate(metrics.recalls(counts)):
            row[recall_column(board, k)] = float(recall)
        if au_probs.size and not np.isnan(au_probs).any():
            f1 = metrics.au_f1(votes.aus, au_probs)
            row |= {au_column(board, a): float(value) for a, value in enumerate(f1)}
            row["au_f1"] = mean_au_f1(votes.aus, au_probs)
        out[trial] = row
    if votes.trials:
        _add_intervals(board, out)
    return out


def mean_au_f1(aus: Ints, au_probs: Floats) -> float:
    """Mean F1 over the AUs that enough images show; NaN if there is none."""
    enough = (aus == 1).sum(0) >= MIN_SUPPORT
    return float(metrics.au_f1(aus, au_probs)[enough].mean()) if enough.any() else float("nan")


def _add_intervals(board: Board, rows: dict[str, dict[str, float]]) -> None:
    votes, reference = board.votes, baseline(board)[0]
    weights = statistics.resample(votes.labels, ROUNDS, np.random.default_rng(0))
    sampled = statistics.bootstrap(votes.labels, votes.predicted, board.goal, weights)["score"]
    low, high = statistics.interval(sampled)
    for m, trial in enumerate(votes.trials):
        rows[trial] |= {"score low": float(low[m]), "score high": float(high[m])}
    if reference is None:
        return
    low, high = statistics.interval(sampled - sampled[:, [votes.row(reference)]])
    for m, trial in enumerate(votes.trials):
        if trial != reference:
            rows[trial] |= {
                "vs baseline": rows[trial]["score"] - rows[reference]["score"],
                "vs baseline low": float(low[m]),
                "vs baseline high": float(high[m]),
            }


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
    if abs(stored - row["score"]) <= slack:
        return ""
    return f"its last epoch reports score {stored:.3f}, its predictions give {row['score']:.3f}"


def last_line(text: str) -> str:
    """The last line of a traceback, which names the error; at most 200 characters."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return (lines[-1].strip() if lines else "no message")[:200]
