"""What a long benchmark says while it runs: which run of how many, and the time left."""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from search_quality_table import Record, kind_of

Kind = tuple[str, str, int]  # method, kind of problem, workers: such runs take about as long
PACE = 5.0  # seconds between two lines


class Progress:
    """State: how many runs are done, how long runs of each kind took, and when a line was due."""

    def __init__(self, total: int, done: int, processes: int) -> None:
        self.total, self.done, self.processes = total, done, processes
        self.took: dict[Kind, list[float]] = defaultdict(list)
        self.due = 0.0
        self._say(f"{total} runs, {done} of them on record")

    def learn(self, record: Record) -> None:
        """Note how long a run took."""
        key = record["method"], kind_of(record["problem"]), record["workers"]
        self.took[key].append(record["wall_seconds"])

    def step(self, record: Record, waiting: Sequence[Kind]) -> None:
        """One more is done; a line at most every few seconds, and at the end."""
        self.done += 1
        self.learn(record)
        if time.monotonic() < self.due and waiting:
            return
        self.due = time.monotonic() + PACE
        last = list(record["regret"].items())[-1:]
        found = "".join(f"{value:.1f} % at {mark}" for mark, value in last)
        self._say(
            f"{self.done} of {self.total}: {record['method']}, {record['problem']}, "
            f"seed {record['seed']}, W={record['workers']}: {found}; {self._left(waiting)}"
        )

    def _left(self, waiting: Sequence[Kind]) -> str:
        means = {key: fmean(seconds) for key, seconds in self.took.items()}
        usual = fmean(means.values())
        seconds = sum(means.get(kind, usual) for kind in waiting) / self.processes
        return (
            f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
        )

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
