"""The leaderboard of the page: the first rows as HTML, all of them as data for its script.

The script (templates/board.js) shows what `tables.cell` shows, from columns of numbers: ten
thousand rows of HTML would be 30 MB. Settings are numbered options.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import tables
from analysis.findings import Findings
from trainables.metrics import Floats

PLAIN = 100  # rows that are there without a script, and on paper
DIGITS = 6
INTERVALS = {
    "score": ("score low", "score high"),
    "vs baseline": ("vs baseline low", "vs baseline high"),
}
KINDS = {"vs baseline": "signed", "seconds": "seconds"}
SECONDARY = (
    *("attention_stage", "region_weight", "weight_decay", "dropout"),
    *("curriculum_drives", "curriculum_order", "curriculum_reversed"),
)


def head(findings: Findings, settings: Sequence[str]) -> list[dict[str, Any]]:
    """The first rows as the template shows them, with the baseline."""
    table, base = findings.table.head(PLAIN), findings.table["trial"] == findings.baseline
    if base.any() and findings.baseline not in set(table["trial"]):
        table = pd.concat([table, findings.table[base]])
    return list(_rows(findings, table, settings))


def data(findings: Findings, settings: Sequence[str]) -> str:
    """All rows as JSON that may stand in a <script>: columns of values, settings as options."""
    table = findings.table
    out = {
        "columns": [_column(table, name, heading) for name, heading in tables.shown(table).items()],
        "settings": [_options(table, name) for name in settings],
        "notes": [_note(n, s) for n, s in zip(table["note"], table["status"], strict=True)],
        "best": _place(table, findings.best),
        "baseline": _place(table, findings.baseline),
    }
    text = json.dumps(out, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def is_main(name: str, value: str) -> bool:
    """Whether a setting is told at first sight: a part that is used, or a plain number."""
    return bool(value) and value != "none" and "." not in name and name not in SECONDARY


def _column(table: pd.DataFrame, name: str, heading: str) -> dict[str, Any]:
    values = table[name]
    out: dict[str, Any] = {"name": name, "heading": heading, "kind": _kind(values, name)}
    if out["kind"] == "text":
        return out | {"values": [str(v) for v in values]}
    found: dict[str, Any] = out | {"values": _rounded(values)}
    if name in INTERVALS:
        low, high = (_rounded(table[bound]) for bound in INTERVALS[name])
        found |= {"low": low, "high": high}
    return found


def _kind(values: "pd.Series[Any]", name: str) -> str:
    if name in KINDS:
        return KINDS[name]
    if pd.api.types.is_numeric_dtype(values):
        return "whole" if name in tables.EXACT else "share"
    return "text"


def _rounded(values: "pd.Series[Any]") -> list[float | None]:
    numbers: Floats = values.to_numpy(np.float64, na_value=np.nan)
    return [None if v != v else v for v in np.round(numbers, DIGITS).tolist()]


def _options(table: pd.DataFrame, name: str) -> dict[str, Any]:
    """A setting: its options in words, which are told at first sight, and each row's (-1: none)."""
    text = [tables.setting(value) for value in table[f"setting {name}"]]
    options = sorted({t for t in text if t})
    number = {option: at for at, option in enumerate(options)}
    main = [int(is_main(name, option)) for option in options]
    return {
        "name": name,
        "options": options,
        "main": 1 if all(main) else 0 if not any(main) else main,
        "rows": [number.get(t, -1) for t in text],
    }


def _note(note: object, status: object) -> str:
    return "" if status == "failed" else str(note)


def _place(table: pd.DataFrame, trial: str | None) -> int:
    at = np.flatnonzero((table["trial"] == trial).to_numpy())
    return int(at[0]) if len(at) else -1


def _rows(
    findings: Findings, table: pd.DataFrame, settings: Sequence[str]
) -> Iterator[dict[str, Any]]:
    columns = tables.shown(findings.table)
    for _, row in table.iterrows():
        own = [(name, tables.setting(row[f"setting {name}"])) for name in settings]
        yield {
            "cells": [_cell(row, column) for column in columns],
            "settings": [(n, v) for n, v in own if is_main(n, v)],
            "details": [(n, v) for n, v in own if v and not is_main(n, v)],
            "note": _note(row["note"], row["status"]),
            "is_baseline": row["trial"] == findings.baseline,
            "is_best": row["trial"] == findings.best,
            "is_ranked": not pd.isna(row["rank"]),
        }


def _cell(row: "pd.Series[Any]", column: str) -> dict[str, str]:
    """The text and its interval."""
    text, bracket, rest = tables.cell(row, column).partition(" [")
    return {"text": text, "interval": f"[{rest}" if bracket else "", "column": column}
