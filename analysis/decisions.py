"""What each trial of a run calls each image, and what its probabilities measure.

M trials, N images, K classes, A action units. Of ten thousand trials the probabilities would fill a
gigabyte: they are measured as they are read and kept only of the trials that may be taken.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis import measures
from analysis.groups import Folds, is_whole
from analysis.votes import ByTrial, Ids, Votes, common, joined, of_all_units, read_parts
from trainables import metrics
from trainables.metrics import Floats
from trainables.store import Record, RunStore


@dataclass(frozen=True)
class Decisions(ByTrial):
    """What M trials decide on the same N images; trials and images sorted by id."""

    trials: Ids
    ids: Ids  # of the images
    labels: NDArray[np.int64]  # (N,)
    aus: NDArray[np.int8]  # (N, A)
    predicted: NDArray[np.int16]  # (M, N), the class that each trial calls each image
    nll: Floats  # (M,)
    ece: Floats  # (M,)
    unit_f1: Floats  # (M, A); NaN: no AU head
    full: Votes  # the probabilities, of the trials that may be taken
    problems: Mapping[str, str] = field(default_factory=dict)  # why a trial is not among them
    partial: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # scores on some folds

    def pick(self, trials: Iterable[str]) -> "Decisions":
        """The decisions of some of the trials."""
        rows = self.rows_of(trials)
        return replace(
            self,
            trials=tuple(self.trials[row] for row in rows),
            predicted=self.predicted[rows],
            nll=self.nll[rows],
            ece=self.ece[rows],
            unit_f1=self.unit_f1[rows],
        )

    def calls(self, trial: str | None) -> NDArray[np.int16] | None:
        """The class that the trial calls each image (N,); None for no trial."""
        return None if trial is None else self.predicted[self.row(trial)]


def read_decisions(
    run: RunStore,
    records: Sequence[Record],
    classes: int,
    folds: Folds,
    keep: Collection[str] | None,
    metric: str,
) -> Decisions:
    """The decisions on the validation images of all records that have sound predictions.

    The probabilities of `keep` are kept (None: of all). A record of several folds of which some are
    missing is scored on the images of those that are there, by `metric`, and otherwise left out. As
    long as no record has all its folds, all are seen on the images of their first.
    """
    own = {record.id: folds.get(record.id, (record,)) for record in records}
    whole = [record for record in records if is_whole(own[record.id])]
    if not whole:
        whole, own = list(records), {trial: parts[:1] for trial, parts in own.items()}
    names = {record.id for record in whole}
    rest = [record for record in records if record.id not in names]
    make = partial(decided, keep=keep)
    parts, problems = read_parts(run, whole, classes, "val", own, make)
    kept, other = common(parts, "val")
    scores, flaws = read_parts(run, rest, classes, "val", own, partial(_scored, metric=metric))
    return replace(
        _joined(kept, classes),
        problems=problems | other | flaws,
        partial={trial: found for part in scores for trial, found in part.items()},
    )


def decided(votes: Votes, keep: Collection[str] | None) -> Decisions:
    """What these votes decide, and the probabilities of those to keep: all, if None."""
    nll, ece = measures.calibration(votes)
    return Decisions(
        *(votes.trials, votes.ids, votes.labels, votes.aus),
        votes.predicted.astype(np.int16),
        nll,
        ece,
        measures.of_units(votes),
        votes if keep is None else votes.pick(keep),
    )


def _scored(votes: Votes, metric: str) -> dict[str, dict[str, float]]:
    return {
        trial: metrics.scores(votes.labels, probs, metric)
        for trial, probs in zip(votes.trials, votes.probs, strict=True)
    }


def _joined(parts: Sequence[Decisions], classes: int) -> Decisions:
    full = joined([part.full for part in parts], classes)
    if not parts:
        none, units = np.zeros(0), np.zeros((0, 0))
        calls = np.zeros((0, 0), np.int16)
        return Decisions((), (), full.labels, full.aus, calls, none, none, units, full)
    return replace(
        parts[0],
        trials=tuple(trial for part in parts for trial in part.trials),
        predicted=np.concatenate([part.predicted for part in parts]),
        nll=np.concatenate([part.nll for part in parts]),
        ece=np.concatenate([part.ece for part in parts]),
        unit_f1=of_all_units([part.unit_f1 for part in parts]),
        full=full,
    )
