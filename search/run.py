"""The main command: search a space of facial-expression models, then report.

python -m search.run --space sprint2
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from search import strategy
from search.folder import alone_in, is_over, run_folder
from search.job import Job, again, make_pruner, open_store, rungs
from search.options import parser
from search.prepare import Join, announce, check_flags, choose_resources, gpus_here, prepare
from trainables.cli import end_on_sigterm, run_command, say

if TYPE_CHECKING:
    from rich.console import Console

    from search.cluster import Cluster, Resources
    from search.core import Search
    from search.monitor import Place
    from search.protocols import Observer
    from spaces.space import Space
    from trainables.store import RunStore


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    args = parser().parse(words)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: see README.md
    from rich.console import Console

    from search import given, plan
    from search.trackers import check_log

    given.check_flags(args)
    args.given = given.read(args.configs) if args.configs else []
    args.has_own_weights = args.weights is None
    console = Console()
    space = given.space_of(args.configs, args.given) if args.configs else _space(args)
    args, notes = plan.settle(args, space)
    check_flags(args)
    check_log(args.log or ())
    root = run_folder(args, space.name)
    args = strategy.settle(given.settle(args) if args.configs else args, root)
    has_ended = args.resume and is_over(root, args.trials)
    with _cluster(args, not (args.inline or args.dry_run or has_ended)) as cluster:
        job, more = prepare(args, words, space, root, cluster, console)
        announce(job, notes + more, console)
        if args.dry_run:
            return _dry_run(job, console)
        with alone_in(root):
            store, last_words, is_whole = _run(job, cluster, console, has_ended)
        # before Ray is stopped, which it does not always survive
        code = _report(store, console) if is_whole else _leaderboard(store, console)
        if last_words:
            print(last_words, file=sys.stderr)
    if args.confirm is not None and not code and is_whole and not last_words:
        return _confirm(args, root)
    return code


def _confirm(args: argparse.Namespace, root: Path) -> int:
    """Train the best of the search anew: on Ray in a process of its own, which starts its own."""
    from search import confirm

    words = confirm.after_search(args, root)
    if args.inline:
        return confirm.main(words)
    return subprocess.run([sys.executable, "-m", "search.confirm", *words]).returncode


def _space(args: argparse.Namespace) -> "Space":
    from spaces.catalog import NAMES, find

    if args.space is None:
        known = ", ".join(NAMES)
        raise ValueError(f"--space is missing; known: {known}, or the path of a .py file")
    return find(args.space)


@contextmanager
def _cluster(args: argparse.Namespace, is_needed: bool) -> Iterator[Join]:
    """Ray, starting beside other work, ended with the block; nothing where it is not needed."""
    if not is_needed:
        yield lambda: None
        return
    from search.cluster import ray_in_background

    with ray_in_background(address=args.address, dashboard=not args.no_dashboard) as join:
        yield join


def _run(
    job: Job, cluster: Join, console: "Console", has_ended: bool
) -> "tuple[RunStore, str, bool]":
    """Run every trial of the budget; the record, what to say of an early end, whether it is one
    that was asked for."""
    from trainables.store import RunStore

    if has_ended:
        more = "--seeds" if job.args.configs else "--trials"
        told = f"{job.root} has ended: only its report is written anew (a larger {more} goes on)"
        say(console, "run", told)
        return RunStore.open(job.root), "", True
    there = cluster()
    resources = _resources(job, there.cpus, there.gpus) if there else None
    store = open_store(job)
    on = f"what is done is kept. Go on with:\n  {again(job)}"
    if there:  # after Ray has started, whose own handler ends the process on the spot
        end_on_sigterm(f"interrupted; {on}")
    try:
        search = _search(job, store, there, resources, console)
    except KeyboardInterrupt:
        search = None
    except OSError as error:
        raise OSError(f"{error}, with the run in '{job.root}'; {on}") from error
    if search is not None and search.is_finished:
        return store, "", True
    if search is not None and search.spent:
        return store, f"{search.spent}; {on}", True
    return store, f"interrupted; {on}", False


def _make_search(job: Job, store: "RunStore") -> "Search":
    from search.check import check_settings
    from search.core import Search
    from search.given import GivenProposer
    from search.proposer import SpaceProposer
    from search.samplers import SAMPLERS
    from search.transfer import teach

    sizes, args = job.sizes, job.args
    if args.configs:
        return Search(store, GivenProposer(job.anchors), make_pruner(job), sizes.trials)
    columns = strategy.columns(args.objectives)
    model = SAMPLERS[args.sampler](job.space, sizes.trials, columns)
    teach(model, job.earlier)
    proposer = SpaceProposer(job.space, model, args.seed, job.anchors, validate=check_settings)
    return Search(store, proposer, make_pruner(job), sizes.trials, folds=args.folds)


def _resources(job: Job, cpus: float, gpus: float) -> "Resources":
    """What a trial gets. Raises ValueError when that is more than there is."""
    from search.sharing import usual_share

    return choose_resources(job.args, cpus, gpus, usual_share(job, cpus, gpus))


def _place(job: Job, there: "Cluster | None", resources: "Resources | None") -> "Place":
    """Where trials run, and what they may spend there."""
    from search.monitor import Place

    hours, gpu_hours = job.args.hours, job.args.gpu_hours
    if there is None or resources is None:
        return Place(1, min(1, gpus_here()), "", hours, gpu_hours)
    from search.cluster import count_workers

    workers = count_workers(resources, there.cpus, there.gpus)
    return Place(workers, resources.gpus_per_trial, there.dashboard, hours, gpu_hours)


def _observer(
    job: Job, search: "Search", place: "Place", is_on_ray: bool, console: "Console"
) -> "Observer":
    """Everyone who watches; none of them can end the search."""
    from search.journal import Journal
    from search.monitor import Monitor
    from search.trackers import Tracker
    from search.watchers import Watchers

    monitor = Monitor(search, job.sizes.trials, job.sizes.epochs, console, place)
    journal = Journal(search, job.space, strategy.columns(job.args.objectives))
    watchers: list[Observer] = [monitor, journal]
    if is_on_ray:
        from search.gauges import Gauges

        names = job.root.name, job.space.name
        watchers.append(Gauges(search, *names, place.gpus_per_trial, monitor.outlook))
    tools = dict.fromkeys(job.args.log or ())
    watchers += [Tracker(search, tool, job.space.name) for tool in tools]
    return Watchers(watchers, lambda text: say(console, "note", text, "yellow"))


def _foretell(job: Job, store: "RunStore", place: "Place", console: "Console") -> None:
    """Print and keep the forecast of a search that begins; it may fail, the search goes on."""
    from search.prospect import look_ahead, sentences

    try:
        prospect = look_ahead(job, place.workers, place.gpus_per_trial)
    except Exception as error:
        say(console, "note", f"no forecast ({type(error).__name__}: {error})", "yellow")
        return
    if prospect is not None:
        store.update_meta(forecast=prospect.as_dict())
        for label, text in sentences(prospect):
            say(console, label, text)


def _search(
    job: Job,
    store: "RunStore",
    there: "Cluster | None",
    resources: "Resources | None",
    console: "Console",
) -> "Search":
    """Run every trial of the budget, or until the user interrupts or a limit is reached."""
    from search.prospect import spent
    from trainables.trial import run_trial

    if there:
        shown = f"dashboard {there.dashboard or 'off'}" + (f" ({there.note})" if there.note else "")
        say(console, "ray", f"{there.cpus:g} CPUs, {there.gpus:g} GPUs; {shown}")
    search = _make_search(job, store)
    place = _place(job, there, resources)
    search.limit = strategy.limit(job.args, search, place.gpus_per_trial)
    store.update_meta(
        dashboard=place.dashboard, workers=place.workers, gpus_per_trial=place.gpus_per_trial
    )
    if not search.rows and not job.args.address:  # a cluster's nodes are not measured from here
        _foretell(job, store, place, console)
    observer = _observer(job, search, place, resources is not None, console)
    began = time.monotonic()
    if resources is None:
        from search.inline import run_inline

        run_inline(search, job.data, run_trial, observer)
    else:
        from search.driver import run_ray

        run_ray(search, job.data, run_trial, resources, observer)
    spent(search, store, time.monotonic() - began, place.gpus_per_trial)
    if search.is_finished:
        store.update_meta(finished=datetime.now().astimezone().isoformat(timespec="seconds"))
    if search.is_finished and len(search.results) < job.sizes.trials:
        why = "the space holds no further configuration to try"
        if search.ladder:
            why += ", or what was left would not pay for the folds of another"
        say(console, "note", why, "yellow")
    return search


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
    _tell_front(store, console)
    errors = [r.result.error for r in store.records() if r.result and r.result.status == "failed"]
    if len(errors) < len(store.records()):
        return 0
    print(f"error: all {len(errors)} trials failed, the first with: {errors[0]}", file=sys.stderr)
    return 1


def _tell_front(store: "RunStore", console: "Console") -> None:
    """Print the trials that no other beats, where there are several objectives."""
    from search.front import front, front_lines

    objectives = store.meta().get("objectives") or ()
    points = front({record.id: record.result for record in store.records()}, objectives)
    for line in front_lines(points, objectives):
        say(console, "front", line)


def _leaderboard(store: "RunStore", console: "Console") -> int:
    """Report what an interrupted run has found so far, if anything has ended."""
    if any(record.result is not None for record in store.records()):
        with suppress(OSError, ValueError, KeyboardInterrupt):
            _report(store, console)
    return 130


def _dry_run(job: Job, console: "Console") -> int:
    """Print what would be done and how long it would take."""
    from search import given, plan
    from search.cluster import count_workers
    from search.prospect import MEASURE_SECONDS, look_ahead, sentences

    args, sizes = job.args, job.sizes
    cpus, gpus = os.cpu_count() or 1, gpus_here()
    resources = None
    if args.address:
        say(console, "place", f"the cluster at {args.address}, not joined: times are measured here")
        workers = None
    else:
        say(console, "place", f"this machine: {cpus} CPUs, {gpus} GPUs")
        resources = _resources(job, cpus, gpus)
        workers = 1 if args.inline else count_workers(resources, cpus, gpus)
    gpus_per_trial = min(1, gpus) if args.inline or not resources else resources.gpus_per_trial
    if args.configs:
        given.describe(console, job.anchors, args, sizes)
    else:
        plan.describe_plan(console, job.space, sizes, rungs(job))
    prospect = look_ahead(job, workers, gpus_per_trial, MEASURE_SECONDS)
    for label, text in sentences(prospect) if prospect else ():
        say(console, label, text)
    say(console, "done", f"nothing was started; the prepared data are kept in {job.data}")
    return 0


if __name__ == "__main__":
    run_command(main)
