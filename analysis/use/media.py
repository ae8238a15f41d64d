"""What a user names, as pictures: image files, folders, patterns, videos. H x W pixels, RGB.

Whatever cannot be read becomes a picture without pixels that says why; nothing stops the rest.
"""

import glob
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trainables.data import images
from trainables.data.images import Pixels

VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"))
MOST_BYTES = 256 << 20  # of an image file


@dataclass(frozen=True)
class Picture:
    """One image, or one frame of a video."""

    path: str
    pixels: Pixels | None  # (H, W, 3) RGB; None where it cannot be read
    frame: int | None = None  # of a video, from 0
    second: float | None = None
    problem: str = ""


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def sources(words: Iterable[str]) -> list[Path]:
    """The files that are meant, in order, each once: a folder stands for the images and videos at
    or below it, sorted, and a pattern such as "a/**/*.jpg" for what matches.

    A path where nothing is stays in the list. Raises ValueError where nothing is meant at all.
    """
    words = list(words)
    found = [path for word in words for path in _meant(word)]
    if not found:
        named = ", ".join(f"'{word}'" for word in words) or "nothing"
        raise ValueError(f"no image or video in {named}")
    return list(dict.fromkeys(found))


def _meant(word: str) -> list[Path]:
    path = Path(word)
    if path.is_dir():
        inside = (p for p in path.rglob("*") if images.is_image_name(p) or is_video(p))
        return sorted(p for p in inside if p.is_file())
    if not path.exists() and glob.has_magic(word):
        matches = (Path(match) for match in glob.glob(word, recursive=True))  # noqa: PTH207
        return sorted(p for p in matches if p.is_file())
    return [path]


def count(paths: Sequence[Path], every: int) -> int:
    """About how many pictures there are; what a video says of itself may be wrong."""
    return sum(_frames(path, every) if is_video(path) else 1 for path in paths)


def _frames(path: Path, every: int) -> int:
    if not path.is_file():
        return 1
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 1
    video.release()
    return max(1, -(-total // every))


def pictures(paths: Iterable[Path], every: int = 1) -> Iterator[Picture]:
    """The pictures one by one; of a video every so manyth frame."""
    for path in paths:
        if is_video(path):
            yield from _video(path, every)
        else:
            yield _image(path)


def _image(path: Path) -> Picture:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
            raise images.Unreadable("not a file")
        if about.st_size > MOST_BYTES:
            raise images.Unreadable("too large for an image")
        return Picture(str(path), images.read(path.read_bytes()))
    except FileNotFoundError:
        return Picture(str(path), None, problem="no such file")
    except (images.Unreadable, OSError, ValueError) as error:  # ValueError: a zero byte in a name
        return Picture(str(path), None, problem=str(error) or type(error).__name__)


def _video(path: Path, every: int) -> Iterator[Picture]:
    if not path.is_file():
        yield Picture(str(path), None, problem="no such file")
        return
    video: Any = cv2.VideoCapture(str(path))
    try:
        rate, number = video.get(cv2.CAP_PROP_FPS) or 0.0, 0
        while video.grab():
            if number % every == 0:
                is_there, frame = video.retrieve()
                second = round(number / rate, 3) if rate > 0 else None
                if is_there:
                    pixels = np.ascontiguousarray(frame[..., ::-1])
                    yield Picture(str(path), pixels, number, second)
                else:
                    yield Picture(str(path), None, number, second, "this frame is damaged")
            number += 1
        if number == 0:
            yield Picture(str(path), None, problem="not a video that OpenCV can read")
    finally:
        video.release()
