"""Trials that are one configuration: its folds, pooled, and its seeds, averaged in the score.

A *repeat* is a configuration under one seed: all its folds, or its only trial. Its predictions are
those of its folds, each image said by the fold that did not train on it, so that scores of rare
classes are pooled over folds and not averaged. A *group* is a configuration with its repeats, whose
scores are averaged, for an average of probabilities would be an ensemble.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainables.config import group_of
from trainables.store import Predictions, Record, RunStore, TrialResult

Folds = Mapping[str, tuple[Record, ...]]  # repeat -> its folds, the first of which names it


@dataclass(frozen=True)
class Group:
    """A configuration with those of its repeats that stand alike."""

    id: str  # TrialConfig.group_id
    repeats: tuple[str, ...]  # by seed


def folds_of(records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
    """The trials of each repeat by fold, in the order in which the repeats were begun."""
    found: dict[str, list[Record]] = {}
    for record in records:
        key = record.id
        if int(record.config.get("folds", 1)) > 1:
            key = group_of(record.config, but=("fold",))
        found.setdefault(key, []).append(record)
    ordered = [tuple(sorted(own, key=lambda r: int(r.config["fold"]))) for own in found.values()]
    return {own[0].id: own for own in ordered}


def wanted_folds(record: Record) -> int:
    """How many folds a whole repeat has."""
    return int(record.config.get("folds", 1))


def ended_folds(folds: Sequence[Record]) -> list[Record]:
    """Those that were trained to their end."""
    return [fold for fold in folds if fold.result and fold.result.status == "completed"]


def is_whole(folds: Sequence[Record]) -> bool:
    """Whether every image was said by a fold that did not train on it."""
    wanted = wanted_folds(folds[0])
    return wanted == 1 or len(ended_folds(folds)) == wanted


def as_repeat(folds: Sequence[Record], is_over: bool = False) -> Record:
    """The record of a repeat: settings and curve of its first fold, outcome of all.

    It is completed once all folds are, failed when one is, and stopped where no fold is to come.
    """
    first = folds[0]
    if wanted_folds(first) == 1:
        return first
    results = [fold.result for fold in folds if fold.result is not None]
    failed = next((f for f in folds if f.result and f.result.status == "failed"), None)
    if failed is not None and failed.result is not None:
        error = failed.result.error
        where = "" if failed is first else f"fold {failed.config['fold']}: "
        return replace(first, result=replace(failed.result, error=where + error))
    if len(results) < len(folds) or not results:
        return replace(first, result=None)
    has_all = len(ended_folds(folds)) == wanted_folds(first)
    is_waiting = results[0].status == "completed" and not has_all and not is_over
    if is_waiting:
        return replace(first, result=None)
    return replace(
        first,
        result=TrialResult(
            "completed" if has_all else "stopped",
            results[0].metrics,
            results[0].epoch,
            sum(result.seconds for result in results),
            max(result.peak_gib for result in results),
        ),
    )


def read_folds(run: RunStore, folds: Sequence[Record], split: str) -> Predictions | None:
    """The predictions of a repeat; None where there are none. Raises ValueError for damaged ones.

    Of validation: each fold's own images, one after the other. Of test: the mean over the folds'
    models, which is what would be put to use.
    """
    used = ended_folds(folds) or list(folds[:1])
    found = [run.trial(fold.id).predictions(split) for fold in used]
    parts = [part for part in found if part is not None]
    if len(parts) < len(used):
        return None
    if len(parts) == 1:
        return parts[0]
    return pooled(parts) if split == "val" else mean(parts)


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of other images each, one after the other."""
    widths = {part.au_probs.shape[1] for part in parts}
    return Predictions(
        tuple(name for part in parts for name in part.ids),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probs for part in parts]),
        np.concatenate([part.aus for part in parts]),
        np.concatenate([p.au_probs if len(widths) == 1 else p.au_probs[:, :0] for p in parts]),
    )


def mean(parts: Sequence[Predictions]) -> Predictions:
    """The mean probabilities of models that saw the same images. Raises ValueError for others."""
    first = parts[0]
    if any(part.ids != first.ids for part in parts):
        raise ValueError("its folds have predicted other images each")
    return replace(
        first,
        probs=np.mean([part.probs for part in parts], 0, dtype=np.float32),
        au_probs=np.mean([part.au_probs for part in parts], 0, dtype=np.float32),
    )


def groups_of(records: Iterable[Record], standing: Mapping[str, object]) -> list[Group]:
    """The configurations, each with the repeats that stand alike: averaging a stopped repeat with
    a completed one would compare neither. In the order in which they were begun.
    """
    found: dict[tuple[str, object], list[Record]] = {}
    for record in records:
        group = group_of(record.config)
        found.setdefault((group, standing.get(record.id)), []).append(record)
    return [
        Group(group, tuple(r.id for r in sorted(own, key=lambda r: (r.config["seed"], r.index))))
        for (group, _), own in found.items()
    ]
