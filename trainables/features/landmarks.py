"""Landmarks of a data set, written to a file for `features: landmarks`. P landmarks.

    python -m trainables.features.landmarks faces:2000 --out landmarks.npz
    python -m trainables.features.landmarks DATA --out landmarks.npz --model face_landmarker.task

The embedded faces know theirs. In photographs MediaPipe's Face Landmarker finds 478; neither its
package nor its model comes with this project (see `finder`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from trainables.bars import bars
from trainables.cli import Parser, run_command
from trainables.data import ingest, listing, loaders, mesh_landmarks
from trainables.data.faces import FacesSpec, draw_people
from trainables.data.images import Pixels, Unreadable
from trainables.data.listing import several
from trainables.features import landmark_file
from trainables.features.landmark_file import Landmarks

Find = Callable[[Pixels], NDArray[np.float32] | None]  # (H, W, 3) -> (P, 2) in pixels, or no face
Step = Callable[[int, int], None]
MARGIN, LEAST = 0.25, 256  # a detector wants room around the face, and pixels
POINTS = 478
MISSING = """\
MediaPipe cannot be used here ({}). It brings opencv-contrib-python, which overwrites the OpenCV \
of this environment, so install it in one of its own, beside this project:
  python -m venv landmarks && landmarks/bin/pip install '.[landmarks]'
or give a file that another program wrote: see trainables/features/landmark_file.py"""


def of_faces(source: str) -> Landmarks:
    """Those of the embedded faces, exact, in pixels of 64 px pictures."""
    spec = FacesSpec.parse(source)
    ids = tuple(person.id for person in draw_people(spec))
    return Landmarks(ids, mesh_landmarks.landmarks(spec))


def of_images(source: str, find: Find, step: Step | None = None) -> Landmarks:
    """Those that `find` sees in the image files of a data set, each in its own size.

    Raises ValueError for a file that is no image.
    """
    found = loaders.read(source)
    listing.check(found)
    points = np.full((len(found.rows), POINTS, 2), np.nan, np.float32)
    for k, row in enumerate(found.rows):
        try:
            seen = find(ingest.read_row(row))
        except Unreadable as error:
            raise ValueError(
                f"'{row.id}' cannot be used ({error}): restore it, or remove it with its label "
                "line; `python -m trainables.data.doctor` lists all of the kind"
            ) from error
        if seen is not None:
            points[k] = seen
        if step is not None:
            step(k + 1, len(found.rows))
    return Landmarks(tuple(row.id for row in found.rows), points)


@contextmanager
def finder(model: Path) -> Iterator[Find]:
    """MediaPipe's Face Landmarker with the model of a file, `face_landmarker.task`.

    Raises ValueError where MediaPipe is not installed or the file is no model. The package (1.2.3)
    holds none; Google's page of the Face Landmarker has it.
    """
    if not model.is_file():
        raise FileNotFoundError(
            f"no model at '{model}': get face_landmarker.task from MediaPipe's page 'Face landmark "
            "detection guide' and give its path"
        )
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:  # of MediaPipe, or of a package that it needs
        raise ValueError(MISSING.format(error)) from error
    base = BaseOptions(model_asset_path=str(model))
    options = vision.FaceLandmarkerOptions(base_options=base, num_faces=1)
    try:
        landmarker = vision.FaceLandmarker.create_from_options(options)
    except RuntimeError as error:  # what MediaPipe raises for a file that is no model
        raise ValueError(f"'{model}' is no model of the Face Landmarker: {error}") from error

    def find(image: Pixels) -> NDArray[np.float32] | None:
        framed, offset, scale = with_margin(image)
        packed = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=framed)
        faces = landmarker.detect(packed).face_landmarks
        if not faces:
            return None
        sides = np.array([framed.shape[1], framed.shape[0]])
        places = np.array([[point.x, point.y] for point in faces[0]]) * sides
        return np.asarray(places / scale - offset, np.float32)

    with landmarker:  # left to the garbage collector, it fails at the end of the process
        yield find


def with_margin(image: Pixels) -> tuple[Pixels, NDArray[np.float64], float]:
    """The image with its edges repeated around it and enlarged if small; how to go back.

    A place p in what is returned is p / scale - offset in the image. Crops of faces leave a
    detector no room.
    """
    height, width = image.shape[:2]
    down, right = round(MARGIN * height), round(MARGIN * width)
    framed = cv2.copyMakeBorder(image, down, down, right, right, cv2.BORDER_REPLICATE)
    scale = max(1.0, LEAST / min(framed.shape[:2]))
    if scale > 1:
        framed = cv2.resize(framed, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(framed), np.array([right, down], float), scale


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; 0, or 1 where some image shows no face. Raises ValueError or OSError."""
    parser = Parser(
        prog="python -m trainables.features.landmarks",
        description="Write the facial landmarks of a data set to a file, which trials read as "
        "features 'landmarks' with features.file FILE (their path whole).",
        epilog="Exit code 0: every image has a face; 1: some have none; 2: nothing was written.",
    )
    parser.add_argument("source", help="a folder, a manifest, or faces[:N[:DIFFICULTY]]")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, .npz")
    parser.add_argument("--model", type=Path, help="face_landmarker.task, for all but faces:N")
    given = parser.parse(arguments)
    if given.out.suffix.lower() != ".npz":
        raise ValueError(f"--out '{given.out}': give a name that ends in .npz")
    if given.out.exists():
        raise FileExistsError(f"'{given.out}' is there: move it away, or give another --out")
    found = _found(given.source, given.model)
    landmark_file.write(given.out, found)
    lost = found.lost()
    print(f"{len(found.ids) - len(lost)} faces of {len(found.ids)} images in {given.out}")
    if lost:
        print(f"no face in {len(lost)}, which are taken for the mean face: {several(lost)}")
    print(f"trials read it as features 'landmarks', features.file '{given.out.resolve()}'")
    return 1 if lost else 0


def _found(source: str, model: Path | None) -> Landmarks:
    if loaders.is_faces(source):
        if model is not None:
            raise ValueError("the embedded faces know their landmarks: leave out --model")
        return of_faces(source)
    if model is None:
        raise ValueError("photographs need --model FILE, MediaPipe's face_landmarker.task")
    loaders.detect(source)  # before MediaPipe is started
    with finder(model) as find, bars(Console(stderr=True), is_transient=True) as show:
        return of_images(source, find, partial(show, "landmarks"))


if __name__ == "__main__":
    run_command(main)
