"""The main command: search a space of facial-expression models, then report.

python -m search.run --space sprint2
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.cli import Parser, run_command

if TYPE_CHECKING:
    from rich.console import Console

    from search.core import Search
    from search.driver import Cluster, Resources
    from search.plan import Sizes
    from spaces.space import Space
    from trainables.data.bundle import DataBundle
    from trainables.store import RunStore

ETA = 3  # a rung keeps the best third
PACKAGES = ("torch", "timm", "ray", "optuna", "numpy", "pandas", "scikit-learn")


def parser() -> Parser:
    p = Parser(
        prog="python -m search.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--space", required=True, help="smoke, sprint1, sprint2, or a .py file with SPACE"
    )
    what = p.add_argument_group("what is trained on")
    what.add_argument(
        "--data",
        default="faces",
        metavar="SOURCE",
        help="faces[:N[:DIFFICULTY]] (embedded, synthetic; the default), or a folder "
        "(RAF-CE, RAF-DB, class folders) or a CSV/TSV manifest",
    )
    what.add_argument(
        "--weights",
        default="none",
        help="none (from scratch), package (installed "
        "offline weights), hub (lets timm download), or a file",
    )
    what.add_argument(
        "--aus",
        default="auto",
        metavar="VOCABULARY",
        help="auto (from the data), plan18, or a list such as 1,2,4,12",
    )
    size = p.add_argument_group("how large")
    size.add_argument(
        "--tier",
        help="tiny, mid or large: which networks, image size, epochs and "
        "trials (default: tiny on embedded data or without a GPU, else mid)",
    )
    size.add_argument("--trials", type=int)
    size.add_argument("--epochs", type=int)
    size.add_argument("--image-size", type=int, metavar="PIXELS")
    how = p.add_argument_group("how it searches")
    how.add_argument("--sampler", default="tpe", help="tpe, random, gp, cmaes or nsga2")
    how.add_argument(
        "--metric",
        default="score",
        help="score: macro-F1 of the classes with enough "
        "validation images; or macro_f1_all, accuracy, uar",
    )
    how.add_argument("--seed", type=int, default=0)
    where = p.add_argument_group("where it runs")
    where.add_argument("--inline", action="store_true", help="in this process, without Ray")
    where.add_argument("--address", help="of a running Ray cluster, or auto")
    where.add_argument("--gpus-per-trial", type=float, help="default: 1 where there is a GPU")
    where.add_argument("--cpus-per-trial", type=float, default=1)
    where.add_argument("--no-dashboard", action="store_true")
    run = p.add_argument_group("the run")
    run.add_argument("--name", help="of the run's folder (default: space and time)")
    run.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run of that name, or with the latest of this space",
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="print the space, the plan and the time it will take; start nothing",
    )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    from rich.console import Console

    from search import plan
    from spaces.catalog import find

    console = Console()
    space = find(args.space)
    _check_names(args)
    local = None if args.address else _local_gpus()
    sizes = plan.choose_sizes(
        args.tier, args.data, local or 0, args.image_size, args.epochs, args.trials
    )
    root = _run_folder(args, space.name)
    with _cluster(args, console) as cluster:
        data, bundle = _prepare_data(args, sizes.image_size, console)
        constants = {"seed": args.seed, "weights": args.weights}
        space = plan.with_constants(sizes.space(space), constants)
        space, notes = plan.fit_to_data(space, bundle)
        plan.check_space(space)
        _announce(console, args, sizes, bundle, notes)
        if args.dry_run:
            return _dry_run(console, args, space, sizes, data, bundle)
        store = _open_store(args, root, space, sizes, data, bundle)
        finished = _search(args, store, space, sizes, data, cluster(), console)
    if not finished:
        console.print(f"interrupted; go on with: {_again(args, root)}")
        return 130
    _report(store, console)
    return 0


def _check_names(args: argparse.Namespace) -> None:
    """Refuse names that do not exist before anything is started."""
    from search.proposer import SAMPLERS
    from trainables.metrics import OBJECTIVES
    from trainables.registry import unknown

    for kind, name, known in (
        ("sampler", args.sampler, SAMPLERS),
        ("metric", args.metric, OBJECTIVES),
    ):
        if name not in known:
            raise LookupError(unknown(kind, name, known))
    if args.weights not in ("none", "package", "hub") and not Path(args.weights).exists():
        raise FileNotFoundError(
            f"no weights at '{args.weights}'; give a file, a folder of "
            "<backbone>.safetensors, package, hub or none"
        )


def _local_gpus() -> int:
    """GPUs of this machine, counted without importing torch."""
    from ray._private.accelerators import NvidiaGPUAcceleratorManager  # placeholder

    return NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()


def _run_folder(args: argparse.Namespace, space: str) -> Path:
    """Where the run is or will be. Raises FileExistsError or FileNotFoundError when that is wrong."""
    runs: Path = args.runs
    if args.resume:
        return _existing_run(runs, args.name, space)
    name = args.name or f"{space}-{datetime.now():%Y%m%d-%H%M%S}"
    if not name or Path(name).name != name or name in (".", ".."):
        raise ValueError(f"--name '{name}' is not a folder name; use --runs to say where it lies")
    root = runs / name
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"'{root}' exists; give another --name, or --resume to go on with it")
    return root


def _existing_run(runs: Path, name: str | None, space: str) -> Path:
    from trainables.store import RunStore

    if name:
        return RunStore.open(runs / name).root
    found = [p.parent for p in runs.glob("*/run.json")]
    mine = [p for p in found if RunStore(p).meta()["space"]["name"] == space]
    if not mine:
        raise FileNotFoundError(f"nothing to resume: no run of space '{space}' in '{runs}'")
    return max(mine, key=lambda p: RunStore(p).meta()["started"])


def _prepare_data(
    args: argparse.Namespace, image_size: int, console: "Console"
) -> tuple[Path, "DataBundle"]:
    """The decoded data set, from the cache or made now under a progress bar."""
    from rich.progress import Progress

    from trainables.data import cache

    with Progress(console=console, transient=True) as bar:
        task: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in task:
                task[stage] = bar.add_task(stage, total=total)
            bar.update(task[stage], completed=done, total=total)

        path = cache.prepare(args.data, image_size, show, au_vocabulary=args.aus)
    return path, cache.load(path)


def _announce(
    console: "Console",
    args: argparse.Namespace,
    sizes: "Sizes",
    bundle: "DataBundle",
    notes: Sequence[str],
) -> None:
    """What was chosen, and what the user should know of the data."""
    sizes_text = f"train {len(bundle.train)}, validation {len(bundle.val)}, test {len(bundle.test)}"
    console.print(
        f"[bold]data[/] {bundle.name}: {sizes_text}; {len(bundle.class_names)} classes, "
        f"{len(bundle.au_names)} action units, {bundle.image_size} px"
    )
    if bundle.ceiling:
        ceiling = bundle.ceiling
        console.print(
            f"[bold]ceiling[/] of a perfect reader of the AUs: macro-F1 "
            f"{ceiling['macro_f1']:.3f}, accuracy {ceiling['accuracy']:.3f}"
        )
    console.print(
        f"[bold]tier[/] {sizes.tier.name}: {sizes.trials} trials of up to {sizes.epochs} "
        f"epochs; sampler {args.sampler}, seed {args.seed}, metric {args.metric}"
    )
    if args.weights == "none" and sizes.tier.name != "tiny":
        console.print(
            "[yellow]note[/] training from scratch; --weights hub or FILE starts from "
            "pretrained weights"
        )
    for note in (*bundle.notes, *notes):
        console.print(f"[yellow]note[/] {note}", highlight=False)
