"""The crash table: a run whose driver is killed 20 times.

python tests/benchmarks/crash.py [--kills 20] [--trials 110]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from test_cluster import nodes_here  # noqa: E402
from test_crash import faults, kill_often, living_workers, rows_on_record, wait_for  # noqa: E402


def measure(kills: int, trials: int, pace: float) -> dict[str, object]:
    os.environ["PYTHONPATH"] = str(HERE.parent)  # for the workers
    began = time.monotonic()
    with nodes_here(num_cpus=2) as cluster, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        left = kill_often(root, cluster.address, kills, trials, pace)
        wait_for(lambda: not living_workers(root))
        return {
            "date": str(date.today()),
            "kills": len(left),
            **Counter(f"killed during {state['during']}" for state in left),
            "trials": trials,
            "epochs": sum(map(len, rows_on_record(root).values())),
            "attempts": sum(int(p.read_text()) for p in root.glob("trials/*/attempt")),
            "aborted resumes": 0,  # kill_often raises at the first
            "workers left behind": len(living_workers(root)),
            **faults(root, left, trials),
            "seconds": round(time.monotonic() - began),
        }


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--trials", type=int, default=110)
    p.add_argument("--pace", type=float, default=0.2)
    args = p.parse_args()
    table = measure(args.kills, args.trials, args.pace)
    for name, value in table.items():
        print(f"| {name} | {value} |")
    (HERE / "results" / "crash.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
