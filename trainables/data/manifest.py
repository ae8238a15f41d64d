"""A manifest: a CSV or TSV file with columns path and label, and others where they are there."""

import csv
import difflib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from trainables.data.listing import (
    Listing,
    Row,
    components_of,
    is_synthetic,
    natural,
    once,
    several,
)
from trainables.data.tables import BASIC_NAMES

NAMES = ("manifest.csv", "manifest.tsv")
COLUMNS = ("path", "label", "split", "aus", "id", "frames", "subject")
SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def file_of(path: Path) -> Path | None:
    """The manifest that a path is, or that lies in it."""
    if path.is_file():
        return path if path.suffix.lower() in {".csv", ".tsv"} else None
    return next((path / name for name in NAMES if (path / name).is_file()), None)


def read(path: Path) -> Listing:
    """The images of a manifest; an empty cell says nothing but under path and label.

    Frames are of the sequence that the image ends, in order of time, as "onset.png;middle.png".
    Subject is who it shows: images of one person stay on one side of a split that is made here.
    """
    file = file_of(path) or path
    table, columns = _table(file)
    problems: list[str] = []
    lines = [(number, cells) for number, cells in table if any(cells.values())]
    names = sorted({cells["label"] for _, cells in lines if cells["label"]}, key=natural)
    label_of = {name: label for label, name in enumerate(names)}
    _is_inside.cache_clear()  # links may have changed since another manifest was read
    home = file.resolve().parent
    rows = []
    for number, cells in lines:
        problem = _problem(home, cells)
        if problem:
            problems.append(f"{file.name}, line {number}: {problem}")
        else:
            rows.append(_row(home, cells, label_of))
    kept, warnings = once(rows)
    odd = [column for column in columns if column not in COLUMNS]
    components = components_of(names) if names else None
    return Listing(
        name=home.name if file.name in NAMES else file.stem,
        layout="manifest",
        rows=kept,
        class_names=tuple(names),
        basic_names=BASIC_NAMES if components else (),
        components=components,
        is_synthetic=is_synthetic(home),
        notes=() if "aus" in columns else ("The manifest has no column aus: no action units.",),
        warnings=(*warnings, *([f"columns not read: {several(odd)}"] if odd else [])),
        problems=tuple(problems),
    )


def _table(file: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line number, cells by column) of each line, and the columns. Raises ValueError."""
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    head = text.partition("\n")[0]
    mark = max("\t,;" if file.suffix.lower() == ".tsv" else ",;\t", key=head.count)
    try:
        lines = csv.reader(text.splitlines(), delimiter=mark, strict=True)
        columns = [name.strip().lower() for name in next(lines, [])]
        table = [(lines.line_num, line) for line in lines if any(map(str.strip, line))]
    except csv.Error as error:
        raise ValueError(f"'{file}' is no manifest: {error}") from error
    _check_columns(file, columns)
    for number, line in table:
        if len(line) != len(columns):
            raise ValueError(
                f"'{file}', line {number}: {len(line)} cells under {len(columns)} columns; put a "
                'cell that holds the separator in quotes, as "1,4,12"'
            )
    return [
        (number, dict(zip(columns, map(str.strip, line), strict=True))) for number, line in table
    ], columns


def _check_columns(file: Path, columns: list[str]) -> None:
    """Raise ValueError unless the columns can be told apart; a misspelt one must not be ignored."""
    missing = [column for column in ("path", "label") if column not in columns]
    if missing:
        raise ValueError(
            f"'{file}' has no column {' and no '.join(missing)}; its first line must name the "
            f"columns path,label and, if there, {','.join(COLUMNS[2:])}; it reads: "
            f"{several(columns)}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"'{file}' names a column twice: {', '.join(columns)}")
    for column in set(columns) - set(COLUMNS):
        for close in difflib.get_close_matches(column, set(COLUMNS) - set(columns), 1, 0.6):
            raise ValueError(
                f"'{file}': unknown column '{column}'. Did you mean '{close}'? Known: "
                f"{', '.join(COLUMNS)}"
            )


def _problem(home: Path, cells: Mapping[str, str]) -> str:
    if not cells["path"] or not cells["label"]:
        return f"no {'label' if cells['path'] else 'path'}"
    if cells.get("split") and cells["split"].lower() not in SPLIT_OF:
        return f"unknown split '{cells['split']}'; known: {', '.join(SPLIT_OF)}"
    named = [cells["path"], *_frames(cells)]
    return next(filter(None, (_astray(home, name) for name in named)), "")


def _astray(home: Path, name: str) -> str:
    """What is wrong with the path of an image, if anything."""
    try:
        path = home / name
        is_plain = "\0" not in name and path.name not in ("", "..") and not path.is_symlink()
        inside = _is_inside(path.parent if is_plain else path, home)
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, a loop of links
        return f"{name!r} is no path ({error})"
    if not inside:  # a manifest may come from anybody, and must not pull in other files
        return f"'{name}' leads out of the folder of the manifest: move the image into it"
    return ""


@lru_cache(maxsize=4096)  # many images lie in one folder, and to resolve a path takes long
def _is_inside(path: Path, home: Path) -> bool:
    return path.resolve().is_relative_to(home)


def _frames(cells: Mapping[str, str]) -> list[str]:
    return [name for name in map(str.strip, cells.get("frames", "").split(";")) if name]


def _row(home: Path, cells: Mapping[str, str], label_of: Mapping[str, int]) -> Row:
    return Row(
        id=cells.get("id") or cells["path"],
        path=home / cells["path"],
        label=label_of[cells["label"]],
        split=SPLIT_OF.get(cells.get("split", "").lower()),
        aus=cells.get("aus") or None,
        frames=tuple(home / name for name in _frames(cells)),
        subject=cells.get("subject") or None,
    )
