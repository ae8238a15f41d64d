"""A set of synthetic images on disk, and whose training images it was made from. No torch.

<folder>/synthetic.npz   images uint8 (N, 3, S, S), labels (N,), aus (N, A) in {1, 0, -1 unknown},
                         agreement (N,) with the AUs asked for, higher is better
         meta.json       `provenance.identity` of the data, what was seen, how it was made
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainables import npz
from trainables.data.bundle import DataBundle
from trainables.generation.provenance import identity
from trainables.store import replace_file, write_json

IMAGES, META = "synthetic.npz", "meta.json"


@dataclass(frozen=True)
class SyntheticSet:
    """Images with the labels and AUs that they were asked to show."""

    images: NDArray[np.uint8]  # (N, 3, S, S)
    labels: NDArray[np.int64]  # (N,)
    aus: NDArray[np.int8]  # (N, A)
    agreement: NDArray[
        np.float32
    ]  # (N,) of each image with its AUs, as classifiers of real ones see

    def __len__(self) -> int:
        return len(self.labels)


def write_set(folder: Path, made: SyntheticSet, meta: Mapping[str, Any]) -> None:
    """Write both files; meta.json last, as without it there is no set."""
    data = npz.pack(**vars(made))
    (folder / META).unlink(missing_ok=True)
    replace_file(folder / IMAGES, data, is_durable=True)
    stamp = hashlib.sha256(data).hexdigest()
    write_json(folder / META, {**meta, "synthetic_sha256": stamp, "synthetic_images": len(made)})


def read_set(folder: Path) -> tuple[SyntheticSet, dict[str, Any]]:
    """The set, its images memory-mapped, and its meta.json.

    Raises FileNotFoundError where there is none, ValueError for one that is not whole.
    """
    for name in (META, IMAGES):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no synthetic set at '{folder}': it has no {name}; "
                "python -m trainables.generation DATA --out FOLDER makes one"
            )
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text())
        with (folder / IMAGES).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != meta["synthetic_sha256"]:
                raise ValueError(f"{IMAGES} is not the file that {META} was written for")
            images = _mapped(file, "images")
            file.seek(0)
            with np.load(file, allow_pickle=False) as f:
                others = {n.name: f[n.name] for n in fields(SyntheticSet) if n.name != "images"}
        made = SyntheticSet(images, **others)
        _ = meta["data"]["train_sha256"]
    except (ValueError, LookupError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"the synthetic set at '{folder}' cannot be read: {error}") from error
    return made, meta


def _mapped(file: BinaryIO, name: str) -> NDArray[np.uint8]:
    """An array of an npz file as it lies on disk: savez does not compress, so nothing is read."""
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(f"{name}.npy").header_offset
    file.seek(start + 26)  # of the local header: how long the name and what follows it are
    file.seek(start + 30 + sum(struct.unpack("<HH", file.read(4))))
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} of {IMAGES} is not an array that we have written")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.uint8:
        raise ValueError(f"{name} of {IMAGES} are {dtype}, and not uint8")
    return np.memmap(file, np.uint8, "r", file.tell(), shape, "F" if is_fortran else "C")


def set_for(folder: Path, bundle: DataBundle) -> SyntheticSet:
    """The set, which must be of the training images of this data.

    Raises ValueError, saying what differs, for a set that was made from others: among them could
    be images that this data holds out.
    """
    made, meta = read_set(folder)
    ours, theirs = identity(bundle), meta["data"]
    differ = [name for name in ours if theirs.get(name) != ours[name]]
    if differ:
        first = differ[0]
        raise ValueError(
            f"the synthetic set at '{folder}' was made from other training images: its {first} is "
            f"{shown(theirs.get(first))}, here it is {shown(ours[first])}. Make one for this data "
            f"and size: python -m trainables.generation {bundle.name} --size {bundle.image_size}"
        )
    return made


def shown(value: object) -> str:
    """A value as an error tells it, no longer than a line."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"
