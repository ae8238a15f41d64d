"""The main command: search a space of facial-expression models, then report.

python -m search.run --space sprint2
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from search.folder import alone_in, is_over, run_folder
from search.job import ETA, Job, again, open_store, rungs
from search.options import parser
from search.prepare import Join, announce, check_flags, choose_resources, gpus_here, prepare
from trainables.cli import end_on_sigterm, run_command, say

if TYPE_CHECKING:
    from rich.console import Console

    from search.cluster import Cluster, Resources
    from search.core import Search
    from trainables.store import RunStore


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    args = parser().parse(words)
    from rich.console import Console

    from search.plan import settle
    from spaces.catalog import NAMES, find

    if args.space is None:
        known = ", ".join(NAMES)
        raise ValueError(f"--space is missing; known: {known}, or the path of a .py file")
    console, space = Console(), find(args.space)
    args, notes = settle(args, space)
    check_flags(args)
    root = run_folder(args, space.name)
    has_ended = args.resume and is_over(root, args.trials)
    with _cluster(args, not (args.inline or args.dry_run or has_ended)) as cluster:
        job, more = prepare(args, words, space, root, cluster, console)
        announce(job, notes + more, console)
        if args.dry_run:
            return _dry_run(job, console)
        with alone_in(root):
            store = _run(job, cluster, console, has_ended)
    return 130 if store is None else _report(store, console)


@contextmanager
def _cluster(args: argparse.Namespace, is_needed: bool) -> Iterator[Join]:
    """Ray, starting beside other work, ended with the block; nothing where it is not needed."""
    if not is_needed:
        yield lambda: None
        return
    from search.cluster import ray_in_background

    with ray_in_background(address=args.address, dashboard=not args.no_dashboard) as join:
        yield join


def _run(job: Job, cluster: Join, console: "Console", has_ended: bool) -> "RunStore | None":
    """Run every trial of the budget; the record, None when the user interrupted."""
    from trainables.store import RunStore

    if has_ended:
        told = f"{job.root} has ended: only its report is written anew (a larger --trials goes on)"
        say(console, "run", told)
        return RunStore.open(job.root)
    there = cluster()
    resources = choose_resources(job.args, there.cpus, there.gpus) if there else None
    store = open_store(job)
    on = f"what is done is kept. Go on with:\n  {again(job)}"
    if there:  # after Ray has started, whose own handler ends the process on the spot
        end_on_sigterm(f"interrupted; {on}")
    try:
        finished = _search(job, store, there, resources, console)
    except KeyboardInterrupt:
        finished = False
    except OSError as error:
        raise OSError(f"{error}, with the run in '{job.root}'; {on}") from error
    if not finished:
        print(f"interrupted; {on}", file=sys.stderr)
    return store if finished else None


def _make_search(job: Job, store: "RunStore") -> "Search":
    from search.asha import Asha
    from search.check import check_settings
    from search.core import Search
    from search.proposer import OptunaProposer

    sizes, args = job.sizes, job.args
    proposer = OptunaProposer(
        job.space, args.sampler, args.seed, sizes.trials, job.anchors, validate=check_settings
    )
    return Search(store, proposer, Asha(sizes.epochs, sizes.first_rung, ETA), sizes.trials)


def _search(
    job: Job,
    store: "RunStore",
    there: "Cluster | None",
    resources: "Resources | None",
    console: "Console",
) -> bool:
    """Run every trial of the budget; False when the user interrupted."""
    from search.monitor import Monitor
    from trainables.trial import run_trial

    dashboard = there.dashboard if there else ""
    if there:
        shown = f"dashboard {dashboard or 'off'}" + (f" ({there.note})" if there.note else "")
        say(console, "ray", f"{there.cpus:g} CPUs, {there.gpus:g} GPUs; {shown}")
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
    if finished and len(search.results) < job.sizes.trials:
        say(console, "note", "the space holds no further configuration to try", "yellow")
    return finished


def _report(store: "RunStore", console: "Console") -> int:
    """Write and print the report; 1 when there is nothing in it."""
    from analysis.report import report_run

    later = f"python -m analysis.report {store.root} writes the report"
    try:
        report_run(store, console)
    except OSError as error:
        raise OSError(f"{error}, while the report was written; later {later}") from error
    except KeyboardInterrupt:
        print(f"interrupted; the trials are done, and {later}", file=sys.stderr)
        return 130
    errors = [r.result.error for r in store.records() if r.result and r.result.status == "failed"]
    if len(errors) < len(store.records()):
        return 0
    print(f"error: all {len(errors)} trials failed, the first with: {errors[0]}", file=sys.stderr)
    return 1


def _dry_run(job: Job, console: "Console") -> int:
    """Print what would be done and how long it would take."""
    from search import plan
    from search.asha import Asha
    from search.cluster import count_workers

    args, sizes = job.args, job.sizes
    cpus, gpus = os.cpu_count() or 1, gpus_here()
    asha = Asha(sizes.epochs, sizes.first_rung, ETA)
    if args.address:
        say(console, "place", f"the cluster at {args.address}, not joined: times are measured here")
        workers = None
    else:
        say(console, "place", f"this machine: {cpus} CPUs, {gpus} GPUs")
        resources = choose_resources(args, cpus, gpus)
        workers = 1 if args.inline else count_workers(resources, cpus, gpus)
    threads = None if args.inline else max(1, int(args.cpus_per_trial or 1))
    seconds = plan.measure_epoch(job.space.defaults(), job.data, threads)
    forecast = plan.Forecast(seconds, asha.expected_epochs(sizes.trials) * sizes.trials, workers)
    plan.describe_plan(console, job.space, sizes, rungs(sizes), forecast)
    say(console, "done", f"nothing was started; the prepared data are kept in {job.data}")
    return 0


if __name__ == "__main__":
    run_command(main)
