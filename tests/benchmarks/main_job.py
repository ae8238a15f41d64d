"""The main job of the README: when ours has what stock Ray Tune, or random search, ends with.

    python tests/benchmarks/main_job.py --seeds 5       an hour and a half on two quiet cores
    python tests/benchmarks/main_job.py --table         prints what is on record

For each seed the same space on the same decoded images, 20 trials of up to 9 epochs:

    stock    Ray Tune's Tuner, OptunaSearch and ASHAScheduler as they come, on the same trainable
    reused   the same, but with `reuse_actors=True` (only when asked for by --methods)
    random   20 draws trained whole by our own driver (--configs), so that only the choice differs
    ours     `python -m search.run --space sprint2`, its report included; where it ends below a
             target, it goes on (--resume with more trials) until the slowest peer had ended

The target is the best validation score of a peer at any epoch. All are watched from outside by one
clock, which begins with the command. Each run is a line of results/main_job.jsonl; what is there is
not run again without --afresh. Ctrl-C ends the run in hand and prints the table of the others.
"""

import argparse
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]
from main_job_table import Record, best, last_row, markdown, summary  # noqa: E402

from trainables.cli import Parser, run_command, whole  # noqa: E402

METHODS = ("stock", "random", "ours")
PEERS = ("stock", "reused", "random")
LOOK_SECONDS, TELL_SECONDS, END_SECONDS = 0.1, 20.0, 60.0
MORE = 10  # times as many trials, at the most, when ours goes on


class Watch:
    """Rows of a run as they come, from its folder. State: the clock, and how far files are read."""

    def __init__(self, label: str, root: Path) -> None:
        self.label, self.root, self.began = label, root, time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self._read: dict[Path, int] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def follow(self, command: Sequence[str], deadline: float = float("inf")) -> int:
        """Run a command to its end, or to the deadline; its exit code."""
        told = 0.0
        with (self.root.parent / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment(), start_new_session=True
            )
        try:
            while process.poll() is None and self.seconds < deadline:
                self.look()
                if self.seconds - told > TELL_SECONDS:
                    told = self.seconds
                    self.tell()
                time.sleep(LOOK_SECONDS)
        finally:
            end(process)
        self.look()
        self.tell()
        return process.returncode

    def look(self) -> None:
        """Note the rows that are new since the last look."""
        now = self.seconds
        for path in self.root.glob("trials/*/history.jsonl"):
            done = self._read.get(path, 0)
            if path.stat().st_size > done:
                whole_lines = path.read_bytes()[done:].rpartition(b"\n")[0]
                self._read[path] = done + len(whole_lines) + bool(whole_lines)
                for row in map(json.loads, whole_lines.split(b"\n") if whole_lines else ()):
                    self.rows.append({"t": round(now, 2), "trial": path.parent.name} | {
                        name: row[name] for name in ("epoch", "score", "seconds")
                    })  # fmt: skip

    def tell(self) -> None:
        trials = len({row["trial"] for row in self.rows})
        top = max((row["score"] for row in self.rows), default=0.0)
        told = f"{self.label}: {self.seconds:.0f} s, {trials} trials, {len(self.rows)} epochs"
        print(f"{told}, best {top:.4f}", file=sys.stderr, flush=True)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End what still runs, at first as a scheduler of jobs would."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",  # of all: a busy machine must not lose a run
        "PYTHONUNBUFFERED": "1",
    }


def words_of(args: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """The flags of a search, those of the README but for the seed and the folder."""
    words = ["--seed", str(seed), "--data", args.data, "--epochs", str(args.epochs)]
    return [*words, "--runs", str(folder), "--name", "run"]


def fitted(args: argparse.Namespace, seed: int, folder: Path) -> tuple[Any, Path]:
    """The space as our command fits it to data and tier, and the decoded data."""
    from rich.console import Console

    from search import plan, strategy
    from search.options import parser
    from search.prepare import check_flags, prepare
    from spaces.catalog import find

    words = [*words_of(args, seed, folder), "--space", args.space, "--trials", str(args.trials)]
    space = find(args.space)
    flags, _ = plan.settle(parser().parse(words), space)
    flags.given, flags.has_own_weights = [], False
    check_flags(flags)
    root = folder / "run"
    job, _ = prepare(
        strategy.settle(flags, root), words, space, root, lambda: None, Console(quiet=True)
    )
    return job.space, job.data


def run_stock(args: argparse.Namespace, seed: int, watch: Watch, *more: str) -> int:
    space, data = fitted(args, seed, watch.root.parent)
    (watch.root / "trials").mkdir(parents=True)
    (watch.root / "space.pickle").write_bytes(pickle.dumps(space))
    (watch.root / "data").symlink_to(data.resolve())
    script = [sys.executable, str(HERE / "main_job_stock.py"), "--folder", str(watch.root)]
    watch.began = time.monotonic()
    return watch.follow([*script, "--seed", str(seed), "--trials", str(args.trials), *more])


def run_random(args: argparse.Namespace, seed: int, watch: Watch) -> int:
    """Not by `--sampler random`: that begins with the baseline and the anchors of the space."""
    from search.check import check_settings

    space, _ = fitted(args, seed, watch.root.parent)
    rng, drawn = random.Random(seed), list[dict[str, Any]]()
    while len(drawn) < args.trials:
        flat = space.sample(rng)
        check_settings(flat)
        drawn.append({"role": f"draw {len(drawn)}", "config": flat | {"seed": None}})
        del drawn[-1]["config"]["seed"]  # --seed has it
    configs = watch.root.parent / "random.json"
    configs.write_text(json.dumps(drawn))
    words = [*words_of(args, seed, watch.root.parent), "--configs", str(configs)]
    watch.began = time.monotonic()
    return watch.follow([sys.executable, "-m", "search.run", *words])


def run_ours(args: argparse.Namespace, seed: int, watch: Watch, known: Sequence[Record]) -> int:
    """The command of the README, going on where a target is still ahead and its peer still ran."""
    words = [*words_of(args, seed, watch.root.parent), "--space", args.space]
    command = [sys.executable, "-m", "search.run", *words]
    fitted(args, seed, watch.root.parent)  # so that the images are decoded, as for the others
    watch.began = time.monotonic()
    code = watch.follow([*command, "--trials", str(args.trials)])
    peers = [r for r in known if r["method"] in PEERS and r["seed"] == seed]
    ahead = [r for r in peers if best(r["rows"]) > best(watch.rows)]
    if code == 0 and ahead and (until := max(map(last_row, ahead))) > watch.seconds:
        watch.label += ", going on"
        more = [*command, "--trials", str(MORE * args.trials), "--resume"]
        watch.follow(more, until)
    return code


def runner(method: str, args: argparse.Namespace, seed: int, known: Sequence[Record]) -> Any:
    runs: dict[str, Callable[[Watch], int]] = {
        "stock": lambda watch: run_stock(args, seed, watch),
        "reused": lambda watch: run_stock(args, seed, watch, "--reuse"),
        "random": lambda watch: run_random(args, seed, watch),
        "ours": lambda watch: run_ours(args, seed, watch, known),
    }
    return runs[method]


def measure(
    method: str, seed: int, args: argparse.Namespace, known: Sequence[Record]
) -> Record | None:
    """The record of one run; None, told with the end of its log, where it failed."""
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="main-job-", dir=args.work) as name:
        watch = Watch(f"{method}, seed {seed}", Path(name) / "run")
        code = runner(method, args, seed, known)(watch)
        errors = len(list(watch.root.glob("trials/*/error.txt")))
        if args.copies:
            there = args.copies / f"{method}-{seed}"
            shutil.copytree(watch.root, there, dirs_exist_ok=True)
        if code or not watch.rows:
            tail = (Path(name) / "log.txt").read_text(errors="replace")[-2000:]
            print(f"FAILED with {code}: {watch.label}\n{tail}", file=sys.stderr)
            return None
    return {
        **key(method, seed, args),
        "date": str(date.today()),
        "cores": os.cpu_count(),
        "load": load,  # before it
        "commit": commit(),
        "failed": errors,
        "seconds": round(watch.seconds, 2),
        "rows": watch.rows,
    }


def key(method: str, seed: int, args: argparse.Namespace) -> Record:
    asked = ("space", "data", "trials", "epochs")
    return {"method": method, "seed": seed, **{name: getattr(args, name) for name in asked}}


def commit() -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()


def read(path: Path, args: argparse.Namespace) -> list[Record]:
    """What is on record of the job asked for."""
    lines = path.read_text().splitlines() if path.exists() else []
    records: list[Record] = [json.loads(line) for line in lines]
    return [r for r in records if key(r["method"], r["seed"], args).items() <= r.items()]


def keep(path: Path, record: Record, args: argparse.Namespace) -> None:
    """Put a run on record, in the place of an earlier one of the same kind."""
    lines = path.read_text().splitlines() if path.exists() else []
    mine = key(record["method"], record["seed"], args)
    kept = [line for line in lines if not mine.items() <= json.loads(line).items()]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(f"{line}\n" for line in [*kept, json.dumps(record)]))
    fresh.replace(path)  # atomic


def run_all(args: argparse.Namespace, path: Path) -> None:
    """Seed by seed, so that a part is a fair sample; ours last, for it must know the targets."""
    for seed in range(args.seeds):
        for method in sorted(args.methods, key=lambda name: name == "ours"):
            known = read(path, args)
            has = any(r["method"] == method and r["seed"] == seed for r in known)
            if has and not args.afresh:
                continue
            record = measure(method, seed, args, known)
            if record is not None:
                keep(path, record, args)


def main() -> int:
    args = _parser().parse(sys.argv[1:])
    if strange := set(args.methods) - {*PEERS, "ours"}:
        raise LookupError(f"unknown methods {sorted(strange)}; known: {', '.join(PEERS)}, ours")
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "main_job.jsonl"
    try:
        if not args.table:
            run_all(args, path)
    except KeyboardInterrupt:
        print("interrupted; what had ended:", file=sys.stderr)
    tables = summary(read(path, args))
    print(markdown(tables))
    (args.results / "main_job.json").write_text(json.dumps(tables, indent=1) + "\n")
    return 0


def _parser() -> Parser:
    p = Parser(prog="python tests/benchmarks/main_job.py", description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("--methods", type=lambda text: text.split(","), default=METHODS,
                   metavar="NAME,…", help="default: stock,random,ours")  # fmt: skip
    p.add_argument("--seeds", type=whole(1, 1000), default=5, metavar="N", help="0 to N-1")
    p.add_argument("--space", default="sprint2")
    p.add_argument("--data", default="faces:2000")
    p.add_argument("--trials", type=whole(1, 1000), default=20, metavar="N")
    p.add_argument("--epochs", type=whole(1, 1000), default=9, metavar="N")
    p.add_argument("--table", action="store_true", help="only print what is on record")
    p.add_argument("--afresh", action="store_true", help="run again what is on record")
    p.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    p.add_argument("--copies", type=Path, metavar="FOLDER", help="for copies of run folders")
    p.add_argument("--work", type=Path, metavar="FOLDER", help="for run folders, which are removed")
    return p


if __name__ == "__main__":
    run_command(main)
