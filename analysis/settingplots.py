"""Figures of settings: importances, effects, and all together. Texts as in `plots.py`."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.findings import Findings
from analysis.importance import Importance, is_log, is_number
from analysis.plots import (
    BLUE,
    GREY,
    INK,
    MOST_CURVES,
    STATUS,
    SYMBOLS,
    log_x,
    safe,
    share_shown,
    styled,
    thinned,
)
from analysis.tables import setting

DIMENSIONS = 7  # axes of the parallel coordinates
EFFECTS = 4  # settings with a plot of their own


def importances(found: Importance) -> go.Figure | None:
    """How much each setting, with its arguments, explains of the score."""
    if not found.groups:
        return None
    names = list(found.groups)[:15][::-1]
    means, spreads = zip(*(found.groups[name] for name in names), strict=True)
    figure = go.Figure(
        go.Bar(
            x=means, y=[safe(n) for n in names], orientation="h", marker={"color": BLUE},
            error_x={"type": "data", "array": spreads, "color": INK, "thickness": 1},
        )
    )  # fmt: skip
    title = f"What mattered (R² on unseen trials {found.r2:.2f})"
    figure.update_yaxes(type="category", dtick=1)
    return styled(figure, title, "fall of R² when shuffled", "", 180 + 30 * len(names))


def effects(findings: Findings, found: Importance) -> list[go.Figure]:
    """The score that importances are of, against each of the settings that matter most."""
    scores = found.target.scores
    table = findings.table[findings.table["trial"].isin(list(scores))]
    table = thinned(table.assign(score=table["trial"].map(scores)))
    names = [
        name for name in found.groups if f"setting {name}" in table and found.groups[name][0] > 0
    ]
    return [_effect(table, name, found.target.words) for name in names[:EFFECTS]]


def _effect(table: pd.DataFrame, name: str, words: str) -> go.Figure:
    values = table[f"setting {name}"]
    figure = go.Figure()
    if is_number(values):
        figure.add_scatter(x=values, y=table["score"], mode="markers", showlegend=False)
        figure.data[0].marker = {
            "color": [STATUS.get(s, GREY) for s in table["status"]], "size": 7, "opacity": 0.8,
            "symbol": [SYMBOLS.get(s, "triangle-up-open") for s in table["status"]],
        }  # fmt: skip
        if is_log(values):
            log_x(figure)
    else:
        order = table.groupby(f"setting {name}")["score"].median().sort_values().index
        for option in order:
            scores = table.loc[values == option, "score"]
            figure.add_box(
                y=scores, name=f"{safe(option)}<br>n={len(scores)}", jitter=0.4,
                boxpoints="all" if len(table) <= MOST_CURVES else False,
                pointpos=0, marker={"color": BLUE, "size": 5}, line={"color": GREY, "width": 1},
                fillcolor="rgba(86,180,233,0.15)", showlegend=False,
            )  # fmt: skip
    return styled(figure, f"{words.capitalize()} by {safe(name)}", safe(name), "score", 380)


def parallel_coordinates(findings: Findings, found: Importance) -> go.Figure | None:
    """One line a trial through its settings to its score."""
    table = findings.table[findings.table["score"].notna()]
    ranked = [*found.groups, *findings.board.varying]
    names = [
        n
        for n in dict.fromkeys(ranked)
        if f"setting {n}" in table and n not in ("seed", "fold") and _is_set_everywhere(table, n)
    ][:DIMENSIONS]
    if len(table) < 2 or not names:
        return None
    every, table = table, thinned(table, MOST_CURVES)
    axes = [_axis(table[f"setting {name}"], name) for name in names]
    score = table["score"].to_numpy()
    axes.append({"label": "score", "values": score})
    figure = go.Figure(
        go.Parcoords(  # the best darkest: on white and on paper they must not fade
            dimensions=axes, labelfont={"size": 13}, tickfont={"size": 11},
            line={"color": score, "colorscale": "Cividis_r", "showscale": False},
        )
    )  # fmt: skip
    title = f"Settings and score{share_shown(every, table)} (drag to select)"
    styled(figure, title, "", "", 480)
    figure.update_layout(margin={"l": 130, "r": 60, "t": 110, "b": 30})
    return figure.update_layout(title={"yref": "container", "y": 0.97, "yanchor": "top"})


def _is_set_everywhere(table: pd.DataFrame, name: str) -> bool:
    values = table[f"setting {name}"]
    return bool(values.notna().all() and values.nunique() > 1)


def _axis(values: "pd.Series[Any]", name: str) -> dict[str, Any]:
    label = safe(name)
    if is_number(values):
        numbers = values.to_numpy(np.float64)
        if not is_log(values):
            return {"label": label, "values": numbers}
        ticks = np.linspace(np.log10(numbers.min()), np.log10(numbers.max()), 5)
        text = [setting(float(10**tick)) for tick in ticks]
        return {"label": label, "values": np.log10(numbers), "tickvals": ticks, "ticktext": text}
    text = sorted({str(value) for value in values})
    codes = [text.index(str(value)) for value in values]
    shown = [safe(t) for t in text]
    return {"label": label, "values": codes, "tickvals": list(range(len(text))), "ticktext": shown}
