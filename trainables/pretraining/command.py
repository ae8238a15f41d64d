"""Pretrain a backbone on images without labels.

    python -m trainables.pretraining --data faces:2000 --backbone test_vit --method mae --out DIR

Exit code 0: the weights are there; 2: what is asked cannot be; 130: interrupted, --resume goes on.
"""

import logging
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from trainables.bars import bars
from trainables.cli import Parser, number, say, whole
from trainables.config import Part, Value
from trainables.data import cache
from trainables.data.listing import several
from trainables.pretraining.files import Files
from trainables.pretraining.fit import build, check_same, pretrain
from trainables.pretraining.methods import METHODS
from trainables.pretraining.pool import Pool, gather
from trainables.pretraining.record import origin, read_record
from trainables.pretraining.settings import Settings
from trainables.pretraining.views import CONTROLS
from trainables.registry import unknown
from trainables.store import Row

_READ: dict[type, Callable[[str], Value]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    float: float,
    int: int,
    str: str,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Pretrain as the flags say. Raises ValueError, LookupError or OSError for what cannot be."""
    given = _parser().parse(arguments)
    settings, files = _settings(given), Files.at(given.out, given.backbone)
    _check_exclusion(given)
    console = Console(stderr=True)
    if given.resume and files.weights.exists() and not files.state.exists():
        _check_done(files, settings)
    else:
        files.prepare(given.resume, given.force)
        build(settings)  # raises what is wrong before images are read, which may take long
        pool = _gather(given, console)
        try:
            _train(pretrain(settings, pool, files, given.force), settings, console)
        except KeyboardInterrupt:
            _tell_how_to_go_on(sys.argv[1:] if arguments is None else arguments, files)
            raise
        except FloatingPointError as error:
            raise ValueError(str(error)) from error
    say(console, "weights", f"{files.weights}: {origin(read_record(files.weights))}")
    say(console, "next", f"python -m search.run --space SPACE --weights {files.weights}")
    return 0


def _parser() -> Parser:
    told = [
        f"{name}: " + ", ".join(f"{k}={v}" for k, v in METHODS.arguments(name).items())
        for name in METHODS
    ]
    parser = Parser(
        prog="python -m trainables.pretraining",
        description="Pretrain a backbone on images without labels. The result is a file that "
        "--weights of a search takes, alone or in a folder of several.",
        epilog=f"Methods and what --set takes: {'; '.join(told)}",
    )
    add = parser.add_argument
    add("--data", help="a data set: its training images are the images, unless there are --images; "
        "images that are, or look like, its validation and test images are left out")  # fmt: skip
    add("--images", type=Path, help="a folder of images, however deep, without labels")
    add("--no-exclusion", action="store_true", help="leave nothing out of --images; the weights "
        "say so wherever they are used")  # fmt: skip
    add("--backbone", required=True, help="a name of timm's, or small_resnet")
    add("--method", required=True, help=", ".join(METHODS))
    add("--set", action="append", default=[], metavar="NAME=VALUE",
        help="a hyper-parameter of the method, as mask_ratio=0.6; repeat for more")  # fmt: skip
    add("--out", type=Path, required=True, help="a .safetensors file, or a folder of them")
    add("--resume", action="store_true", help="go on with what was interrupted")
    add("--force", action="store_true", help="replace what is there")
    _add_settings(parser)
    return parser


def _add_settings(parser: Parser) -> None:
    add, plain = parser.add_argument, Settings("", Part())
    add("--size", type=whole(cache.SMALLEST, cache.LARGEST), default=plain.image_size,
        help="pixels a side")  # fmt: skip
    add("--epochs", type=whole(1, 100_000), default=plain.epochs)
    add("--batch-size", type=whole(2, 65_536), default=plain.batch_size)
    add("--base-lr", type=number(0, is_open=True), default=plain.base_lr,
        help="learning rate for a batch of 256; it grows with the batch")  # fmt: skip
    add("--weight-decay", type=number(0), default=plain.weight_decay)
    add("--warmup", type=number(0), default=plain.warmup, help="share of the epochs")
    add("--weights", default=plain.weights, help="to continue from: none, package, hub, a file or "
        "a folder")  # fmt: skip
    add("--control", default=plain.control, help=f"{', '.join(CONTROLS)}: pixels in random order, "
        "as many steps that see no face")  # fmt: skip
    add("--seed", type=whole(0, 2**31), default=plain.seed)


def _settings(given: Namespace) -> Settings:
    if given.control not in CONTROLS:
        raise LookupError(unknown("control", given.control, CONTROLS))
    arguments = dict(_argument(given.method, text) for text in given.set)
    METHODS.check(given.method, arguments)
    if given.warmup >= 1:
        raise ValueError(f"--warmup {given.warmup:g} is a share of the epochs: give less than 1")
    return Settings(
        backbone=given.backbone,
        method=Part(given.method, arguments),
        image_size=given.size,
        epochs=given.epochs,
        batch_size=given.batch_size,
        base_lr=given.base_lr,
        weight_decay=given.weight_decay,
        warmup=given.warmup,
        weights=given.weights,
        control=given.control,
        seed=given.seed,
    )


def _argument(method: str, text: str) -> tuple[str, Value]:
    """A NAME=VALUE, the value of the type that the method's default has."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set {text} has no value: write --set {text}=VALUE")
    METHODS.check(method, [name])
    kind = type(METHODS.arguments(method)[name])
    try:
        return name, _READ[kind](value)
    except (ValueError, KeyError):
        wanted = "true or false" if kind is bool else f"a value of type {kind.__name__}"
        raise ValueError(f"--set {text}: {name} of '{method}' wants {wanted}") from None


def _check_exclusion(given: Namespace) -> None:
    """Raise ValueError unless it is clear what must be left out."""
    if given.data is None and given.images is None:
        raise ValueError("nothing to pretrain on: give --data SOURCE, or --images FOLDER with it")
    if given.no_exclusion and (given.data is not None or given.images is None):
        raise ValueError(
            "--no-exclusion is for --images without --data: with a data set, what it scores on is "
            "always left out"
        )
    if given.data is None and not given.no_exclusion:
        raise ValueError(
            "--images may hold validation or test images: name with --data the data set whose "
            "images are to be left out, or say --no-exclusion, which the weights will carry"
        )


def _check_done(files: Files, settings: Settings) -> None:
    record = read_record(files.weights)
    if record is None:
        raise FileExistsError(f"'{files.weights}' is there and was not made here; --force replaces")
    check_same(str(files.weights), record["settings"], settings.as_json())


def _gather(given: Namespace, console: Console) -> Pool:
    """The images, with a bar for each stage of getting them; what was left out is told."""
    folder = None if given.images is None else given.images.expanduser()
    with bars(console) as show:
        pool = gather(given.data, folder, given.size, show)
    proof = pool.proof
    for note in pool.notes:
        say(console, "note", note)
    say(console, "images", f"{proof.seen} of {proof.candidates} of '{pool.source}'")
    if not proof.data:
        say(console, "warning", "nothing was excluded: scores of weights that have seen validation "
            "or test images look better than they are", "yellow")  # fmt: skip
    elif proof.excluded:
        say(console, "excluded", f"{proof.excluded_equal} equal to validation or test images of "
            f"'{proof.data}', {proof.excluded_alike} that look like one: "
            f"{several(proof.excluded)}")  # fmt: skip
    return pool


def _train(rows: Iterable[Row], settings: Settings, console: Console) -> None:
    """Drive the pretraining, and show how far it is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with bars(console) as show:
        for row in rows:
            show(settings.method.name, row["epoch"], settings.epochs, _told(row))


def _told(row: Row) -> str:
    return ", ".join(f"{name} {row[name]:.4g}" for name in ("loss", "spread") if name in row)


def _tell_how_to_go_on(arguments: Sequence[str], files: Files) -> None:
    if not files.state.exists():
        return
    words = [word for word in arguments if word not in ("--resume", "--force")]
    command = shlex.join([sys.executable, "-m", "trainables.pretraining", *words, "--resume"])
    print(f"what is done is kept in '{files.state}'. Go on with:\n  {command}", file=sys.stderr)
