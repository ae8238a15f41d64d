"""The files of one pretraining: the weights, and beside them what led there.

NAME.safetensors   the weights, their record in the header; written last
NAME.jsonl         a row an epoch
NAME.png           masked methods: images as they are, masked, and reconstructed
NAME.state.pt      where to go on; gone when the weights are there
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from trainables.pretraining.record import Record, as_metadata
from trainables.store import Row, Write, replace_file

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Files:
    """Where they lie."""

    weights: Path

    @classmethod
    def at(cls, out: Path, backbone: str) -> "Files":
        """For a file, that file; for a folder, <backbone>.safetensors in it.

        Raises ValueError for a file of another name.
        """
        if out.suffix == SUFFIX and not out.is_dir():
            return cls(out)
        if out.is_dir() or not out.suffix:
            return cls(out / f"{backbone}{SUFFIX}")
        raise ValueError(f"--out '{out}' is neither a folder nor a {SUFFIX} file")

    @property
    def state(self) -> Path:
        return self.weights.with_suffix(".state.pt")

    @property
    def rows(self) -> Path:
        return self.weights.with_suffix(".jsonl")

    @property
    def picture(self) -> Path:
        return self.weights.with_suffix(".png")

    def prepare(self, resume: bool, force: bool) -> None:
        """Make the folder, and raise FileExistsError for what must not be overwritten."""
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        if force or (resume and self.state.exists()):
            return
        if self.weights.exists():
            raise FileExistsError(
                f"'{self.weights}' exists; give another --out, or --force to replace it"
            )
        if self.state.exists():
            raise FileExistsError(
                f"'{self.state}' is a pretraining that was interrupted; --resume goes on with it, "
                "--force begins anew"
            )

    def log(self, rows: Sequence[Row]) -> None:
        """Write all rows: of a resumed run, those after its state have not happened."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        replace_file(self.rows, text.encode())

    def read_state(self) -> bytes | None:
        return self.state.read_bytes() if self.state.exists() else None

    def forget_state(self) -> None:
        self.state.unlink(missing_ok=True)

    def save_state(self, write: Write) -> None:
        replace_file(self.state, write)

    def finish(self, tensors: Mapping[str, Tensor], record: Record, picture: bytes | None) -> None:
        """Write the picture, then the weights, and let go of the state."""
        if picture is not None:
            replace_file(self.picture, picture)
        replace_file(self.weights, save(dict(tensors), as_metadata(record)), is_durable=True)
        self.forget_state()
