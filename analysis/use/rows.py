"""What is said of a face, as a row of CSV or a line of JSON. K classes, B basic emotions, A AUs.

path, frame, second   the second of a video; its frames are counted from 0
face                  from 0, the largest first; in a video a number stays with its face
status, reason        ok, no face, or unreadable and why
left … bottom         the box of a face that was looked for, in pixels; detection is its score
label, probability    the likeliest class
basic_1, basic_2      the two likeliest basic emotions, and the probability of each
p:CLASS, b:BASIC      of each class; of each basic emotion, summed over the classes it is part of
AU…                   of each action unit, by itself

What is not known is an empty cell, in JSON null; JSON nests box, components, probabilities, basics
and aus.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.use.faces import Box
from analysis.use.folder import About

OK, NO_FACE, UNREADABLE = "ok", "no face", "unreadable"
DIGITS = 6
Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One face of one picture, before and after the network has looked at it."""

    path: str
    frame: int | None = None
    second: float | None = None
    face: int | None = None
    status: str = OK
    reason: str = ""
    box: Box | None = None
    detection: float | None = None
    probs: NDArray[np.float32] | None = None  # (K,)
    aus: NDArray[np.float32] | None = None  # (A,) or (0,)


def basics_of(about: About, probs: NDArray[np.float32]) -> dict[str, float]:
    """The probability of each basic emotion: that of the classes it is part of, summed. Of compound
    classes two are true at once, so they sum to 2. Empty where the classes are not compounds."""
    if not about["components"]:
        return {}
    out = dict.fromkeys(about["basic_names"], 0.0)
    for p, pair in zip(probs.tolist(), about["components"], strict=True):
        for basic in set(pair):
            out[about["basic_names"][basic]] += p
    return out


def row_of(about: About, seen: Seen) -> Row:
    """The row as nested data, ready for JSON."""
    box = [round(side, 1) for side in seen.box] if seen.box is not None else None
    row: Row = {
        "path": seen.path,
        "frame": seen.frame,
        "second": seen.second,
        "face": seen.face,
        "status": seen.status,
        "reason": seen.reason or None,
        "box": box,
        "detection": _rounded(seen.detection),
        "label": None,
        "probability": None,
        "components": None,
        "probabilities": None,
        "basics": None,
        "aus": None,
    }
    if seen.probs is None or seen.aus is None:
        return row
    basics = basics_of(about, seen.probs)
    top = sorted(basics, key=lambda name: -basics[name])[:2]
    names = about["class_names"]
    return row | {
        "label": names[int(seen.probs.argmax())],
        "probability": _rounded(float(seen.probs.max())),
        "components": [[name, _rounded(basics[name])] for name in top] or None,
        "probabilities": _named(names, seen.probs),
        "basics": {name: _rounded(value) for name, value in basics.items()} or None,
        "aus": _named(about["au_names"], seen.aus) if len(seen.aus) else None,
    }


def _named(names: Sequence[str], values: NDArray[np.float32]) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in zip(names, values.tolist(), strict=True)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def columns(about: About) -> list[str]:
    """The header of the CSV."""
    pairs = ("basic_1", "basic_1_probability", "basic_2", "basic_2_probability")
    basics = about["basic_names"] if about["components"] else []
    return [
        *("path", "frame", "second", "face", "status", "reason"),
        *("left", "top", "right", "bottom", "detection", "label", "probability"),
        *(pairs if basics else ()),
        *(f"p:{name}" for name in about["class_names"]),
        *(f"b:{name}" for name in basics),
        *about["au_names"],
    ]


def flat(row: Row) -> Row:
    """The row by the columns of the CSV; unknown ones are missing."""
    out = {k: v for k, v in row.items() if not isinstance(v, list | Mapping)}
    out |= dict(zip(("left", "top", "right", "bottom"), row["box"] or (), strict=False))
    for number, (name, value) in enumerate(row["components"] or (), 1):
        out |= {f"basic_{number}": name, f"basic_{number}_probability": value}
    for prefix, part in (("p:", "probabilities"), ("b:", "basics"), ("", "aus")):
        out |= {f"{prefix}{name}": value for name, value in (row[part] or {}).items()}
    return {**out, "path": harmless(row["path"])}


def harmless(path: str) -> str:
    """The path so that no spreadsheet takes it for a formula: "./=1.jpg" is the same file."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@")) else path


def csv_line(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """One line of CSV, quoted where need be."""
    text = io.StringIO()
    cells = ["" if values.get(name) is None else values[name] for name in names]
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def json_line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
