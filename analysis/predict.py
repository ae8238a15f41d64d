"""Use an exported model: `python -m analysis.predict DIR PICTURES… --out predictions.csv`.

    from analysis.predict import load

    model = load("DIR")
    rows = model.predict(["a.jpg"])  # what rows.py says, as dictionaries

Without torch or the training code: numpy, OpenCV, Pillow, onnxruntime, rich.
N images, S pixels a side, K classes, A AUs.
"""

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from analysis.use import folder as files
from analysis.use import media, mtcnn, overlay, rows, runtime
from analysis.use.faces import Find, aligned, find_all, yunet
from analysis.use.media import Picture
from analysis.use.rows import NO_FACE, OK, UNREADABLE, Row, Seen
from analysis.use.tracks import Tracks
from trainables.cli import Parser, number, run_command, whole
from trainables.data.images import Pixels, square

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH = 32
AS_CROPS = "each picture is taken as a crop of one face"


@dataclass(frozen=True)
class Options:
    """How pictures are looked at."""

    find: Find | None = None  # the detector; without one, a picture is a crop of a face
    every: int = 1  # of the frames of a video
    smooth: float = 0.0  # of a video, share of what was said before
    batch: int = BATCH


@dataclass(frozen=True)
class Model:
    """An exported model in memory."""

    about: files.About  # model.json
    session: "InferenceSession"

    def probabilities(self, images: NDArray[np.uint8]) -> runtime.Said:
        """(N, K) and (N, A) probabilities of RGB crops (N, 3, S, S), as the training sees them."""
        return runtime.run(self.session, images)

    def predict(self, paths: Iterable[str | Path], options: Options | None = None) -> list[Row]:
        """A row for each face of these images, folders, patterns and videos, in their order.

        Without options each picture is a crop of a face; `Options(find=detector())` finds faces.
        Raises ValueError where there is no picture at all.
        """
        found = media.sources([str(path) for path in paths])
        return [row for _, own in self.stream(found, options or Options()) for row in own]

    def stream(
        self, paths: Sequence[Path], options: Options
    ) -> Iterator[tuple[Picture, list[Row]]]:
        """Each picture with its rows, as soon as its batch is done."""
        tracks = Tracks(options.smooth)
        waiting: list[tuple[Picture, list[tuple[Seen, Pixels | None]]]] = []
        crops = 0
        for picture in media.pictures(paths, options.every):
            faces = self._faces(picture, options, tracks)
            waiting.append((picture, faces))
            crops += sum(crop is not None for _, crop in faces)
            if crops >= options.batch or len(waiting) >= options.batch:
                yield from self._done(waiting, tracks)
                waiting, crops = [], 0
        yield from self._done(waiting, tracks)

    def _faces(
        self, picture: Picture, options: Options, tracks: Tracks
    ) -> list[tuple[Seen, Pixels | None]]:
        """The faces of a picture, each with its crop (S, S, 3); or one that says what is amiss."""
        size, where = self.about["input"]["size"], (picture.path, picture.frame, picture.second)
        if picture.pixels is None:
            return [(Seen(*where, status=UNREADABLE, reason=picture.problem), None)]
        if options.find is None:
            return [(Seen(*where, 0), square(picture.pixels, size))]
        found = find_all(options.find, picture.pixels)
        if not found:
            return [(Seen(*where, status=NO_FACE), None)]
        numbers = list(range(len(found)))
        if picture.frame is not None:
            numbers = tracks.numbers(picture.path, [face.box for face in found])
        frame = self.about["alignment"]
        return [
            (
                Seen(*where, number, box=face.box, detection=face.score),
                aligned(picture.pixels, face.eyes, size, frame),
            )
            for number, face in zip(numbers, found, strict=True)
        ]

    def _done(
        self, waiting: list[tuple[Picture, list[tuple[Seen, Pixels | None]]]], tracks: Tracks
    ) -> Iterator[tuple[Picture, list[Row]]]:
        crops = [crop for _, faces in waiting for _, crop in faces if crop is not None]
        if crops:
            planes = np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
            said = iter(zip(*self.probabilities(planes), strict=True))
        for picture, faces in waiting:
            own = []
            for seen, crop in faces:
                if crop is not None:
                    probs, aus = next(said)
                    seen = tracks.smoothed(replace(seen, probs=probs, aus=aus))
                own.append(rows.row_of(self.about, seen))
            yield picture, own


def load(folder: str | Path) -> Model:
    """The model of an exported folder, its files checked.

    Raises FileNotFoundError where there is none, ValueError for one that is damaged or of another
    version, or where onnxruntime is missing.
    """
    folder = Path(folder)
    about = files.about(folder)
    files.check(folder, *files.RUNNABLE)
    return Model(about, runtime.session(folder / files.ONNX))


def detector(file: Path | None = None) -> Find:
    """MTCNN of an installed package, or YuNet of a file. Raises ValueError where neither is."""
    return mtcnn.load() if file is None else yunet(file)


def chosen(faces: str, file: Path | None) -> tuple[Find | None, str]:
    """The detector that the flags ask for, if any, and what to tell of it."""
    if faces == "none":
        if file is not None:
            raise ValueError("--faces none looks for no faces: leave out --detector")
        return None, AS_CROPS
    if faces == "detect" or file is not None or mtcnn.is_installed():
        name = f"YuNet ({file.name})" if file else "MTCNN"
        return detector(file), f"faces are found by {name} and turned upright"
    how = f"pip install {mtcnn.PACKAGE}=={mtcnn.VERSION}"
    return None, f"no detector of faces is installed ({how}): {AS_CROPS}"


@contextmanager
def _opened(path: Path | None, is_forced: bool) -> Iterator[TextIO]:
    """Where rows go: a file that appears when all are written, or the standard output.

    Names of files that are no text are kept byte by byte. Raises FileExistsError.
    """
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
        yield sys.stdout
        return
    if path.exists() and not is_forced:
        raise FileExistsError(f"'{path}' exists: give another --out, or --force to replace it")
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            yield file
        except BaseException:
            print(f"what was done so far is in '{part}'", file=sys.stderr)
            raise
    part.replace(path)


def _shown(total: int, label: str) -> Progress:
    """A progress bar on the standard error, where that is a terminal."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    bar.add_task(label, total=total)
    return bar


def _write(
    model: Model, paths: Sequence[Path], options: Options, args: argparse.Namespace
) -> Counter[str]:
    """Write a row for each face, draw what was asked to be drawn, and count."""
    counts: Counter[str] = Counter()
    is_json = args.out is not None and args.out.suffix.lower() == ".jsonl"
    names = rows.columns(model.about)
    if args.overlay is not None:
        args.overlay.mkdir(parents=True, exist_ok=True)
    with (
        _opened(args.out, args.force) as file,
        _shown(media.count(paths, options.every), "pictures") as bar,
    ):
        if not is_json:
            file.write(rows.csv_line({name: name for name in names}, names))
        for number, (picture, own) in enumerate(model.stream(paths, options)):
            for row in own:
                file.write(rows.json_line(row) if is_json else rows.csv_line(rows.flat(row), names))
                counts[row["status"]] += 1
            if args.overlay is not None and picture.pixels is not None:
                overlay.write(args.overlay, number, picture, own)
            counts["pictures"] += 1
            bar.advance(bar.task_ids[0])
    return counts


def _parser() -> Parser:
    parser = Parser(prog="python -m analysis.predict", description=main.__doc__)
    parser.add_argument("model", type=Path, help="folder that analysis.export wrote")
    parser.add_argument(
        "inputs", nargs="+", metavar="PICTURES", help="images, folders, patterns, videos; - for a "
        "list on the standard input, one a line"
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help=".csv or .jsonl (default: CSV to the terminal)")
    parser.add_argument("--force", action="store_true", help="replace --out, draw into --overlay")
    parser.add_argument(
        "--faces", choices=("auto", "detect", "none"), default="auto", help="auto: find faces if "
        "a detector is installed; none: pictures are crops of faces, as in training"
    )  # fmt: skip
    parser.add_argument("--detector", type=Path, help="file of YuNet, in place of MTCNN")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="draw results into pictures")
    parser.add_argument(
        "--every", type=whole(1, 10**6), default=1, help="of a video: each nth frame"
    )
    parser.add_argument("--smooth", type=number(0), default=0.0, help="of a video: share of what "
                        "was said before, below 1, such as 0.7")  # fmt: skip
    parser.add_argument("--batch", type=whole(1, 4096), default=BATCH, help="faces at a time")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Say which expression and which action units the faces of pictures and videos show."""
    args = _parser().parse(argv)
    if args.out is not None and args.out.suffix.lower() not in (".csv", ".jsonl"):
        raise ValueError(f"--out '{args.out}': give a name that ends in .csv or .jsonl")
    if args.smooth >= 1:
        raise ValueError(f"--smooth {args.smooth:g}: give a share below 1")
    if args.overlay is not None and args.overlay.exists() and not args.force:
        raise FileExistsError(
            f"'{args.overlay}' exists: give a new folder, or --force to draw into it"
        )
    model = load(args.model)
    words = [w for word in args.inputs for w in (_listed() if word == "-" else [word])]
    paths = media.sources(words)
    find, told = chosen(args.faces, args.detector)
    print(told, file=sys.stderr)
    counts = _write(model, paths, Options(find, args.every, args.smooth, args.batch), args)
    rest = ", ".join(f"{counts[name]} {name}" for name in (NO_FACE, UNREADABLE) if counts[name])
    where = f" in {args.out}" if args.out is not None else ""
    print(
        f"{counts[OK]} faces in {counts['pictures']} pictures{f' ({rest})' if rest else ''}{where}",
        file=sys.stderr,
    )
    return 0


def _listed() -> list[str]:
    """The lines of the standard input, as names of files."""
    data = sys.stdin.buffer.read()
    return [os.fsdecode(line) for line in data.splitlines() if line.strip()]


if __name__ == "__main__":
    run_command(main)
