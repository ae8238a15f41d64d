"""python -m spaces.show SPACE: what a space holds, as a table or as JSON.

Imports nothing but the standard library and, to print a table, rich.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spaces.anchors import on_each_network
from spaces.catalog import NAMES, find
from spaces.space import Choice, Dimension, IntRange, Space, Value, is_log
from spaces.tiers import TIERS, at_tier

PARTS = re.compile(r"[_.\-/](?=.)")  # a name may be broken after one


class Parser(argparse.ArgumentParser):
    """An argument parser that says one line of what is wrong, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n({self.prog} --help explains)\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the space asked for. Raises LookupError or ValueError where there is none."""
    parser = Parser(prog="python -m spaces.show", description="What a space holds.")
    parser.add_argument("space", help=f"{', '.join(NAMES)}, or a .py file that defines SPACE")
    parser.add_argument("--tier", choices=list(TIERS), help="with that tier's networks and sizes")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    args = parser.parse_args(arguments)
    space = find(args.space)
    if args.tier:
        space = at_tier(space, TIERS[args.tier])
    if args.json:
        print(json.dumps(as_json(space), indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(space_table(space, console.width))
    if (first := anchor_table(space)).row_count:
        console.print()
        console.print(first)


def as_json(space: Space) -> dict[str, object]:
    """All that the space says, as plain data."""
    settings = [{"name": name, **_row(space, name)} for name in space.settings]
    return {"space": space.name, "settings": settings, "anchors": space.anchors}


def _row(space: Space, name: str) -> dict[str, object]:
    dim = space.settings[name]
    if not isinstance(dim, Dimension):
        return {"kind": "fixed", "default": dim}
    held: dict[str, object] = (
        {"options": dim.options}
        if isinstance(dim, Choice)
        else {"low": dim.low, "high": dim.high, "log": is_log(dim)}
    )
    more: dict[str, object] = {"confidence": dim.confidence} if dim.confidence else {}
    if isinstance(dim, Choice) and dim.needs:
        more["needs"] = dim.needs
    return {"kind": kind(dim), **held, "default": dim.default, "when": dim.when, **more}


def space_table(space: Space, width: int = 80) -> Table:
    """Every setting with its values, its default and when it applies, in that many columns."""
    table = Table(title=Text(f"space {space.name}"), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    rows = [_cells(space, name) for name in space.settings]
    more = max(0, width - 80) // 3
    setting, choices = (min(n, _longest(row[k] for row in rows)) for k, n in ((0, 22), (2, 22)))
    rest = 57 - setting - choices  # whatever names and values leave is for the conditions
    widths = (setting, 6, choices + more, 13 + more, rest + more)
    for name, own in zip(("setting", "kind", "values", "default", "when"), widths, strict=True):
        table.add_column(name, width=own, overflow="fold")
    for row in rows:
        table.add_row(*map(breakable, row, widths))
    return table


def _cells(space: Space, name: str) -> tuple[str, ...]:
    dim = space.settings[name]
    if not isinstance(dim, Dimension):
        return name, "fixed", "", short(dim), ""
    return name, kind(dim), values(dim), short(dim.default), "; ".join(conditions(space, dim))


def _longest(texts: Iterable[str]) -> int:
    """Letters of the longest word, and of the head of a column at least."""
    return max(7, 0, *(len(word) for text in texts for word in text.split()))


def breakable(text: str, width: int) -> str:
    """The text with every word that a column is too narrow for broken where its parts end."""
    words = []
    for word in text.split(" "):
        while len(word) > width and (ends := [m.end() for m in PARTS.finditer(word[:width])]):
            words.append(word[: ends[-1]])
            word = word[ends[-1] :]
        words.append(word)
    return " ".join(words)


def anchor_table(space: Space) -> Table:
    """What comes first, and where each leaves the defaults."""
    table = Table(title=Text("tried first"), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("anchor", overflow="fold")
    table.add_column("beside the defaults", overflow="fold")
    networks = {
        name: {"backbone": flat["backbone"]} for name, flat in on_each_network(space).items()
    }
    for name, wanted in {**networks, **space.anchors}.items():
        table.add_row(Text(name), ", ".join(f"{n} {short(value)}" for n, value in wanted.items()))
    return table


def kind(dim: Dimension) -> str:
    """What sort of values a dimension has: one of some, whole or real numbers, on which scale."""
    if isinstance(dim, Choice):
        return "choice"
    if isinstance(dim, IntRange):
        return "int log" if is_log(dim) else "int"
    return "log" if is_log(dim) else "real"


def values(dim: Dimension) -> str:
    if isinstance(dim, Choice):
        return ", ".join(map(short, dim.options))
    return f"{dim.low:g} … {dim.high:g}"


def conditions(space: Space, dim: Dimension) -> Iterator[str]:
    """When a dimension exists, and each option of it that goes with certain settings only."""
    yield from (condition(space, other, v) for other, v in dim.when.items())
    for option, when in dim.needs.items() if isinstance(dim, Choice) else ():
        yield f"{short(option)} if " + ", ".join(condition(space, o, v) for o, v in when.items())


def condition(space: Space, name: str, wanted: tuple[Value, ...]) -> str:
    """When a setting has one of the values wanted, in few words."""
    dim = space.settings.get(name)
    options = dim.options if isinstance(dim, Choice) else ()
    possible = [v for v in wanted if not options or v in options]
    rest = [v for v in options if v not in wanted]
    if rest == ["none"] and len(possible) > 1:
        return f"{name} is set"
    if 0 < len(rest) < len(possible) and "none" not in rest:
        return f"{name} is not {' or '.join(map(short, rest))}"
    return f"{name} is {' or '.join(map(short, possible))}"


def short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    try:
        main()
    except (LookupError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
