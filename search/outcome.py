"""What the rows of a trial come to: its score, and what is filed when it has not done so itself."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

from trainables.store import Row, TrialResult


def outcome(rows: Sequence[Row], max_epochs: int, is_stopped: bool, error: str) -> TrialResult:
    """What to file for a trial that did not file its own result."""
    last = rows[-1] if rows else {"epoch": 0}
    bad = [row["epoch"] for row in rows if not isfinite(score(row))]
    done = last["epoch"] >= max_epochs
    if not error and bad:
        error = f"the score is not finite at epoch {bad[0]}"
    if not error and not done and not is_stopped:
        error = f"it ended by itself at epoch {last['epoch']} of {max_epochs}"
    return TrialResult(
        status="failed" if error else "completed" if done else "stopped",
        metrics=metrics(last),
        epoch=last["epoch"],
        seconds=sum(float(row.get("seconds") or 0) for row in rows),
        peak_gib=max((float(row.get("peak_gib") or 0) for row in rows), default=0.0),
        error=error,
    )


def score(row: Row) -> float:
    """The row's score; NaN where it has none."""
    value = row.get("score")
    return nan if value is None else float(value)


def metrics(row: Row) -> dict[str, Any]:
    """A row as a result keeps it: a number that is not finite becomes None."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in row.items()
    }


def judged(row: Row, top: float) -> float:
    """What a pruner judges: the best so far, but NaN for a row whose own score is not finite."""
    value = score(row)
    return top if isfinite(value) else value
