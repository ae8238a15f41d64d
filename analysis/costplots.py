"""Figures of what a search costs: time, latency, what the rungs did, several objectives."""

import numpy as np
import plotly.graph_objects as go

from analysis.costs import Front, cost_of
from analysis.findings import Findings
from analysis.plots import (
    BLUE,
    GREY,
    INK,
    MOST_CURVES,
    ORANGE,
    log_x,
    mark_trials,
    safe,
    share_shown,
    styled,
    thinned,
)


def rungs(findings: Findings) -> go.Figure | None:
    """The scores at each rung of those that went on and of those that ended there."""
    marks = [int(rung) for rung in findings.board.meta.get("rungs") or ()]
    figure, names = go.Figure(), dict[str, str]()
    found: dict[str, list[tuple[str, float]]] = {"ended here": [], "went on": []}
    for rung in marks:
        here = [
            (row["score"], record.history[-1]["epoch"] > rung)
            for record in findings.board.records
            for row in record.history
            if row["epoch"] == rung and row.get("score") is not None
        ]
        for score, is_on in here:
            found["went on" if is_on else "ended here"].append((str(rung), score))
        if here:
            gone = sum(on for _, on in here)
            names[str(rung)] = f"epoch {rung}:<br>{gone} of {len(here)} went on"
    if not names:
        return None
    few = sum(map(len, found.values())) <= MOST_CURVES
    for (name, rows), color in zip(found.items(), (GREY, BLUE), strict=True):
        figure.add_box(
            x=[x for x, _ in rows], y=[y for _, y in rows], name=name, boxpoints="all" if few else
            False, jitter=0.5, pointpos=0, line={"color": color, "width": 1.5},
            marker={"size": 5, "symbol": "circle" if color == BLUE else "circle-open"},
            fillcolor="rgba(0,114,178,0.12)" if color == BLUE else "rgba(0,0,0,0)",
        )  # fmt: skip
    figure.update_layout(boxmode="group")
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(names))
    figure.update_xaxes(tickvals=list(names), ticktext=list(names.values()))
    return styled(figure, "Rungs", "", "score at the rung", 400)


def seconds_by_trial(findings: Findings) -> go.Figure | None:
    """How long each trial took."""
    table = findings.table[findings.table["seconds"] > 0].sort_values("index")
    if table.empty:
        return None
    figure, drawn = go.Figure(), thinned(table)
    mark_trials(figure, drawn, "index", "seconds", drawn["trial"].map(safe), 7)
    total = f"sum {table['seconds'].sum() / 3600:.2f} h"
    figure.update_yaxes(rangemode="tozero")
    title = f"Time per trial ({total}{share_shown(table, drawn)})"
    return styled(figure, title, "trial, in order of proposal", "seconds", 320)


def score_by_hours(findings: Findings) -> go.Figure | None:
    """The best score so far by the hours of training spent, trials in order of proposal."""
    table = findings.table.sort_values("index")
    known = table[table["score"].notna()]
    if known.empty or not table["seconds"].sum():
        return None
    hours = table["seconds"].cumsum() / 3600
    best = table["score"].fillna(-np.inf).cummax()
    steps = (best.diff().ne(0) | (table["index"] == table["index"].max())) & np.isfinite(best)
    is_gpu = bool((findings.board.meta.get("spent") or {}).get("gpu_hours"))
    figure = go.Figure()
    figure.add_scatter(
        x=hours[steps], y=best[steps], mode="lines+markers", name="best so far",
        line={"color": BLUE, "width": 2, "shape": "hv"}, marker={"size": 5},
    )  # fmt: skip
    low, high = best[steps].min(), best[steps].max()
    room = max(0.02, 0.08 * (high - low))  # or a level line would get a scale of its own
    figure.update_yaxes(range=[low - room, high + room])
    kind = "GPU-hours" if is_gpu else "worker-hours"
    return styled(figure, f"Score by {kind}", f"{kind} of training", "best validation score", 360)


def score_by_cost(findings: Findings, name: str, label: str) -> go.Figure | None:
    """Every trial's score against what its model costs; the line joins what nothing beats."""
    cost = cost_of(findings.board, name)
    table = findings.table[findings.table["score"].notna() & findings.table["trial"].isin(cost)]
    if len(table) < 2:
        return None
    table = table.assign(cost=table["trial"].map(cost)).sort_values(["cost", "score"])
    figure, drawn = go.Figure(), thinned(table)
    mark_trials(figure, drawn, "cost", "score", drawn["trial"].map(safe))
    beats = table["score"] > table["score"].cummax().shift(fill_value=-np.inf)
    figure.add_scatter(
        x=table["cost"][beats], y=table["score"][beats], mode="lines", name="nothing beats it",
        line={"color": INK, "width": 1.5, "shape": "hv"},
    )  # fmt: skip
    for trial, who, symbol in (
        (findings.best, "best", "star-open"),
        (findings.baseline, "baseline", "square-open"),
    ):
        if trial in cost:
            figure.add_scatter(
                x=[cost[trial]], y=[findings.row(trial)["score"]], mode="markers", name=who,
                marker={"color": ORANGE, "size": 14, "symbol": symbol, "line": {"width": 2.5}},
            )  # fmt: skip
    log_x(figure)
    title = f"Score against {label}{share_shown(table, drawn)}"
    return styled(figure, title, f"{label} (log)", "validation score", 420)


def front(found: Front) -> go.Figure | None:
    """The trials that no other beats in all objectives, the rest behind them."""
    if not found.points:
        return None
    figure, cost = go.Figure(), found.names[1]
    for name, points, color, symbol in (
        ("beaten", found.beaten, GREY, "circle-open"),
        ("the front", found.points, BLUE, "diamond"),
    ):
        figure.add_scatter(
            x=[p[1] for p in points.values()], y=[p[0] for p in points.values()], name=name,
            mode="markers", text=[safe(trial) for trial in points],
            marker={"color": color, "size": 9, "symbol": symbol},
        )  # fmt: skip
    log_x(figure)
    return styled(figure, "The front of the objectives", f"{cost} (log)", "score", 400)
