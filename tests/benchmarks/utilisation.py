"""The share of 8 logical workers' time in which they train, over a run of 200 short trials.

python tests/benchmarks/utilisation.py [--trials 200] [--pace 1.0]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
import utilisation  # noqa: E402  # this module under the name by which workers find it
from toy import run_toy, start  # noqa: E402

from search.driver import Resources, run_ray, start_ray  # noqa: E402
from trainables.store import Row, TrialStore  # noqa: E402

WORKERS = 8


def sleeping(store: TrialStore, data: Path) -> Iterator[Row]:
    """A toy trial whose epochs sleep, as if a GPU trained; notes when each began and ended."""
    pace = float((data / "pace").read_text())
    rows = run_toy(store, data)
    while True:
        began = time.time()
        time.sleep(pace)
        row = next(rows, None)
        if row is None:
            return
        with (store.path / "spans").open("a") as file:
            file.write(f"{began} {time.time()}\n")
        yield row


def spans(root: Path) -> list[tuple[float, float]]:
    lines = [line for file in root.glob("trials/*/spans") for line in file.open()]
    return sorted((float(a), float(b)) for a, b in map(str.split, lines))


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--trials", type=int, default=200)
    p.add_argument("--pace", type=float, default=1.0, help="seconds of an epoch")
    args = p.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent)))
    start_ray(cpus=WORKERS, gpus=0, dashboard=False)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "pace").write_text(str(args.pace))
        search = start(root / "run", budget=args.trials)
        called = time.time()
        assert run_ray(search, root, utilisation.sleeping, Resources())
        done = spans(root / "run")
    first, last = done[0][0], max(end for _, end in done)
    busy = sum(end - began for began, end in done)
    drained = sorted(end for _, end in done)[-WORKERS]  # from here on workers run out of trials
    steady = sum(max(0.0, min(end, drained) - began) for began, end in done if began < drained)
    found = {
        "date": str(date.today()),
        "cores": os.cpu_count(),
        "trials": len(search.results),
        "seconds of an epoch": args.pace,
        "epochs": len(done),
        "busy, first epoch to last": busy / (WORKERS * (last - first)),
        "busy, until the last trials end": steady / (WORKERS * (drained - first)),
        "busy, with the start of the workers": busy / (WORKERS * (last - called)),
        "seconds": last - called,
    }
    for key, value in found.items():
        print(f"| {key} | {value:.3f} |" if isinstance(value, float) else f"| {key} | {value} |")
    (HERE / "results" / "utilisation.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
