"""Figures of the ensemble: weights, how the members differ, what accuracy costs."""

import numpy as np
import plotly.graph_objects as go

from analysis.findings import Findings
from analysis.plots import BLUE, GREY, INK, ORANGE, log_x, safe, styled


def members(findings: Findings) -> go.Figure | None:
    """The weights of the ensemble."""
    if findings.ensemble is None or len(findings.ensemble.members) < 2:
        return None
    weights = dict(list(findings.ensemble.members.items())[::-1])
    names = [
        f"{safe(trial)} (rank {findings.row(trial)['rank']}, {findings.row(trial)['score']:.3f})"
        for trial in weights
    ]
    bar = go.Bar(x=list(weights.values()), y=names, orientation="h", marker={"color": BLUE})
    figure = go.Figure(bar)
    figure.update_traces(text=[f"{w:.3f}" for w in weights.values()], textfont={"color": INK})
    figure.update_traces(textposition="auto", insidetextfont={"color": "white"})
    figure.update_yaxes(type="category", dtick=1)
    return styled(figure, "Ensemble weights", "weight", "", 180 + 26 * len(names))


def disagreement(findings: Findings) -> go.Figure | None:
    """The share of images that each two members call otherwise."""
    ensemble = findings.ensemble
    if ensemble is None or len(ensemble.members) < 2:
        return None
    names = [safe(trial) for trial in ensemble.members]
    shares = np.array(ensemble.diversity.disagreement)
    np.fill_diagonal(shares, np.nan)
    figure = go.Figure(
        go.Heatmap(
            z=shares, x=names, y=names, colorscale="Blues", zmin=0,
            colorbar={"title": "share", "thickness": 12},
            hovertemplate="%{x}<br>%{y}<br>%{z:.1%} of images<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category", dtick=1)
    figure.update_xaxes(tickangle=-45, type="category", dtick=1)
    title = f"Members disagree on {ensemble.diversity.mean_disagreement:.1%} of images"
    return styled(figure, title, "", "", 240 + 26 * len(names))


def front(findings: Findings) -> go.Figure | None:
    """Honest score by the latency of all members; the line joins what nothing beats in both."""
    ensemble = findings.ensemble
    if ensemble is None or not ensemble.front:
        return None
    figure = go.Figure()
    rest = [point for point in ensemble.front if not point.is_best]
    best = [point for point in ensemble.front if point.is_best]
    for name, found, color, mode in (
        ("beaten", rest, GREY, "markers"),
        ("the front", best, BLUE, "lines+markers"),
    ):
        figure.add_scatter(
            x=[p.latency_ms for p in found], y=[p.score for p in found], mode=mode, name=name,
            text=[f"{safe(p.method)}, members: {p.members}" for p in found],
            marker={"color": color, "size": 8}, line={"color": BLUE, "width": 1.5, "shape": "hv"},
        )  # fmt: skip
    chosen = next(row for row in ensemble.table if row.is_chosen)
    figure.add_scatter(
        x=[chosen.latency_ms], y=[chosen.crossfit], mode="markers", name="chosen",
        marker={"color": ORANGE, "size": 13, "symbol": "circle-open", "line": {"width": 3}},
    )  # fmt: skip
    log_x(figure)
    title = "What accuracy costs"
    return styled(figure, title, "milliseconds an image, all members", "cross-fitted score", 420)
