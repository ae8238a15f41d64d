"""What of a run is exported, and what is known of how good it is."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis import posthoc, record
from analysis.board import Board, read_board, status
from analysis.contenders import CORRECTED
from analysis.corrections import correct, known_prior
from analysis.findings import Findings, find
from analysis.groups import read_folds
from analysis.use import scores
from analysis.use.card import Score, looked
from trainables.store import RunStore

if TYPE_CHECKING:
    from analysis.use.members import Recipe


@dataclass(frozen=True)
class Stored:
    """What is on record of a model's predictions: the images of a split, and (N, K)."""

    split: str
    ids: tuple[str, ...]
    probs: NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """What to export, of which run, and what is said of it."""

    recipe: "Recipe"
    meta: Mapping[str, Any]  # run.json
    scores: tuple[Score, ...]
    notes: tuple[str, ...]
    stored: Stored | None  # to compare with
    test: str  # what the ledger says of it; empty where the test split is sealed


def best(run: RunStore) -> tuple[Findings, str]:
    """What was found of the run, and the trial that the report names as the best.

    Raises ValueError for a run that is not finished: it might name another one tomorrow.
    """
    findings = find(read_board(run))
    if not run.meta().get("finished"):
        raise ValueError(
            f"run '{run.root}' is not finished, so which trial is the best is not decided: finish "
            "it (search.run … --resume), or take one that is completed by --trial ID"
        )
    if findings.best is None:
        raise ValueError(f"run '{run.root}' has no trial with usable predictions")
    return findings, findings.best


def trial_of(run: RunStore, trial: str) -> tuple[Findings, str]:
    """What was found of the run, and this trial: the first of its folds.

    Raises LookupError where the run has none of that name.
    """
    findings = find(read_board(run))
    ended = [
        record.id
        for record in findings.board.records
        if status(record, findings.board.meta) == "completed"
    ]
    every = {fold.id: name for name, own in findings.board.folds.items() for fold in own}
    if trial not in every:
        known = ", ".join(ended) or "none"
        raise LookupError(f"'{run.root}' has no trial '{trial}'; completed: {known}")
    return findings, every[trial]


def as_trained(findings: Findings, trial: str) -> Choice:
    """A trial of the board, which stands for all its folds, as it was trained."""
    from analysis.use.members import Recipe, source_of

    board, is_best = findings.board, trial == findings.best
    source = source_of(board.run.root, trial)
    title = f"Trial {trial}" + (", the best single trial" if is_best else "")
    if len(source.trials) > 1:
        title += f", the mean of its {len(source.trials)} folds"
    kind = "best" if is_best else "trial"
    recipe = Recipe(kind, title, (source,))
    test = looked(board.run.root, "best single" if is_best else "")
    measured = tuple(scores.of_trial(findings, trial))
    notes = tuple(scores.notes(findings, trial))
    return Choice(recipe, board.meta, measured, notes, _stored(board, trial), test)


def corrected(findings: Findings, trial: str) -> Choice:
    """The trial with the correction that validation chose (`posthoc.taken`).

    Raises ValueError where there is none to choose.
    """
    board, plain = findings.board, as_trained(findings, trial)
    found, problem = posthoc.of_trial(board, trial)
    if found is None:
        raise ValueError(f"trial {trial} cannot be corrected after training: {problem}")
    row = posthoc.taken(found)
    prior = known_prior(board.train_counts)
    tau = row.chosen.get("tau", 0.0)
    recipe = replace(
        plain.recipe,
        title=f"{plain.recipe.title}, with {posthoc.described(row)}",
        sources=tuple(
            replace(source, temperature=row.chosen.get("temperature", 1.0))
            for source in plain.recipe.sources
        ),
        shift=() if prior is None or not tau else tuple((tau * prior).tolist()),
        is_flipped="flips" in row.name,
    )
    stored = plain.stored
    if stored is not None:
        models, _ = posthoc.read_models(board, trial, stored.split, stored.ids)
        probs = np.exp(correct(row.name, models, prior, row.chosen)) if models else None
        stored = None if probs is None else replace(stored, probs=probs.astype(np.float32))
    return replace(
        plain,
        recipe=recipe,
        scores=tuple(scores.of_correction(row, found)),
        stored=stored,
        test=looked(board.run.root, CORRECTED if trial == findings.best else ""),
    )


def _stored(board: Board, trial: str) -> Stored | None:
    """What is on record of the trial. Of folds each validation image was seen by one of them, so
    the predictions of test, which has no labels here, are taken: they are the mean of all."""
    folds = board.folds[trial]
    split = "test" if len(folds) > 1 else "val"
    found = read_folds(board.run, folds, split)
    return None if found is None else Stored(split, found.ids, found.probs)


def ensemble(run: RunStore, path: Path) -> Choice:
    """The ensemble of that file, whose members may come from several runs.

    Raises FileNotFoundError where there is none, ValueError for a file that cannot be used.
    """
    from analysis.use.members import Recipe, source_of

    said, meta = record.read(path), run.meta()
    record.check(said, path, meta, run.root)
    sources = tuple(
        source_of(path.parent / entry["run"], entry["trial"], entry["weight"], entry["temperature"])
        for entry in said["sources"]
    )
    title = f"Ensemble of {len(sources)}: {said['method']}"
    rows = tuple(map(tuple, said.get("coefficients") or ()))
    recipe = Recipe("ensemble", title, sources, rows, tuple(said.get("shift") or ()))
    notes = [said["note"]] if said.get("note") else []
    is_own = path.resolve() == (run.root / "report" / "ensemble.json").resolve()
    test = looked(run.root, "ensemble") if is_own else ""
    has_folds = any(len(source.trials) > 1 for source in sources)
    stored = None if has_folds else _predictions(path)
    return Choice(recipe, meta, tuple(scores.of_ensemble(said)), tuple(notes), stored, test)


def _predictions(path: Path) -> Stored | None:
    """What the ensemble says of validation images, from the file beside it."""
    file = path.with_name("ensemble_val.npz")
    if not file.is_file():
        return None
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
        return Stored("val", tuple(map(str, found["ids"])), found["probs"].astype(np.float32))
