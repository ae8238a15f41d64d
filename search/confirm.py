"""`python -m search.confirm RUN --top N --seeds S --folds K`: the best of a run, trained anew.

The best N, the default and the baseline are a run of `--configs` in RUN/confirmation/rerun, with
seeds and folds that the search has not seen; interrupted, the same command goes on with it. The
verdict is in RUN/confirmation/confirmation.json and in the report of RUN.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import rerun
from search import run
from search.prepare import PLACES
from trainables.cli import Parser, run_command, say, whole
from trainables.config import MOST_FOLDS
from trainables.store import RunStore, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.confirmation import Confirmation, Plan


def parser() -> Parser:
    p = Parser(prog="python -m search.confirm", description=__doc__, epilog=rerun.WHERE)
    p.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, such as runs/smoke")
    p.add_argument("--top", type=whole(1, 100), default=10, metavar="N", help="default: 10")
    p.add_argument("--seeds", type=whole(1, 100), default=5, metavar="S", help="default: 5")
    p.add_argument(
        "--folds",
        type=whole(1, MOST_FOLDS),
        metavar="K",
        help="1: the data's own split (default: those of the run, or 5)",
    )
    p.add_argument("--inline", action="store_true", help="train in this process, without Ray")
    p.add_argument("--dry-run", action="store_true", help="print the plan, no more")
    p.add_argument("--skip-run", action="store_true", help="judge what is there, train nothing")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    own, rest = rerun.divide(words)
    args = parser().parse(own)
    from rich.console import Console

    from analysis import confirmation
    from analysis.leaderboard import read_board

    console, store = Console(), RunStore.open(args.run)
    folder = store.root / confirmation.FOLDER
    plan, is_begun = _plan(args, folder)
    _tell(plan, console)
    if not store.meta().get("finished"):
        say(console, "note", f"'{store.root}' has not ended: these are its best so far", "yellow")
    if args.dry_run:
        return 0
    if not args.skip_run:
        try:
            configs = confirmation.save_plan(plan, folder)
        except OSError as error:
            raise OSError(
                f"a confirmation is kept in its run, and '{folder}' cannot be written "
                f"({error.strerror}): copy the run to where it can be"
            ) from error
        command = _command(args, store.meta(), configs, plan, rest, is_begun)
        say(console, "runs", shlex.join(["search.run", *command]))
        code = run.main(command)
        if code:
            again = shlex.join(["python", "-m", "search.confirm", *words])
            print(f"the training ended with {code}; go on with:\n  {again}", file=sys.stderr)
            return code
    board = read_board(RunStore.open(folder / confirmation.RERUN))
    rerun.check_data(board, store.meta()["data"].get("fingerprint"), f"'{store.root}'")
    found = confirmation.judge(plan, board)
    write_json(folder / confirmation.FILE, confirmation.as_facts(found))
    return _report(store, found, console)


def _plan(args: argparse.Namespace, folder: Path) -> "tuple[Plan, bool]":
    """The plan, and whether it was begun before. Raises ValueError for another plan's."""
    from analysis import confirmation
    from analysis.leaderboard import read_board

    then = confirmation.load_plan(folder)
    is_begun = (folder / confirmation.RERUN / "run.json").is_file()
    if then is not None and is_begun:
        asked = (args.top, args.seeds, args.folds or then.folds)
        if not args.skip_run and (then.top, then.seeds, then.folds) != asked:
            raise ValueError(
                f"'{folder}' holds a confirmation of --top {then.top} --seeds {then.seeds} --folds "
                f"{then.folds}: go on with that, or move it away for a new one"
            )
        return then, True
    if args.skip_run:
        raise FileNotFoundError(f"no confirmation in '{folder}': leave out --skip-run to train one")
    board = read_board(RunStore.open(args.run))
    return confirmation.make_plan(board, args.top, args.seeds, args.folds), False


def _command(
    args: argparse.Namespace,
    meta: dict[str, Any],
    configs: Path,
    plan: "Plan",
    rest: Sequence[str],
    is_begun: bool,
) -> list[str]:
    """The flags of `search.run` that train the plan, on the data of the run."""
    return [
        *("--configs", str(configs), "--seeds", str(plan.seeds), "--seed", str(plan.first_seed)),
        *("--folds", str(plan.folds)),
        *(("--fold-seed", str(plan.fold_seed)) if plan.folds > 1 else ()),
        *("--runs", str(configs.parent), "--name", rerun.NAME),
        *rerun.data_flags(meta),
        *(["--inline"] if args.inline else []),
        *rest,
        *(["--resume"] if is_begun else []),
    ]


def _tell(plan: "Plan", console: "Console") -> None:
    roles = ", ".join(arm.role for arm in plan.arms)
    count = len(plan.arms) * plan.seeds * plan.folds
    how = "the data's own split"
    if plan.folds > 1:
        how = f"{plan.folds} folds each (dealt anew, --fold-seed {plan.fold_seed} on)"
    say(
        console,
        "confirm",
        f"{roles}: {plan.seeds} seeds from {plan.first_seed} on, {how}: {count} trainings, all to "
        "their end",
    )
    for note in plan.notes:
        say(console, "note", note, "yellow")


def _report(store: RunStore, found: "Confirmation", console: "Console") -> int:
    """Print the verdict, and write the report of the run anew, which shows it."""
    from analysis.report import write_report

    say(console, "verdict", found.verdict)
    path = write_report(store)
    say(console, "report", str(path))
    return 0


def after_search(args: argparse.Namespace, root: Path) -> list[str]:
    """The command that confirms the best of a run that has ended, where it ran."""
    places = [(name, getattr(args, name)) for name in PLACES]
    rest = [w for n, v in places if v is not None for w in (f"--{n.replace('_', '-')}", str(v))]
    rest += ["--no-dashboard"] if args.no_dashboard else []
    inline = ["--inline"] if args.inline else []
    return [str(root), "--top", str(args.confirm), *inline, *(["--", *rest] if rest else [])]


if __name__ == "__main__":
    run_command(main)
