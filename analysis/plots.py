"""Figures over trials, and the look that all figures share. Colours are Okabe and Ito's.

Every text of a user (names, ids, settings) passes `safe`: plotly reads a little HTML in its labels.
"""

import html
import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from analysis.findings import Findings

BLUE, ORANGE, GREEN, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
PURPLE, GREY, PALE, INK = "#CC79A7", "#8a8f98", "#d5d8dd", "#1c2127"
FAINT = "#a9b0ba"  # what nothing can be concluded of; still there on paper
DASHES = ("solid", "dot", "dashdot", "longdash", "longdashdot", "dash")  # of curves, best first
SYMBOLS = {"completed": "circle", "stopped": "circle-open", "failed": "x"}  # read without colour
STATUS = {"completed": BLUE, "stopped": GREY, "failed": RED}
STATUS |= {"running": ORANGE, "unfinished": ORANGE}
MOST = 2000  # points of a figure, beyond, the best and others by chance
MOST_CURVES = 300
MOST_TICKS = 9
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


LINES = {"gridcolor": "#e6e9ed", "linecolor": "#b3b9c2", "zerolinecolor": "#d5d8dd"}
TEMPLATE = go.layout.Template(  # plotly's own are 7 kB a figure
    layout={
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": {**LINES, "title": {"standoff": 12}},
        "yaxis": {**LINES, "title": {"standoff": 12}},
        "colorway": [BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY],
    }
)


def safe(text: object) -> str:
    """The text as plotly shows it, letter by letter."""
    return html.escape(str(text))


def thinned(table: pd.DataFrame, most: int = MOST) -> pd.DataFrame:
    """At most so many trials: half of them the best, the others by chance; their order stays."""
    if len(table) <= most:
        return table
    best = table["rank"].rank(method="first") <= most // 2
    rest = table[~best].sample(most - int(best.sum()), random_state=0)
    return table[best | table.index.isin(rest.index)]


def share_shown(table: pd.DataFrame, shown: pd.DataFrame) -> str:
    """What a title adds where not all trials are drawn."""
    return "" if len(shown) == len(table) else f", {len(shown):,} of {len(table):,} trials"


def styled(figure: go.Figure, title: str, x: str, y: str, height: int = 420) -> go.Figure:
    """The figure with title, axis labels and the look that all share."""
    figure.update_layout(
        title={
            "text": title,
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "pad": {"b": 12, "l": 12},
            "font": {"size": 16},
        },
        template=TEMPLATE,
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 60, "r": 20, "t": 70, "b": 90},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"family": FONT}},
    )
    figure.update_xaxes(title=x, automargin=True)
    figure.update_yaxes(title=y, automargin=True)
    return figure


def log_x(figure: go.Figure) -> None:
    """A logarithmic axis, every tick with its whole number: at 1, 2 and 5 where these are few.

    Plotly would call 20 a 2. What is drawn must be there already.
    """
    drawn = [value for trace in figure.data for value in trace.x if value > 0]
    ticks = log_ticks(min(drawn, default=1.0), max(drawn, default=1.0))
    text = [f"{tick:,.0f}" if tick >= 1 else f"{tick:.6g}" for tick in ticks]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=text)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from about `low` to about `high`, nine at the most."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    by = max(1, math.ceil((last - first + 1) / MOST_TICKS))  # powers of ten from tick to tick
    steps = (1, 2, 5) if math.log10(high / low) <= 2 else (1,)
    every = [step * 10.0**power for power in range(first, last + 1, by) for step in steps]
    return [tick for tick in every if low / 2 < tick < 2 * high]


def mark_trials(
    figure: go.Figure, table: pd.DataFrame, x: str, y: str, text: "pd.Series[str]", size: int = 8
) -> None:
    """Draw a mark for each trial, column y against x; colour and symbol tell how it stands."""
    for status, part in table.groupby("status"):
        figure.add_scatter(
            x=part[x], y=part[y], mode="markers", name=safe(status), text=text[part.index],
            marker={"color": STATUS.get(str(status), GREY), "size": size,
                    "symbol": SYMBOLS.get(str(status), "triangle-up-open")},
        )  # fmt: skip


def learning_curves(findings: Findings) -> go.Figure | None:
    """Score by epoch, with the rungs; stopped trials grey, the best and the baseline in colour."""
    board, table = findings.board, findings.table
    ranked = list(table.loc[table["rank"].notna(), "trial"])
    named = dict(zip(ranked, (BLUE, GREEN, SKY, PURPLE, ORANGE), strict=False))
    if findings.baseline:
        named[findings.baseline] = RED
    status = dict(zip(table["trial"], table["status"], strict=True))
    curves = {
        r.id: [(row["epoch"], row["score"]) for row in r.history if row.get("score") is not None]
        for r in board.records
    }
    figure = go.Figure()
    for name, color, is_cut in (
        ("stopped at a rung, or failed", PALE, True),
        ("other trials", "#9fb4c7", False),
    ):
        rest = [
            curve
            for trial, curve in curves.items()
            if curve
            and trial not in named
            and (status.get(trial) in ("stopped", "failed")) == is_cut  # a further seed has no row
        ]
        if rest:
            drawn = rest[:: -(-len(rest) // MOST_CURVES)]
            if len(drawn) < len(rest):
                name += f" ({len(drawn)} of {len(rest):,})"
            figure.add_scatter(
                **_joined(drawn), mode="lines", name=name, line={"color": color, "width": 1.2}
            )
    for (trial, color), dash in zip(named.items(), DASHES, strict=False):
        if curves[trial]:
            x, y = zip(*curves[trial], strict=True)
            role = "baseline" if trial == findings.baseline else f"rank {ranked.index(trial) + 1}"
            style = {"color": color, "width": 2.5, "dash": "dash" if color == RED else dash}
            label = f"{role}: {safe(trial)}"
            figure.add_scatter(x=x, y=y, mode="lines+markers", name=label, line=style)
            figure.data[-1].marker.size = 5
    if not figure.data:
        return None
    _mark_rungs(figure, board.meta.get("rungs") or ())
    longest = max(x for curve in curves.values() for x, _ in curve)
    figure.update_xaxes(tick0=0, dtick=max(1, round(longest / 10)))
    return styled(figure, "Learning curves", "epoch", "validation score", 480)


def _mark_rungs(figure: go.Figure, rungs: Sequence[int]) -> None:
    for rung in rungs:
        figure.add_vline(x=rung, line={"color": GREY, "dash": "dot", "width": 1})
        figure.add_annotation(
            x=rung, y=1, yref="paper", text="rung", showarrow=False, xanchor="left", yanchor="top",
            font={"color": "#5f6570", "size": 11},
        )  # fmt: skip


def _joined(curves: Sequence[Sequence[tuple[int, float]]]) -> dict[str, list[float | None]]:
    """Many curves as one trace with gaps, which draws much faster."""
    x: list[float | None] = []
    y: list[float | None] = []
    for curve in curves:
        x += [*(epoch for epoch, _ in curve), None]
        y += [*(score for _, score in curve), None]
    return {"x": x, "y": y}


def score_by_trial(findings: Findings) -> go.Figure | None:
    """Every score in the order of proposal, the best so far, and the levels to compare with."""
    table = findings.table[findings.table["score"].notna()].sort_values("index")
    if table.empty:
        return None
    figure, drawn = go.Figure(), thinned(table)
    text = drawn["trial"].map(safe) + " (" + drawn["role"].map(safe) + ")"
    mark_trials(figure, drawn, "index", "score", text)
    running = table["score"].cummax()
    steps = running.diff().ne(0) | (table["index"] == table["index"].max())
    figure.add_scatter(
        x=table["index"][steps], y=running[steps], mode="lines", name="best so far",
        line={"color": INK, "width": 1.5, "shape": "hv"},
    )  # fmt: skip
    for (name, level, color), dash in zip(_levels(findings), DASHES[1:], strict=False):
        figure.add_scatter(
            x=[table["index"].min(), table["index"].max()], y=[level, level], mode="lines",
            name=f"{name} {level:.3f}", line={"color": color, "dash": dash, "width": 1.5},
        )  # fmt: skip
    title = f"Score by trial{share_shown(table, drawn)}"
    return styled(figure, title, "trial, in order of proposal", "validation score", 440)


def _levels(findings: Findings) -> list[tuple[str, float, str]]:
    levels = []
    ceiling = (findings.board.meta["data"].get("ceiling") or {}).get(findings.board.goal.name)
    if ceiling is not None:
        levels.append(("Bayes ceiling", float(ceiling), GREEN))
    if findings.baseline:
        levels.append(("baseline", float(findings.row(findings.baseline)["score"]), RED))
    if findings.majority:
        levels.append(("majority guess", findings.majority["score"], PURPLE))
    return levels
