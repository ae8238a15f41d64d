"""From the command line to a job: all that can be refused is refused here, the quickest first."""

import argparse
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.folder import read_meta
from search.job import Job, check_same
from trainables.cli import say
from trainables.registry import unknown
from trainables.store import RunStore

if TYPE_CHECKING:
    from rich.console import Console

    from search.cluster import Cluster, Resources
    from search.plan import Anchors, Sizes
    from spaces.space import Space
    from trainables.data.bundle import DataBundle

Join = Callable[[], "Cluster | None"]  # waits for Ray; None when the search runs in this process
KNOCK_SECONDS = 5


def check_flags(args: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is started or read."""
    from search.proposer import SAMPLERS
    from spaces.tiers import TIERS
    from trainables.data import aus, faces, loaders
    from trainables.metrics import OBJECTIVES

    for kind, name, known in (
        ("tier", args.tier, TIERS),
        ("sampler", args.sampler, SAMPLERS),
        ("metric", args.metric, OBJECTIVES),
    ):
        if name is not None and name not in known:
            raise LookupError(unknown(kind, name, known))
    if args.weights not in ("none", "package", "hub"):
        args.weights = _weights_path(args.weights)
    if loaders.is_faces(args.data):
        faces.FacesSpec.parse(args.data)
    else:
        loaders.detect(args.data)
    aus.named_vocabulary(args.aus)
    _check_place(args)


def _weights_path(text: str) -> str:
    """The path as every worker can open it. Raises FileNotFoundError where there is nothing."""
    path = Path(text).resolve()
    if not path.exists():
        raise FileNotFoundError(
            f"no weights at '{text}'; give a file, a folder of <backbone>.safetensors, "
            "package, hub or none"
        )
    return str(path)


def _check_place(args: argparse.Namespace) -> None:
    """Refuse trials that have no place, as far as can be told without Ray."""
    places = ("address", "gpus_per_trial", "cpus_per_trial")
    asked = [name for name in places if getattr(args, name) is not None]
    if args.inline and asked:
        flag = asked[0].replace("_", "-")
        raise ValueError(f"--{flag} is for trials on Ray, --inline runs them here: drop one")
    if args.address is not None:
        check_address(args.address)
    elif asked:
        choose_resources(args, os.cpu_count() or 1, gpus_here())


def check_address(address: str) -> None:
    """Raise ValueError or OSError unless something listens there; Ray itself would wait minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or "/" in host:
        raise ValueError(
            f"--address '{address}' cannot be read: give auto, or the HOST:PORT that "
            "`ray start --head` printed, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise OSError(
            f"no Ray cluster answers at '{address}' ({error}): start one with `ray start --head`, "
            "or leave --address out to use this machine"
        ) from error


def gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def choose_resources(args: argparse.Namespace, cpus: float, gpus: float) -> "Resources":
    """What a trial gets. Raises ValueError when that is more than there is."""
    from search.cluster import Resources, count_workers

    asked = args.gpus_per_trial
    if asked is None:
        asked = 1.0 if gpus else 0.0
    resources = Resources(args.cpus_per_trial or 1, asked)
    count_workers(resources, cpus, gpus)
    if asked > 1:
        raise ValueError(
            f"--gpus-per-trial {asked:g}: a trial trains on one GPU so far; give 1, or a part of 1"
        )
    return resources


def prepare(
    args: argparse.Namespace,
    words: Sequence[str],
    space: "Space",
    root: Path,
    cluster: Join,
    console: "Console",
) -> tuple[Job, list[str]]:
    """The job, its data decoded, its space fitted and tried; what the user should know of it."""
    from search import check, plan
    from trainables.data import cache

    there = cluster() if args.address else None
    if there:
        choose_resources(args, there.cpus, there.gpus)
    gpus = int(there.gpus) if there else gpus_here()
    sizes = plan.choose_sizes(
        args.tier, args.data, gpus, args.image_size, args.epochs, _trials(args, root)
    )
    check.check_conditions(space)
    sized, notes = plan.fit_to_tier(space, sizes, args)
    check.check_space(sized)
    with _progress(console) as show:
        data = cache.prepare(args.data, sizes.image_size, show, au_vocabulary=args.aus)
    bundle = cache.load(data)
    fitted, anchors, more = _fit(sized, sizes, bundle)
    job = Job(args, words, root, fitted, sizes, data, bundle, anchors)
    if args.resume:
        check_same(job, read_meta(RunStore(root)))
    return job, notes + more


def _trials(args: argparse.Namespace, root: Path) -> int | None:
    """How many trials are wanted; None leaves it to the tier. A run that is resumed knows."""
    wanted: int | None = args.trials
    if args.resume:
        store = RunStore(root)
        wanted = max(wanted or read_meta(store)["trials"], len(store.records()))
    return wanted


def _fit(
    space: "Space", sizes: "Sizes", bundle: "DataBundle"
) -> tuple["Space", "Anchors", list[str]]:
    """The space that data and weights allow, its first trials, and a sentence for each change."""
    from search import check, plan
    from search.pretrained import fit_to_weights

    fitted, notes = plan.fit_to_data(space, bundle)
    check.check_space(fitted)
    check.check_on_data(fitted, bundle)
    weights = str(fitted.settings["weights"])
    try:
        fitted, more = fit_to_weights(fitted, weights, sizes.image_size)
    except ValueError:
        raise
    except Exception as error:  # whatever a file of weights may be, it is told as a mistake
        raise ValueError(f"weights '{weights}' cannot be read: {check.reason(error)}") from error
    anchors, others = plan.choose_anchors(fitted, sizes.tier, bundle)
    return fitted, anchors, notes + more + others


@contextmanager
def _progress(console: "Console") -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage that is reported to it."""
    from rich.progress import Progress, TaskID

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def announce(job: Job, notes: Sequence[str], console: "Console") -> None:
    """What was chosen, and what the user should know of the data."""
    bundle, sizes, args = job.bundle, job.sizes, job.args
    label = "SYNTHETIC " if bundle.is_synthetic else ""
    say(
        console,
        "data",
        f"{label}{bundle.name}: train {len(bundle.train)}, validation {len(bundle.val)}, "
        f"test {len(bundle.test)} (sealed); {len(bundle.class_names)} classes, "
        f"{len(bundle.au_names)} action units",
    )
    if bundle.ceiling:
        say(
            console,
            "ceiling",
            f"of a perfect reader of the action units: macro-F1 "
            f"{bundle.ceiling['macro_f1']:.3f}, accuracy {bundle.ceiling['accuracy']:.3f}",
        )
    say(
        console,
        "tier",
        f"{sizes.tier.name}: {sizes.trials} trials of up to {sizes.epochs} epochs at "
        f"{sizes.image_size} px (--tier, --trials, --epochs, --image-size)",
    )
    say(console, "search", f"sampler {args.sampler}, metric {args.metric}, seed {args.seed}")
    if args.weights == "none" and sizes.tier.name != "tiny":
        notes = [*notes, "training starts from scratch; --weights hub or a file is much better"]
    for note in (*bundle.notes, *notes):
        say(console, "note", note, "yellow")
