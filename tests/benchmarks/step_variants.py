"""What a training step costs in other ways of computing it, one thread by default.

python tests/benchmarks/step_variants.py [--threads N] [--backbones …] [--sizes …] [--no-compile]

float32 as trials compute on a CPU, bfloat16 by autocast, torch.compile. The three take turns; the
ratios are of one turn, median, least and largest. For compiled steps: the seconds that the first
steps took longer, and how many images must be trained on until they are won back.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import torch  # noqa: E402
from throughput import COMMON, spread  # noqa: E402
from throughput_loops import Limit  # noqa: E402

from trainables.config import TrialConfig  # noqa: E402
from trainables.data import cache  # noqa: E402

BACKBONES = ("test_resnet", "small_resnet", "test_vit", "mobilenetv3_small_050")
STEPS = 10


def variants(config: TrialConfig, bundle: Any, compiles: bool) -> dict[str, Callable[[], None]]:
    plain, half = Limit(config, bundle), Limit(config, bundle)

    def in_bfloat16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            half.step()

    found = {"float32": plain.step, "bfloat16": in_bfloat16}
    if compiles:
        fast = Limit(config, bundle)
        fast.model.compile()
        found["compiled"] = fast.step
    return found


def measure(config: TrialConfig, bundle: Any, args: argparse.Namespace) -> dict[str, Any]:
    steps = variants(config, bundle, not args.no_compile)
    first = {name: seconds(step, 3) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, STEPS) / STEPS / config.batch_size)
    found: dict[str, Any] = {"backbone": config.backbone.name, "px": config.image_size}
    found["float32 us/image"] = round(1e6 * min(times["float32"]))
    for name in [name for name in steps if name != "float32"]:
        found[f"{name} is faster by"] = spread(times["float32"], times[name])
    if "compiled" in steps:
        lost, won = (
            first["compiled"] - first["float32"],
            min(times["float32"]) - min(times["compiled"]),
        )
        found["seconds to compile"] = round(lost, 1)
        found["images to win them back"] = round(lost / won) if won > 0 else None
    return found


def seconds(step: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        step()
    return time.perf_counter() - began


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--backbones", nargs="+", default=BACKBONES)
    p.add_argument("--sizes", nargs="+", type=int, default=[64, 112])
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--out", type=Path, default=HERE / "results" / "step_variants.json")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    found = []
    for size in args.sizes:
        bundle = cache.load(cache.prepare("faces:200", size))
        for name in args.backbones:
            flat = {**COMMON, "backbone": name, "image_size": size}
            found.append(measure(TrialConfig.from_flat(flat), bundle, args))
            print(", ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    facts = {"date": f"{date.today()}", "torch": torch.__version__, "cores": os.cpu_count(),
             "threads": args.threads, "repeats": args.repeats}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**facts, "cells": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
