"""`python -m analysis.report RUN [--final]`: the page, the tables and the summary of a run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import final as sealed
from analysis import record, tables, written
from analysis.final import Look
from analysis.findings import Findings, find, words
from analysis.leaderboard import read_board
from analysis.pool import origin_of
from analysis.sheets import Pictures
from analysis.statistics import bracketed, signed
from analysis.study import study
from analysis.worth import sentences, side_by_side
from trainables.cli import Parser, run_command
from trainables.store import RunStore, replace_file

SHEET = "contact_sheet.png"
NARROW = ("rank", "trial", "status", "score", "vs baseline", "accuracy", "uar")  # 80 columns


def write_report(run: RunStore, final: bool = False, has_pictures: bool = False) -> Path:
    """Write RUN/report and return its page; `final` opens the sealed test split."""
    findings, look = _investigate(run, final)
    return _write(findings, look, has_pictures=has_pictures)


def report_run(
    run: RunStore,
    console: Console,
    final: bool = False,
    top: int = tables.TOP,
    has_pictures: bool = False,
    other: Path | None = None,
) -> Path:
    """Write RUN/report and print its summary; `final` opens the sealed test split, for the ensemble
    of the file `other` too."""
    findings, look = _investigate(run, final, other)
    path = _write(findings, look, top, has_pictures)
    for line in summary(findings, look, top):
        console.print(line)
    console.print(Text(f"report: {path}"), soft_wrap=True)
    return path


def _investigate(
    run: RunStore, final: bool, other: Path | None = None
) -> tuple[Findings, Look | None]:
    findings = find(read_board(run))
    return findings, sealed.look(findings, sys.argv, other) if final else None


def _write(
    findings: Findings, look: Look | None, top: int = tables.TOP, has_pictures: bool = False
) -> Path:
    from analysis.page import render

    board = findings.board
    folder = board.run.root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ensemble.json", "ensemble_val.npz", SHEET):  # none of an earlier report may stay
        (folder / name).unlink(missing_ok=True)
    found = study(findings, _pictures(findings) if has_pictures else None)
    written.write(found, folder, _title(findings), top)
    if found.pictures.png:
        replace_file(folder / SHEET, found.pictures.png)
    if findings.ensemble is not None:
        own = {trial: (board.run.root, trial) for trial in findings.ensemble.members}
        record.save(findings.ensemble, board.votes.full, folder, origin_of(board, own))
    replace_file(folder / "index.html", render(found, look).encode())
    return folder / "index.html"


def _pictures(findings: Findings) -> Pictures:
    from analysis.pictures import pictures

    return pictures(findings)


def _title(findings: Findings) -> str:
    meta = findings.board.meta
    mark = " (synthetic data)" if meta["data"].get("is_synthetic") else ""
    return f"Run {meta.get('name', findings.board.run.root.name)}{mark}"


def summary(findings: Findings, look: Look | None, top: int) -> list[Table | Text]:
    """What is printed at the end of a search."""
    out: list[Table | Text] = []
    if findings.board.meta["data"].get("is_synthetic"):
        out.append(Text("SYNTHETIC DATA: these numbers say nothing about real faces", "bold"))
    if findings.best is not None:
        out.append(_leaderboard_table(findings, top))
        if findings.baseline is not None:
            out.append(Text(tables.UNCORRECTED, "dim"))
        out.append(_comparison_table(findings))
        out.append(_selection_table(findings, look))
    out += [Text(line) for line in (*words(findings), *sentences(findings))]
    out += [Text(f"note: {line}") for line in findings.notes]
    if look is not None:
        out.append(_final_table(look))
        out += [Text(f"note: {line}") for line in (*look.notes, *look.missing)]
    return out


def _leaderboard_table(findings: Findings, top: int) -> Table:
    table = _bare(_title(findings))
    for column in NARROW:
        table.add_column(tables.SHOWN[column].replace("accuracy", "acc."), no_wrap=True)
    for _, row in tables.head(findings.table, top).iterrows():
        style = "bold" if row["trial"] == findings.best else ""
        table.add_row(*(Text(_short(row, column)) for column in NARROW), style=style)
    return table


def _bare(title: str) -> Table:
    return Table(
        title=Text(title, "bold"),
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )


def _short(row: "pd.Series[Any]", column: str) -> str:
    """The cell, but the score without its interval, which would not fit 80 columns."""
    if column == "vs baseline" and row["role"] == "baseline":
        return "is the baseline"
    text = tables.cell(row, column)
    return text.partition(" [")[0] if column == "score" else text


def _comparison_table(findings: Findings) -> Table:
    """The ensemble beside the best single, the plain average, the baseline and the majority."""
    table = _bare("What stands beside what: score on images that")
    for column in ("", "did not choose", "did choose"):
        table.add_column(column, no_wrap=True)
    ensemble, baseline = findings.ensemble, findings.baseline
    if ensemble is not None:
        labels = {
            "ensemble": f"ensemble: {ensemble.method}",
            "single": "best single",
            "top": f"average of best {len(ensemble.top)}",
        }
        for who, label in labels.items():
            honest = ensemble.honest.get(who)
            table.add_row(label, bracketed(honest), f"{ensemble.optimistic[who]:.3f}")
    table.add_row("best single, by BBC-CV", bracketed(findings.corrected), "")
    if baseline is not None:
        table.add_row("baseline", tables.cell(findings.row(baseline), "score"), "")
    if findings.majority is not None:
        table.add_row("always the commonest class", f"{findings.majority['score']:.3f}", "")
    if ensemble is not None and "lead over baseline" in ensemble.honest:
        lead = signed(ensemble.honest["lead over baseline"])
        table.add_row("ensemble over the baseline", lead, "")
    if findings.lead is not None and findings.best != baseline:
        table.add_row("best single over it, by BBC-CV", signed(findings.lead), "")
    return table


def _selection_table(findings: Findings, look: Look | None) -> Table:
    """What the best is worth by each way of asking."""
    table = _bare("What the best is worth")
    for column in ("", "score", "how"):
        table.add_column(column, overflow="fold")
    for line in side_by_side(findings, look):
        table.add_row(line.what, line.score, Text(line.note, "dim"))
    return table


def _final_table(look: Look) -> Table:
    title = f"Sealed test split, {look.images} images; earlier looks: {look.earlier_looks}"
    table = _bare(title)
    for column in ("", "score", "acc.", "UAR", "over the baseline"):
        table.add_column(column, no_wrap=True)
    for who, measures in look.scores.items():
        rest = [f"{measures[name].value:.3f}" for name in ("accuracy", "uar")]
        lead = look.leads.get(who)
        table.add_row(who, bracketed(measures["score"]), *rest, signed(lead) if lead else "")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a run and print its summary."""
    parser = Parser(prog="python -m analysis.report", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/smoke")
    parser.add_argument(
        "--final", action="store_true", help="open the sealed test split and write the look down"
    )
    parser.add_argument(
        "--pictures", action="store_true", help="show the surest mistakes, and where the best looks"
    )
    parser.add_argument("--top", type=int, default=tables.TOP, help="rows of the summary")
    parser.add_argument(
        "--ensemble", type=Path, metavar="FILE", help="with --final: score this ensemble.json too"
    )
    args = parser.parse(argv)
    if args.top < 1:
        parser.error(f"--top {args.top}: at least 1")
    if args.ensemble and not args.final:
        parser.error("--ensemble is scored on the test split: it needs --final")
    if args.ensemble and args.ensemble.resolve().parent == (args.run / "report").resolve():
        parser.error(
            f"--ensemble {args.ensemble}: a report writes its own ensemble there; make yours in "
            "another folder (python -m analysis.ensemble … --out FOLDER)"
        )
    run, console = RunStore.open(args.run), Console()
    report_run(run, console, args.final, args.top, args.pictures, args.ensemble)
    return 0


if __name__ == "__main__":
    run_command(main)
