"""The report as Markdown and as files of numbers: what the page shows, without figures."""

import io
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import facts, tables
from analysis.facts import FEW
from analysis.findings import words
from analysis.study import Study
from analysis.tables import Cells, escape, grid
from analysis.worth import sentences
from trainables.store import replace_file


def write(study: Study, folder: Path, title: str, top: int) -> None:
    """Write report.md, leaderboard.md, .csv and .parquet, and techniques, classes, units as CSV."""
    findings = study.findings
    board, table = findings.board, findings.table
    tables.write_tables(board, table, folder, title, top)
    replace_file(folder / "report.md", markdown(study, title, top).encode())
    grids = {"techniques.csv": _techniques(study), "classes.csv": _classes(study)}
    grids["units.csv"] = _units(study)
    for name, (header, rows) in grids.items():
        frame = pd.DataFrame(rows, columns=list(header))
        replace_file(folder / name, frame.to_csv(index=False).encode())
    replace_file(folder / "leaderboard.parquet", parquet(table))


def parquet(table: pd.DataFrame) -> bytes:
    """The leaderboard as Parquet; a column of mixed kinds as text."""
    out = table.copy()
    for name in out.columns[out.dtypes == np.dtype(object)]:
        kinds = {type(value) for value in out[name].dropna()}
        if len(kinds) > 1:
            out[name] = out[name].map(lambda value: None if pd.isna(value) else str(value))
    data = io.BytesIO()
    out.to_parquet(data, index=False)
    return data.getvalue()


def markdown(study: Study, title: str, top: int) -> str:
    """The whole report."""
    findings = study.findings
    board = findings.board
    lines = [f"# {escape(title)}", ""]
    for sentence in (*words(findings), *sentences(findings)):
        lines += [escape(sentence), ""]
    lines += [f"* {escape(note)}" for note in findings.notes]
    lines += ["", "## Leaderboard", "", tables.markdown(board, findings.table, top)]
    lines += [tables.UNCORRECTED, ""]
    grids: dict[str, tuple[Cells, Sequence[Cells]]] = {
        "Techniques": _techniques(study),
        "Importances": _importances(study),
        "Classes": _classes(study),
        "Action units": _units(study),
        "Cost": (("", "forecast", "truth"), [list(row) for row in facts.outcome(findings)]),
        "Failures and remarks": (
            ("trial", "status", "what happened"),
            [[r["trial"], r["status"], r["short"]] for r in facts.failures(findings)],
        ),
    }
    for name, (header, rows) in grids.items():
        lines += [f"## {name}", "", *(grid(header, rows) if rows else ["nothing to show"]), ""]
    return "\n".join([*lines, *_rerun(study)]) + "\n"


def _techniques(study: Study) -> tuple[Cells, list[Cells]]:
    header = ("option", "against", "trials", "difference of means", "other settings held fixed")
    rows: list[Cells] = [list(row.values()) for row in facts.techniques(study.techniques)]
    return header, rows


def _importances(study: Study) -> tuple[Cells, list[Cells]]:
    groups = study.importance.groups.items()
    return ("setting", "fall of R²", "spread"), [
        [name, f"{mean:.3f}", f"{spread:.3f}"] for name, (mean, spread) in groups
    ]


def _classes(study: Study) -> tuple[Cells, list[Cells]]:
    found = facts.classes(study.findings, study.calls)
    header = ("class", "validation images", *(f"recall, {who}" for who in found["header"]), "")
    return header, _rows(found["rows"])


def _units(study: Study) -> tuple[Cells, list[Cells]]:
    found = facts.units(study.findings, study.calls)
    header = ("action unit", "images that show it", *(f"F1, {w}" for w in found["header"]), "")
    return header, _rows(found["rows"])


def _rows(found: Sequence[dict[str, object]]) -> list[Cells]:
    return [
        [str(r["name"]), str(r["support"]), *map(str, r["cells"]), FEW if r["few"] else ""]  # type: ignore[call-overload]  # a list
        for r in found
    ]


def _rerun(study: Study) -> Iterator[str]:
    meta = study.findings.board.meta
    data, space = meta["data"], meta.get("space") or {}
    yield from ("## To run it again", "")
    yield from ("```", shlex.join(map(str, meta.get("command") or ())) or "not recorded", "```", "")
    for name, value in {
        "seed": meta.get("seed"),
        "data": f"{data.get('source')}, fingerprint {data.get('fingerprint')}",
        "space": f"{space.get('name')}, digest {space.get('digest')}",
        "commit": meta.get("commit"),
        "versions": ", ".join(f"{n} {v}" for n, v in (meta.get("versions") or {}).items()),
    }.items():
        yield f"* {name}: {escape(str(value))}"
