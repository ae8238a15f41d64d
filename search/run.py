"""The main command: search a space of facial-expression models, then report.

python -m search.run --space sprint2
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from search.job import ETA, Job, again, open_store, run_folder
from search.options import parser
from trainables.cli import run_command

if TYPE_CHECKING:
    from rich.console import Console

    from search.cluster import Cluster, Resources
    from search.core import Search
    from spaces.space import Space
    from trainables.store import RunStore

Join = Callable[[], "Cluster | None"]  # waits for Ray; None when the search runs in this process


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse(arguments)
    from rich.console import Console

    from spaces.catalog import NAMES, find

    console = Console()
    if args.space is None:
        raise ValueError(
            f"--space is missing; known: {', '.join(NAMES)}, or the path of a .py file"
        )
    space = find(args.space)
    _check_names(args)
    root = run_folder(args, space.name)
    with _cluster(args) as cluster:
        job = _prepare(args, space, root, cluster, console)
        if args.dry_run:
            return _dry_run(job, cluster, console)
        store = open_store(job)
        finished = _search(job, store, cluster, console)
    if not finished:
        console.print(f"interrupted; what is done is kept. Go on with:\n  {again(job)}")
        return 130
    from analysis.report import report_run

    report_run(store, console)
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


@contextmanager
def _cluster(args: argparse.Namespace) -> Iterator[Join]:
    """Ray, starting beside other work, ended with the block; nothing where it is not needed."""
    if args.inline or args.dry_run:
        yield lambda: None
        return
    from search.cluster import ray_in_background

    with ray_in_background(address=args.address, dashboard=not args.no_dashboard) as join:
        yield join


def _gpus(args: argparse.Namespace, cluster: Join) -> int:
    """GPUs that trials can use: of the cluster joined, else of this machine."""
    if args.address and (there := cluster()):
        return int(there.gpus)
    import torch

    return torch.cuda.device_count()


def _prepare(
    args: argparse.Namespace, space: "Space", root: Path, cluster: Join, console: "Console"
) -> Job:
    """Data decoded, space fitted to it and checked: all that can be refused is refused here."""
    from search import plan
    from trainables.data import cache

    sizes = plan.choose_sizes(
        args.tier, args.data, _gpus(args, cluster), args.image_size, args.epochs, args.trials
    )
    plan.check_space(sizes.space(space))
    with _progress(console) as show:
        data = cache.prepare(args.data, sizes.image_size, show, au_vocabulary=args.aus)
    bundle = cache.load(data)
    constants = {"seed": args.seed, "weights": args.weights, "metric": args.metric}
    fitted, notes = plan.fit_to_data(plan.with_constants(sizes.space(space), constants), bundle)
    plan.check_space(fitted)
    job = Job(args, root, fitted, sizes, data, bundle)
    _announce(job, notes, console)
    return job


@contextmanager
def _progress(console: "Console") -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage that is reported to it."""
    from rich.progress import Progress, TaskID

    with Progress(console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def _announce(job: Job, notes: Sequence[str], console: "Console") -> None:
    """What was chosen, and what the user should know of the data."""
    bundle, sizes, args = job.bundle, job.sizes, job.args
    console.print(
        f"[bold]data[/]     {bundle.name}: train {len(bundle.train)}, validation "
        f"{len(bundle.val)}, test {len(bundle.test)} (sealed); {len(bundle.class_names)} "
        f"classes, {len(bundle.au_names)} action units",
        highlight=False,
    )
    if bundle.is_synthetic:
        console.print(
            "[bold yellow]synthetic[/] procedural faces: results say nothing about real ones"
        )
    if bundle.ceiling:
        console.print(
            f"[bold]ceiling[/]  of a perfect reader of the action units: macro-F1 "
            f"{bundle.ceiling['macro_f1']:.3f}, accuracy {bundle.ceiling['accuracy']:.3f}"
        )
    console.print(
        f"[bold]tier[/]     {sizes.tier.name}: {sizes.trials} trials of up to "
        f"{sizes.epochs} epochs at {sizes.image_size} px (--tier, --trials, --epochs, "
        f"--image-size); sampler {args.sampler}, seed {args.seed}",
        highlight=False,
    )
    if args.weights == "none" and sizes.tier.name != "tiny":
        notes = [*notes, "training starts from scratch; --weights hub or a file is much better"]
    for note in (*bundle.notes, *notes):
        console.print(f"[yellow]note[/]     {note}", highlight=False)


def _resources(job: Job, cluster: "Cluster") -> "Resources":
    """What a trial gets. Raises ValueError when that is more than there is."""
    from search.cluster import Resources, count_workers

    gpus = job.args.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if cluster.gpus else 0.0
    resources = Resources(job.args.cpus_per_trial, gpus)
    count_workers(resources, cluster.cpus, cluster.gpus)
    return resources


def _make_search(job: Job, store: "RunStore") -> "Search":
    from search import plan
    from search.asha import Asha
    from search.core import Search
    from search.proposer import OptunaProposer
    from spaces.tiers import baseline

    sizes, args = job.sizes, job.args
    first = baseline(job.space, sizes.tier)
    anchors = [("baseline", first), ("default", job.space.defaults())]
    proposer = OptunaProposer(
        job.space, args.sampler, args.seed, sizes.trials, anchors, validate=plan.check_settings
    )
    return Search(store, proposer, Asha(sizes.epochs, sizes.first_rung, ETA), sizes.trials)


def _search(job: Job, store: "RunStore", cluster: Join, console: "Console") -> bool:
    """Run every trial of the budget; False when the user interrupted."""
    from search.monitor import Monitor
    from trainables.trial import run_trial

    there = cluster()
    resources = _resources(job, there) if there else None
    dashboard = there.dashboard if there else ""
    if there:
        console.print(
            f"[bold]ray[/]      {there.cpus:g} CPUs, {there.gpus:g} GPUs; dashboard "
            f"{dashboard or 'off'} {there.note and f'({there.note})'}",
            highlight=False,
        )
        store.update_meta(dashboard=dashboard)
    search = _make_search(job, store)
    monitor = Monitor(search, job.sizes.trials, job.sizes.epochs, console, dashboard)
    if resources is None:
        from search.inline import run_inline

        finished = run_inline(search, job.data, run_trial, monitor)
    else:
        from search.driver import run_ray

        finished = run_ray(search, job.data, run_trial, resources, monitor)
    if finished:
        store.update_meta(finished=datetime.now().astimezone().isoformat(timespec="seconds"))
    return finished


def _dry_run(job: Job, cluster: Join, console: "Console") -> int:
    """Print what would be done and how long it would take."""
    from search import plan
    from search.asha import Asha

    cpus = os.cpu_count() or 1
    gpus = _gpus(job.args, cluster)
    asha = Asha(job.sizes.epochs, job.sizes.first_rung, ETA)
    console.print(f"[bold]machine[/]  {cpus} CPUs, {gpus} GPUs", highlight=False)
    seconds = plan.measure_epoch(job.space.defaults(), job.data)
    epochs = asha.expected_epochs(job.sizes.trials) * job.sizes.trials
    workers = 1 if job.args.inline else max(1, gpus or int(cpus // job.args.cpus_per_trial))
    plan.describe_plan(
        console, job.space, job.sizes, list(asha.milestones), seconds, epochs, workers
    )
    return 0


if __name__ == "__main__":
    run_command(main)
