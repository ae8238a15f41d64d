"""Figures over classes, action units and members. K classes, A action units."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis import statistics
from analysis.corrections import After
from analysis.findings import Findings
from analysis.plots import BLUE, FAINT, GREEN, GREY, ORANGE, PALE, safe, styled
from trainables import metrics
from trainables.metrics import MIN_SUPPORT, Ints

LOOKS = {  # with another symbol each, for print without colour
    "baseline": (GREY, "square-open", "."),
    "best single": (BLUE, "circle", ""),
    "ensemble": (ORANGE, "diamond", "/"),
}
BINS = 10
MOST_CLASSES = 50  # in a confusion matrix


def confusion(counts: NDArray[np.int64], names: tuple[str, ...], title: str) -> go.Figure:
    """Counts or shares of the true class in the cells, by a button; the shares as colour.

    Of many classes only those with the most mistakes: a page of all their pairs would not open.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if len(names) > MOST_CLASSES:
        mistakes = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        some = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
        title += f": of {len(names)} classes the {MOST_CLASSES} with the most mistakes"
        counts, shares = counts[np.ix_(some, some)], shares[np.ix_(some, some)]
        names = tuple(names[k] for k in some)
    labels = [safe(name) for name in names]
    text = [[str(n) if n else "" for n in row] for row in counts]
    rates = [[f"{100 * s:.0f}" if s else "" for s in row] for row in shares]
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
    buttons = [
        {"label": label, "method": "restyle", "args": [{"text": [cells]}]}
        for label, cells in (("counts", text), ("rates, %", rates))
    ]
    place = {"type": "buttons", "direction": "right", "x": 1, "xanchor": "right"}
    place |= {"y": 1.01, "yanchor": "bottom", "pad": {"b": 2}, "font": {"size": 11}}
    figure.update_layout(updatemenus=[{**place, "buttons": buttons}])
    return styled(figure, title, "predicted", "true", 200 + 30 * max(6, len(names)))


def class_recalls(findings: Findings, calls: dict[str, NDArray[np.int64]]) -> go.Figure:
    """Recall per class with its Wilson interval; classes too small to conclude are pale."""
    board = findings.board
    support = board.support
    names = [f"{safe(n)} (n={s})" for n, s in zip(board.class_names, support, strict=True)]
    figure = go.Figure()
    places = np.arange(len(names))
    shifts = np.linspace(-0.22, 0.22, len(calls)) if len(calls) > 1 else [0.0]
    for (who, predicted), shift in zip(calls.items(), shifts, strict=True):
        color, symbol, _ = LOOKS[who]
        hits = metrics.Tallies.of(board.votes.labels, predicted, len(names)).right
        recall = hits / np.maximum(support, 1)
        low, high = statistics.wilson(hits, support)
        for rows, shade in ((support >= MIN_SUPPORT, color), (support < MIN_SUPPORT, FAINT)):
            figure.add_scatter(
                x=recall[rows], y=(places + shift)[rows], mode="markers", name=safe(who),
                marker={"color": shade, "size": 9, "symbol": symbol}, showlegend=shade == color,
                error_x={"type": "data", "symmetric": False, "array": (high - recall)[rows],
                         "arrayminus": (recall - low)[rows], "thickness": 1, "color": shade},
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(tickvals=places, ticktext=names, zeroline=False)
    title = "Recall per class, 95 % Wilson intervals"
    return styled(figure, title, "recall", "", 180 + 34 * len(names))


def reliability(labels: Ints, calls: dict[str, NDArray[np.floating]]) -> go.Figure:
    """How often the surest answers are right: accuracy by confidence, ten bins of equal size."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as sure as right",
        line={"color": GREY, "dash": "dot", "width": 1},
    )  # fmt: skip
    for who, probs in calls.items():
        color, symbol, _ = LOOKS[who]
        sure, hit = probs.max(1), probs.argmax(1) == labels
        bins = [b for b in np.array_split(np.argsort(sure, kind="stable"), BINS) if len(b)]
        hits, sizes = np.array([hit[b].sum() for b in bins]), np.array([len(b) for b in bins])
        low, high = statistics.wilson(hits, sizes)
        ece = metrics.expected_calibration_error(labels, probs)
        figure.add_scatter(
            x=[float(sure[b].mean()) for b in bins], y=hits / sizes, mode="lines+markers",
            name=f"{safe(who)}, ECE {ece:.3f}", line={"color": color, "width": 1},
            marker={"color": color, "size": 8, "symbol": symbol},
            error_y={"type": "data", "symmetric": False, "array": high - hits / sizes,
                     "arrayminus": hits / sizes - low, "thickness": 1, "color": color},
        )  # fmt: skip
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[0, 1.02])
    return styled(figure, "Reliability", "confidence", "share that is right", 460)


def au_scores(findings: Findings, scores: dict[str, NDArray[np.float64]]) -> go.Figure | None:
    """F1 per action unit, with the number of images that show it."""
    board = findings.board
    if not scores or not board.au_names:
        return None
    support = (board.votes.aus == 1).sum(0)
    names = [f"{safe(n)} (n={s})" for n, s in zip(board.au_names, support, strict=True)]
    figure = go.Figure()
    for who, values in scores.items():
        color, _, pattern = LOOKS[who]
        colors = [color if n >= MIN_SUPPORT else PALE for n in support]
        figure.add_bar(y=names, x=np.nan_to_num(values), name=safe(who), orientation="h")
        look = {"color": colors, "line": {"color": color, "width": 1}}
        figure.data[-1].marker = {**look, "pattern": {"shape": pattern}}
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
