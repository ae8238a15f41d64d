"""Seconds until a trial of two ranks (CPU, gloo) has its first row: on a new gang, on one reused.

python tests/benchmarks/gang_start.py [--trials 13]

Of the first trial: from the call on. Of the others: from the last row of the trial before it, which
is when the gang is free; the core has handed the next one out by then. Toy trials of 9 epochs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
import gang_start  # noqa: E402  # this module under the name by which workers find it
from gangs import run_shared  # noqa: E402
from toy import start  # noqa: E402

from search.driver import Resources, run_ray, start_ray  # noqa: E402
from trainables.ranks import here  # noqa: E402
from trainables.store import Row, TrialStore  # noqa: E402


def noted(store: TrialStore, data: Path) -> Iterator[Row]:
    """A trial whose every epoch needs both ranks; the first notes when each row is there."""
    for row in run_shared(store, data):
        if here().is_first:
            with (store.path / "times").open("a") as file:
                file.write(f"{time.time()}\n")
        yield row


def measure(trials: int, root: Path) -> dict[str, object]:
    search = start(root, budget=trials, pruner="none")
    called = time.time()
    assert run_ray(search, root, gang_start.noted, Resources(ranks=2))
    files = root.glob("trials/*/times")
    spans = sorted([float(line) for line in file.open()] for file in files)
    gangs = {row["pids"] for record in search.store.records() for row in record.history}
    assert len(spans) == trials
    assert len(gangs) == 1, gangs
    gaps = [after[0] - before[-1] for before, after in zip(spans, spans[1:], strict=False)]
    return {
        "date": str(date.today()),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "trials on the reused gang": len(gaps),
        "seconds, new gang": spans[0][0] - called,
        "seconds, reused: median": statistics.median(gaps),
        "seconds, reused: largest": max(gaps),
    }


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--trials", type=int, default=13)
    trials = p.parse_args().trials
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent)))
    start_ray(cpus=2, gpus=0, dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(trials, Path(folder))
    for key, value in found.items():
        print(f"| {key} | {value:.3f} |" if isinstance(value, float) else f"| {key} | {value} |")
    (HERE / "results" / "gang_start.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
