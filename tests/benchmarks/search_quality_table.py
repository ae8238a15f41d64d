"""Runs on record -> means, standard errors and ranks, as data and as Markdown.

A group is one kind of problem, number of workers, budget and first rung: what may be compared.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from statistics import fmean, stdev
from typing import Any, NamedTuple

Record = dict[str, Any]  # one finished run
Cells = dict[str, dict[int, Record]]  # problem -> seed -> run


class Group(NamedTuple):
    """What makes runs comparable."""

    kind: str
    workers: int
    budget: float
    first_rung: int


def kind_of(problem: str) -> str:
    return problem.partition(":")[0]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; of fewer than two values the error is NaN."""
    if not values:
        return nan, nan
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else nan


def mean_ranks(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The rank to expect of each method, 1 for the lowest, if every one is run under some seed.

    Over all pairs of seeds, so methods may have different numbers of them; ties are shared.
    """
    return {
        name: 1 + sum(_share_below(values[other], own) for other in values if other != name)
        for name, own in values.items()
    }


def _share_below(some: Sequence[float], others: Sequence[float]) -> float:
    """How often one of some is below one of the others; a tie counts half."""
    return fmean((a < b) + 0.5 * (a == b) for a in some for b in others)


def grouped(records: Iterable[Record]) -> dict[Group, dict[str, Cells]]:
    """Of each group and method, the runs of its newest version; the latest of each run counts."""
    versions: dict[tuple[Group, str], str] = {}
    listed = list(records)
    for r in listed:
        versions[_group(r), r["method"]] = r["version"]
    found: dict[Group, dict[str, Cells]] = {}
    for r in listed:
        if r["version"] == versions[_group(r), r["method"]]:
            methods = found.setdefault(_group(r), {})
            methods.setdefault(r["method"], {}).setdefault(r["problem"], {})[r["seed"]] = r
    return {group: found[group] for group in sorted(found)}


def _group(r: Record) -> Group:
    return Group(kind_of(r["problem"]), r["workers"], r["budget"], r["first_rung"])


def summary(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A table of each group, its methods from best to worst at the last mark."""
    return [_table(group, methods) for group, methods in grouped(records).items()]


def _table(group: Group, methods: dict[str, Cells]) -> dict[str, Any]:
    problems = sorted({problem for cells in methods.values() for problem in cells})
    whole = {m: cells for m, cells in methods.items() if _seeds(cells, problems)}
    marks = sorted({int(k) for r in _runs(whole) for k in r["regret"]})
    ranks = {mark: _ranks(whole, problems, mark) for mark in marks}
    rows = [_row(m, whole[m], problems, marks) for m in whole]
    for row in rows:
        row["rank"] = {str(mark): round(ranks[mark][row["method"]], 3) for mark in marks}
    last = str(marks[-1]) if marks else ""
    rows.sort(key=lambda row: (row["mean"].get(last, nan), row["method"]))
    partial = {m: sorted(cells) for m, cells in methods.items() if m not in whole}
    return {**group._asdict(), "problems": problems, "marks": marks, "methods": rows,
            "partial": partial}  # fmt: skip


def _seeds(cells: Cells, problems: Sequence[str]) -> list[int]:
    """The seeds that were run on every problem."""
    return sorted(set.intersection(*(set(cells.get(problem, ())) for problem in problems)))


def _runs(methods: Mapping[str, Cells]) -> list[Record]:
    return [r for cells in methods.values() for seeds in cells.values() for r in seeds.values()]


def _ranks(methods: Mapping[str, Cells], problems: Sequence[str], mark: int) -> dict[str, float]:
    """Mean over the problems of the rank to expect."""
    ranks = defaultdict(list)
    for problem in problems:
        values = {
            m: [cells[problem][seed]["regret"][str(mark)] for seed in _seeds(cells, problems)]
            for m, cells in methods.items()
        }
        for method, rank in mean_ranks(values).items():
            ranks[method].append(rank)
    return {method: fmean(values) for method, values in ranks.items()}


def _row(method: str, cells: Cells, problems: Sequence[str], marks: Sequence[int]) -> Record:
    seeds = _seeds(cells, problems)
    runs = [cells[problem][seed] for problem in problems for seed in seeds]
    means, errors, by_problem = {}, {}, {}
    for mark in map(str, marks):
        by_seed = [fmean(cells[p][seed]["regret"][mark] for p in problems) for seed in seeds]
        means[mark], errors[mark] = (round(v, 3) for v in mean_and_error(by_seed))
        by_problem[mark] = {
            p: round(fmean(cells[p][seed]["regret"][mark] for seed in seeds), 3) for p in problems
        }
    return {
        "method": method,
        "version": runs[0]["version"],
        "seeds": len(seeds),
        "n": len(runs),
        "mean": means,
        "error": {m: None if e != e else e for m, e in errors.items()},  # JSON knows no NaN
        "problem_means": by_problem,
        "trials": round(fmean(r["trials"] for r in runs), 1),
        "cpu_seconds": round(fmean(r["cpu_seconds"] for r in runs), 2),
    }


def markdown(tables: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """The tables for people, then a line for everything that is not in them."""
    parts = [_markdown(table) for table in tables] or ["nothing is on record yet\n"]
    lines = [f"- {note}" for note in notes]
    return "\n".join([*parts, *lines])


def _markdown(table: Mapping[str, Any]) -> str:
    marks, count = [str(m) for m in table["marks"]], len(table["problems"])
    title = table["kind"] if count == 1 else f"{table['kind']}, {count} problems"
    workers = "1 worker" if table["workers"] == 1 else f"{table['workers']} workers"
    last = marks[-1] if marks else ""
    heads = ["method", "seeds", *marks, f"rank at {last}", "trials", "CPU seconds a run"]
    lines = [
        f"**{title}, {workers}**: regret % after as many full trainings, mean ± standard error "
        f"over seeds; first rung at epoch {table['first_rung']}",
        "",
        "| " + " | ".join(heads) + " |",
        "|--" * len(heads) + "|",
    ]
    for row in table["methods"]:
        values = [_value(row["mean"][m], row["error"][m]) for m in marks]
        rest = [f"{row['rank'][last]:.2f}", f"{row['trials']:.0f}", f"{row['cpu_seconds']:.1f}"]
        lines.append("| " + " | ".join([_label(row), str(row["seeds"]), *values, *rest]) + " |")
    for method, problems in table["partial"].items():
        lines += ["", f"{method}: no seed on all {count} problems yet (of {len(problems)} some)"]
    return "\n".join(lines) + "\n"


def _label(row: Record) -> str:
    """The method; for `auto` also what it stood for, which is the first word of its version."""
    own = row["method"]
    return f"{own} (then {row['version'].partition(' ')[0]})" if own == "auto" else own


def _value(mean: float, error: float | None) -> str:
    return f"{mean:.1f}" if error is None else f"{mean:.1f} ± {error:.1f}"
