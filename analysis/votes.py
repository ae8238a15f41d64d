"""The predictions of a run's trials for the same images, brought into one order.

M trials, N images, K classes, A action units.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.groups import Folds, is_whole, read_folds
from trainables.store import Predictions, Record, RunStore

Ids = tuple[str, ...]
NO_FOLDS: Folds = {}


@dataclass(frozen=True)
class Votes:
    """What M trials say of the same N images; trials sorted by id."""

    trials: Ids
    ids: Ids  # of the images
    labels: NDArray[np.int64]  # (N,)
    probs: NDArray[np.float32]  # (M, N, K)
    aus: NDArray[np.int8]  # (N, A)
    au_probs: NDArray[np.float16]  # (M, N, A), as they are stored; NaN: no AU head
    problems: Mapping[str, str]  # trial id -> why it is not among `trials`
    partial: Mapping[str, Predictions] = field(default_factory=dict)  # of some folds' images only

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class each trial calls each image (M, N)."""
        calls: NDArray[np.int64] = self.probs.argmax(2)
        return calls

    def pick(self, trials: Iterable[str]) -> "Votes":
        """The votes of some of the trials."""
        wanted = set(trials)
        rows = [row for row, trial in enumerate(self.trials) if trial in wanted]
        names = tuple(self.trials[row] for row in rows)
        return Votes(
            names, self.ids, self.labels, self.probs[rows], self.aus, self.au_probs[rows], {}
        )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {trial: row for row, trial in enumerate(self.trials)}

    def row(self, trial: str) -> int:
        return self._rows[trial]

    def calls(self, trial: str | None) -> NDArray[np.int64] | None:
        """The class that the trial calls each image (N,); None for no trial."""
        return None if trial is None else self.predicted[self.row(trial)]


def read_votes(
    run: RunStore, records: Iterable[Record], classes: int, split: str, folds: Folds = NO_FOLDS
) -> Votes:
    """The predictions of all records that have sound ones; the reason for each that has not.

    A record that stands for several `folds` has those of all of them (`groups.py`). As long as no
    record has all its folds, all are seen on the images of their first.
    """
    found: dict[str, Predictions] = {}
    problems: dict[str, str] = {}
    ordered = sorted(records, key=lambda r: r.id)
    own = {record.id: folds.get(record.id, (record,)) for record in ordered}
    has_whole = split != "val" or any(map(is_whole, own.values()))
    for record in ordered:
        try:
            parts = own[record.id] if has_whole else own[record.id][:1]
            predictions = read_folds(run, parts, split)
            problem = _flaw(predictions, classes, split)
        except ValueError as error:
            predictions, problem = None, str(error)
        if predictions is None or problem:
            problems[record.id] = problem
        else:
            found[record.id] = predictions
    whole = {t: said for t, said in found.items() if not has_whole or is_whole(own[t])}
    partial = {t: said for t, said in found.items() if t not in whole} if split == "val" else {}
    votes = _align(whole if split == "val" else found, problems, classes, split)
    return replace(votes, partial=partial) if partial else votes


def _flaw(predictions: Predictions | None, classes: int, split: str) -> str:
    """What is wrong with predictions by themselves; empty if nothing is."""
    if predictions is None:
        return f"it has no {split} predictions yet"
    if not predictions.ids:
        return f"its {split} predictions are of no image"
    if predictions.probs.shape[1] != classes:
        return f"it predicts {predictions.probs.shape[1]} classes, the run has {classes}"
    if len(set(predictions.ids)) < len(predictions.ids):
        return f"its {split} predictions name an image twice"
    if split == "val" and not ((predictions.labels >= 0) & (predictions.labels < classes)).all():
        return f"its {split} labels are outside 0 to {classes - 1}"
    return ""


def _align(
    found: dict[str, Predictions], problems: dict[str, str], classes: int, split: str
) -> Votes:
    """Bring the commonest set of images into one order; leave out who has other images."""
    sets = {predictions.ids: frozenset(predictions.ids) for predictions in found.values()}
    images = {trial: sets[predictions.ids] for trial, predictions in found.items()}
    counts = Counter(images.values())
    if not counts:
        none, probs = np.zeros(0, np.int64), np.zeros((0, 0, classes), np.float32)
        no_aus = np.zeros((0, 0, 0), np.float16)
        return Votes((), (), none, probs, np.zeros((0, 0), np.int8), no_aus, problems)
    common = max(counts, key=lambda ids: (counts[ids], len(ids), min(ids)))
    ids = tuple(sorted(common))  # chance draws images by place: no trial may decide on it
    place = {image: row for row, image in enumerate(ids)}
    sound: dict[str, Predictions] = {}
    reference: Predictions | None = None
    for trial, predictions in found.items():
        if images[trial] is not common and images[trial] != common:
            shared = len(images[trial] & common)
            problems[trial] = (
                f"its {split} predictions are of other images: {shared} of the {len(ids)} that "
                "most trials share"
            )
            continue
        aligned = _ordered(predictions, place)
        reference = reference or aligned
        if (aligned.labels != reference.labels).any():
            problems[trial] = f"its {split} labels differ from those of trial {next(iter(sound))}"
            continue
        sound[trial] = aligned
    assert reference is not None
    return _stack(sound, reference, problems)


def _ordered(predictions: Predictions, place: Mapping[str, int]) -> Predictions:
    if predictions.ids == tuple(place):
        return predictions
    order = np.empty(len(place), np.int64)
    order[[place[image] for image in predictions.ids]] = np.arange(len(place))
    return Predictions(
        tuple(place),
        predictions.labels[order],
        predictions.probs[order],
        predictions.aus[order],
        predictions.au_probs[order],
    )


def _stack(
    sound: dict[str, Predictions], reference: Predictions, problems: dict[str, str]
) -> Votes:
    units = reference.aus.shape[1]
    names, ids = tuple(sound), reference.ids
    au_probs = np.empty((len(sound), len(ids), units), np.float16)
    probs = np.empty((len(sound), *reference.probs.shape), np.float32)
    for row, name in enumerate(names):
        predictions = sound.pop(name)
        said = predictions.au_probs
        is_sound = said.shape[1] == units and np.isfinite(said).all()
        au_probs[row] = said if is_sound else np.nan
        probs[row] = predictions.probs
    return Votes(names, ids, reference.labels, probs, reference.aus, au_probs, problems)
