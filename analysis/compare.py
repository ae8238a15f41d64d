"""`python -m analysis.compare RUN RUN …`: runs side by side, as a page and as Markdown.

Differences are paired by validation image and corrected for each run's choice of its best; they are
given only between runs of the same data, classes, images and score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from analysis import statistics
from analysis.costs import wasted
from analysis.findings import ROUNDS, Findings, find, rivals
from analysis.leaderboard import candidates, read_board
from analysis.statistics import Estimate, bracketed, signed
from analysis.tables import cell, escape, grid
from trainables.cli import Parser, run_command
from trainables.store import RunStore, replace_file

HEADER = (
    *("run", "space", "sampler, pruner", "trials (completed)", "epochs", "hours of training"),
    *("images", "best trial", "its score", "corrected (BBC-CV)", "ensemble", "baseline"),
    *("always the commonest class", "lead of the best over that of the first run"),
)
TITLE = "Runs side by side"
HINT = (
    "Score: what the search maximised. Corrected: on images that did not choose the best. The lead "
    "is paired by image: each of 1,000 rounds chooses both bests on the images drawn and compares "
    "them on the rest; its interval tells of chance in the images, not in training seeds."
)


@dataclass(frozen=True)
class Side:
    """A run, and how it stands to the first."""

    name: str
    findings: Findings
    epochs: int  # trained, over all trials
    hours: float
    lead: Estimate | None = None
    missing: str = ""  # why there is no lead


def compare(findings: Sequence[Findings], names: Sequence[str]) -> list[Side]:
    """The runs in their order, each with its lead over the first."""
    sides = []
    for name, found in zip(names, findings, strict=True):
        own = [f for r in found.board.records for f in found.board.folds.get(r.id, (r,))]
        epochs = sum(len(record.history) for record in own)
        hours = float(found.table["seconds"].sum()) / 3600
        missing = "is the first" if found is findings[0] else unlike(findings[0], found)
        lead = None if missing else lead_over(found, findings[0])
        sides.append(Side(name, found, epochs, hours, lead, missing))
    return sides


def unlike(first: Findings, other: Findings) -> str:
    """Why two runs do not compare; empty if they do."""
    for what, one, two in (
        ("data", *(f.board.meta["data"].get("fingerprint") for f in (first, other))),
        ("classes", first.board.class_names, other.board.class_names),
        ("score", first.board.goal.name, other.board.goal.name),
        ("validation images", set(first.board.votes.ids), set(other.board.votes.ids)),
    ):
        if one != two:
            return f"not compared: other {what} than the first run"
    if first.board.meta["data"].get("fingerprint") is None:
        return "not compared: the runs do not say which data they are of"
    if first.best is None or other.best is None:
        return "not compared: no trial has usable predictions"
    return ""


def lead_over(found: Findings, first: Findings) -> Estimate:
    """The lead of the best of one run over the best of the other, corrected for both choices."""
    votes = [f.board.votes.pick(rivals(f.table, candidates(f.board)[0])) for f in (found, first)]
    place = {image: n for n, image in enumerate(votes[0].ids)}
    order = [place[image] for image in votes[1].ids]
    weights = statistics.resample(votes[1].labels, ROUNDS, np.random.default_rng(1))
    mine, theirs = votes[0].predicted[:, order], votes[1].predicted
    return statistics.corrected_lead(votes[1].labels, mine, theirs, first.board.goal, weights)


def words(sides: Sequence[Side]) -> list[str]:
    """What to make of the table."""
    first, lines = sides[0], []
    for side in sides[1:]:
        if side.lead is None:
            lines.append(f"{side.name} and {first.name} are {side.missing}.")
            continue
        sure = "" if side.lead.low > 0 or side.lead.high < 0 else "; this may be chance"
        lines.append(
            f"The best of {side.name} against the best of {first.name}, on images that chose "
            f"neither: {signed(side.lead)}{sure}."
        )
        ratio = side.epochs / max(1, first.epochs)
        if not 0.8 <= ratio <= 1.25:
            lines.append(
                f"{side.name} trained {side.epochs:,} epochs, {first.name} {first.epochs:,}: the "
                "budgets differ, and a longer search finds more."
            )
    return lines


def row(side: Side) -> list[str]:
    """The cells of a run."""
    found, meta = side.findings, side.findings.board.meta
    completed = int((found.table["status"] == "completed").sum())
    failed = int(wasted(found.board)["count"])
    trials = f"{found.board.trainings} ({completed}{f', failed {failed}' if failed else ''})"
    ensemble = found.ensemble.honest.get("ensemble") if found.ensemble else None
    return [
        side.name,
        str((meta.get("space") or {}).get("name", "?")),
        f"{meta.get('sampler', '?')}, {meta.get('pruner', '?')}",
        trials,
        f"{side.epochs:,}",
        f"{side.hours:.3g}",
        str(len(found.board.votes.labels)),
        found.best or "–",
        _score(found, found.best),
        bracketed(found.corrected),
        bracketed(ensemble),
        _score(found, found.baseline),
        "–" if found.majority is None else f"{found.majority['score']:.3f}",
        side.missing if side.lead is None else signed(side.lead),
    ]


def _score(found: Findings, trial: str | None) -> str:
    return "–" if trial is None else cell(found.row(trial), "score")


def markdown(sides: Sequence[Side]) -> str:
    """The comparison, a column a run, so that it stays narrow."""
    header, *rows = zip(HEADER, *(row(side) for side in sides), strict=True)
    lines = [f"# {TITLE}", ""]
    for line in words(sides):
        lines += [escape(line), ""]
    return "\n".join([*lines, *grid(header, rows), "", HINT]) + "\n"


def page(sides: Sequence[Side]) -> str:
    """The comparison as a page that opens without a network."""
    from analysis.page import environment

    meta = [side.findings.board.meta for side in sides]
    template = environment().get_template("compare.html.j2")
    return template.render(
        title=TITLE,
        words=words(sides),
        rows=list(zip(HEADER, *(row(side) for side in sides), strict=True)),
        hint=HINT,
        notes=[(side.name, note) for side in sides for note in side.findings.notes],
        is_synthetic=any(m["data"].get("is_synthetic") for m in meta),
    )


def names_of(roots: Sequence[Path]) -> list[str]:
    """The runs by their folders' names, with the parents where these are alike."""
    short = [root.resolve().name for root in roots]
    whole = [str(root) for root in roots]
    return [w if short.count(s) > 1 else s for s, w in zip(short, whole, strict=True)]


def main(argv: Sequence[str] | None = None) -> int:
    """Set runs side by side; the first is what the others are compared with."""
    parser = Parser(prog="python -m analysis.compare", description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="a folder: runs/smoke")
    parser.add_argument("--out", type=Path, help="folder to write to, instead of that of the last")
    args = parser.parse(argv)
    if len({root.resolve() for root in args.runs}) < max(2, len(args.runs)):
        raise ValueError("name two or more different runs")
    found = [find(read_board(RunStore.open(root))) for root in args.runs]
    sides = compare(found, names_of(args.runs))
    folder = args.out or args.runs[-1] / "report"
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "compare.md", markdown(sides).encode())
    replace_file(folder / "compare.html", page(sides).encode())
    console = Console()
    for line in words(sides):
        console.print(Text(line))
    console.print(Text(f"comparison: {folder / 'compare.html'}"), soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
