"""From the command line to a job: all that can be refused is refused here, the quickest first."""

import argparse
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.folder import read_meta
from search.folds import check_budget, check_seed
from search.generated import check_set, name_set, set_folders, set_path
from search.job import Job, check_same
from search.pretrained import fit_to_weights, folded, refuse_taught, weights_files, weights_path
from search.transfer import Earlier, first_trials, gather, load
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
NO_GPU_HOURS = "--gpu-hours {:g} would never be used up, for no trial has a GPU: give --hours"
# Flags that say where trials run, as far as Ray is to place them; a confirmation takes them over.
PLACES = ("address", "gpus_per_trial", "cpus_per_trial", "cpu_ranks", "placement", "max_concurrent")


def check_flags(args: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is started or read."""
    from spaces.tiers import TIERS
    from trainables.config import NAMED_WEIGHTS
    from trainables.data import aus, faces, loaders
    from trainables.metrics import OBJECTIVES

    for kind, name, known in (
        ("tier", args.tier, TIERS),
        ("metric", args.metric, OBJECTIVES),
    ):
        if name is not None and name not in known:
            raise LookupError(unknown(kind, name, known))
    if args.weights not in NAMED_WEIGHTS:
        args.weights = weights_path(args.weights)
    if args.synthetic is not None:
        args.synthetic = set_path(args.synthetic)
    if loaders.is_faces(args.data):
        faces.FacesSpec.parse(args.data)
    else:
        loaders.detect(args.data)
    aus.Policy(args.aus, args.au_null, args.au_sides)  # raises for what it does not know
    check_seed(args.folds, args.fold_seed)
    if args.gpu_hours is not None and args.address is None and not gpus_here():
        raise ValueError(NO_GPU_HOURS.format(args.gpu_hours))
    _check_place(args)


def _check_place(args: argparse.Namespace) -> None:
    """Refuse trials that have no place, as far as can be told without Ray."""
    asked = [name for name in PLACES if getattr(args, name) is not None]
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
    if address.startswith("ray://"):
        host = address.removeprefix("ray://").partition(":")[0]
        raise ValueError(
            f"--address '{address}' is Ray's client, whose driver stays outside the cluster, while "
            "a search must see the run folder that its workers write: submit it to run inside, "
            f"`ray job submit --address http://{host}:8265 --working-dir . -- "
            "python -m search.run --address auto …`"
        )
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


def choose_resources(
    args: argparse.Namespace, cpus: float, gpus: float, share: float = 1.0
) -> "Resources":
    """What a trial gets: unless asked otherwise, such a share of a GPU where there are any.

    Raises ValueError when that is more than there is.
    """
    from search.cluster import Resources, count_workers

    asked = args.gpus_per_trial
    if asked is None:
        asked = share if gpus else 0.0
    resources = Resources(
        args.cpus_per_trial or 1,
        asked,
        args.max_concurrent,
        args.cpu_ranks or 1,
        args.placement or "pack",
        may_grow=args.address is not None,
        paths=_needed(args),
    )
    count_workers(resources, cpus, gpus)
    if args.gpu_hours is not None and not asked:
        raise ValueError(NO_GPU_HOURS.format(args.gpu_hours))
    return resources


def _needed(args: argparse.Namespace) -> tuple[Path, ...]:
    """What every node must see, besides the run folder and the data: weights, generated images."""
    flats = [flat for _, flat in getattr(args, "given", ())]
    weights = [args.weights, *(str(flat["weights"]) for flat in flats if "weights" in flat)]
    sets = {str(f["synthetic_set"]) for f in flats if f.get("synthetic_set")}
    folders = [args.synthetic, *sorted(sets - {"none"})]
    return (*weights_files(*weights), *(p for folder in folders for p in set_folders(folder)))


def prepare(
    args: argparse.Namespace,
    words: Sequence[str],
    space: "Space",
    root: Path,
    cluster: Join,
    console: "Console",
) -> tuple[Job, list[str]]:
    """The job, its data decoded, its space fitted and tried; what the user should know of it."""
    from search import plan

    there = cluster() if args.address else None
    if there:
        choose_resources(args, there.cpus, there.gpus)
    gpus = int(there.gpus) if there else gpus_here()
    trials = _trials(args, root) or space.trials
    sizes = plan.choose_sizes(args.tier, args.data, gpus, args.image_size, args.epochs, trials)
    make = _of_configs if args.configs else _of_space
    job, notes = make(args, words, space, root, sizes, lambda: _data(args, sizes, console))
    if args.resume:
        check_same(job, read_meta(RunStore(root)))
    return job, notes


def _data(
    args: argparse.Namespace, sizes: "Sizes", console: "Console"
) -> "tuple[Path, DataBundle]":
    """The data decoded at their size, and what they hold."""
    from trainables.bars import bars
    from trainables.data import aus, cache

    with bars(console, is_transient=True) as show:
        policy = aus.Policy(args.aus, args.au_null, args.au_sides)
        data = cache.prepare(args.data, sizes.image_size, show, policy=policy)
    return data, cache.load(data)


def _of_space(
    args: argparse.Namespace,
    words: Sequence[str],
    space: "Space",
    root: Path,
    sizes: "Sizes",
    read: "Callable[[], tuple[Path, DataBundle]]",
) -> tuple[Job, list[str]]:
    """A search of a space; `read` gives the data, once all that needs none has been checked."""
    from search import check, plan

    check_budget(args.folds, sizes.trials)
    check.check_conditions(space)
    sized, notes = plan.fit_to_tier(space, sizes, args)
    sized, more = name_set(sized, args.synthetic)
    check.check_space(sized)
    data, bundle = read()
    refuse_taught(folded(sized, args.folds), bundle.name)
    fitted, anchors, others = _fit(sized, sizes, bundle)
    earlier, told = _earlier(args, root, fitted, sizes, bundle)
    anchors = [*anchors, *((role, dict(flat)) for role, flat in first_trials(earlier))]
    job = Job(args, words, root, fitted, sizes, data, bundle, anchors, earlier)
    return job, notes + more + others + told + _check_folds(args, bundle)


def _of_configs(
    args: argparse.Namespace,
    words: Sequence[str],
    space: "Space",
    root: Path,
    sizes: "Sizes",
    read: "Callable[[], tuple[Path, DataBundle]]",
) -> tuple[Job, list[str]]:
    """A run of given configurations, the same way."""
    from search import given

    trials = given.trials(args, sizes)
    data, bundle = read()
    refuse_taught((flat for _, flat in trials), bundle.name)
    given.check(given.once(args, trials), bundle)
    notes = _check_folds(args, bundle)
    sized = given.at_size(space, args, sizes)
    return Job(args, words, root, sized, sizes, data, bundle, trials), notes


def _check_folds(args: argparse.Namespace, bundle: "DataBundle") -> list[str]:
    """What to know of the folds. Raises ValueError where the images are too few, or too much alike,
    for them."""
    from trainables.config import TrialConfig
    from trainables.data.folds import rows_of, undivided

    if args.folds == 1:
        return []
    config = TrialConfig(folds=args.folds, fold_seed=args.fold_seed)
    rows_of(bundle, config)
    alone = ", ".join(undivided(bundle, config))
    why = "all images are one, or of one person, so that no fold both trains and validates it"
    return [f"in one fold only: {alone} ({why})"] if alone else []


def _earlier(
    args: argparse.Namespace, root: Path, space: "Space", sizes: "Sizes", bundle: "DataBundle"
) -> tuple[list[Earlier], list[str]]:
    """The trials of other runs to learn from: a run that is resumed has its own copy."""
    if args.resume:
        return load(root), []
    return gather(args.warm_start or (), space, sizes.epochs, args.metric, bundle.fingerprint)


def _trials(args: argparse.Namespace, root: Path) -> int | None:
    """How many trials are wanted; None leaves it to space and tier. A run that is resumed knows."""
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

    fitted, notes = plan.fit_to_data(space, bundle)
    check.check_space(fitted)
    notes += check_set(fitted, bundle)
    weights = str(fitted.settings["weights"])
    try:
        fitted, more = fit_to_weights(fitted, weights, sizes.image_size)
    except ValueError:
        raise
    except Exception as error:  # whatever a file of weights may be, it is told as a mistake
        raise ValueError(f"weights '{weights}' cannot be read: {check.reason(error)}") from error
    check.check_on_data(fitted, bundle)
    anchors, others = plan.choose_anchors(fitted, sizes.tier, bundle, sizes.trials)
    return fitted, anchors, notes + more + others


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
    if args.folds > 1:
        earned = "a configuration earns its further folds, the baseline has all"
        say(
            console,
            "folds",
            f"{args.folds}, of training and validation images together: each is a training of the "
            f"{sizes.trials}; {'all are trained' if args.configs else earned}",
        )
    goal = f"metric {args.metric}"
    if costs := args.objectives[1:]:
        goal += f" against {' and '.join(costs)}"
    how = f"sampler {args.sampler}, pruner {args.pruner}"
    say(console, "search", f"{how}, {goal}, seed {args.seed}")
    if args.weights == "none" and sizes.tier.name != "tiny":
        notes = [*notes, "training starts from scratch; --weights hub or a file is much better"]
    for note in (*bundle.notes, *notes):
        say(console, "note", note, "yellow")
