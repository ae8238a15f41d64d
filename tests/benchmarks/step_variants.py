"""What a training step costs in other ways of computing it, one thread by default.

python tests/benchmarks/step_variants.py [--threads N] [--backbones …] [--sizes …] [--no-compile]

As trials compute ("ours": float32 on a CPU, 16 bits on a GPU), the other of the two, ours by
torch.compile and, on a GPU, ours recorded as a CUDA graph. They take turns; the ratios are of one
turn, median, least and largest. For what must be made first (compiled, graph): the seconds that
took, and how many images must be trained on until they are won back.
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
from throughput_loops import DEVICE, Limit  # noqa: E402

from trainables.config import TrialConfig  # noqa: E402
from trainables.data import cache  # noqa: E402
from trainables.device import choose_device  # noqa: E402

BACKBONES = ("test_resnet", "small_resnet", "test_vit", "mobilenetv3_small_050")
Step = Callable[[], None]


def variants(config: TrialConfig, bundle: Any, compiles: bool) -> dict[str, Step]:
    ours, other = Limit(config, bundle), Limit(config, bundle)
    kinds = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
    dtype = torch.bfloat16 if DEVICE.type == "cpu" else torch.float32

    def in_other() -> None:
        with torch.autocast(DEVICE.type, dtype, enabled=dtype is not torch.float32):
            loss = other.loss()
        other.update(loss)

    found = {"ours": ours.step, kinds[dtype]: in_other}
    if compiles:
        fast = Limit(config, bundle)
        fast.model.compile()
        found["compiled"] = fast.step
    if DEVICE.type == "cuda":
        found["graph"] = Recorded(Limit(config, bundle))
    return found


class Recorded:
    """A step as one CUDA graph, recorded at the first call, as torch's documentation has it."""

    def __init__(self, limit: Limit) -> None:
        self.limit, self.graph = limit, torch.cuda.CUDAGraph()
        for group in limit.optimizer.param_groups:
            group["capturable"] = True
        self.is_recorded = False

    def __call__(self) -> None:
        if not self.is_recorded:
            self._record()
        self.graph.replay()

    def _record(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.limit.step()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self.graph):
            self.limit.step()
        self.is_recorded = True


def measure(config: TrialConfig, bundle: Any, args: argparse.Namespace) -> dict[str, Any]:
    steps = variants(config, bundle, not args.no_compile)
    seconds(Limit(config, bundle).step, 3)  # a GPU starts, and looks for its kernels
    first = {name: seconds(step, 3) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, args.steps) / args.steps / config.batch_size)
    ours = times["ours"]
    found: dict[str, Any] = {"backbone": config.backbone.name, "px": config.image_size}
    found["ours us/image"] = round(1e6 * min(ours), 1)
    for name in [name for name in steps if name != "ours"]:
        found[f"{name} is faster by"] = spread(ours, times[name])
    for name in steps.keys() & {"compiled", "graph"}:
        lost, won = first[name] - first["ours"], min(ours) - min(times[name])
        found[f"seconds for {name}"] = round(lost, 1)
        found[f"images to win them back, {name}"] = round(lost / won) if won > 0 else None
    return found


def seconds(step: Step, times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--steps", type=int, default=10, help="at a time")
    p.add_argument("--batch-size", type=int, default=COMMON["batch_size"])
    p.add_argument("--backbones", nargs="+", default=BACKBONES)
    p.add_argument("--sizes", nargs="+", type=int, default=[64, 112])
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--out", type=Path, default=HERE / "results" / "step_variants.json")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    choose_device()  # its switches
    found = []
    for size in args.sizes:
        bundle = cache.load(cache.prepare("faces:200", size))
        for name in args.backbones:
            flat = {**COMMON, "backbone": name, "image_size": size, "batch_size": args.batch_size}
            found.append(measure(TrialConfig.from_flat(flat), bundle, args))
            print(", ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    facts = {"date": f"{date.today()}", "torch": torch.__version__,
             "cores": os.cpu_count(), "device": DEVICE.type,
             "threads": args.threads, "repeats": args.repeats}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**facts, "cells": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
