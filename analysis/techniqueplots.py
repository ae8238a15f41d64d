"""The figure of what techniques go with."""

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.contributions import Contribution
from analysis.plots import BLUE, GREY, INK, safe, styled

MOST = 24


def forest(found: Sequence[Contribution]) -> go.Figure | None:
    """A row an option: the difference in score with its interval, with and without adjusting."""
    if not found:
        return None
    rows = list(found)
    if len(rows) > MOST:  # those that are best told from nothing
        best = sorted(rows, key=lambda c: -_distance(c))[:MOST]
        rows = [row for row in rows if row in best]
    rows = rows[::-1]
    names = [f"{safe(r.setting)}: {safe(r.option)} (n={r.trials})" for r in rows]
    figure = go.Figure()
    for name, estimates, color, symbol in (
        ("difference of means", [r.plain for r in rows], GREY, "circle-open"),
        ("other settings held fixed", [r.adjusted for r in rows], BLUE, "circle"),
    ):
        known = [(n, e) for n, e in zip(names, estimates, strict=True) if e is not None]
        figure.add_scatter(
            x=[e.value for _, e in known], y=[n for n, _ in known], mode="markers", name=name,
            marker={"color": color, "size": 8, "symbol": symbol},
            error_x={"type": "data", "symmetric": False, "thickness": 1.4, "color": color,
                     "array": [e.high - e.value for _, e in known],
                     "arrayminus": [e.value - e.low for _, e in known]},
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names, dtick=1)
    title = "Score with a technique, against what the baseline has"
    return styled(figure, title, "difference in score", "", 190 + 26 * len(names))


def _distance(row: Contribution) -> float:
    """How far the difference is from nothing, in half widths of its interval."""
    found = row.adjusted or row.plain
    return abs(found.value) / max((found.high - found.low) / 2, 1e-9)
