"""What it takes to store an epoch, by the size of the network.

python tests/benchmarks/storing.py [--backbones …] [--folder FOLDER] [--repeats N]

"whole": the state is written when the images are scored already, as at a trial's last epoch.
"beside": it is written while they are scored, as at all others; what is left to wait for then.
Seconds by the clock, median of the epochs from the third on (from there a state is replaced).
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from datetime import date
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent)]

from trainables.checkpoint import Keeper  # noqa: E402
from trainables.config import TrialConfig  # noqa: E402
from trainables.data import cache  # noqa: E402
from trainables.store import RunStore  # noqa: E402
from trainables.trial import Training  # noqa: E402

SIZE = 48


def measure(name: str, folder: Path, repeats: int) -> dict[str, object]:
    bundle = cache.load(cache.prepare("faces:300:easy", SIZE))
    flat = {"backbone": name, "image_size": SIZE, "batch_size": 16, "epochs": 2 * repeats + 5}
    run = RunStore.create(folder / name, {})
    trial = run.create_trial(TrialConfig.from_flat(flat), 0)
    store = run.trial(trial, run.hand_out(trial))
    training = Training(store.config(), bundle)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with closing(Keeper(training, store)) as keeper:
        for epoch in range(2 * repeats + 4):
            is_beside = epoch % 2 == 1
            row = training.run_epoch(keeper.begin) if is_beside else training.run_epoch()
            began = time.perf_counter()
            keeper.save(row)
            seconds[is_beside].append(time.perf_counter() - began)
    size = (store.path / "last.pt").stat().st_size
    whole, beside = (round(median(seconds[key][2:]), 3) for key in (False, True))
    return {"backbone": name, "MiB": round(size / 2**20), "whole": whole, "beside": beside}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--backbones", nargs="+", default=("test_resnet", "resnet18", "resnet50"))
    p.add_argument("--folder", type=Path, help="on the disk to measure")
    p.add_argument("--repeats", type=int, default=4)
    p.add_argument("--out", type=Path, default=HERE / "results" / "storing.json")
    args = p.parse_args()
    print("| backbone | state, MiB | whole, s | beside, s |\n|--|--|--|--|")
    cells = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in args.backbones:
            cells.append(measure(name, Path(folder), args.repeats))
            print("|", " | ".join(map(str, cells[-1].values())), "|", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"date": f"{date.today()}", "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
