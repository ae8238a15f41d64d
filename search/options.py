"""The flags of the main command."""

import argparse
from pathlib import Path

from spaces.catalog import NAMES
from trainables.cli import Parser, number, whole
from trainables.config import MOST_FOLDS

DESCRIPTION = """The main command: search a space of facial-expression models, then report."""
SMALLEST, LARGEST = 32, 1024  # pixels a side
MOST_EPOCHS = 10_000


def parser() -> Parser:
    p = Parser(
        prog="python -m search.run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--space", help=f"{', '.join(NAMES)}, or a .py file with SPACE")
    p.add_argument(
        "--configs",
        type=Path,
        metavar="FILE",
        help="instead of a space: a JSON list of {role, config}, each trained whole under --seeds",
    )
    _add_what(p.add_argument_group("what is trained on"))
    _add_size(p.add_argument_group("how large (a space that sets one of these is overruled)"))
    _add_how(p.add_argument_group("how it searches"))
    _add_where(p.add_argument_group("where it runs"))
    _add_run(p.add_argument_group("the run"))
    return p


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        default="faces",
        metavar="SOURCE",
        help="faces[:N[:DIFFICULTY]] (embedded, synthetic; the default), or a folder "
        "(RAF-CE, RAF-DB, class folders) or a CSV/TSV manifest",
    )
    group.add_argument(
        "--weights",
        metavar="SOURCE",
        help="none (from scratch; the default), package (installed offline weights), hub (lets "
        "timm download), a file, or a folder of BACKBONE.safetensors",
    )
    group.add_argument(
        "--synthetic",
        metavar="FOLDER",
        help="generated images that trials may add to the training images, as written by "
        "python -m trainables.generation (default: none)",
    )
    group.add_argument(
        "--aus",
        default="auto",
        metavar="VOCABULARY",
        help="auto (from the data), plan18, none, or a list such as 1,2,4,12",
    )
    group.add_argument(
        "--au-null",
        default="mask",
        metavar="POLICY",
        help="what the AU label null means: mask (unlabelled; the default) or zeros (no AU)",
    )
    group.add_argument(
        "--au-sides",
        default="fold",
        metavar="POLICY",
        help="of AUs coded on one side, such as L12: fold (into 12; the default) or keep (left and "
        "right are two, which a flip swaps)",
    )


def _add_size(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tier",
        help="tiny, mid or large: which networks, image size, epochs and "
        "trials (default: tiny on embedded data or without a GPU, else mid)",
    )
    group.add_argument("--trials", type=whole(1, 100_000), metavar="N")
    group.add_argument("--epochs", type=whole(1, MOST_EPOCHS), metavar="N", help="of a full trial")
    group.add_argument(
        "--hours",
        type=number(0, is_open=True),
        metavar="N",
        help="of wall clock, counted from this start; what runs then is kept for --resume",
    )
    group.add_argument(
        "--gpu-hours",
        type=number(0, is_open=True),
        metavar="N",
        help="summed over all workers and all resumes of the run",
    )
    group.add_argument("--image-size", type=whole(SMALLEST, LARGEST), metavar="PIXELS")


def _add_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--sampler", help="auto (the default), mfgp, tpe, random, gp, cmaes, nsga2")
    group.add_argument(
        "--pruner",
        help="who goes on: auto (the default), asha, thaw (with mfgp), promotion, hyperband, "
        "median, none",
    )
    group.add_argument(
        "--objectives",
        metavar="METRIC,COST",
        help="several at once: a metric, then latency, parameters or both, such as "
        "macro_f1,latency (default: the metric alone)",
    )
    group.add_argument(
        "--warm-start",
        action="append",
        type=Path,
        metavar="RUN",
        help="folder of an earlier run to learn from and to begin with its best (again for more)",
    )
    group.add_argument(
        "--metric",
        help="what is maximised: macro_f1 (of the classes with enough validation images; the "
        "default), macro_f1_all, accuracy or uar",
    )
    group.add_argument(
        "--folds",
        type=whole(1, MOST_FOLDS),
        metavar="K",
        help="of training and validation images together, each a training; a configuration earns "
        "its further folds, and is scored on what all have held out (default: 1, the data's split)",
    )
    group.add_argument(
        "--fold-seed", type=whole(0, 2**31), metavar="N", help="deals other folds (default: 0)"
    )
    group.add_argument(
        "--confirm",
        type=whole(1, 100),
        metavar="N",
        help="at the end train the best N, the default and the baseline anew, with seeds and folds "
        "that the search has not seen (python -m search.confirm)",
    )
    group.add_argument("--seed", type=whole(0, 2**32 - 1), metavar="N", help="default: 0")
    group.add_argument(
        "--seeds",
        type=whole(1, 1000),
        metavar="N",
        help="of each of --configs, counted from --seed (default: 1)",
    )


def _add_where(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--inline", action="store_true", help="in this process, without Ray")
    group.add_argument("--address", help="of a running Ray cluster, or auto")
    group.add_argument(
        "--gpus-per-trial",
        type=number(0),
        metavar="N",
        help="a part of 1 packs trials on a GPU, more than 1 makes each trial a gang of as many "
        "processes (default, where there is a GPU: 1; tier tiny packs four)",
    )
    group.add_argument(
        "--cpus-per-trial",
        type=number(0, is_open=True),
        metavar="N",
        help="of each process (default: 1)",
    )
    group.add_argument(
        "--cpu-ranks",
        type=whole(1, 1024),
        metavar="N",
        help="processes that train a trial together without GPUs (default: 1)",
    )
    group.add_argument(
        "--placement", help="of a gang: pack (the default), strict-pack (one node) or spread"
    )
    group.add_argument(
        "--max-concurrent",
        type=whole(1, 100_000),
        metavar="N",
        help="trials at once (default: as many as fit)",
    )
    group.add_argument("--no-dashboard", action="store_true")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--name", help="of the run's folder (default: space and time)")
    group.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER")
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run of that name, or with the latest of this space",
    )
    group.add_argument(
        "--log",
        action="append",
        metavar="TOOL",
        help="tell each trial to tensorboard, wandb or mlflow as well (again for more)",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the space, the plan and the time it will take; start nothing",
    )
