"""What trials and searches cost: latency and size of models, the front of several objectives."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from analysis.leaderboard import Board, status

COLUMNS = {"latency": "latency_ms", "parameters": "parameters"}  # objective -> where rows have it
SHOWN = {"latency_ms": "{:.3g} ms".format, "parameters": "{:,.0f}".format}
MOST = 15  # trials of the front in the table
Point = tuple[float, ...]  # the score, then costs, in the order of the objectives


@dataclass(frozen=True)
class Front:
    """What nothing beats in all objectives of the search; the highest score first."""

    names: tuple[str, ...] = ()  # of the objectives; () where there is one
    points: Mapping[str, Point] = field(default_factory=dict)
    beaten: Mapping[str, Point] = field(default_factory=dict)
    missing: str = ""


def cost_of(board: Board, name: str) -> dict[str, float]:
    """What the trials' last rows tell of a cost; trial -> value."""
    found = {}
    for record in board.records:
        last = record.history[-1] if record.history else {}
        value = last.get(name) or (record.result.metrics if record.result else {}).get(name)
        if value:
            found[record.id] = float(value)
    return found


def front(board: Board) -> Front:
    """The front of the completed trials, by the scores that the search saw."""
    names = tuple(map(str, board.meta.get("objectives") or ()))
    if len(names) < 2:
        return Front()
    costs = [cost_of(board, COLUMNS.get(name, name)) for name in names[1:]]
    points: dict[str, Point] = {}
    for record in board.records:
        metrics = record.result.metrics if record.result else {}
        score = metrics.get("score")
        if status(record, board.meta) == "completed" and score is not None:
            values = (float(score), *(cost.get(record.id, float("nan")) for cost in costs))
            if all(map(isfinite, values)) and values not in points.values():
                points[record.id] = values
    best: dict[str, Point] = {}
    for trial, point in sorted(points.items(), key=lambda item: (-item[1][0], item[1][1:])):
        if not any(_beats(other, point) for other in best.values()):  # only those before can
            best[trial] = point
    rest = {t: p for t, p in points.items() if t not in best}
    missing = "" if points else "no completed trial tells all of its objectives"
    return Front(names, best, rest, missing)


def front_rows(found: Front) -> Iterator[tuple[str, list[str]]]:
    """A trial and its objectives in words; at most MOST of them."""
    for trial, point in list(found.points.items())[:MOST]:
        forms = [SHOWN.get(COLUMNS.get(n, n), "{:.4g}".format) for n in found.names[1:]]
        yield trial, [f"{point[0]:.3f}", *(f(v) for f, v in zip(forms, point[1:], strict=True))]


def _beats(one: Point, other: Point) -> bool:
    """Whether it is nowhere worse, and another point."""
    is_as_good = one[0] >= other[0] and all(a <= b for a, b in zip(one[1:], other[1:], strict=True))
    return is_as_good and one != other


def wasted(board: Board) -> dict[str, Any]:
    """How many trials failed and what they took, in hours."""
    failed = [r for r in board.records if status(r, board.meta) == "failed"]
    seconds = sum(r.result.seconds for r in failed if r.result)
    return {"count": len(failed), "hours": seconds / 3600}
