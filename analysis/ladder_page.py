"""The ladder as Markdown, CSV and a page that opens without a network; nothing is computed here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.ladder import NAMES, Ladder, Row, cells, facts
from analysis.ladder_words import SURE, gap_text, words
from analysis.page import environment
from analysis.tables import escape, grid
from trainables.store import replace_file

HOW = (
    "Mean ± standard deviation over seeds, and in brackets a 95 % interval for new seeds and new "
    "images: the variance of the seeds (Student's t) and that of the images (bootstrap within each "
    "class, 1,000 rounds, the same rounds for all, less what both contain) added up, degrees of "
    "freedom by Welch and Satterthwaite. Differences are paired by seed and image; their p-values "
    "are those intervals' own, corrected by Holm over all differences in the tables. Time: seconds "
    "of training over the baseline's under the same seed, mean over seeds."
)
WIDTH, LEFT, ROW, RIGHT = 900, 330, 24, 20  # pixels of the drawing


@dataclass(frozen=True)
class Section:
    """A table: its heading, what its rows are compared with, and they."""

    title: str
    hint: str
    rows: list[Row]


def sections(ladder: Ladder) -> list[Section]:
    rows = ladder.rows
    winner = [row for row in rows if row.arm.role == ladder.plan.winner]
    return [
        Section(
            "The ladder",
            "difference to the baseline",
            [row for row in rows if row.arm.kind != "without"],
        ),
        Section(
            "The winner without each technique",
            f"difference to the winner ({ladder.plan.winner}); below 0 the technique helped",
            [*winner, *(row for row in rows if row.arm.kind == "without")],
        ),
    ]


def write(ladder: Ladder, folder: Path) -> Path:
    """Write ladder.md, ladder.csv and ladder.html; the page."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([facts(row) for row in ladder.rows])
    replace_file(folder / "ladder.csv", table.to_csv(index=False).encode())
    replace_file(folder / "ladder.md", markdown(ladder).encode())
    replace_file(folder / "ladder.html", page(ladder).encode())
    return folder / "ladder.html"


def title(ladder: Ladder) -> str:
    mark = " (SYNTHETIC faces)" if ladder.board.meta["data"].get("is_synthetic") else ""
    return f"Ablation: {' → '.join(budget.space for budget in ladder.plan.budgets)}{mark}"


def header(ladder: Ladder) -> list[str]:
    return ["", "seeds", "time", *(NAMES[name] for name in ladder.measures), "difference"]


def line(row: Row, section: Section, ladder: Ladder) -> list[str]:
    """The cells of a row in a section; the winner, beside its own ablations, has no difference."""
    is_reference = row.gap is None or row.against not in [r.arm.role for r in section.rows]
    name = row.arm.role + (f": {row.arm.change}" if row.arm.change else "")
    gap = "–" if is_reference else gap_text(row)
    time = "–" if math.isnan(row.cost) else f"{row.cost:.1f} ×"
    return [name, str(len(row.seeds)), time, *cells(row, ladder.measures), gap]


def levels(ladder: Ladder) -> list[tuple[str, list[str]]]:
    """What there is to compare with, in the measures that it is known for."""
    return [
        (label, [f"{known[m]:.3f}" if m in known else "–" for m in ladder.measures])
        for label, known in (
            ("always the commonest class", ladder.majority),
            ("Bayes ceiling", ladder.ceiling),
        )
        if known
    ]


def markdown(ladder: Ladder) -> str:
    out = [f"# {escape(title(ladder))}", ""]
    out += [f"{escape(text)}\n" for text in words(ladder)]
    for section in sections(ladder):
        out += [f"## {escape(section.title)}", "", f"Last column: {escape(section.hint)}.", ""]
        rows = [line(row, section, ladder) for row in section.rows]
        rows += [[label, "", "", *values, ""] for label, values in levels(ladder)]
        out += [*grid(header(ladder), rows), ""]
    return "\n".join([*out, HOW, ""])


def page(ladder: Ladder) -> str:
    """The whole page; every text is escaped."""
    found = sections(ladder)
    template = environment().get_template("ladder.html.j2")
    return template.render(
        title=title(ladder),
        is_synthetic=bool(ladder.board.meta["data"].get("is_synthetic")),
        words=words(ladder),
        header=header(ladder),
        tables=[
            (section, [(row, line(row, section, ladder)) for row in section.rows])
            for section in found
        ],
        levels=levels(ladder),
        winner=ladder.plan.winner,
        forest=forest(ladder, found),
        how=HOW,
    )


@dataclass(frozen=True)
class Mark:
    """A row of the forest plot, in pixels."""

    text: str
    y: float
    x: float
    low: float
    high: float
    style: str  # helped, harmed or unclear
    told: str


@dataclass(frozen=True)
class Forest:
    """Differences with their intervals around 0."""

    marks: list[Mark]
    ticks: list[tuple[float, str]]
    zero: float
    width: float
    height: float


def forest(ladder: Ladder, found: Sequence[Section]) -> Forest | None:
    """The drawing of all differences; None where there is none."""
    rows = [row for row in ladder.rows if row.gap is not None]
    if not rows:
        return None
    ends = [end for row in rows if row.gap for end in (row.gap.low, row.gap.high, 0.0)]
    step = _step(max(ends) - min(ends))
    low, high = step * math.floor(min(ends) / step), step * math.ceil(max(ends) / step)
    scale = (WIDTH - LEFT - RIGHT) / max(high - low, step)

    def at(value: float) -> float:
        return round(LEFT + (value - low) * scale, 1)

    marks = []
    for number, row in enumerate(rows):
        assert row.gap is not None
        style = "unclear" if not row.p < SURE else "better" if row.gap.value > 0 else "worse"
        y = ROW * (number + 1)
        ends_at = at(row.gap.value), at(row.gap.low), at(row.gap.high)
        marks.append(Mark(f"{row.arm.role}", y, *ends_at, style, gap_text(row)))
    count = round((high - low) / step)
    ticks = [(at(low + k * step), f"{low + k * step:+.3g}") for k in range(count + 1)]
    return Forest(marks, ticks, at(0.0), WIDTH, ROW * (len(rows) + 2))


def _step(span: float) -> float:
    """A round distance of ticks, four to eight of them."""
    raw = max(span, 1e-6) / 6
    power = 10 ** math.floor(math.log10(raw))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= raw))
