"""The front of several objectives: completed trials that no other beats, from the record alone."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan

from search.strategy import columns
from trainables.store import TrialResult

SHOWN = 8
FORMS = {"score": "score {:.4f}", "latency_ms": "{:.3g} ms", "parameters": "{:,.0f} parameters"}
Point = tuple[float, ...]  # the score, then the costs, in the order of the objectives


def front(results: Mapping[str, TrialResult | None], objectives: Sequence[str]) -> dict[str, Point]:
    """Trial -> its objectives, the highest score first; of equal trials the earlier. {} for one."""
    if len(objectives) < 2:
        return {}
    names, points = columns(list(objectives)), dict[str, Point]()
    for trial, result in results.items():
        if result is not None and result.status == "completed":
            told = [result.metrics.get(name) for name in names]
            values = [nan if value is None else float(value) for value in told]
            if all(map(isfinite, values)) and tuple(values) not in points.values():
                points[trial] = tuple(values)
    best = {t: p for t, p in points.items() if not any(_beats(q, p) for q in points.values())}
    return dict(sorted(best.items(), key=lambda item: (-item[1][0], item[1][1:])))


def _beats(one: Point, other: Point) -> bool:
    """Whether it is nowhere worse, and another point."""
    is_as_good = one[0] >= other[0] and all(a <= b for a, b in zip(one[1:], other[1:], strict=True))
    return is_as_good and one != other


def front_lines(points: Mapping[str, Point], objectives: Sequence[str]) -> list[str]:
    """A line a trial."""
    names = columns(list(objectives))
    lines = [
        f"{trial} {', '.join(FORMS[n].format(v) for n, v in zip(names, point, strict=True))}"
        for trial, point in points.items()
    ]
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more (search.status --json)"] if more > 0 else lines
