"""What a run has shown: the best trial, the ensemble, how far to trust them; and that in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import ensemble as ens
from analysis import intervals, statistics
from analysis import leaderboard as lb
from analysis.ensemble import Ensemble
from analysis.leaderboard import Board
from analysis.pool import known_of
from analysis.statistics import Estimate, bracketed, signed
from analysis.tables import cell
from trainables.metrics import Ints

ROUNDS = 1000
FEW_IMAGES, FEW_OF_CLASS = 200, 10  # with fewer, a score is hardly more than a guess
PEERS = 11  # the best and ten that it is compared with
POWER_80 = 0.8416212  # the 80 % point of the standard normal
REACH = 5.0  # standard errors: one round in ten million


@dataclass(frozen=True)
class Findings:
    """All numbers of a report; None where the run does not give them, `notes` say why."""

    board: Board
    table: pd.DataFrame
    best: str | None
    baseline: str | None
    ensemble: Ensemble | None
    corrected: Estimate | None  # score of a trial chosen so, on images that did not choose it
    lead: Estimate | None  # its lead over the baseline on the same images
    majority: dict[str, float] | None
    notes: tuple[str, ...]
    detectable: float | None = None  # the smallest difference that this data would show

    def row(self, trial: str) -> "pd.Series[Any]":
        """The row of a trial, which is that of its configuration."""
        found = self.table[self.table["trial"] == trial]
        if found.empty:  # a further seed
            first = self.board.repeats(trial)[0]
            found = self.table[self.table["trial"] == first]
        return found.iloc[0]


def find(board: Board) -> Findings:
    """Read the leaderboard, choose the best trial and the ensemble, and correct for the choice."""
    table = lb.frame(board)
    chosen, note = lb.candidates(board)
    baseline, base_note = lb.baseline(board)
    ranked = table[table["trial"].isin(chosen)]
    found = None if ranked.empty else str(ranked.iloc[0]["trial"])
    votes = board.votes.full.pick(chosen)
    reference = board.votes.calls(baseline)
    known = replace(known_of(map(board.record, chosen)), counts=board.train_counts)
    ensemble = ens.build(votes, board.goal, 0, reference, known) if chosen else None
    corrected, lead = _corrected(board, rivals(table, chosen), reference)
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
    return Findings(
        *(board, table, found, baseline, ensemble, corrected, lead, majority, shown),
        detectable(board, ranked["trial"].head(PEERS).tolist()),
    )


def rivals(table: pd.DataFrame, chosen: Sequence[str]) -> list[str]:
    """The candidates, and the stopped trials below the best of them, which chance might have led.

    A stopped trial above the best was no candidate: it would stand for another choice.
    """
    score = dict(zip(table["trial"], table["score"], strict=True))
    best = max((score[t] for t in chosen if t in score), default=0.0)
    stopped = table.loc[table["status"] == "stopped", "trial"]
    below = [t for t in stopped if t not in chosen and score[t] <= best]
    return [*chosen, *below]


def _corrected(
    board: Board, trials: Sequence[str], baseline: Ints | None
) -> tuple[Estimate | None, Estimate | None]:
    if len(set(trials) & set(board.votes.trials)) < 2:
        return None, None
    wanted = set(trials) & set(board.votes.trials)
    near = in_reach(board, sorted(wanted))
    known = [[t for t in group.repeats if t in wanted] for group in lb.groups(board)]
    known = [own for own in known if near.intersection(own)]
    votes = board.votes.pick(trial for own in known for trial in own)
    weights = statistics.resample(votes.labels, ROUNDS, np.random.default_rng(1))
    groups = [[votes.row(t) for t in own] for own in known]
    own = lb.baseline(board)[0]
    base = () if own is None else board.repeats(own)
    if baseline is not None and len(base) > 1:
        calls = [board.votes.calls(trial) for trial in base if trial in board.votes.trials]
        baseline = np.stack([said for said in calls if said is not None])
    return statistics.corrected_best(
        votes.labels, votes.predicted, board.goal, weights, baseline, groups
    )


def detectable(board: Board, trials: Sequence[str]) -> float | None:
    """The difference in score between two such trials, one seed each, that would be found in four
    of five data sets like this one: 2.8 standard errors of their paired difference (the median
    over pairs with the best). None for fewer than two that differ."""
    known_trials = set(board.votes.trials)
    rows = [board.votes.row(trial) for trial in trials if trial in known_trials]
    if len(rows) < 2:
        return None
    best, others = board.votes.predicted[rows[0]], board.votes.predicted[rows[1:]]
    _, errors = intervals.errors(board.votes.labels, others, board.goal, best)
    known = errors[errors > 0]
    return float((statistics.NORMAL_95 + POWER_80) * np.median(known)) if len(known) else None


def in_reach(board: Board, trials: Sequence[str]) -> set[str]:
    """The trials that chance in the images might put first; of many, most cannot be.

    Those more than REACH standard errors of their difference from the best behind it are left out.
    """
    rows = [board.votes.row(trial) for trial in trials]
    labels, predicted = board.votes.labels, board.votes.predicted[rows]
    scores = board.goal.scores(statistics.tally(labels, predicted, board.goal.classes))
    best = int(scores.argmax())
    _, errors = intervals.errors(labels, predicted, board.goal, predicted[best])
    near = scores >= scores[best] - REACH * errors
    return {trial for trial, is_near in zip(trials, near, strict=True) if is_near}


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
    is_baseline = ": it is the baseline itself" if findings.baseline == findings.best else ""
    lines.append(f"Best single trial: {findings.best}, score {cell(row, 'score')}{is_baseline}.")
    lines += _corrected_words(findings, float(row["score"]))
    lines += _ensemble_words(findings)
    if findings.detectable is not None:
        lines.append(
            "The smallest difference in score between two trials like the best that "
            f"{len(board.votes.labels)} images would show (in four of five such data sets, at "
            f"95 %): about {findings.detectable:.3f}; chance in the training seeds comes on top."
        )
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
    pooled = max((int(r.config.get("folds", 1)) for r in board.records), default=1)
    for record in board.records:
        state = lb.status(record, meta)
        counts[state] = counts.get(state, 0) + 1
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none yet"
    space = (meta.get("space") or {}).get("name", "?")
    wanted = meta.get("trials", "?")
    trials = f"Trials: {len(board.records)} of {wanted} ({states})."
    if pooled > 1:
        trials = (
            f"Trainings: {board.trainings} of {wanted}, each of a fold of {pooled}; "
            f"configurations: {len(board.records)} ({states}), scored on what their folds held out."
        )
    return (
        f"Space {space} on {data.get('name', '?')} at {data.get('image_size', '?')} px, "
        f"{len(board.votes.labels)} validation images of {len(board.class_names)} classes. {trials}"
    )


def _corrected_words(findings: Findings, seeming: float) -> list[str]:
    """What the best is worth on images that did not choose it, alone and against the baseline."""
    lines, c, row = [], findings.corrected, findings.row(str(findings.best))
    is_partial = (findings.table["status"] == "stopped").any()
    if c is not None:
        bound = "at most about " if is_partial else ""
        less = f", {seeming - c.value:.3f} less than it seems" if c.value < seeming else ""
        rungs = "; the rungs chose too, which this corrects in part only" if is_partial else ""
        lines.append(
            f"Corrected for the choice of the best (BBC-CV), a trial so chosen scores "
            f"{bound}{bracketed(c)} on new images{less}{rungs}."
        )
        if c.value - seeming >= 0.0005:  # as it is printed
            lines.append(_above(findings.board.votes.labels, c.value - seeming))
    lead = findings.lead
    if lead is None and not pd.isna(row["vs baseline"]):  # one trial, so nothing was chosen
        low, high = row["vs baseline low"], row["vs baseline high"]
        lead = Estimate(row["vs baseline"], low, high)
    if lead is not None and findings.baseline is not None and findings.baseline != findings.best:
        base = findings.row(findings.baseline)["score"]
        how = "" if findings.lead is None else ", on images that did not choose it"
        chance = "" if lead.low > 0 else ": this may be chance"
        lines.append(f"Best against the baseline ({base:.3f}){how}: {signed(lead)}{chance}.")
    return lines


def _above(labels: NDArray[np.int64], gap: float) -> str:
    """How a corrected score can be the higher one, and what follows from it."""
    known = np.unique(labels[labels >= 0], return_counts=True)[1]
    count, rarest = len(labels), int(known.min()) if len(known) else 0
    verdict = (
        f"with {count} images, {rarest} of the rarest class, neither can be trusted: more images "
        "or python -m search.confirm tell more"
        if count < FEW_IMAGES or rarest < FEW_OF_CLASS
        else "take neither for more exact than its interval"
    )
    return (
        f"The corrected score is {gap:.3f} higher than the one it corrects, which luck in choosing "
        "cannot explain: winners of different rounds are scored on the third of the images that "
        "each round leaves out, and their answers together score unlike any one of them. Chance "
        f"moves both figures more here than choosing costs: {verdict}."
    )


def _ensemble_words(findings: Findings) -> list[str]:
    ensemble = findings.ensemble
    if ensemble is None or len(findings.board.votes.trials) < 2:
        return []
    honest = ensemble.honest
    if not honest:
        return [f"Ensemble: {ensemble.method}; too few images to score it honestly."]
    mine, base = honest["ensemble"], honest.get("lead over baseline")
    over = f" and {signed(base)} over the baseline" if base else ""
    return [
        f"Ensemble: {ensemble.method}, score {bracketed(mine)} on images that did not choose it; "
        f"best single {honest['single'].value:.3f} and average of best {len(ensemble.top)} "
        f"{honest['top'].value:.3f} in the same way, a lead of "
        f"{signed(honest['lead over single'])} over the best single{over}."
    ]
