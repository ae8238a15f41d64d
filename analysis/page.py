"""The report as one page that opens without a network. Data in, HTML out; nothing is computed here
that the leaderboard, the ensemble or the statistics do not give.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from analysis import ensemble as ens
from analysis import posthoc, statistics, tables, worth
from analysis.corrections import After
from analysis.final import Look
from analysis.findings import Findings, words
from analysis.importance import Importance, importance, target_of
from analysis.leaderboard import GOALS, NAMES, varying
from trainables import metrics
from trainables.metrics import MIN_SUPPORT

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNWANTED = ["sendChartToCloud", "lasso2d", "select2d"]  # the first would publish the data
META = (  # what the page shows of run.json; what is missing there appears as "?"
    *("name", "started", "finished", "seed", "sampler", "pruner", "trials", "epochs", "rungs"),
    *("commit", "versions", "host", "tier"),
)
DATA = ("name", "source", "fingerprint", "image_size", "is_synthetic", "notes", "sizes")
TAKEN: tuple[tuple[str, str, Callable[[float], str]], ...] = (  # in run.json, label, how it is told
    ("seconds", "minutes on the clock", lambda value: f"{value / 60:.1f}"),
    ("worker_hours", "worker-hours", "{:.3g}".format),
    ("gpu_hours", "GPU-hours", "{:.3g}".format),
    ("epochs", "epochs", "{:.0f}".format),
    ("bytes", "disk, MiB", lambda value: f"{value / 2**20:.1f}"),
)
SECONDARY = (
    *("attention_stage", "region_weight", "weight_decay", "dropout"),
    *("curriculum_drives", "curriculum_order", "curriculum_reversed"),
)
SPACE = ("name", "digest", "settings")
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Drawing:
    """A figure, or the reason why there is none."""

    section: str
    markup: str
    missing: str = ""


def render(findings: Findings, look: Look | None) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    settings = varying(findings.board.records)
    found = importance(findings.table, settings, target_of(findings.board, findings.table))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "?" if value is None else value,
    )
    drawings: dict[str, list[Drawing]] = {}
    after = posthoc.of_findings(findings)
    for drawing in (*draw(findings, found), *_curves(after)):
        drawings.setdefault(drawing.section, []).append(drawing)
    return environment.get_template("report.html.j2").render(
        meta=dict.fromkeys(META) | dict(findings.board.meta),
        data=dict.fromkeys(DATA) | dict(findings.board.meta["data"]),
        space=dict.fromkeys(SPACE) | dict(findings.board.meta.get("space") or {}),
        words=[*words(findings), *worth.sentences(findings)],
        worth=worth.side_by_side(findings, look),
        notes=findings.notes,
        header=[*tables.shown(findings.table).values(), "settings that vary"],
        rows=list(_rows(findings, settings)),
        classes=_classes(findings),
        after=[_after(who, *answer) for who, answer in after.items()],
        units=_units(findings),
        failures=_failures(findings),
        ensemble=findings.ensemble,
        has_members=findings.ensemble is not None and len(findings.ensemble.members) > 1,
        importance_note=found.note,
        target=found.target,
        drawings=drawings,
        look=look,
        outcome=list(_outcome(findings.board.meta)),
        names=NAMES,
        goal=GOALS[findings.board.goal.name],
        min_support=MIN_SUPPORT,
        command=shlex.join(map(str, findings.board.meta.get("command") or ())),
        plotly=get_plotlyjs(),
    )


def draw(findings: Findings, found: Importance) -> Iterator[Drawing]:
    """All figures, each with the section it belongs to."""
    from analysis import classplots, memberplots, plots

    yield _drawn("curves", plots.learning_curves(findings), "no trial has finished an epoch")
    yield _drawn("scores", plots.score_by_trial(findings), "no trial has a score")
    yield _drawn("importance", plots.importances(found), found.note)
    for figure in plots.effects(findings, found):
        yield _drawn("importance", figure, "")
    parallel = plots.parallel_coordinates(findings, found)
    yield _drawn("parallel", parallel, "fewer than two trials with a score, or no setting varied")
    yield _drawn("time", plots.seconds_by_trial(findings), "no trial has reported its time")
    yield _drawn("weights", memberplots.members(findings), "the ensemble is one trial")
    if (apart := memberplots.disagreement(findings)) is not None:
        yield _drawn("weights", apart, "")
    missing = "the trials have no latency on record, or too few images to score them"
    yield _drawn("front", memberplots.front(findings), missing)
    calls = predictions(findings)
    names = findings.board.class_names
    for who, (probs, _) in calls.items():
        if who == "baseline" and len(calls) > 1:
            continue
        labels = findings.board.votes.labels
        counts = metrics.confusion(labels, probs.argmax(1), len(names))
        yield _drawn("confusion", classplots.confusion(counts, names, f"Confusion, {who}"), "")
    if calls:
        said = {who: probs.argmax(1) for who, (probs, _) in calls.items()}
        yield _drawn("classes", classplots.class_recalls(findings, said), "")
    scores = {who: f1 for who, f1 in unit_scores(findings).items() if who != "baseline"}
    why = "no action units to score: the data has none, or the model has no head for them"
    yield _drawn("units", classplots.au_scores(findings, scores), why)


def _curves(after: Mapping[str, tuple[After | None, str]]) -> Iterator[Drawing]:
    from analysis import classplots

    for who, (found, _) in after.items():
        if found is not None and (figure := classplots.adjustment_curve(found, who)):
            yield _drawn("after", figure, "")


def _after(who: str, found: After | None, missing: str) -> dict[str, Any]:
    """The corrections of a trial after its training, as a table."""
    rows = [
        {
            "name": row.name,
            "chosen": posthoc.told(row),
            "cells": [f"{row.scores[name]:.3f}" for name in posthoc.SHOWN],
            "gain": posthoc.gain(row),
        }
        for row in (found.rows if found else ())
    ]
    words = posthoc.sentence(found) if found else ""
    return {"who": who, "rows": rows, "words": words, "missing": missing}


def _drawn(section: str, figure: "go.Figure | None", missing: str) -> Drawing:
    if figure is None:
        return Drawing(section, "", missing)
    config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": UNWANTED}
    markup = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return Drawing(section, markup)


def predictions(findings: Findings) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """(class, AU) probabilities of the baseline, the best single and the ensemble."""
    votes = findings.board.votes
    out = {}
    if findings.baseline and findings.baseline != findings.best:
        out["baseline"] = ens.average(votes, {findings.baseline: 1.0})
    if findings.best:
        out["best single"] = ens.average(votes, {findings.best: 1.0})
    if findings.ensemble and len(findings.ensemble.members) > 1:
        out["ensemble"] = ens.predict(findings.ensemble, votes)
    return out


def unit_scores(findings: Findings) -> dict[str, NDArray[np.float64]]:
    """F1 per action unit of those that have a head for them."""
    aus = findings.board.votes.aus
    return {
        who: metrics.au_f1(aus, said)
        for who, (_, said) in predictions(findings).items()
        if said.size and not np.isnan(said).any()
    }


def is_main(name: str, value: str) -> bool:
    """Whether a setting is told at first sight: a part that is used, or a plain number."""
    return bool(value) and value != "none" and "." not in name and name not in SECONDARY


def _outcome(meta: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the search was forecast to take, and what it took; nothing where neither is known."""
    then, now = meta.get("forecast") or {}, meta.get("spent") or {}
    for name, label, shown in TAKEN:
        value, estimate = now.get(name), then.get(name)
        if isinstance(estimate, dict):
            low, middle, high = (shown(estimate[key]) for key in ("low", "middle", "high"))
            text = f"{middle} ({low} to {high})"
        else:
            text = "–" if estimate is None else shown(estimate)
        if value or (estimate and text != f"{shown(0)} ({shown(0)} to {shown(0)})"):
            yield label, text, "–" if value is None else shown(value)


def _rows(findings: Findings, settings: list[str]) -> Iterator[dict[str, Any]]:
    columns = tables.shown(findings.table)
    for _, row in findings.table.iterrows():
        cells = [_cell(row, column) for column in columns]
        own = [(name, tables.setting(row[f"setting {name}"])) for name in settings]
        yield {
            "cells": cells,
            "settings": [(n, v) for n, v in own if is_main(n, v)],
            "details": [(n, v) for n, v in own if v and not is_main(n, v)],
            "note": row["note"] if row["status"] != "failed" else "",
            "is_baseline": row["trial"] == findings.baseline,
            "is_best": row["trial"] == findings.best,
            "is_ranked": not pd.isna(row["rank"]),
        }


def _cell(row: "pd.Series[Any]", column: str) -> dict[str, str]:
    """The text, its interval, and what it is sorted by: empty for what is missing."""
    text, bracket, rest = tables.cell(row, column).partition(" [")
    key = "" if pd.isna(row[column]) else str(row[column])
    return {"text": text, "interval": f"[{rest}" if bracket else "", "key": key, "column": column}


def _classes(findings: Findings) -> dict[str, Any]:
    """Recall with its interval per class, for each of the three that are compared."""
    board, calls = findings.board, predictions(findings)
    rows = []
    for k, name in enumerate(board.class_names):
        cells = []
        for probs, _ in calls.values():
            hits = ((probs.argmax(1) == k) & (board.votes.labels == k)).sum()
            low, high = statistics.wilson(hits, board.support[k])
            share = f"{hits / board.support[k]:.2f}" if board.support[k] else "–"
            cells.append(f"{share} [{low:.2f}, {high:.2f}]")
        counted = int(board.support[k])
        rows.append(
            {"name": name, "support": counted, "cells": cells, "is_kept": board.goal.keep[k]}
        )
    return {"header": list(calls), "rows": rows if calls else []}


def _units(findings: Findings) -> dict[str, Any]:
    board, scores = findings.board, unit_scores(findings)
    support = (board.votes.aus == 1).sum(0)
    rows = [
        {
            "name": name,
            "support": int(support[a]),
            "cells": ["–" if np.isnan(f1[a]) else f"{f1[a]:.3f}" for f1 in scores.values()],
        }
        for a, name in enumerate(board.au_names)
    ]
    return {"header": list(scores), "rows": rows if scores else []}


def _failures(findings: Findings) -> list[dict[str, str]]:
    out = []
    for _, row in findings.table[findings.table["note"] != ""].sort_values("index").iterrows():
        lines = [line for line in str(row["note"]).splitlines() if line.strip()]
        out.append(
            {
                "trial": str(row["trial"]),
                "status": str(row["status"]),
                "short": lines[-1].strip()[:300],
                "long": str(row["note"]) if len(lines) > 1 else "",
            }
        )
    return out
