"""What a search amounts to so far: counted once as it comes, so that looking costs what is new.

The live table, gauges, trackers and `search.status` all read it. It takes trials one by one, from a
`Search` (`follow`) or from the record alone (`add`, `take`).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite, nan

from search.core import Search
from search.folds import Score
from search.outcome import score
from trainables.config import Flat, Value
from trainables.store import Row, TrialResult


@dataclass
class Known:
    """What is known of one trial."""

    index: int
    config: Flat
    role: str
    epoch: int = 0
    score: float = nan  # of its last epoch; NaN once it has failed
    seconds: float = 0.0
    result: TrialResult | None = None
    first: str = ""  # the trial that stands for its configuration: of folds the one begun first
    whole: dict[int, str] = field(default_factory=dict)  # of such a one: fold -> completed trial
    is_out: bool = False  # of such a one: a fold has failed


@dataclass
class Rung:
    """How many trials came to a milestone, and how many went beyond it."""

    came: int = 0
    went_on: int = 0


class Tally:
    """State: each trial as last seen, and the sums over them.

    Of folds the first stands for its configuration; once a second is whole, its score is `pooled`.
    """

    def __init__(self, milestones: Iterable[int] = (), pooled: Score = lambda _: nan) -> None:
        self.pooled = pooled
        self.trials: dict[str, Known] = {}
        self.ended: Counter[str] = Counter()  # by status
        self.failures: list[str] = []
        self.rungs = {milestone: Rung() for milestone in milestones}
        self.epochs = 0
        self.seconds = 0.0  # that workers have trained, summed
        self.best: str | None = None
        self.baseline: str | None = None
        self.varying: set[str] = set()  # settings in which trials differ
        self.folds = 1
        self._firsts: dict[frozenset[tuple[str, Value]], str] = {}  # configuration -> first fold
        self._first: Flat = {}
        self._read = 0  # of the search's news

    def follow(self, search: Search) -> list[str]:
        """Take in what has happened since the last look; the trials it happened to."""
        touched = dict.fromkeys(search.news[self._read :])
        self._read = len(search.news)
        for trial in touched:
            if trial not in self.trials:
                self.add(trial, search.configs[trial], search.roles[trial])
            self.take(trial, search.rows[trial], search.results.get(trial))
        return sorted(touched, key=lambda trial: self.trials[trial].index)

    def add(self, trial: str, config: Flat, role: str) -> None:
        """A trial that is new."""
        known = self.trials[trial] = Known(len(self.trials), config, role, first=trial)
        if int(config.get("folds", 1)) > 1:
            self.folds = max(self.folds, int(config["folds"]))
            rest = frozenset(item for item in config.items() if item[0] != "fold")
            known.first = self._firsts.setdefault(rest, trial)
        if role == "baseline" and self.baseline is None:
            self.baseline = trial
        first = self._first = self._first or config
        self.varying |= {n for n in {**first, **config} if first.get(n) != config.get(n)}

    def take(self, trial: str, rows: dict[int, Row], result: TrialResult | None) -> bool:
        """All rows of a trial, in the order of its epochs, and its end; whether any was new."""
        known = self.trials[trial]
        is_new = result is not None and known.result is None
        for epoch in reversed(rows):
            if epoch <= known.epoch:
                break
            is_new = True
            seconds = float(rows[epoch].get("seconds") or 0)
            known.seconds += seconds
            self.seconds += seconds
            self.epochs += 1
        if is_new:
            last = max(rows, default=0)
            if known.first == trial:  # a further fold is trained whole
                self._climb(known.epoch, last)
            known.epoch = last
            has_failed = result is not None and result.status == "failed"
            if len(known.whole) < 2:
                known.score = nan if has_failed or not rows else score(rows[last])
            if result is not None:
                self._close(trial, known, result)
            self._rank(known.first)
        return is_new

    def _climb(self, before: int, now: int) -> None:
        for milestone, rung in self.rungs.items():
            rung.came += before < milestone <= now
            rung.went_on += before <= milestone < now

    def _close(self, trial: str, known: Known, result: TrialResult) -> None:
        known.result = result
        self.ended[result.status] += 1
        if result.status == "failed":
            self.failures.append(trial)
        if self.folds > 1:
            self._pool(trial, known, result)

    def _pool(self, trial: str, known: Known, result: TrialResult) -> None:
        """Note the end of a fold with the one that stands for its configuration."""
        first = self.trials[known.first]
        if result.status == "completed":
            first.whole[int(known.config.get("fold", 0))] = trial
        first.is_out = first.is_out or result.status == "failed"
        if len(first.whole) > 1 and result.status == "completed":
            first.score = self.pooled([first.whole[fold] for fold in sorted(first.whole)])

    def _rank(self, trial: str) -> None:
        """Note whose score is the highest now; ties go to the earlier trial."""
        if trial == self.best:  # it may have fallen
            sound = [t for t, known in self.trials.items() if known.first == t and is_sound(known)]
            self.best = max(sound, key=self._order) if sound else None
        elif is_sound(self.trials[trial]) and (
            self.best is None or self._order(trial) > self._order(self.best)
        ):
            self.best = trial

    def fold_counts(self) -> dict[int, int]:
        """How many configurations have so many folds, most folds first."""
        counts = Counter(len(known.whole) for known in self.trials.values() if known.whole)
        return {n: counts[n] for n in sorted(counts, reverse=True)}

    def _order(self, trial: str) -> tuple[int, float, int]:
        known = self.trials[trial]
        return len(known.whole), known.score, -known.index


def is_sound(known: Known) -> bool:
    """Whether it has a score by which it can be ranked."""
    return isfinite(known.score) and not known.is_out
