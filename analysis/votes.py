"""The predictions of a run's trials for the same images, brought into one order.

M trials, N images, K classes, A action units. Trials and images are sorted by id: chance draws
images by place, and no trial may decide on it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.groups import Folds, read_folds
from trainables.data.cores import usable_cores
from trainables.store import Predictions, Record, RunStore

Ids = tuple[str, ...]
NO_FOLDS: Folds = {}
AT_ONCE = 64  # trials that a thread reads before it makes something of them
Made = TypeVar("Made")
AnyFloat = TypeVar("AnyFloat", bound=np.floating)


class ByTrial:
    """Something that has a row for each trial."""

    trials: Ids

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {trial: row for row, trial in enumerate(self.trials)}

    def row(self, trial: str) -> int:
        return self._rows[trial]

    def rows_of(self, trials: Iterable[str]) -> list[int]:
        """The rows of those of the trials that are here, in their order here."""
        wanted = set(trials)
        return [row for row, trial in enumerate(self.trials) if trial in wanted]


@dataclass(frozen=True)
class Votes(ByTrial):
    """What M trials say of the same N images."""

    trials: Ids
    ids: Ids  # of the images
    labels: NDArray[np.int64]  # (N,)
    probs: NDArray[np.float32]  # (M, N, K)
    aus: NDArray[np.int8]  # (N, A)
    au_probs: NDArray[np.float32]  # (M, N, A); NaN: no AU head
    problems: Mapping[str, str]  # trial id -> why it is not among `trials`

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class each trial calls each image (M, N)."""
        calls: NDArray[np.int64] = self.probs.argmax(2)
        return calls

    def pick(self, trials: Iterable[str]) -> "Votes":
        """The votes of some of the trials."""
        rows = self.rows_of(trials)
        if len(rows) == len(self.trials):  # nothing to copy
            return replace(self, problems={})
        return replace(
            self,
            trials=tuple(self.trials[row] for row in rows),
            probs=self.probs[rows],
            au_probs=self.au_probs[rows],
            problems={},
        )


def read_votes(
    run: RunStore, records: Iterable[Record], classes: int, split: str, folds: Folds = NO_FOLDS
) -> Votes:
    """The predictions of all records that have sound ones; the reason for each that has not.

    A record that stands for several `folds` has those of all of them (`groups.py`).
    """
    parts, problems = read_parts(run, records, classes, split, folds, lambda part: part)
    kept, other = common(parts, split)
    return replace(joined(kept, classes), problems=problems | other)


def read_parts(
    run: RunStore,
    records: Iterable[Record],
    classes: int,
    split: str,
    folds: Folds,
    make: Callable[[Votes], Made],
) -> tuple[list[Made], dict[str, str]]:
    """What is made of the sound predictions, a few trials of the same images at a time; and the
    reason for each record that has none. Threads share the work, the order is that of the ids."""

    def part(some: Sequence[Record]) -> tuple[list[Made], dict[str, str]]:
        found, problems = _sound(run, some, classes, split, folds)
        return [make(votes) for votes in stacked(found)], problems

    ordered = sorted(records, key=lambda record: record.id)
    some = [ordered[start : start + AT_ONCE] for start in range(0, len(ordered), AT_ONCE)]
    parts, problems = list[Made](), dict[str, str]()
    with ThreadPoolExecutor(usable_cores()) as pool:  # files, checksums and numpy let others run
        for made, flaws in pool.map(part, some):
            parts += made
            problems |= flaws
    return parts, problems


def _sound(
    run: RunStore, records: Sequence[Record], classes: int, split: str, folds: Folds
) -> tuple[dict[str, Predictions], dict[str, str]]:
    """The predictions by trial, images sorted; and what is wrong with those that are left out."""
    found, problems = dict[str, Predictions](), dict[str, str]()
    for record in records:
        try:
            said = read_folds(run, folds.get(record.id, (record,)), split)
            problem = _flaw(said, classes, split)
        except ValueError as error:
            said, problem = None, str(error)
        if said is None or problem:
            problems[record.id] = problem
        else:
            found[record.id] = _sorted(said)
    return found, problems


def _flaw(predictions: Predictions | None, classes: int, split: str) -> str:
    """What is wrong with predictions by themselves; empty if nothing is."""
    if predictions is None:
        return f"it has no {split} predictions yet"
    if not predictions.ids:
        return f"its {split} predictions are of no image"
    if predictions.probs.shape[1] != classes:
        return f"it predicts {predictions.probs.shape[1]} classes, the run has {classes}"
    if len(_order(predictions.ids)[0]) < len(predictions.ids):
        return f"its {split} predictions name an image twice"
    if split == "val" and not ((predictions.labels >= 0) & (predictions.labels < classes)).all():
        return f"its {split} labels are outside 0 to {classes - 1}"
    return ""


@lru_cache(maxsize=64)
def _order(ids: Ids) -> tuple[Ids, NDArray[np.int64]]:
    """The images sorted, each once, and where each stands in `ids`."""
    place = {image: row for row, image in enumerate(ids)}
    names = tuple(sorted(place))
    return names, np.array([place[name] for name in names], np.int64)


def _sorted(said: Predictions) -> Predictions:
    names, order = _order(said.ids)
    if names == said.ids:
        return said
    return Predictions(
        names, said.labels[order], said.probs[order], said.aus[order], said.au_probs[order]
    )


def stacked(found: Mapping[str, Predictions]) -> list[Votes]:
    """The predictions as votes, trials of the same images and labels together."""
    alike: dict[tuple[Ids, bytes], list[str]] = {}
    for trial, said in found.items():
        alike.setdefault((said.ids, said.labels.tobytes()), []).append(trial)
    return [_stack({trial: found[trial] for trial in trials}) for trials in alike.values()]


def _stack(found: Mapping[str, Predictions]) -> Votes:
    first = next(iter(found.values()))
    units = first.aus.shape[1]
    au_probs = np.empty((len(found), len(first.ids), units), np.float32)
    probs = np.empty((len(found), *first.probs.shape), np.float32)
    for row, said in enumerate(found.values()):
        heads = said.au_probs
        is_sound = heads.shape[1] == units and np.isfinite(heads).all()
        au_probs[row] = heads if is_sound else np.nan
        probs[row] = said.probs
    return Votes(tuple(found), first.ids, first.labels, probs, first.aus, au_probs, {})


class Part(Protocol):
    """What some trials say of the same images."""

    @property
    def trials(self) -> Ids: ...

    @property
    def ids(self) -> Ids: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...


AnyPart = TypeVar("AnyPart", bound=Part)


def common(parts: Sequence[AnyPart], split: str) -> tuple[list[AnyPart], dict[str, str]]:
    """The parts of the images that most trials share; and why the others are left out."""
    counts = Counter[Ids]()
    for part in parts:
        counts[part.ids] += len(part.trials)
    if not counts:
        return [], {}
    ids = max(counts, key=lambda ids: (counts[ids], len(ids), ids[0]))
    kept, problems = list[AnyPart](), dict[str, str]()
    for part in parts:
        if part.ids != ids:
            shared = len(set(part.ids).intersection(ids))
            problem = (
                f"its {split} predictions are of other images: {shared} of the {len(ids)} that "
                "most trials share"
            )
        elif kept and (part.labels != kept[0].labels).any():
            problem = f"its {split} labels differ from those of trial {kept[0].trials[0]}"
        else:
            kept.append(part)
            continue
        problems |= dict.fromkeys(part.trials, problem)
    return kept, problems


def joined(parts: Sequence[Votes], classes: int) -> Votes:
    """The votes of parts of the same images as one."""
    if not parts:
        none, probs = np.zeros(0, np.int64), np.zeros((0, 0, classes), np.float32)
        no_aus = np.zeros((0, 0, 0), np.float32)
        return Votes((), (), none, probs, np.zeros((0, 0), np.int8), no_aus, {})
    return replace(
        parts[0],
        trials=tuple(trial for part in parts for trial in part.trials),
        probs=np.concatenate([part.probs for part in parts]),
        au_probs=of_all_units([part.au_probs for part in parts]),
    )


def of_all_units(parts: Sequence[NDArray[AnyFloat]]) -> NDArray[AnyFloat]:
    """Arrays (m, …, A) as one, with the units of the first; NaN for parts that have others."""
    width = parts[0].shape[-1]
    return np.concatenate(
        [
            part
            if part.shape[-1] == width
            else np.full((*part.shape[:-1], width), np.nan, part.dtype)
            for part in parts
        ]
    )
