"""Look at a data set before it costs a GPU hour.

    python -m trainables.data.doctor PATH|faces:N [--json]

Exit code 0: sound. 1: something would stop a run. 2: this is no data set.
"""

import json
from collections.abc import Sequence

from rich import markup
from rich.console import Console
from rich.table import Table

from trainables.bars import bars
from trainables.cli import Parser, run_command
from trainables.data.diagnosis import AuFacts, Diagnosis, FileFacts, diagnose
from trainables.data.listing import SPLITS, several

_MOST_SIZES = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is found; 0 if it is sound, else 1. Raises ValueError for what is no data set."""
    parser = Parser(
        prog="python -m trainables.data.doctor",
        description="Look at a data set before it costs a GPU hour.",
        epilog="Exit code 0: sound; 1: something would stop a run; 2: this is no data set.",
    )
    parser.add_argument("source", help="a folder, a manifest, or faces[:N[:DIFFICULTY]]")
    parser.add_argument("--json", action="store_true", help="print everything found as JSON")
    given = parser.parse(arguments)
    found = _examine(given.source)
    if given.json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        show(found, Console())
    return 0 if found.is_sound else 1


def _examine(source: str) -> Diagnosis:
    with bars(Console(stderr=True), is_transient=True) as tell:
        return diagnose(source, tell)


def show(found: Diagnosis, console: Console) -> None:
    """Tables of what was found; what is wrong comes last, where it is seen."""
    console.print(f"[bold]{escape(found.name)}[/]: {escape(found.layout)}, {found.images} images")
    for note in found.notes:
        console.print(escape(note))
    console.print(_class_table(found))
    console.print(f"Majority share: {found.majority_share:.1%} of train (what guessing scores)")
    if not all(found.is_official.values()):
        console.print("* The data set does not say: split made here, class by class")
    if found.aus is not None:
        console.print(_au_table(found.aus))
        console.print(escape(_au_line(found.aus)))
    for line in _file_lines(found.files):
        console.print(escape(line))
    for warning in found.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}")
    for problem in found.problems:
        console.print(f"[red]problem[/] {escape(problem)}")
    if found.is_sound:
        console.print("[green]sound[/]: a run can start")
    else:
        console.print(f"[red]{len(found.problems)} problems[/] would stop a run: see above")


def escape(text: str) -> str:
    """The text as it can be printed, whatever bytes a file name holds."""
    return markup.escape(text.encode("utf-8", "backslashreplace").decode())


def _class_table(found: Diagnosis) -> Table:
    table = Table("class", title="Classes", title_justify="left")
    for split in SPLITS:
        table.add_column(split if found.is_official[split] else f"{split}*", justify="right")
    table.add_column("all", justify="right")
    for name, counts in found.classes.items():
        table.add_row(escape(name), *_cells(counts))
    table.add_section()
    table.add_row("images", *_cells(found.splits))
    return table


def _au_table(coded: AuFacts) -> Table:
    table = Table("AU", title="Images per action unit", title_justify="left")
    for split in (*SPLITS, "all"):
        table.add_column(split, justify="right")
    table.add_column("learned")
    for name, counts in coded.support.items():
        table.add_row(name, *_cells(counts), "yes" if name in coded.vocabulary else "too rare")
    return table


def _cells(counts: dict[str, int]) -> list[str]:
    return [*(str(counts[split]) for split in SPLITS), str(sum(counts.values()))]


def _au_line(coded: AuFacts) -> str:
    line = (
        f"AU lines: {coded.labelled}, of them null {coded.nulls} "
        f"({coded.nulls / coded.labelled:.1%}); images without a line: {coded.unlabelled}"
    )
    unknown = [f"'{token}' ({n})" for token, n in coded.unknown.items()]
    return line + (f"; unknown tokens: {several(unknown)}" if unknown else "")


def _file_lines(facts: FileFacts) -> list[str]:
    if not (facts.sizes or facts.missing or facts.unreadable):
        return []  # the embedded faces are no files
    sizes = [f"{size} ({n})" for size, n in list(facts.sizes.items())[:_MOST_SIZES]]
    more = len(facts.sizes) - _MOST_SIZES
    return [
        f"Image sizes: {', '.join(sizes)}" + (f" and {more} more" if more > 0 else ""),
        f"Missing {len(facts.missing)}, unreadable {len(facts.unreadable)}, equal pairs "
        f"{len(facts.exact_duplicates)}, pairs that look alike {len(facts.near_duplicates)}, "
        f"across official splits {len(facts.leaks) + len(facts.near_leaks)}, "
        f"contradictory labels {len(facts.contradictions)}",
    ]


if __name__ == "__main__":
    run_command(main)
