"""What a report costs as a run grows: seconds, memory, the size of its page.

python tests/benchmarks/report_growth.py [--sizes 100 1000 10000] [--keep FOLDER]

Runs are made up (tests/fake_run.py): 921 images of 14 classes, 18 AUs, halving at epochs 3 and 9 as
ASHA does it, a tenth failed, in memory (/dev/shm); each report in a process of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from fake_run import EPOCHS, RUNGS, FakeData, config, make_meta, predictions, skill_of  # noqa: E402

from trainables import metrics  # noqa: E402
from trainables.store import RunStore, TrialResult  # noqa: E402

SIZES = (100, 1000, 10_000)
COLUMNS = ("trials", "seconds", "processor s", "MiB", "page MB")


def make(root: Path, trials: int, data: FakeData) -> RunStore:
    """A run of that many trials, written without the safety that a search needs."""
    run = RunStore.create(root, make_meta(data, trials))
    rng = np.random.default_rng(0)
    for number in range(trials):
        settings = config(number, rng)
        role = {0: "baseline", 1: "default"}.get(number, "proposed")
        epochs = EPOCHS if number < 2 or number % 9 == 0 else RUNGS[number % 3 == 0]
        trial = run.trial(settings.trial_id)
        trial.path.mkdir()
        skill, fairness = skill_of(settings)
        said = predictions(data, skill * (0.6 + 0.4 * epochs / EPOCHS), fairness, rng)
        trial.save_predictions("val", said)
        row = metrics.scores(said.labels, said.probs)
        rows = [
            {"epoch": e, **row, "score": row["score"] * min(1.0, 0.5 + 0.5 * e / epochs),
             "au_f1": 0.4, "train_loss": 1.0, "lr": settings.lr, "seconds": 4.0}
            for e in range(1, epochs + 1)
        ]  # fmt: skip
        rows[-1] |= {"latency_ms": 2.0 + number % 7, "parameters": 1e6} if epochs == EPOCHS else {}
        text = "".join(json.dumps(r) + "\n" for r in rows)
        (trial.path / "history.jsonl").write_text(text)
        status = "completed" if epochs == EPOCHS else "stopped"
        error = "RuntimeError: loss is nan at epoch 2" if number % 10 == 7 else ""
        result = TrialResult(
            "failed" if error else status, rows[-1], epochs, 4.0 * epochs, 0, error
        )  # type: ignore[arg-type]  # a str
        (trial.path / "result.json").write_text(json.dumps(asdict(result)))
        head = {"index": number, "role": role, "config": settings.flat()}
        (trial.path / "config.json").write_text(json.dumps(head))
    return run


def once(root: Path) -> dict[str, float]:
    """A report, timed from the first import."""
    began = time.monotonic()
    from analysis.report import write_report

    page = write_report(RunStore.open(root))
    return {
        "seconds": time.monotonic() - began,
        "processor s": time.process_time(),
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "page MB": page.stat().st_size / 1e6,
    }


def row(trials: int, keep: Path | None) -> dict[str, float]:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        root = (keep or Path(folder)) / f"run{trials}"
        if not root.exists():
            make(root, trials, FakeData())
        command = [sys.executable, __file__, "--once", str(root)]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
        return {"trials": trials, **found}


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    p.add_argument("--keep", type=Path, help="make the runs here, or take those that are there")
    p.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.once:
        print(json.dumps(once(args.once)))
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + "--|" * len(COLUMNS), flush=True)
    rows = []
    for size in args.sizes:
        rows.append(row(size, args.keep))
        print("| " + " | ".join(f"{rows[-1][c]:.4g}" for c in COLUMNS) + " |", flush=True)
    about = {"date": str(date.today()), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    file = HERE / "results" / "report_growth.json"
    file.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
