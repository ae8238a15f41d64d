"""Fit a generator to the training images of a data set, make images with it, and judge them.

    python -m trainables.generation faces:2000 --out synthetic/faces
    python -m search.run --space … --synthetic synthetic/faces

FOLDER gets generator.safetensors, synthetic.npz, judgement.json, samples.png (real images, then
synthetic ones asked to show the same, a class a row) and meta.json. Called again, it goes on.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.torch import save as safetensors_bytes

from trainables.bars import Show, bars
from trainables.cli import Parser, number, run_command, whole
from trainables.data import aus, cache
from trainables.data.bundle import DataBundle
from trainables.device import default_device
from trainables.generation import judge, provenance, sheet
from trainables.generation.agreement import agreement
from trainables.generation.conditions import wanted
from trainables.generation.diffaugment import read_policy
from trainables.generation.fit import CHECKPOINT, Fitting, Settings, draw_images, fit
from trainables.generation.game import GAMES
from trainables.generation.gan import Shape, halvings
from trainables.generation.synthetic_set import SyntheticSet, write_set
from trainables.store import replace_file, write_json
from trainables.synthetic import MOST, additional

SHOWN, SHEETS = 6, 10  # images of a class on the sheet, real and synthetic; sheets of a fit


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse(arguments)
    settings = Settings(**{f.name: getattr(given, f.name) for f in fields(Settings)})
    if given.ratio > MOST:
        raise ValueError(f"--ratio {given.ratio:g} is more than trials may ask for: {MOST:g}")
    read_policy(settings.policy), GAMES[settings.loss], halvings(given.size)  # raise what is wrong
    console = Console(stderr=True)
    try:
        with bars(console) as show:
            bundle = _data(given, show)
            check_data(bundle, given.images)
            found = produce(bundle, settings, given, show)
    except KeyboardInterrupt:
        if (given.out / CHECKPOINT).is_file():
            print(f"kept in '{given.out}'; the same command goes on from there", file=sys.stderr)
        raise
    except FloatingPointError as error:
        raise ValueError(str(error)) from error
    for line in judge.lines(found):
        print(line)
    print(f"written: {given.out}; search with --synthetic {given.out}")
    return 0


def _data(given: argparse.Namespace, show: Show) -> DataBundle:
    policy = aus.Policy(given.aus, given.au_null, given.au_sides)
    return cache.load(cache.prepare(given.data, given.size, show, policy=policy))


def check_data(bundle: DataBundle, images: int | None) -> None:
    """Raise ValueError for data that cannot be judged on, which else would end a fit of hours."""
    if images is not None and images < len(bundle.class_names):
        raise ValueError(f"--images {images}: give {len(bundle.class_names)} or more")
    if (bundle.class_counts() > 0).sum() < 2 or len(bundle.val) < 2:
        raise ValueError(
            f"'{bundle.name}' has training images of {(bundle.class_counts() > 0).sum()} classes "
            f"and {len(bundle.val)} validation images: two of both are needed to judge a set"
        )


def parser() -> Parser:
    p = Parser(
        prog="python -m trainables.generation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = Settings()
    p.add_argument("data", help="as --data of the search: faces[:N[:DIFFICULTY]], or a folder")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--size", type=whole(16, 512), default=64, help="pixels a side (default: 64)")
    how_many = p.add_mutually_exclusive_group()
    how_many.add_argument(
        "--images", type=whole(1, 1_000_000), help="in all, as many of each class"
    )
    how_many.add_argument(
        "--ratio",
        type=number(0, is_open=True),
        default=2.0,
        help="the most that trials will ask for of each class without one image twice (default: 2)",
    )
    for name, kind, text in (
        ("steps", whole(1, 10_000_000), "of both networks"),
        ("batch", whole(2, 4096), "images a step"),
        ("width", whole(4, 256), "channels of the finest map"),
        ("lr", number(0, is_open=True), "learning rate, 2e-4 to 2.5e-3"),
        ("gamma", number(0), "weight of the R1 penalty, 0.1 to 10"),
        ("half-life", number(1), "of the averaged generator, in images"),
        ("au-weight", number(0), "of the AU classifier that both networks share"),
        ("exponent", number(0), "a class is seen as its count to the power of 1 minus this"),
        ("seed", whole(0, 2**32 - 1), ""),
    ):
        default = getattr(own, name.replace("-", "_"))
        p.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default: {default})")
    p.add_argument("--loss", default=own.loss, help=f"{' or '.join(GAMES)} (default: {own.loss})")
    p.add_argument("--policy", default=own.policy, help=f"of DiffAugment (default: {own.policy})")
    p.add_argument("--aus", default="auto", help="as of the search")
    p.add_argument("--au-null", default="mask", help="as of the search")
    p.add_argument("--au-sides", default="fold", help="as of the search")
    return p


def produce(
    bundle: DataBundle, settings: Settings, given: argparse.Namespace, show: Show
) -> judge.Judgement:
    """Fit, make and judge; everything is written to the folder that is given."""
    given.out.mkdir(parents=True, exist_ok=True)
    show("look for images held out", 0, 1)
    seen = provenance.only_training(bundle)
    evidence = provenance.evidence(seen, bundle)
    show("look for images held out", 1, 1)
    fitting = make_fitting(bundle, seen, settings)
    began = time.monotonic()
    run(fitting, bundle, seen, given.out, evidence["sha256"], show)
    meta = {
        "data": provenance.identity(bundle),
        "seen": evidence,
        "settings": asdict(settings),
        "thousand_images": fitting.done * settings.batch / 1000,
        "seconds_of_last_call": round(time.monotonic() - began, 1),
        "device": fitting.device.type,
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("torch", "numpy")},
    }
    tensors = {k: v.cpu().contiguous() for k, v in fitting.average.state_dict().items()}
    replace_file(given.out / "generator.safetensors", safetensors_bytes(tensors))
    made = make_set(fitting, seen, bundle, given)
    write_set(given.out, made, meta)
    samples(fitting, bundle, seen, given.out / "samples.png")
    stages: list[str] = []

    def tell(stage: str) -> None:
        stages.append(stage)
        show("judge", len(stages) - 1, 6, stage)

    found = judge.judge(bundle, made, tell)
    show("judge", 6, 6)
    write_json(given.out / "judgement.json", found)
    return found


def make_fitting(bundle: DataBundle, seen: provenance.Seen, settings: Settings) -> Fitting:
    """A fit that has not begun, of the training images that may be seen."""
    units = len(bundle.au_names)
    shape = Shape(
        bundle.image_size,
        len(bundle.class_names),
        units,
        bundle.components,
        len(bundle.basic_names),
    )
    device = default_device()
    mirror = aus.mirror(bundle.au_names) if units else None
    return Fitting(seen.train, shape, settings, device, mirror)


def run(
    fitting: Fitting,
    bundle: DataBundle,
    seen: provenance.Seen,
    folder: Path,
    digest: str,
    show: Show,
) -> None:  # six: the fit, its data, its place, and who watches
    """Fit to the end, with sheets of samples on the way."""
    steps = fitting.settings.steps
    every = max(1, steps // SHEETS)
    for losses in fit(fitting, folder, digest, min(500, every)):
        done = fitting.done
        word = f"D {losses['discriminator']:.2f} G {losses['generator']:.2f}"
        show("fit", done, steps, word)
        if done % every == 0:
            samples(fitting, bundle, seen, folder / "samples" / f"{done:07d}.png")


def make_set(
    fitting: Fitting, seen: provenance.Seen, bundle: DataBundle, given: argparse.Namespace
) -> SyntheticSet:
    """The images of the set, as many of each class as trials may ask for."""
    counts = np.bincount(seen.train.labels, minlength=len(bundle.class_names))
    if given.images is not None:
        asked = additional(counts, given.images / counts.sum(), "all", 1.0)
    else:
        by_share = [additional(counts, given.ratio, "all", balance) for balance in (0.0, 0.5, 1.0)]
        asked = np.max(by_share, axis=0)
    rng = np.random.default_rng([fitting.settings.seed, 3])
    labels, units = wanted(seen.train, asked, rng)
    images = draw_images(fitting.average, labels, units, fitting.settings.seed)
    return SyntheticSet(images, labels, units, agreement(seen.train, images, units))


def samples(fitting: Fitting, bundle: DataBundle, seen: provenance.Seen, path: Path) -> None:
    """Write a sheet: real images of each class, then synthetic ones of the same AUs."""
    rows = []
    names = bundle.class_names
    for k in range(len(names)):
        shown = np.flatnonzero(seen.train.labels == k)[:SHOWN]
        labels, units = seen.train.labels[shown], seen.train.aus[shown]
        made = draw_images(fitting.average, labels, units, k)
        gaps = [None] * (SHOWN - len(shown))
        rows.append([*seen.train.images[shown], *gaps, None, *made, *gaps])
    sheet.save_png(path, sheet.grid(rows, names))


if __name__ == "__main__":
    run_command(main)
