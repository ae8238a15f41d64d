"""What things cost as a run grows, and by which power of its size: nothing worse than n log n.

python tests/benchmarks/growth.py [--only WORDS ...] [--most 10000] [--results FOLDER]

Over trials (10 to 10,000), classes (7 to 1,000) and models to make an ensemble of (10 to 5,000):
processor time on one thread, the least of some repeats. The exponent is the slope of log(cost)
against log(size), with its interval of 95 %; a step (a decision, a row) counts as often as there
are trials. Writes growth.json and growth.svg, which also shows what `data.py growth` has found by
images (by the clock).
"""

import argparse
import json
import math
import os
import sys
import tempfile
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import numpy as np  # noqa: E402
from growth_cases import Case, cases  # noqa: E402
from scipy.stats import t as student  # noqa: E402

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#888888")


def exponent(sizes: list[int], costs: list[float]) -> tuple[float, float]:
    """The slope in logarithms, and half of its interval."""
    x, y = np.log(sizes), np.log(costs)
    slope, cut = np.polyfit(x, y, 1)
    if len(x) < 3:
        return float(slope), math.inf
    rest = y - slope * x - cut
    error = math.sqrt((rest**2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    return float(slope), float(student.ppf(0.975, len(x) - 2) * error)


def measure(case: Case, most: int, folder: Path) -> dict[str, Any]:
    """Its cost at each size, and the exponents: of all sizes, of the last two, of n log n there."""
    sizes = [size for size in case.sizes if size <= most]
    costs = []
    for size in sizes:
        run = case.make(size, folder)
        costs.append(min(run() for _ in range(case.repeats)))
    found: dict[str, Any] = {"axis": case.axis, "name": case.name, "sizes": sizes, "seconds": costs}
    if len(sizes) > 1:
        totals = [c * (s if case.is_each else 1) for s, c in zip(sizes, costs, strict=True)]
        limit = exponent(sizes, [s * math.log(s) for s in sizes])[0]
        slope, half = exponent(sizes, totals)
        last = exponent(sizes[-2:], totals[-2:])[0]
        found |= {"exponent": slope, "half": half, "last": last, "n log n": limit}
    return found


def line(found: dict[str, Any]) -> str:
    shown = ", ".join(
        f"{size:,}: {1000 * cost:,.3g}"
        for size, cost in zip(found["sizes"], found["seconds"], strict=True)
    )
    powers = ""
    if "exponent" in found:
        powers = f"{found['exponent']:.2f} ± {found['half']:.2f} | {found['last']:.2f} | "
        powers += f"{found['n log n']:.2f}"
    return f"| {found['axis']} | {found['name']} | {shown} | {powers} |"


def with_others(path: Path, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is found now, and what is on record of other cases, in their order."""
    before = json.loads(path.read_text())["cases"] if path.exists() else []
    return list({(case["axis"], case["name"]): case for case in [*before, *found]}.values())


def by_images(path: Path) -> list[dict[str, Any]]:
    """What data.py has found, as cases."""
    if not path.exists():
        return []
    cases = []
    for row in json.loads(path.read_text()).get("growth", {}).get("rows", []):
        seconds = {int(k.replace(",", "")): v for k, v in row.items() if k[0].isdigit()}
        sizes, costs = list(seconds), list(seconds.values())
        slope, half = exponent(sizes, costs)
        shown = {"sizes": sizes, "seconds": costs, "exponent": slope, "half": half}
        cases.append({"axis": "images", "name": row["step"], **shown})
    return cases


def plot(found: list[dict[str, Any]]) -> str:
    """Cost against size, both logarithmic, a panel an axis; dotted: n log n. As SVG."""
    panels = list(dict.fromkeys(f["axis"] for f in found))
    height = 270 + 13 * max(sum(f["axis"] == axis for f in found) for axis in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{330 * len(panels)}" height="{height}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, axis in enumerate(panels):
        parts += panel(axis, [f for f in found if f["axis"] == axis], 330 * number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(axis: str, lines: list[dict[str, Any]], left: int) -> list[str]:
    sizes = [size for one in lines for size in one["sizes"]]
    costs = [cost for one in lines for cost in one["seconds"]]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    start, end = math.log10(min(sizes)), math.log10(max(sizes))

    def at(size: float, cost: float) -> tuple[float, float]:
        x = left + 45 + 265 * (math.log10(size) - start) / max(end - start, 1e-9)
        return x, 230 - 200 * (math.log10(cost) - low) / max(high - low, 1)

    def path(points: list[tuple[float, float]], look: str) -> str:
        return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" {look}/>'

    out = [f'<text x="{left + 45}" y="18" font-size="12">seconds by {escape(axis)}</text>']
    for power in range(low, high + 1):
        x, y = at(min(sizes), 10.0**power)
        out.append(path([(x, y), (x + 265, y)], 'stroke="#ddd" fill="none"'))
        out.append(f'<text x="{x - 5:.0f}" y="{y + 3:.0f}" text-anchor="end">1e{power}</text>')
    for size in sorted({min(sizes), *(10**p for p in range(9)), max(sizes)}):
        if min(sizes) <= size <= max(sizes):
            x, y = at(size, 10.0**low)
            out.append(f'<text x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle">{size:,}</text>')
    for number, one in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        dash = ' stroke-dasharray="4 2"' * (number >= len(COLOURS))
        points = [at(*point) for point in zip(one["sizes"], one["seconds"], strict=True)]
        out.append(path(points, f'stroke="{colour}" fill="none" stroke-width="1.5"{dash}'))
        told = escape(one["name"])
        if "exponent" in one:
            told += f": {one['exponent']:.2f} ± {one['half']:.2f}"
        y = 262 + 13 * number
        out.append(f'<text x="{left + 45}" y="{y}" fill="{colour}">{told}</text>')
    return out


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--only", nargs="+", default=[""], help="cases whose axis or name has one")
    p.add_argument("--most", type=int, default=10_000, help="the largest size")
    p.add_argument("--results", type=Path, default=HERE / "results")
    args = p.parse_args()
    memory, found = Path("/dev/shm"), list[dict[str, Any]]()
    print("| by | what | ms at a size | exponent | of the last step | n log n |")
    print("|" + "--|" * 6, flush=True)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for case in cases():
            if any(word in f"{case.axis} {case.name}" for word in args.only):
                found.append(measure(case, args.most, Path(folder)))
                print(line(found[-1]), flush=True)
    about = {"date": str(date.today()), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    args.results.mkdir(parents=True, exist_ok=True)
    kept = with_others(args.results / "growth.json", [{**case, **about} for case in found])
    (args.results / "growth.json").write_text(json.dumps({"cases": kept}, indent=1) + "\n")
    (args.results / "growth.svg").write_text(plot([*kept, *by_images(args.results / "data.json")]))


if __name__ == "__main__":
    main()
