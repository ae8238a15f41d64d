"""Trials on a GPU with and without CUDA graphs: images a second, and whether they train the same.

python tests/benchmarks/graphs.py [--epochs N] [--faces N] [--out FILE]

Each configuration is trained from one seed, twice without and once with graphs. Images a second
are of the epochs after the first, in which cuDNN looks for its kernels. "apart" is the largest
difference of a weight, relative to the largest weight of its tensor: where kernels add up in
another order it is not 0.
"""

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import torch  # noqa: E402
from throughput import COMMON, PLAIN, RICH  # noqa: E402

from trainables.config import Flat, TrialConfig  # noqa: E402
from trainables.data import cache  # noqa: E402
from trainables.device import default_device  # noqa: E402
from trainables.store import replace_file  # noqa: E402
from trainables.trial import Training  # noqa: E402

CASES: list[tuple[str, int, int, Flat]] = [  # network, pixels, images a batch, settings
    ("test_resnet", 64, 32, PLAIN),
    ("test_resnet", 64, 32, RICH),
    ("test_vit", 64, 32, PLAIN),
    ("resnet18", 112, 64, PLAIN),
    ("resnet50", 224, 32, PLAIN),
    ("vit_small_patch16_224", 224, 32, RICH),
]


def trained(flat: Flat, bundle: Any, epochs: int, records: bool) -> tuple[Training, list[float]]:
    """A trial, and its seconds an image, epoch by epoch."""
    config = TrialConfig.from_flat({**flat, "epochs": epochs})
    training = Training(config, bundle, may_record=records)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        row = training.run_epoch()
        seconds.append((time.perf_counter() - began) / row["images"])
    return training, seconds


def apart(one: Training, other: Training) -> float:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    with torch.no_grad():
        return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)


def measure(case: tuple[str, int, int, Flat], args: argparse.Namespace) -> dict[str, Any]:
    name, size, batch, settings = case
    flat = {**COMMON, "batch_size": batch, **settings, "backbone": name, "image_size": size}
    bundle = cache.load(cache.prepare(f"faces:{args.faces}", size))
    without, eager = trained(flat, bundle, args.epochs, records=False)
    again, eager_again = trained(flat, bundle, args.epochs, records=False)
    recorded, graphs = trained(flat, bundle, args.epochs, records=True)
    recorder = recorded.stepper.recorder
    best, least = min(*eager[1:], *eager_again[1:]), min(graphs[1:])
    return {
        "backbone": name,
        "px": size,
        "batch": batch,
        "trial": "rich" if "mix" in flat else "plain",
        "images/s": round(1 / best),
        "with graphs": round(1 / least),
        "ratio": round(best / least, 2),
        "batches played": recorder.plays if recorder else 0,
        "apart": apart(recorded, without),
        "apart without": apart(again, without),
    }


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--epochs", type=int, default=4)
    p.add_argument("--faces", type=int, default=2000)
    p.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="by number")
    p.add_argument("--out", type=Path, default=HERE / "results" / "graphs.json")
    args = p.parse_args()
    if default_device().type != "cuda":
        print("error: there is no GPU here, and CUDA graphs are for one", file=sys.stderr)
        return 2
    facts = {
        "date": f"{date.today()}",
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(),
        "epochs": args.epochs,
        "faces": args.faces,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cells = list[dict[str, Any]]()
    for number in args.cases:
        cells.append(measure(CASES[number], args))
        print(", ".join(f"{key} {value}" for key, value in cells[-1].items()), flush=True)
        text = json.dumps({**facts, "cells": cells}, indent=1) + "\n"
        replace_file(args.out, text.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
