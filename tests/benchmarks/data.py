"""What the data cost: building the cache, opening it, sharing it, streaming from it, growth.

python tests/benchmarks/data.py [PART ...] [--quick] [--sizes 1000 10000 100000 300000]

Parts: build, open, share, stream, growth; all of them by default. `--quick` shows in a minute that
the script works; its figures say nothing. Files go to --folder and away again.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
Row = dict[str, Any]


def build(folder: Path, args: argparse.Namespace) -> list[Row]:
    import data_build

    cases = (
        [(200, 96, 64)] if args.quick else [(20_000, 96, 64), (6000, 224, 112), (4000, 224, 224)]
    )
    files = [data_build.decoding(folder, *case, args.repeats) for case in cases]
    return [*files, data_build.rendering(200 if args.quick else 2000, args.repeats)]


def open_(folder: Path, args: argparse.Namespace) -> list[Row]:
    import data_build

    return [data_build.opening(folder, n) for n in ([300] if args.quick else [2000, 300_000])]


def share(folder: Path, args: argparse.Namespace) -> list[Row]:
    import data_share

    return data_share.measure(folder, 600 if args.quick else 20_000, 3 if args.quick else 10)


def stream(folder: Path, args: argparse.Namespace) -> list[Row]:
    import data_stream

    return data_stream.measure(folder, 600 if args.quick else 40_000, args.repeats)


def growth(folder: Path, args: argparse.Namespace) -> list[Row]:
    import data_growth

    return data_growth.measure(folder, [300, 600] if args.quick else args.sizes)


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[Row]]] = {
    "build": build, "open": open_, "share": share, "stream": stream, "growth": growth,
}  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown; the rows have the same columns, or a new head is begun."""
    lines: list[str] = []
    head: list[str] = []
    for row in rows:
        if list(row) != head:
            head = list(row)
            lines += ["", "| " + " | ".join(head) + " |", "|" + "--|" * len(head)]
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    p.add_argument("--quick", action="store_true", help="tiny sizes")
    p.add_argument("--repeats", type=int, default=3, help="of each measurement; the best counts")
    p.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000, 300_000])
    p.add_argument("--folder", type=Path, help="where files may lie for a while (some 10 GB)")
    p.add_argument("--results", type=Path, default=HERE / "results" / "data.json")
    args = p.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        p.error(f"unknown part '{unknown[0]}'; known: {', '.join(PARTS)}")
    known = json.loads(args.results.read_text()) if args.results.exists() else {}
    folder = Path(tempfile.mkdtemp(prefix="data-benchmark-", dir=args.folder))
    try:
        for part in args.parts or PARTS:
            about = {"date": str(date.today()), "cores": os.cpu_count(), "is_quick": args.quick}
            about["load"] = round(os.getloadavg()[0], 1)
            rows = PARTS[part](folder, args)
            print(f"\n## {part}\n{table(rows)}", flush=True)
            known[part] = {**about, "rows": rows}
            args.results.parent.mkdir(parents=True, exist_ok=True)
            args.results.write_text(json.dumps(known, indent=1) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
