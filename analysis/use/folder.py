"""The folder of an exported model: which files it has, how they are written, and checked when read.

DIR/  model.json           what goes in, what comes out, who the members are: see `export.py`
      model.onnx           images -> probabilities, all members inside; model.onnx.data if large
      member_1.safetensors … the weights of each member, for PyTorch
      MODEL_CARD.md        data, scores, limits, licences
      SHA256SUMS           of the others, for `sha256sum -c`; written last
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT, VERSION = "fer-search model", 1
MODEL, ONNX, CARD, SUMS = "model.json", "model.onnx", "MODEL_CARD.md", "SHA256SUMS"
INPUT, OUTPUTS = "images", ("probs", "au_probs")
RUNNABLE = (MODEL, ONNX, f"{ONNX}.data")  # what prediction reads
About = dict[str, Any]  # model.json


def member_file(number: int, fold: int = 0) -> str:
    """The file of weights of a member, counted from 1, or of one of its folds."""
    return f"member_{number}{f'_fold_{fold}' if fold else ''}.safetensors"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `path` when all went well; else there is none.

    Raises FileExistsError where `path` is something already, be it an empty folder.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"'{path}' exists: give a new folder, nothing is overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield part
        _seal(part)
        part.chmod(0o755)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Write the checksums of all files."""
    lines = []
    for file in sorted(folder.iterdir()):
        lines.append(f"{_digest(file)}  {file.name}\n")
        with file.open("rb") as open_file:
            os.fsync(open_file.fileno())
    (folder / SUMS).write_text("".join(lines))


def about(folder: Path) -> About:
    """What model.json says. Raises FileNotFoundError where there is none, ValueError for a file
    that is damaged or of another version."""
    path = folder / MODEL
    if not path.is_file():
        raise FileNotFoundError(
            f"no exported model at '{folder}': it has no {MODEL} (python -m analysis.export RUN "
            "--out DIR makes one)"
        )
    try:
        found: About = json.loads(path.read_text())
        kind, version = found["format"], found["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is not the {MODEL} of an exported model ({error})") from error
    if (kind, version) != (FORMAT, VERSION):
        raise ValueError(
            f"'{folder}' is of format '{kind}' version {version}, this program reads '{FORMAT}' "
            f"version {VERSION}: export the model again"
        )
    return found


def check(folder: Path, *names: str) -> None:
    """Raise ValueError unless those of these files that the folder lists are what was written."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except OSError as error:
        raise ValueError(f"'{folder / SUMS}' cannot be read: {error.strerror}") from error
    missing = [name for name in (MODEL, ONNX) if name not in sums]
    if missing:
        raise ValueError(f"'{folder / SUMS}' does not list {', '.join(missing)}")
    for name in names:
        if name not in sums:
            continue
        path = folder / name
        if not path.is_file() or _digest(path) != sums[name]:
            raise ValueError(f"'{path}' is not what was exported (see {SUMS}): export it again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
