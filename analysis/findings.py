"""What a run has shown: the best trial, the ensemble, how far to trust them; and that in words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import ensemble as ens
from analysis import leaderboard as lb
from analysis import statistics
from analysis.ensemble import Ensemble
from analysis.leaderboard import Board
from analysis.statistics import Estimate

ROUNDS = 1000


@dataclass(frozen=True)
class Findings:
    """All numbers of a report; None where the run does not give them, `notes` say why."""

    board: Board
    table: pd.DataFrame
    best: str | None
    baseline: str | None
    ensemble: Ensemble | None
    corrected: Estimate | None
    majority: dict[str, float] | None
    notes: tuple[str, ...]

    def row(self, trial: str) -> "pd.Series[Any]":
        return self.table[self.table["trial"] == trial].iloc[0]


def find(board: Board) -> Findings:
    """Read the leaderboard, choose the best trial and the ensemble, and correct for the choice."""
    table = lb.frame(board)
    chosen, note = lb.candidates(board)
    baseline, base_note = lb.baseline(board)
    ranked = table[table["trial"].isin(chosen)]
    found = None if ranked.empty else str(ranked.iloc[0]["trial"])
    votes = board.votes.pick(chosen)
    ensemble = ens.build(votes, board.goal) if chosen else None
    corrected = None
    if len(chosen) > 1:
        rng = np.random.default_rng(1)
        weights = statistics.resample(votes.labels, ROUNDS, rng)
        corrected = statistics.corrected_best(votes.labels, votes.predicted, board.goal, weights)
    notes = [
        note,
        _passed_over(table, found),
        base_note,
        ensemble.note if ensemble else "",
        *_gaps(board),
    ]
    majority = lb.majority(board)
    if majority is None and board.votes.trials:
        notes.append("the majority scores are unknown: run.json has no data.train_counts")
    shown = tuple(line for line in notes if line)
    return Findings(board, table, found, baseline, ensemble, corrected, majority, shown)


def _passed_over(table: pd.DataFrame, best: str | None) -> str:
    """That a trial which did not run to its end scores higher than the best, if so."""
    if best is None or table.iloc[0]["trial"] == best:
        return ""
    row = table.iloc[0]
    return (
        f"trial {row['trial']} ({row['status']} after epoch {row['epochs']}) has a higher score, "
        f"{row['score']:.3f}, and is no candidate: it did not run to its end"
    )


def _gaps(board: Board) -> list[str]:
    """What the predictions lack."""
    lines = []
    if board.votes.problems:
        count = len(board.votes.problems)
        lines.append(f"{count} of {len(board.records)} trials have no usable predictions")
    if board.votes.trials:
        few = [
            f"{name} ({n})"
            for name, n, kept in zip(board.class_names, board.support, board.goal.keep, strict=True)
            if not kept
        ]
        if few and board.goal.name == "macro_f1":
            lines.append(
                f"left out of the score, too few validation images: {', '.join(few)}; "
                "they count in UAR and macro-F1 all"
            )
        if (board.support > 0).sum() == 1:
            lines.append("all validation images are of one class: these scores compare nothing")
        if not board.au_names:
            lines.append("the data has no action units")
    return lines


def words(findings: Findings) -> list[str]:
    """The run in sentences, the most important first."""
    board, meta = findings.board, findings.board.meta
    lines = [_what(board)]
    if findings.best is None:
        return [*lines, f"Nothing can be compared yet: {lb.NOTHING_YET}."]
    row = findings.row(findings.best)
    lines.append(
        f"Best single trial: {findings.best}, score {row['score']:.3f} "
        f"[{row['score low']:.3f}, {row['score high']:.3f}]{_versus(findings, row)}."
    )
    if findings.corrected is not None:
        c = findings.corrected
        lines.append(
            f"The best of many looks better than it is. Corrected for the choice (BBC-CV), a trial "
            f"so chosen scores {c.value:.3f} [{c.low:.3f}, {c.high:.3f}] on new images, "
            f"{row['score'] - c.value:.3f} less than it seems."
            if c.value < row["score"]
            else f"Corrected for the choice (BBC-CV): {c.value:.3f} [{c.low:.3f}, {c.high:.3f}]."
        )
    lines += _ensemble_words(findings)
    if findings.majority:
        m = findings.majority
        lines.append(
            f"Always guessing the commonest class: score {m['score']:.3f}, accuracy "
            f"{m['accuracy']:.3f}, UAR {m['uar']:.3f}."
        )
    ceiling = meta["data"].get("ceiling") or {}
    if ceiling:
        known = ", ".join(f"{lb.NAMES.get(k, k)} {v:.3f}" for k, v in ceiling.items())
        lines.append(
            f"Bayes ceiling, about the most that any model can reach on this data: {known}."
        )
    return lines


def _what(board: Board) -> str:
    meta, data = board.meta, board.meta["data"]
    counts: dict[str, int] = {}
    for record in board.records:
        state = lb.status(record, meta)
        counts[state] = counts.get(state, 0) + 1
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none yet"
    space = (meta.get("space") or {}).get("name", "?")
    return (
        f"Space {space} on {data.get('name', '?')} at {data.get('image_size', '?')} px, "
        f"{len(board.votes.labels)} validation images of {len(board.class_names)} classes. "
        f"Trials: {len(board.records)} of {meta.get('trials', '?')} ({states})."
    )


def _versus(findings: Findings, row: "pd.Series[Any]") -> str:
    if findings.baseline is None:
        return ""
    if findings.baseline == findings.best:
        return ": it is the baseline itself"
    low, high = row["vs baseline low"], row["vs baseline high"]
    clear = "" if low > 0 else ", which may be chance"
    return (
        f"; {row['vs baseline']:+.3f} [{low:+.3f}, {high:+.3f}] against the baseline "
        f"({findings.row(findings.baseline)['score']:.3f}){clear}"
    )


def _ensemble_words(findings: Findings) -> list[str]:
    ensemble = findings.ensemble
    if ensemble is None or len(findings.board.votes.trials) < 2:
        return []
    honest = ensemble.honest
    if not honest:
        return [f"Ensemble: {ensemble.method}; too few images to score it honestly."]
    mine, lead = honest["ensemble"], honest["lead over single"]
    return [
        f"Ensemble: {ensemble.method}, score {mine.value:.3f} [{mine.low:.3f}, {mine.high:.3f}] on "
        f"images that did not choose it; best single {honest['single'].value:.3f} and plain "
        f"average of the best {len(ensemble.top)} {honest['top'].value:.3f} in the same way, a "
        f"lead of {lead.value:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}] over the best single."
    ]
