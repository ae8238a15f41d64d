"""What tallies and forecasts are compared with: counted from scratch, or expected by formula."""

from collections import Counter
from math import isfinite, nan

from search.core import Search
from search.outcome import score
from search.pruners import Pruner


def last_score(search: Search, trial: str) -> float:
    """Of its last epoch; NaN for a trial that failed or has no row."""
    result, rows = search.results.get(trial), search.history(trial)
    return nan if not rows or (result and result.status == "failed") else score(rows[-1])


def best(search: Search) -> str | None:
    """The trial with the highest last score, if any has one; ties go to the earlier."""
    scores = {t: s for t in search.rows if isfinite(s := last_score(search, t))}
    return max(scores, key=lambda t: scores[t]) if scores else None


def counts(search: Search) -> dict[str, int]:
    """Trials by state: with a worker, ended, paused at a rung, and waiting for a worker."""
    ended = Counter(result.status for result in search.results.values())
    waiting = len(search.backlog) + len(search.live) - len(search.started)
    return {
        "running": len(search.started),
        "completed": ended["completed"],
        "stopped": ended["stopped"],
        "failed": ended["failed"],
        "paused": len(search.paused),
        "waiting": waiting,
    }


def expected_survivors(pruner: Pruner, trials: int) -> dict[int, float]:
    """How many of so many trials go beyond each rung, were their order chance."""
    arrived, survivors = float(trials), {}
    for rung in pruner.milestones:
        survivors[rung] = arrived = expected_share(pruner, arrived)
    return survivors


def expected_epochs(pruner: Pruner, trials: int, epoch: int = 0) -> float:
    """Epochs that one of so many trials still trains, having trained `epoch` of them."""
    survivors = expected_survivors(pruner, trials)
    chance, epochs, here = 1.0, 0.0, epoch
    before = float(trials)
    for rung, passed in survivors.items():
        if rung > epoch:
            epochs += chance * (rung - here)
            chance, here = chance * passed / before if before else 0.0, rung
        before = passed
    return epochs + chance * max(0, pruner.max_epochs - here)


def expected_share(pruner: Pruner, arrived: float) -> float:
    if pruner.is_pausing:  # judged when all have come
        return max(min(arrived, 1.0), arrived * pruner.allowed(3000) / 3000)
    whole = int(arrived)
    passed = sum(pruner.allowed(n) / n for n in range(1, whole + 1))
    return passed + (arrived - whole) * pruner.allowed(whole + 1) / (whole + 1)
