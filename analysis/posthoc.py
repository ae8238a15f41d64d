"""`python -m analysis.posthoc RUN`: what can be done after training, from stored logits.

Never part of a search: the corrections (`corrections.py`) cost no training, so each is tried on
every completed trial that has stored its views.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.corrections import After, Corrected, after
from analysis.crossfit import FEW_IMAGES
from analysis.findings import Findings
from analysis.leaderboard import Board, read_board, status
from analysis.statistics import signed
from trainables.cli import Parser, run_command
from trainables.store import RunStore, replace_file
from trainables.views import Views, file_of, unpack

DEPLOYED = (
    "mean of flips",
    "temperature",
    "logit adjustment",
    "flips, temperature, adjustment",
)
SHOWN = ("score", "accuracy", "uar", "nll", "ece")


def read_views(board: Board, trial: str) -> tuple[Views | None, str]:
    """The views of validation in the order of the votes, of all folds; or why there are none."""
    parts, problem = _read(board, trial, "val")
    if not parts:
        return None, problem
    views = _ordered(parts[0] if len(parts) == 1 else _pooled(parts), board.votes.ids)
    return views, "" if views else f"the views of trial {trial} are of other images"


def read_models(
    board: Board, trial: str, split: str, ids: Sequence[str]
) -> tuple[list[Views], str]:
    """The views of each fold's model, in the order of the images; or why there are none."""
    parts, problem = _read(board, trial, split)
    models = [views for part in parts if (views := _ordered(part, ids))]
    if len(models) < len(parts):
        return [], f"the views of trial {trial} are of other images"
    return models, problem


def _read(board: Board, trial: str, split: str) -> tuple[list[Views], str]:
    parts = list[Views]()
    for fold in board.folds.get(trial, (board.record(trial),)):
        path = board.run.trial(fold.id).path / file_of(split)
        data = board.run.trial(fold.id).read(path.name)
        if data is None:
            return [], f"trial {fold.id} has stored no views: only completed trials of images do"
        try:
            parts.append(unpack(data, path))
        except ValueError as error:
            return [], str(error)
    return parts, ""


def _ordered(views: Views, ids: Sequence[str]) -> Views | None:
    """The views with the images in this order; None where they are of others."""
    place = {image: row for row, image in enumerate(views.ids)}
    if place.keys() != set(ids):
        return None
    return replace(views, ids=tuple(ids), logits=views.logits[:, [place[image] for image in ids]])


def _pooled(parts: Sequence[Views]) -> Views:
    """The views of all folds, those that every fold has; the norms of their heads differ."""
    names = tuple(name for name in parts[0].names if all(name in part.names for part in parts))
    ids = tuple(name for part in parts for name in part.ids)
    logits = np.concatenate([part.of(*names) for part in parts], 1)
    return Views(ids, names, logits, np.zeros(0, np.float32))


def of_trial(board: Board, trial: str) -> tuple[After | None, str]:
    """What can be done after training with a trial of the run, or why nothing."""
    if len(board.votes.labels) < FEW_IMAGES:
        return None, f"{len(board.votes.labels)} images are too few to choose a correction on"
    views, problem = read_views(board, trial)
    if views is None:
        return None, problem
    return after(trial, views, board.votes.labels, board.goal, board.train_counts), ""


def taken(found: After) -> Corrected:
    """The correction to put to use: of those that raise the score for sure, on images that did not
    choose it, the best; else the temperature, which changes no decision. Of those alone that an
    exported model can hold."""
    rows = [row for row in found.rows if row.name in DEPLOYED]
    sure = [row for row in rows if row.gap is not None and row.gap.low > 0]
    if not sure:
        return named(found, "temperature")
    return max(sure, key=lambda row: row.scores["score"])


def named(found: After, name: str) -> Corrected:
    """The correction of that name."""
    return next(row for row in found.rows if row.name == name)


def told(row: Corrected) -> str:
    """What was chosen, in words."""
    return ", ".join(f"{name} {value:.3g}" for name, value in row.chosen.items())


def described(row: Corrected) -> str:
    """The correction and what was chosen, in words."""
    return f"{row.name} ({told(row)})" if row.chosen else row.name


def facts(found: After) -> list[dict[str, Any]]:
    """A flat row for each correction."""
    return [
        {
            "trial": found.trial,
            "correction": row.name,
            "chosen": told(row),
            **{name: row.scores[name] for name in SHOWN},
            "gain": row.gap.value if row.gap else None,
            "gain low": row.gap.low if row.gap else None,
            "gain high": row.gap.high if row.gap else None,
        }
        for row in found.rows
    ]


def sentence(found: After) -> str:
    """What of it raises the score, or that nothing does for sure; what the temperature does."""
    before = found.rows[0].scores
    rows = [row for row in found.rows if row.gap is not None and row.name != "temperature"]
    best = max(rows, key=lambda row: (row.gap.low > 0 if row.gap else False, row.scores["score"]))
    assert best.gap is not None
    what = described(best)
    change = f"from {before['score']:.3f} to {best.scores['score']:.3f}, {signed(best.gap)}"
    if best.gap.low > 0:
        first = (
            f"After training, {what} raises the score {change}, on images that did not choose it"
        )
    elif best.gap.value > 0:
        first = f"After training nothing raises the score for sure; the best is {what}, {change}"
    else:
        first = "After training nothing raises the score"
    warm = named(found, "temperature").scores
    return (
        f"{first}. A temperature brings the log-loss from {before['nll']:.3f} to {warm['nll']:.3f} "
        f"and the calibration error from {before['ece']:.3f} to {warm['ece']:.3f}."
    )


def of_findings(findings: Findings) -> dict[str, tuple[After | None, str]]:
    """For the best trial and the baseline: the corrections, or why there are none."""
    wanted = {"best single": findings.best, "baseline": findings.baseline}
    if findings.best == findings.baseline:
        wanted.pop("baseline")
    return {who: of_trial(findings.board, trial) for who, trial in wanted.items() if trial}


def main(argv: Sequence[str] | None = None) -> int:
    """Correct every completed trial after its training; RUN/report/posthoc.csv has all of it."""
    parser = Parser(prog="python -m analysis.posthoc", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/smoke")
    parser.add_argument("--trial", metavar="ID", help="show this one (default: the best)")
    args, console = parser.parse(argv), Console()
    board = read_board(RunStore.open(args.run))
    ended = [t for t in board.votes.trials if status(board.record(t), board.meta) == "completed"]
    if args.trial is not None and args.trial not in ended:
        known = ", ".join(ended) or "none"
        raise LookupError(f"'{args.run}' has no completed trial '{args.trial}'; there are: {known}")
    answers = {trial: of_trial(board, trial) for trial in ended}
    found = {trial: answer for trial, (answer, _) in answers.items() if answer is not None}
    if not found:
        reasons = next((why for _, why in answers.values()), "no trial is completed")
        raise ValueError(f"nothing to correct in '{args.run}': {reasons}")
    rows = [row for answer in found.values() for row in facts(answer)]
    path = args.run / "report" / "posthoc.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, pd.DataFrame(rows).to_csv(index=False).encode())
    shown = args.trial or max(found, key=lambda t: (found[t].rows[0].scores["score"], t))
    if shown not in found:
        raise ValueError(answers[shown][1])
    console.print(_table(found[shown]))
    console.print(Text(sentence(found[shown])))
    console.print(Text(f"{len(found)} trials: {path}"), soft_wrap=True)
    return 0


def _table(found: After) -> Table:
    table = Table(title=Text(f"Trial {found.trial}", "bold"), title_justify="left", box=None)
    for column in ("", "chosen", *SHOWN, "gain"):
        table.add_column(column, overflow="fold")
    for row in found.rows:
        scores = [f"{row.scores[name]:.3f}" for name in SHOWN]
        table.add_row(Text(row.name), Text(told(row)), *scores, Text(signed(row.gap)))
    return table


if __name__ == "__main__":
    run_command(main)
