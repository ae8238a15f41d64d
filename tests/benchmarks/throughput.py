"""Images a second of a whole trial, beside its network's limit and beside other loops.

python tests/benchmarks/throughput.py [--quick] [--threads N] [--workers N] [--repeats N]
python tests/benchmarks/throughput.py --plain --batch-size 64 --faces 4000 --workers 14 \
    --backbones resnet18 resnet50 --sizes 112 224  # on a GPU: of RAF-CE's size

Every loop (throughput_loops.py) trains the same network on the same embedded faces, and scores as
many images after each epoch. They take turns, an epoch each; the first epoch of each is not
counted. Images a second are those trained on over the time of the whole epoch. Ratios are of the
epochs of one turn: their median, and their least and largest. The last epoch of a trial, which also
scores the test images and looks at views, is counted apart: "whole trial" is a trial of EPOCHS.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import torch  # noqa: E402
from throughput_loops import DEVICE, Limit, Ours, Plain, Timm, write_jpegs  # noqa: E402

from trainables.config import Flat, TrialConfig  # noqa: E402
from trainables.data import cache  # noqa: E402
from trainables.device import choose_device  # noqa: E402
from trainables.store import replace_file  # noqa: E402

EPOCHS = 9  # of a trial of the tiny tier
BACKBONES = ("test_resnet", "resnet18", "vit_tiny_patch16_224")  # small, middle, transformer
FACES = {64: 1600, 112: 800, 224: 320}
PLAIN: Flat = {"augment": "light"}  # the plan's baseline
RICH: Flat = {  # what the later sprints add to it
    "augment": "trivial", "mix": "mixup", "au_loss": "bce", "au_weight": 0.3, "local": "face",
    "attention": "au_spatial", "attention_stage": "middle", "region_weight": 0.1,
    "curriculum": "linear", "curriculum_drives": "au_weight",
}  # fmt: skip
COMMON: Flat = {"batch_size": 32, "lr": 3e-3, "ema": 0.95, "weight_decay": 0.05}
COLUMNS = (
    *("backbone", "px", "trial", "limit", "ours", "timm", "plain"),
    *("ours to limit", "whole trial to limit", "ours to timm", "ours to plain"),
)
Seconds = dict[str, list[float]]  # an image trained on, by loop and turn


def measure(flat: Flat, faces: int, args: argparse.Namespace) -> dict[str, Any]:
    """One network at one size."""
    repeats, size = args.repeats, int(flat["image_size"])
    flat = {**COMMON, "batch_size": args.batch_size, **flat}
    config = TrialConfig.from_flat({**flat, "epochs": repeats + 2})
    entry = cache.prepare(f"faces:{faces}", size)
    bundle = cache.load(entry)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        loops: dict[str, Any] = {
            "limit": Limit(config, bundle),
            "ours": Ours(config, bundle, entry, root / "run"),
        }
        if config.attention.name == "none" and not args.limit_only:
            files = write_jpegs(bundle, root / "jpeg")
            loops["timm"] = Timm(config, bundle, files, args.workers)
            loops["plain"] = Plain(config, bundle, files, args.workers)
        for loop in loops.values():
            timed(loop.epoch)
        seconds = take_turns(loops, repeats)
        last = timed(loops["ours"].epoch)
        loops.clear()  # and with them the workers of their loaders
    return {**flat, "images": len(bundle.train), **figures(seconds, last)}


def take_turns(loops: Mapping[str, Any], repeats: int) -> Seconds:
    """Each loop an epoch, again and again, beginning with another one each time."""
    names, seconds = list(loops), {name: [] for name in loops}
    for turn in range(repeats):
        for k in range(len(names)):
            name = names[(k + turn) % len(names)]
            seconds[name].append(timed(loops[name].epoch))
    return seconds


def timed(epoch: Callable[[], int]) -> float:
    """Seconds an image."""
    began = time.perf_counter()
    images = epoch()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / images


def figures(seconds: Seconds, last: float) -> dict[str, Any]:
    """Images a second of each loop, and how many times as fast as each other one ours is."""
    found: dict[str, Any] = {
        f"{name} images/s": round(1 / median(times), 1) for name, times in seconds.items()
    }
    for name in seconds:
        if name != "ours":
            found[f"ours to {name}"] = spread(seconds[name], seconds["ours"])
    trial = [((EPOCHS - 1) * own + last) / EPOCHS for own in seconds["ours"]]
    found["whole trial to limit"] = spread(seconds["limit"], trial)
    return found


def spread(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Median, least and largest of the ratios."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return [round(value, 3) for value in (median(ratios), min(ratios), max(ratios))]


def row(cell: Mapping[str, Any]) -> str:
    def ratio(name: str) -> str:
        if (found := cell.get(name)) is None:
            return "–"
        return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"

    settings = "rich" if "mix" in cell else "plain"
    speeds = [f"{cell.get(f'{loop} images/s', '–')}" for loop in ("limit", "ours", "timm", "plain")]
    ratios = [ratio(name) for name in COLUMNS[-4:]]
    return " | ".join(
        ["", cell["backbone"], str(cell["image_size"]), settings, *speeds, *ratios, ""]
    ).strip()


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--quick", action="store_true", help="the small network at 64 px, few images")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    p.add_argument("--workers", type=int, default=2, help="processes of the others' loaders")
    p.add_argument("--repeats", type=int, default=3, help="turns")
    p.add_argument("--batch-size", type=int, default=COMMON["batch_size"])
    p.add_argument("--faces", type=int, help="images, train to test (default: fewer for larger)")
    p.add_argument(
        "--limit-only", action="store_true", help="neither timm's loop nor the plain one"
    )
    p.add_argument("--backbones", nargs="+", default=BACKBONES)
    p.add_argument("--sizes", nargs="+", type=int, default=list(FACES))
    p.add_argument("--plain", action="store_true", help="no rich trials of the first backbone")
    p.add_argument("--out", type=Path, default=HERE / "results" / "throughput.json")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    choose_device()  # its switches, for all loops
    trials = [(name, PLAIN) for name in args.backbones]
    if not args.plain:
        trials.insert(1, (args.backbones[0], RICH))
    cells = [
        ({"backbone": name, "image_size": size, **settings}, args.faces or FACES[size])
        for name, settings in trials
        for size in args.sizes
    ]
    if args.quick:
        cells = [(flat, 200) for flat, _ in cells if flat["image_size"] == 64][:2]
    print("|", " | ".join(COLUMNS), "|\n" + "|--" * len(COLUMNS) + "|")
    gpu = torch.cuda.get_device_name() if DEVICE.type == "cuda" else None
    facts = {"date": f"{date.today()}", "torch": torch.__version__, "cpu": platform.processor(),
             "gpu": gpu, "cores": os.cpu_count(), "threads": args.threads, "workers": args.workers,
             "repeats": args.repeats}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for flat, faces in cells:
        found.append(measure(flat, faces, args))
        print(row(found[-1]), flush=True)
        text = json.dumps({**facts, "cells": found}, indent=1) + "\n"
        replace_file(args.out, text.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
