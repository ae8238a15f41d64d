"""What the driver costs as a run grows: processor time a trial, memory, and the time of a resume.

python tests/benchmarks/growth.py [--methods random+asha ...] [--sizes 100 1000 10000]

The core with its record in memory (/dev/shm), on a formula and a simulated clock with 8 workers; a
process for each size. `model` is what the sampler spends in its own code: proposals and what it is
told. Then a search is made again from the record, in a further process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent)]

from search.core import Search  # noqa: E402
from search.problems import PROBLEMS  # noqa: E402
from search.proposer import SpaceProposer  # noqa: E402
from search.pruners import PRUNERS  # noqa: E402
from search.samplers import SAMPLERS  # noqa: E402
from search.simulate import Costs, Outcome, simulate  # noqa: E402
from trainables.store import RunStore  # noqa: E402

WORKERS = 8
SIZES = (100, 1000, 10_000)
AFFORDABLE = {"random+asha": 10_000, "tpe+asha": 1000, "mfgp+promotion": 1000}
COLUMNS = (
    "method", "trials", "epochs", "core ms", "model ms", "MiB",
    "resume s", "resume cpu s", "of it model s",
)  # fmt: skip


class Timed:
    """A model that notes the processor time spent in it."""

    def __init__(self, model: Any) -> None:
        self.model, self.seconds = model, 0.0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.model, name)

        def timed(*args: Any) -> Any:
            began = time.process_time()
            try:
                return call(*args)
            finally:
                self.seconds += time.process_time() - began

        return timed


def searched(store: RunStore, method: str, trials: int) -> tuple[Search, Timed, Any]:
    sampler, pruner = method.split("+")
    where = PROBLEMS["cliffs"]()
    model = Timed(SAMPLERS[sampler](where.space, trials, ("score",)))
    rule = PRUNERS[pruner](where.max_epochs, max(1, round(where.max_epochs / 9)), 3)
    search = Search(store, SpaceProposer(where.space, model, 0), rule, trials)
    return search, model, where


def once(method: str, trials: int, root: Path) -> dict[str, float]:
    """One run, or, where its record is there already, one resume."""
    is_new = not (root / "run.json").exists()
    began, cpu = time.monotonic(), time.process_time()
    store = RunStore.create(root, {"name": "growth"}) if is_new else RunStore.open(root)
    search, model, where = searched(store, method, trials)
    if is_new:
        outcome = Outcome(where.name, *method.split("+"), 0, WORKERS)
        simulate(where, search, outcome, float(trials), Costs())
    return {
        "trials": len(search.results),
        "epochs": sum(map(len, search.rows.values())),
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "model": model.seconds,
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def apart(method: str, trials: int, root: Path) -> dict[str, float]:
    """The same in a process of its own, with one thread."""
    command = [sys.executable, __file__, "--once", method, str(trials), str(root)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return found


def row(method: str, trials: int) -> dict[str, Any]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        root = Path(folder) / "run"
        run, resume = apart(method, trials, root), apart(method, trials, root)
    assert run["trials"] == resume["trials"] == trials, (run, resume)
    return {
        "method": method,
        "trials": trials,
        "epochs": run["epochs"],
        "core ms": 1000 * (run["cpu"] - run["model"]) / trials,
        "model ms": 1000 * run["model"] / trials,
        "MiB": run["MiB"],
        "resume s": resume["seconds"],
        "resume cpu s": resume["cpu"],
        "of it model s": resume["model"],
    }


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--methods", nargs="+", default=list(AFFORDABLE))
    p.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    p.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.once:
        method, trials, root = args.once
        print(json.dumps(once(method, int(trials), Path(root))))
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + "--|" * len(COLUMNS))
    rows: dict[str, list[dict[str, Any]]] = {}
    for method in args.methods:
        for trials in (size for size in args.sizes if size <= AFFORDABLE.get(method, size)):
            found = row(method, trials)
            rows.setdefault(method, []).append(found)
            values = [found[name] for name in COLUMNS]
            told = [f"{v:.2f}" if isinstance(v, float) else str(v) for v in values]
            print("| " + " | ".join(told) + " |", flush=True)
    about = {"date": str(date.today()), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    file = HERE / "results" / "growth.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known |= {method: {**about, "rows": rows[method]} for method in rows}
    file.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
