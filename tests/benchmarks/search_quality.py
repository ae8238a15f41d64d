"""Search quality on learning curves: regret against budget, ours and others', under one protocol.

    python tests/benchmarks/search_quality.py --methods auto,ray:tpe+asha --seeds 10 --jobs 2
    python tests/benchmarks/search_quality.py --table

Every finished run is a line of results/search_quality.jsonl; what is there is not run again, unless
the version of the method (its code, its packages) has changed. A package that wants an environment
of its own is run by the Python of that environment, with this script and the same record.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
import peers  # noqa: E402
from peers_course import MARKS, first_rung_of  # noqa: E402
from search_quality_progress import Progress  # noqa: E402
from search_quality_table import Record, kind_of, markdown, summary  # noqa: E402

from search.curves import problem as problem_of  # noqa: E402
from trainables.cli import Parser, number, run_command, whole  # noqa: E402

TASKS = (167168, 189873, 189906, 126026, 168330, 189908)
PROBLEMS = ",".join([*(f"lcbench:{task}" for task in TASKS), "nb301"])
OURS = ("auto", "mfgp+promotion", "tpe+asha", "random+asha")
RAY = ("ray:tpe+asha", "ray:random+asha")
OPTUNA = ("optuna:tpe+none", "optuna:tpe+hyperband", "optuna:tpe+median", "optuna:random+none")
SYNE = ("syne:asha-promotion", "syne:asha-stopping", "syne:bohb")
EXTRA = (*SYNE, "smac:multifidelity", "dehb:dehb", "neps:priorband", "neps:hyperband")
BUDGETS = {"nb301": 50.0}  # its early epochs say little, so that it needs more; elsewhere 20
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A run to be done; its fields are the key of its line in the record."""

    method: str
    problem: str
    seed: int
    workers: int
    budget: float
    first_rung: int
    version: str


def work(job: Job) -> Record:
    """Do it, in a process of the pool."""
    problem = problem_of(job.problem)
    problem.curve(problem.space.defaults())  # what is loaded once is not counted
    peers.check(job.method)
    cpu, wall = time.process_time(), time.perf_counter()
    course = peers.run(job.method, problem, job.seed, job.workers, job.budget, job.first_rung)
    end = problem.regret(course.best)  # where a search ended before its budget, it stays there
    regret = {m: course.regret.get(m, end) for m in MARKS if m <= job.budget}
    return {
        **asdict(job),
        "regret": {str(mark): round(value, 5) for mark, value in regret.items()},
        "trials": course.trials,
        "epochs": course.epochs,
        "simulated_seconds": round(course.seconds, 2),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "wall_seconds": round(time.perf_counter() - wall, 3),
    }


def plan(args: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """All runs asked for, seed by seed so that a part is a fair sample; who cannot run, and why."""
    methods, notes = {}, []
    for method in args.methods or [*OURS, *RAY, *OPTUNA, *EXTRA]:
        if reason := peers.missing(method):
            notes.append(reason)
        else:
            methods[method] = peers.check(method)
    problems = {name: problem_of(name) for name in args.problems}
    if alone := [m for m in methods if max(args.workers) > methods[m]]:
        notes.append(f"with one worker only: {', '.join(alone)}")
    version = {(m, p): peers.version(m, problems[p]) for m in methods for p in problems}
    jobs = [
        Job(method, name, seed, workers, _budget(args, name),
            first_rung_of(problem, args.first_rung), version[method, name])
        for seed in range(args.seeds)
        for workers in args.workers
        for name, problem in problems.items()
        for method, most in methods.items()
        if workers <= most
    ]  # fmt: skip
    return jobs, notes


def _budget(args: argparse.Namespace, problem: str) -> float:
    return float(args.budget or BUDGETS.get(kind_of(problem), 20.0))


def read(path: Path) -> list[Record]:
    """The lines of the record; one that a kill has cut short is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"a line of {path} cannot be read and is left out", file=sys.stderr)
    return records


def add(path: Path, record: Record) -> None:
    """One write, so that several of these scripts may share the record."""
    is_cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * is_cut + json.dumps(record) + "\n")


def forget(path: Path, jobs: Sequence[Job]) -> None:
    """Take these runs, of whatever version, from the record."""
    asked = {astuple(job)[:-1] for job in jobs}
    kept = [r for r in read(path) if _key(r)[:-1] not in asked]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(r) + "\n" for r in kept))
    fresh.replace(path)  # atomic


def _key(record: Record) -> tuple[object, ...]:
    return tuple(record[field.name] for field in fields(Job))


def run_all(jobs: Sequence[Job], processes: int, path: Path) -> int:
    """Run what is not on record, in a pool of processes; how many runs failed."""
    records = read(path)
    known = {_key(r) for r in records}
    missing = [job for job in jobs if astuple(job) not in known]
    progress = Progress(len(jobs), len(jobs) - len(missing), processes)
    for record in records:
        progress.learn(record)
    failed = 0
    with _pool(processes) as pool:
        waiting = {pool.submit(work, job): job for job in missing}
        for future in as_completed(waiting):
            job = waiting.pop(future)
            try:
                record = future.result()
            except BrokenExecutor as error:
                why = "a process died, perhaps for lack of memory: run again with fewer --jobs"
                raise OSError(why) from error
            except Exception as error:  # of whatever package: the others go on
                failed += 1
                print(f"FAILED {job}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            add(path, record)
            left = [(job.method, kind_of(job.problem), job.workers) for job in waiting.values()]
            progress.step(record, left)
    return failed


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, ended at once when this one is interrupted."""
    # Inherited, before numpy is imported there; without the second, SMAC's runs are not repeatable.
    os.environ.update({**dict.fromkeys(THREADS, "1"), "PYTHONHASHSEED": "0"})
    context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of others
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_quiet)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _quiet() -> None:
    """Let others print and warn in vain."""
    warnings.simplefilter("ignore")
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # for as long as the process lives
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us


def main() -> int:
    args = _parser().parse(sys.argv[1:])
    args.results.mkdir(parents=True, exist_ok=True)
    path, failed = args.results / "search_quality.jsonl", 0
    notes: list[str] = []
    if not args.table:
        with redirect_stdout(sys.stderr):  # some packages talk while they are imported
            jobs, notes = plan(args)
        if args.afresh:
            forget(path, jobs)
        failed = run_all(jobs, args.jobs, path)
    shown = _asked(read(path), args)
    present = {r["method"] for r in shown}
    if args.table:
        notes = [peers.missing(m) for m in args.methods or EXTRA if m not in present]
    tables = summary(shown)
    print(markdown(tables, [n for n in notes if n and n.partition(": ")[0] not in present]))
    (args.results / "search_quality.json").write_text(json.dumps(tables, indent=1) + "\n")
    return 1 if failed else 0


def _asked(records: Sequence[Record], args: argparse.Namespace) -> list[Record]:
    """The runs that belong into the tables; without --methods, those of all methods do."""
    rungs = {name: first_rung_of(problem_of(name), args.first_rung) for name in args.problems}
    return [
        r
        for r in records
        if (not args.methods or r["method"] in args.methods)
        and r["problem"] in rungs
        and r["workers"] in args.workers
        and r["budget"] == _budget(args, r["problem"])
        and r["first_rung"] == rungs[r["problem"]]
    ]


def _parser() -> Parser:
    p = Parser(prog="python tests/benchmarks/search_quality.py", description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    known = ", ".join([*OURS, *RAY, *OPTUNA, *EXTRA])
    p.add_argument("--methods", type=names, metavar="NAME,…",
                   help=f"any SAMPLER+PRUNER of ours, or of others (default: {known})")  # fmt: skip
    p.add_argument("--problems", type=names, default=names(PROBLEMS), metavar="NAME,…",
                   help="lcbench:TASK, nb301 or a formula (default: six tasks, nb301)")  # fmt: skip
    p.add_argument("--seeds", type=whole(1, 1000), default=3, metavar="N", help="0 to N-1")
    p.add_argument("--workers", type=counts, default=[1, 8], metavar="N,…", help="default: 1,8")
    p.add_argument("--budget", type=number(0, is_open=True), metavar="N",
                   help="in full trainings (default: 20, of nb301 50)")  # fmt: skip
    p.add_argument("--first-rung", type=whole(0, 10_000), default=0, metavar="EPOCH",
                   help="0, the default: a ninth of the epochs")  # fmt: skip
    p.add_argument("--jobs", type=whole(1, 1024), default=os.cpu_count() or 1, metavar="N",
                   help="processes (default: as many as cores)")  # fmt: skip
    p.add_argument("--table", action="store_true", help="only print what is on record")
    p.add_argument("--afresh", action="store_true", help="run again what is on record")
    p.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    return p


def names(text: str) -> list[str]:
    """The type of a flag that takes names, separated by commas."""
    found = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError("give one or more, separated by commas")
    return found


def counts(text: str) -> list[int]:
    """The type of a flag that takes numbers of workers, separated by commas."""
    return sorted({whole(1, 10_000)(word) for word in names(text)})


if __name__ == "__main__":
    run_command(main)
