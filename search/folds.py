"""Folds as a fidelity: a configuration earns its next folds. K folds.

Every new configuration is trained on fold 0. Once that has ended it waits, and goes on while it is
among the best third of those that came as far: to three folds, then to nine, then to all K, as
trials go on over epochs under `promotion` (pruners.py), but the score of a rung is that of all
held-out images of its folds together. The baseline has all folds. A fold counts as a training of
the budget; what one configuration needs for all its folds is kept back from new ones.

Pure but for `pooled_score`. All state follows from the record, so a restart rebuilds it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan

import numpy as np

from search.pruners import ETA, PRUNERS
from trainables import metrics
from trainables.config import Flat, TrialConfig
from trainables.store import RunStore, Status

Score = Callable[[Sequence[str]], float]  # trials of a configuration, by fold -> pooled score


@dataclass
class Entry:
    """A configuration under one seed."""

    config: TrialConfig
    role: str
    trials: dict[int, str] = field(default_factory=dict)  # fold -> trial that was begun
    ended: set[int] = field(default_factory=set)  # folds that were trained whole
    granted: int = 1  # folds that it has earned
    scores: dict[int, float] = field(default_factory=dict)  # rung -> pooled score
    is_out: bool = False  # a fold was stopped or has failed

    @property
    def due(self) -> list[int]:
        """Folds that it has earned and not begun."""
        return [] if self.is_out else [f for f in range(self.granted) if f not in self.trials]


class FoldLadder:
    """Who gets a further fold. State: the entries, and the rungs, whose epochs are folds."""

    def __init__(self, folds: int, score: Score, eta: int = ETA) -> None:
        self.folds, self.score, self.eta = folds, score, eta
        self.rule = PRUNERS["promotion"](folds, 1, eta)
        self.entries: dict[str, Entry] = {}  # by the trial of the first fold
        self.paused: dict[str, int] = {}  # waiting -> its folds

    def add(self, trial: str, config: TrialConfig, role: str) -> None:
        """A trial is begun, or was in the record. Who has begun a fold had earned the step."""
        first = self.first_of(config)
        entry = self.entries.setdefault(first, Entry(config, role))
        entry.trials[config.fold] = trial
        if config.fold:
            entry.granted = max(entry.granted, self._after(config.fold, role))
        if first in self.paused and config.fold:
            self.rule.let_go(first, self.paused.pop(first))

    def close(self, config: TrialConfig, status: Status) -> None:
        """A trial has ended: its configuration waits, goes on at once, or is out."""
        first = self.first_of(config)
        entry = self.entries[first]
        if status != "completed":
            entry.is_out = True
            self.paused.pop(first, None)
            if entry.scores:
                self._vacate()
            return
        entry.ended.add(config.fold)
        count = len(entry.ended)
        if entry.is_out or count < entry.granted or count == self.folds:
            return
        if entry.role == "baseline":  # which takes no place
            entry.granted = self._after(count, entry.role)
            return
        entry.scores[count] = self.score([entry.trials[fold] for fold in sorted(entry.trials)])
        if self.rule.decide(first, count, entry.scores[count]) == "pause":
            self.paused[first] = count
        else:
            entry.is_out = True  # its score is no number

    def next(self, left: int, is_last: bool = False) -> tuple[TrialConfig, str] | None:
        """The configuration of a further fold, and its role, if one is due or has been earned.

        `left` trainings may still be begun. At the last, when nothing else will come, each rung
        keeps at least one.
        """
        if left < 1:
            return None
        entry = next((e for e in self.entries.values() if e.due), None)
        if entry is None:
            entry = self._promoted(left, is_last)
        if entry is None:
            return None
        return replace(entry.config, fold=entry.due[0]), entry.role

    @property
    def owed(self) -> int:
        """Trainings kept back: those due, the baseline's, and what one other needs to be whole."""
        return self._promised() + self.folds - self._top()

    def first_of(self, config: TrialConfig) -> str:
        return replace(config, fold=0).trial_id

    def _promised(self) -> int:
        bases = [e for e in self.entries.values() if e.role == "baseline" and not e.is_out]
        others = [e for e in self.entries.values() if e.role != "baseline"]
        return sum(self.folds - len(e.trials) for e in bases) + sum(len(e.due) for e in others)

    def _top(self) -> int:
        """The most folds that a configuration other than the baseline has been granted."""
        rivals = [e for e in self.entries.values() if e.role != "baseline" and not e.is_out]
        return max((e.granted for e in rivals), default=1)

    def _after(self, count: int, role: str = "") -> int:
        """How many folds a configuration of so many goes on to."""
        rungs = () if role == "baseline" else self.rule.milestones
        return next((rung for rung in rungs if rung > count), self.folds)

    def _promoted(self, left: int, is_last: bool) -> Entry | None:
        free, top = left - self._promised(), self._top()
        affordable = {
            first: count
            for first, count in self.paused.items()
            if self._after(count) - count + self.folds - max(top, self._after(count)) <= free
        }
        first = self.rule.promote(affordable, is_last)
        if first is None:
            return None
        self.entries[first].granted = self._after(self.paused.pop(first))
        return self.entries[first]

    def _vacate(self) -> None:
        """Rungs without who is out: its place goes to the next best."""
        rule = self.rule = PRUNERS["promotion"](self.folds, 1, self.eta)
        for first, entry in self.entries.items():
            for rung, score in entry.scores.items() if not entry.is_out else ():
                if rule.decide(first, rung, score) == "pause" and self.paused.get(first) != rung:
                    rule.let_go(first, rung)


def pooled_score(store: RunStore, metric: str) -> Score:
    """The metric on all held-out images of some folds; the mean of theirs without predictions."""

    def score(trials: Sequence[str]) -> float:
        found = [store.trial(trial).predictions("val") for trial in trials]
        parts = [part for part in found if part is not None]
        if len(parts) < len(trials):
            last = [(store.trial(trial).history() or [{}])[-1].get("score") for trial in trials]
            return float(np.mean([nan if value is None else value for value in last]))
        labels = np.concatenate([part.labels for part in parts])
        probs = np.concatenate([part.probs for part in parts])
        return metrics.scores(labels, probs, metric)["score"]

    return score


def is_further(config: Flat) -> bool:
    """Whether the trial is a further fold of a configuration, and is trained whole."""
    return int(config.get("folds", 1)) > 1 and bool(config.get("fold"))


def check_seed(folds: int, fold_seed: int) -> None:
    """Raise ValueError for a seed that deals nothing."""
    if folds == 1 and fold_seed:
        raise ValueError(f"--fold-seed {fold_seed} deals folds, and there are none: give --folds")


def check_budget(folds: int, trials: int) -> None:
    """Raise ValueError for a budget that the baseline and one other cannot have all folds of."""
    if folds > 1 and trials < 2 * folds:
        raise ValueError(
            f"--folds {folds}: each fold is a training, and the baseline and one other "
            f"configuration need {2 * folds}, but --trials is {trials}: give more, or fewer folds"
        )


def further(folds: int, trials: int, is_pruned: bool, eta: int = ETA) -> int:
    """About how many of so many trainings will be further folds; for a forecast."""
    if folds == 1:
        return 0
    rungs = [*PRUNERS["promotion"](folds, 1, eta).milestones, folds]
    for configs in range(trials, 0, -1):
        whole, more = configs // eta if is_pruned else configs, 2 * (folds - 1)
        for step, (before, after) in enumerate(zip(rungs, rungs[1:], strict=False), 1):
            more += max(0, whole // eta**step - 1) * (after - before)
        if configs + more <= trials:
            break
    return trials - configs


def told(counts: Mapping[int, int], folds: int) -> str:
    """How many configurations have how many folds, in words."""
    shown = ", ".join(f"{n} with {k}" for k, n in counts.items())
    return f"of {folds}, configurations: {shown or 'none yet'}"
