"""The flags of the main command."""

import argparse
from pathlib import Path

from trainables.cli import Parser

DESCRIPTION = """The main command: search a space of facial-expression models, then report."""


def parser() -> Parser:
    p = Parser(
        prog="python -m search.run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--space", help="smoke, sprint1, sprint2, or a .py file with SPACE")
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
        default="macro_f1",
        help="what is maximised: macro_f1 (of the classes with "
        "enough validation images), macro_f1_all, accuracy or uar",
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
