"""The leaderboard as text: Markdown, CSV, and cells in words; any table as Markdown."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.leaderboard import Board
from trainables.store import replace_file

Cells = Sequence[str]

TOP = 10
SHOWN = {  # column of the frame -> heading
    "rank": "rank",
    "trial": "trial",
    "role": "role",
    "status": "status",
    "epochs": "epochs",
    "folds": "folds",
    "seeds": "seeds",
    "score": "score",
    "vs baseline": "vs baseline",
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1_all": "macro-F1 all",
    "ece": "ECE",
    "au_f1": "AU-F1",
    "seconds": "seconds",
}
UNCORRECTED = "vs baseline: each trial by itself, not corrected for choosing the best"
EXACT = ("rank", "trial", "role", "status", "epochs", "folds", "seeds", "index")


def shown(table: pd.DataFrame) -> dict[str, str]:
    """SHOWN, but folds and seeds only where a configuration has several."""
    plain = [name for name in ("folds", "seeds") if (table[name] == 1).all()]
    return {name: heading for name, heading in SHOWN.items() if name not in plain}


def cell(row: pd.Series, column: str) -> str:
    """The value as it is read: three digits, with its interval where there is one."""
    value = row[column]
    if value is None or pd.isna(value):
        return "–"
    if column in EXACT or isinstance(value, str | bool):
        return str(value)
    if column == "seconds":
        return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    if column == "score":
        return f"{value:.3f} [{row['score low']:.3f}, {row['score high']:.3f}]"
    if column == "vs baseline":
        low, high = row["vs baseline low"], row["vs baseline high"]
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{value:.3f}"


def setting(value: Any) -> str:
    """A setting's value, short."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def head(table: pd.DataFrame, top: int = TOP) -> pd.DataFrame:
    """The first `top` ranked rows, and the baseline if it is not among them."""
    ranked = table[table["rank"].notna()]
    best = ranked.head(top)
    base = table[(table["role"] == "baseline") & ~table["trial"].isin(best["trial"])]
    return pd.concat([best, base]) if len(base) else best


def markdown(board: Board, table: pd.DataFrame, top: int = TOP) -> str:
    """The best trials and the baseline as a Markdown table, with what varied between them."""
    names = board.varying
    columns = shown(table)
    rows = (
        [
            *(cell(row, column) for column in columns),
            *(setting(row[f"setting {name}"]) for name in names),
        ]
        for _, row in head(table, top).iterrows()
    )
    return "\n".join(grid([*columns.values(), *names], rows)) + "\n"


def grid(header: Cells, rows: Iterable[Cells]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(map(escape, header))} |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield f"| {' | '.join(map(escape, row))} |"


def write_tables(board: Board, table: pd.DataFrame, folder: Path, title: str, top: int) -> None:
    """Write leaderboard.md (the best) and leaderboard.csv (all)."""
    text = f"# {escape(title)}\n\n{markdown(board, table, top)}\n{UNCORRECTED}\n"
    replace_file(folder / "leaderboard.md", text.encode())
    replace_file(folder / "leaderboard.csv", table.to_csv(index=False).encode())


def escape(text: str) -> str:
    flat = " ".join(text.split())
    for mark, safe in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        flat = flat.replace(mark, safe)
    return flat
