"""Figures over classes, action units and members. K classes, A action units."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis import statistics
from analysis.corrections import After
from analysis.findings import Findings
from analysis.plots import BLUE, GREEN, GREY, ORANGE, PALE, safe, styled
from trainables import metrics
from trainables.metrics import MIN_SUPPORT

COLORS = (GREY, BLUE, ORANGE)


def confusion(counts: NDArray[np.int64], names: tuple[str, ...], title: str) -> go.Figure:
    """Counts in the cells, the share of the true class as colour."""
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    shares = counts / total
    labels = [safe(name) for name in names]
    text = [[str(n) if n else "" for n in row] for row in counts]
    figure = go.Figure(
        go.Heatmap(
            z=shares, x=labels, y=labels, text=text, texttemplate="%{text}", zmin=0, zmax=1,
            customdata=counts, colorscale="Blues", colorbar={"title": "share", "thickness": 12},
            hovertemplate="true %{y}<br>said %{x}<br>%{customdata} images, %{z:.1%}"
            "<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=-45)
    return styled(figure, title, "predicted", "true", 200 + 30 * max(6, len(names)))


def class_recalls(findings: Findings, calls: dict[str, NDArray[np.int64]]) -> go.Figure:
    """Recall per class with its Wilson interval; classes too small to conclude are pale."""
    board = findings.board
    support = board.support
    names = [f"{safe(n)} (n={s})" for n, s in zip(board.class_names, support, strict=True)]
    figure = go.Figure()
    places = np.arange(len(names))
    shifts = np.linspace(-0.22, 0.22, len(calls)) if len(calls) > 1 else [0.0]
    for (who, predicted), color, shift in zip(calls.items(), COLORS, shifts, strict=False):
        hits = np.diag(metrics.confusion(board.votes.labels, predicted, len(names)))
        recall = hits / np.maximum(support, 1)
        low, high = statistics.wilson(hits, support)
        colors = [color if n >= MIN_SUPPORT else PALE for n in support]
        figure.add_scatter(
            x=recall, y=places + shift, mode="markers", name=safe(who),
            marker={"color": colors, "size": 9},
            error_x={"type": "data", "symmetric": False, "array": high - recall,
                     "arrayminus": recall - low, "thickness": 1, "color": color},
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(tickvals=places, ticktext=names, zeroline=False)
    title = "Recall per class, 95 % Wilson intervals"
    return styled(figure, title, "recall", "", 180 + 34 * len(names))


def au_scores(findings: Findings, scores: dict[str, NDArray[np.float64]]) -> go.Figure | None:
    """F1 per action unit, with the number of images that show it."""
    board = findings.board
    if not scores or not board.au_names:
        return None
    support = (board.votes.aus == 1).sum(0)
    names = [f"{safe(n)} (n={s})" for n, s in zip(board.au_names, support, strict=True)]
    figure = go.Figure()
    for (who, values), color in zip(scores.items(), (BLUE, ORANGE), strict=False):
        colors = [color if n >= MIN_SUPPORT else PALE for n in support]
        figure.add_bar(y=names, x=np.nan_to_num(values), name=safe(who), orientation="h")
        figure.data[-1].marker = {"color": colors, "line": {"color": color, "width": 1}}
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed")
    title = "F1 at threshold 0.5"
    return styled(figure, "Action units", title, "", 180 + 30 * len(names))


def adjustment_curve(found: After, who: str) -> go.Figure | None:
    """Accuracy against UAR, and the score, by tau of the logit adjustment; None without a prior."""
    if not found.curve:
        return None
    tau, figure = found.curve["tau"], go.Figure()
    for name, color in (("accuracy", BLUE), ("UAR", ORANGE), ("score", GREEN)):
        figure.add_scatter(
            x=tau, y=found.curve[name], mode="lines", name=name, line={"color": color, "width": 2}
        )
    row = next((r for r in found.rows if r.name == "logit adjustment"), None)
    if row is not None:
        figure.add_vline(x=row.chosen["tau"], line={"color": GREY, "dash": "dot", "width": 1})
    title = f"Logit adjustment after training, {safe(who)}"
    return styled(figure, title, "τ of z − τ log π (dotted: chosen)", "on all images", 380)
