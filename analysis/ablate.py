"""`python -m analysis.ablate RUN [RUN …]`: what helped, measured with fresh seeds.

The ladder (baseline, then the best of each run, in their order) and the winner without each
technique, every configuration under several seeds that no search had used. The training is a run
of `search.run --configs`, begun as a command of its own, since this package knows no torch.
"""

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import ablation, ladder, ladder_page, ladder_words, rerun
from analysis.ablation import Plan
from analysis.ladder import Ladder
from analysis.leaderboard import Board, read_board
from trainables.cli import Parser, run_command, say, whole
from trainables.store import RunStore

FOLDER = "ablation"  # RUN/ablation/rerun is the run of the fresh seeds


def parser() -> Parser:
    p = Parser(prog="python -m analysis.ablate", description=__doc__, epilog=rerun.WHERE)
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="in the order of the ladder")
    p.add_argument("--seeds", type=whole(2, 100), default=5, metavar="N", help="default: 5")
    p.add_argument(
        "--top", type=whole(1, 100), default=1, metavar="N", help="of each run (default: its best)"
    )
    p.add_argument(
        "--epochs", type=whole(1, 10_000), metavar="N", help="of every trial, if not the runs' own"
    )
    p.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="TECHNIQUE",
        help="do not switch this one off, as --dry-run names it (again for more)",
    )
    p.add_argument("--inline", action="store_true", help="train in one process, without Ray")
    p.add_argument("--max-concurrent", type=whole(1, 100_000), metavar="N", help="trials at once")
    p.add_argument("--dry-run", action="store_true", help="print the plan and its cost, no more")
    p.add_argument("--skip-run", action="store_true", help="only write the tables of what is there")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    own, rest = rerun.divide(words)
    args, console = parser().parse(own), Console()
    folder = args.runs[-1] / FOLDER
    if args.skip_run:
        return _tables(ablation.load(folder), folder, console)
    boards = [read_board(RunStore.open(root)) for root in args.runs]
    plan = ablation.make_plan(boards, args.seeds, args.top, args.epochs, args.keep)
    _tell(plan, console)
    if args.dry_run:
        return 0
    is_begun = _is_begun(plan, folder)
    configs = ablation.save(plan, folder)
    command = _command(args, boards[-1], configs, plan, rest, is_begun)
    console.print(Text(shlex.join(command[1:]), "dim"), soft_wrap=True)
    code = train(command)
    if code == 2:  # a mistake, which it has told: the same command would end the same way
        return code
    if code:
        again = shlex.join(["python", "-m", "analysis.ablate", *words])
        print(f"the training ended with {code}; go on with:\n  {again}", file=sys.stderr)
        return code if code > 0 else 130
    return _tables(plan, folder, console)


def train(command: Sequence[str]) -> int:
    """Run the training, its output as it comes; its exit code.

    Interrupted it is waited for, as it ends by itself: it keeps what it has and stops Ray.
    """
    with subprocess.Popen(command) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        except KeyboardInterrupt:  # Ctrl-C in a terminal, which reaches it too
            return process.wait()
        finally:
            process.terminate()  # after a second Ctrl-C; else it has ended
            signal.signal(signal.SIGTERM, before)


def _is_begun(plan: Plan, folder: Path) -> bool:
    """Whether the training of this plan was begun before. Raises ValueError for another's."""
    root = folder / rerun.NAME
    if not (root / "run.json").is_file():
        return False
    then = {entry["role"]: entry["config"] for entry in RunStore.open(root).meta()["configs"]}
    now = {arm.role: arm.config for arm in plan.arms}
    differ = sorted(role for role in {*then, *now} if then.get(role) != now.get(role))
    if differ or RunStore.open(root).meta()["seed"] != plan.seeds[0]:
        raise ValueError(
            f"'{folder}' holds an ablation of other configurations "
            f"({', '.join(differ) or 'other seeds'}): the runs have grown since, or other runs or "
            "flags were given. Move it away for a new one, or give --skip-run for its tables"
        )
    return True


def _command(
    args: argparse.Namespace,
    board: Board,
    configs: Path,
    plan: Plan,
    rest: Sequence[str],
    is_begun: bool,
) -> list[str]:
    """The command that trains the plan, on the data of the last run."""
    where = ["--inline"] if args.inline else []
    if args.max_concurrent is not None:
        where += ["--max-concurrent", str(args.max_concurrent)]
    return [
        *(sys.executable, "-m", "search.run", "--configs", str(configs)),
        *("--seeds", str(len(plan.seeds)), "--seed", str(plan.seeds[0])),
        *("--runs", str(configs.parent), "--name", rerun.NAME),
        *rerun.data_flags(board.meta),
        *where,
        *rest,
        *(["--resume"] if is_begun else []),
    ]


def _tell(plan: Plan, console: Console) -> None:
    """Print what will be trained, and what it will take."""
    table = Table(box=None, pad_edge=False)
    for name in ("configuration", "what is switched off", "seconds a trial"):
        table.add_column(name, justify="right" if name.startswith("seconds") else "left")
    for arm in plan.arms:
        seconds = plan.seconds.get(arm.role, 0.0)
        table.add_row(Text(arm.role), Text(arm.change), f"{seconds:.1f}" if seconds else "?")
    console.print(table)
    total = sum(plan.seconds.values()) * len(plan.seeds)
    say(
        console,
        "plan",
        f"{len(plan.arms)} configurations, seeds {plan.seeds[0]} to {plan.seeds[-1]}: "
        f"{len(plan.arms) * len(plan.seeds)} trials; the winner is {plan.winner}",
    )
    say(
        console,
        "cost",
        f"about {_time(total)} on one worker, at the speed of the runs (what leaves one "
        "thing out is taken to be as slow as the winner)",
    )
    for note in plan.notes:
        say(console, "note", note, "yellow")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _tables(plan: Plan, folder: Path, console: Console) -> int:
    """Write the tables and print what they say."""
    found = ladder.read(plan, read_board(RunStore.open(folder / rerun.NAME)))
    path = ladder_page.write(found, folder)
    _print(found, console)
    console.print(Text(f"tables: {path} (.md, .csv beside it)"), soft_wrap=True)
    return 0


def _print(found: Ladder, console: Console) -> None:
    for section in ladder_page.sections(found):
        table = Table(title=Text(section.title, "bold"), title_justify="left", box=None)
        for name in ("", "seeds", ladder.NAMES[found.measure], "difference"):
            table.add_column(name, overflow="fold")
        for row in section.rows:
            cells = ladder_page.line(row, section, found)
            table.add_row(Text(row.arm.role), *map(Text, (cells[1], cells[2], cells[-1])))
        console.print(table)
    for line in ladder_words.words(found):
        console.print(Text(line))


if __name__ == "__main__":
    run_command(main)
