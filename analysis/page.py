"""The report as one page that opens without a network. Data in, HTML out; nothing is computed here
that the leaderboard, the ensemble or the statistics do not give.
"""

import shlex
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis import boardtable, costs, facts, figures, tables, worth
from analysis.figures import Drawing
from analysis.final import Look
from analysis.findings import words
from analysis.leaderboard import GOALS, NAMES
from analysis.study import Study
from trainables.metrics import MIN_SUPPORT

META = (  # what the page shows of run.json; what is missing there appears as "?"
    *("name", "started", "finished", "seed", "sampler", "pruner", "trials", "epochs", "rungs"),
    *("commit", "versions", "host", "tier"),
)
DATA = ("name", "source", "fingerprint", "image_size", "is_synthetic", "notes", "sizes")
SPACE = ("name", "digest", "settings")
TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """How templates are read: everything escaped, an unknown name an error, None as "?"."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "?" if value is None else value,
    )


def render(study: Study, look: Look | None) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    findings, calls = study.findings, study.calls
    board, ensemble = findings.board, findings.ensemble
    front = costs.front(board)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            meta=dict.fromkeys(META) | dict(board.meta),
            data=dict.fromkeys(DATA) | dict(board.meta["data"]),
            space=dict.fromkeys(SPACE) | dict(board.meta.get("space") or {}),
            words=[*words(findings), *worth.sentences(findings)],
            worth=worth.side_by_side(findings, look),
            notes=findings.notes,
            header=[*tables.shown(findings.table).values(), "settings that vary"],
            rows=boardtable.head(findings, study.settings),
            board_data=boardtable.data(findings, study.settings),
            trials=len(findings.table),
            front=front,
            front_rows=list(costs.front_rows(front)),
            classes=facts.classes(findings, calls),
            confused=facts.confused(findings, calls),
            after=[facts.corrections(who, *answer) for who, answer in study.after.items()],
            units=facts.units(findings, calls),
            failures=facts.failures(findings),
            ensemble=ensemble,
            has_members=ensemble is not None and len(ensemble.members) > 1,
            importance_note=study.importance.note,
            target=study.importance.target,
            techniques=facts.techniques(study.techniques),
            drawings=_by_section(draw(study)),
            pictures=study.pictures,
            look=look,
            outcome=list(facts.outcome(findings)),
            names=NAMES,
            goal=GOALS[board.goal.name],
            min_support=MIN_SUPPORT,
            command=shlex.join(map(str, board.meta.get("command") or ())),
            plotly=get_plotlyjs(),
        )
    )


def draw(study: Study) -> Iterable[Drawing]:
    """All figures, each with the section it belongs to."""
    return chain(
        figures.of_search(study.findings),
        figures.of_settings(study.findings, study.importance, study.techniques),
        figures.of_ensemble(study.findings),
        figures.of_answers(study.findings, study.calls),
        figures.of_corrections(study.after),
    )


def _by_section(drawings: Iterable[Drawing]) -> dict[str, list[Drawing]]:
    found: dict[str, list[Any]] = {}
    for drawing in drawings:
        found.setdefault(drawing.section, []).append(drawing)
    return found
