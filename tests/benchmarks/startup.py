"""Start-up: from a command to its first step, and from one trial to the next on its worker.

    python tests/benchmarks/startup.py [--repeats 5] [--parts help,smoke,ray,reuse] [--cold]

Every command is run --repeats times, in turns with `python -c pass`, `import torch` and stock
`ray.init()`, after one run that is not counted (files in the page cache, images decoded). With
--cold each is first run once with an empty page cache, which takes root.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]
from main_job import Watch, environment, fitted  # noqa: E402
from main_job_table import first_step  # noqa: E402

from trainables.cli import Parser, run_command, whole  # noqa: E402

SEARCH = "run confirm simulate status"
ANALYSIS = "report compare ablate ensemble export predict soup posthoc"
TRAINABLES = "data.faces data.doctor features.landmarks generation pretraining"
COMMANDS = [f"search.{name}" for name in SEARCH.split()]
COMMANDS += [f"analysis.{name}" for name in ANALYSIS.split()]
COMMANDS += [f"trainables.{name}" for name in TRAINABLES.split()] + ["spaces.show"]
PYTHON, TORCH, RAY = "python -c pass", "import torch", "stock ray.init()"
SMOKE_WORDS = "--space smoke --inline --data faces:200 --image-size 32 --trials 4 --epochs 2"
SMOKE, STEP = f"search.run {SMOKE_WORDS}, whole", "search.run --space sprint2, to its first step"
STOCK_RAY = "import ray; ray.init(); print('up', flush=True)"
CACHES = Path("/proc/sys/vm/drop_caches")
PARTS = ("help", "smoke", "ray", "reuse")


@dataclass(frozen=True)
class Case:
    """What is timed, and its aim in seconds."""

    name: str
    words: Sequence[str]
    aim: float | None = None


def cases(parts: Sequence[str]) -> list[Case]:
    python = [sys.executable]
    found = [Case(PYTHON, [*python, "-c", "pass"]), Case(TORCH, [*python, "-c", "import torch"])]
    if "help" in parts:
        found += [Case(f"{name} --help", [*python, "-m", name, "--help"], 0.5) for name in COMMANDS]
    if "smoke" in parts:
        found.append(Case(SMOKE, [*python, "-m", "search.run", *SMOKE_WORDS.split()], 10))
    if "ray" in parts:
        found.append(Case(RAY, [*python, "-c", STOCK_RAY]))
        found.append(Case(STEP, [*python, "-m", "search.run", "--space", "sprint2"], 15))
    return found


def once(case: Case) -> tuple[float, float]:
    """Wall seconds, and seconds of processor (also of Ray's processes that have ended)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        runs = ["--runs", folder, "--name", "run"] if case.name in (SMOKE, STEP) else []
        watch = Watch("", Path(folder) / "run")
        if case.name == STEP:
            seconds = to_first_step(watch, [*case.words, *runs])
        elif case.name == RAY:
            seconds = to_first_line(watch, case.words)
        else:
            subprocess.run([*case.words, *runs], env=environment(), check=True, capture_output=True)
            seconds = watch.seconds
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, spent


def to_first_line(watch: Watch, command: Sequence[str]) -> float:
    """Seconds until a command says something; its end is waited for."""
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline(), f"{command} ended without a word"
    seconds = watch.seconds
    process.communicate()
    return seconds


def to_first_step(watch: Watch, command: Sequence[str]) -> float:
    """Seconds from the command to its first step; it is ended when that has brought a row."""
    said = watch.root.with_name("said.txt")
    with said.open("wb") as file:
        process = subprocess.Popen(command, env=environment(), stdout=file, stderr=file)
    try:
        while not watch.rows:
            if process.poll() is not None:
                raise OSError(f"{command} ended without a row:\n{said.read_text()[-2000:]}")
            time.sleep(0.02)
            watch.look()
    finally:
        process.terminate()
        process.wait()
    return first_step({"rows": watch.rows})


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Min and median of each case, its ratios to the bare ones of the same run."""
    todo = cases(args.parts)
    times: dict[str, list[tuple[float, float]]] = {case.name: [] for case in todo}
    cold: dict[str, float] = {}
    for turn in range(args.repeats + 1):
        for case in todo:
            if args.cold and not turn:
                drop_caches()
                cold[case.name] = once(case)[0]
            took = once(case)
            told = f"{turn} of {args.repeats}: {took[0]:.2f} s, {took[1]:.2f} CPU s: {case.name}"
            print(told, file=sys.stderr, flush=True)
            if turn:  # the first fills the caches
                times[case.name].append(took)
    least = {name: min(wall for wall, _ in found) for name, found in times.items()}
    return [
        {
            "what": case.name,
            "aim": case.aim,
            "min": least[case.name],
            "median": statistics.median(wall for wall, _ in times[case.name]),
            "cpu": min(spent for _, spent in times[case.name]),
            "cold": cold.get(case.name),
            **{f"times {bare}": least[case.name] / least[bare] for bare in (PYTHON, TORCH)},
            f"times {RAY}": least[case.name] / least[RAY] if RAY in least else None,
        }
        for case in todo
    ]


def drop_caches() -> None:
    os.sync()
    try:
        CACHES.write_text("3")
    except OSError as error:
        raise OSError(f"--cold empties the page cache, which takes root ({error})") from error


def measure_reuse(trials: int) -> dict[str, Any]:
    import startup_reuse

    from search.driver import start_ray

    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(ROOT)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = argparse.Namespace(space="sprint2", data="faces:300", trials=trials, epochs=3)
        space, data = fitted(asked, 0, folder)
        start_ray(dashboard=False)
        return startup_reuse.measure(space, data, folder / "reuse", trials, asked.epochs)


def main() -> None:
    args = _parser().parse(sys.argv[1:])
    found: dict[str, Any] = {"date": str(date.today()), "cores": os.cpu_count()}
    found["load before"] = round(os.getloadavg()[0], 1)
    found["repeats"] = args.repeats
    if set(args.parts) - {"reuse"}:
        found["commands"] = measure(args)
        print_commands(found["commands"])
    if "reuse" in args.parts:
        found["next trial on the same worker"] = reuse = measure_reuse(args.trials)
        print_reuse(reuse)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "startup.json").write_text(json.dumps(found, indent=1) + "\n")


def print_commands(rows: Sequence[dict[str, Any]]) -> None:
    print(f"| seconds | min | median | CPU | cold | × pass | × {TORCH} | × {RAY} | aim |")
    print("|--" * 9 + "|")
    for row in rows:
        figures = [row["min"], row["median"], row["cpu"], row["cold"]]
        figures += [row[f"times {bare}"] for bare in (PYTHON, TORCH, RAY)] + [row["aim"]]
        cells = ["" if value is None else f"{value:.2f}" for value in figures]
        print(f"| {row['what']} | {' | '.join(cells)} |")


def print_reuse(kinds: dict[str, Any]) -> None:
    print("\n| next trial, seconds | gaps | min | median | largest | of the median, until asked |")
    print("|--" * 6 + "|")
    for kind, found in kinds.items():
        cells = " | ".join(f"{value:.3f}" for value in list(found.values())[1:])
        print(f"| {kind} | {found['gaps']} | {cells} |")


def _parser() -> Parser:
    p = Parser(prog="python tests/benchmarks/startup.py", description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("--repeats", type=whole(1, 100), default=5, metavar="N")
    p.add_argument("--parts", type=lambda text: text.split(","), default=PARTS, metavar="NAME,…",
                   help="default: help,smoke,ray,reuse")  # fmt: skip
    p.add_argument("--cold", action="store_true", help="also once with an empty page cache")
    p.add_argument("--trials", type=whole(5, 1000), default=24, metavar="N", help="of reuse")
    p.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    return p


if __name__ == "__main__":
    run_command(main)
