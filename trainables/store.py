"""The record of a run: plain files, the only thing that survives a crash. No torch, no pickle.

runs/<name>/run.json                     what was asked: space, data, seed, budget, versions
            trials/<id>/config.json      the driver, before the trial is handed out
                        attempt          the driver, at each hand-out: fences late writers
                        val.npz test.npz the trial, each epoch: predictions (first)
                        history.jsonl    the trial, each epoch: the row
                        last.pt          the trial, each epoch: where to go on from (last)
                        previous.pt      the state before, should the last one turn out torn
                        result.json      how the trial ended
N images, K classes, A action units.
"""

import errno
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from trainables import npz
from trainables.config import Flat, TrialConfig

STATE_FILES = ("last.pt", "previous.pt")  # where a trial goes on from, the first that is whole
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
Row = dict[str, Any]  # {"epoch": int, "score": float, ...}: JSON scalars
Status = Literal["running", "completed", "stopped", "failed"]


@dataclass(frozen=True)
class Predictions:
    """What a model says of the images of one split. Sealed labels are -1."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]  # (N,)
    probs: NDArray[np.float32]  # (N, K)
    aus: NDArray[np.int8]  # (N, A) in {1, 0, -1 unknown}
    au_probs: NDArray[np.float32]  # (N, A); (N, 0) when the model has no AU head


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended. A failed trial has no made-up score: its metrics are those it reached."""

    status: Status
    metrics: Mapping[str, Any] = field(default_factory=dict)
    epoch: int = 0
    seconds: float = 0.0
    peak_gib: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Record:
    """All that is known of one trial."""

    id: str
    index: int
    role: str  # baseline, default or proposed
    config: Flat
    history: list[Row]
    result: TrialResult | None


class Fenced(RuntimeError):
    """The trial has been handed to another worker since: this one must not write any more."""


class DiskFull(OSError):
    """The disk of the run takes no more: no fault of a trial. What is on record stays readable."""


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or isinstance(error, DiskFull):
            raise
        raise DiskFull(error.errno, f"{error.strerror}; writing", str(path)) from error


Write = Callable[[BinaryIO], object]


@dataclass(frozen=True)
class Draft:
    """A file written whole under another name, which is not yet in its place."""

    path: Path
    written: Path

    def put(self, keep: Path | None = None) -> None:
        """Put it there; with `keep` the file that was there gets that name."""
        if keep is not None:
            with suppress(FileNotFoundError):
                self.path.replace(keep)
        self.written.replace(self.path)

    def drop(self) -> None:
        """Remove it, unless it has been put in its place."""
        self.written.unlink(missing_ok=True)


def draft(path: Path, write: Write, is_durable: bool = False) -> Draft:
    """What `write` makes of a new file that is to be put at the path. Raises DiskFull."""
    found = Draft(path, path.with_name(f".{path.name}.{uuid.uuid4().hex}"))  # unique among nodes
    try:
        with _telling(path), found.written.open("wb") as file:
            write(file)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        found.drop()
        raise
    return found


def replace_file(path: Path, data: bytes | Write, is_durable: bool = False) -> None:
    """Write a file whole: a reader sees the old content or the new, never a part.

    A durable file is on the disk when this returns, so that it survives a loss of power.
    """
    write: Write = (lambda file: file.write(data)) if isinstance(data, bytes) else data
    whole = draft(path, write, is_durable)
    try:
        whole.put()
    finally:
        whole.drop()


def write_json(path: Path, data: object) -> None:
    text = json.dumps(data, indent=1, allow_nan=False, default=list)
    replace_file(path, text.encode(), is_durable=True)


def _parsed(lines: list[bytes]) -> list[Row]:
    """The rows of the lines, in one go, which is quicker and shares names; else each by itself, so
    that a torn line costs none but itself."""
    try:
        whole: list[Row] = json.loads(b"[" + b",".join(lines) + b"]")
        return whole
    except ValueError:  # of JSON, or of Unicode: zero bytes where power was lost
        rows = list[Row]()
        for line in lines:
            with suppress(ValueError):
                rows.append(json.loads(line))
        return rows


def packed(predictions: Predictions) -> bytes:
    """The file of the predictions, probabilities in half precision."""
    return npz.pack(
        ids=np.array(predictions.ids, dtype=np.str_),
        labels=predictions.labels,
        probs=predictions.probs.astype(np.float16),
        aus=predictions.aus,
        au_probs=predictions.au_probs.astype(np.float16),
    )


@dataclass(frozen=True)
class TrialStore:
    """The folder of one trial, as its worker (with an attempt number) or a reader sees it."""

    path: Path
    attempt: int | None = None

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def run(self) -> "RunStore":
        return RunStore(self.path.parents[1])

    def head(self) -> dict[str, Any]:
        """{"index", "role", "config"} as the driver wrote them."""
        head: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return head

    def config(self) -> TrialConfig:
        return TrialConfig.from_flat(self.head()["config"])

    def write(self, name: str, data: bytes) -> None:
        self._fence()
        replace_file(self.path / name, data)

    def draft_state(self, write: Write) -> Draft:
        """Where to go on from, written and not yet in its place."""
        self._fence()
        return draft(self.path / STATE_FILES[0], write)

    def put_state(self, state: Draft) -> None:
        """Go on from there; the state before stays, in case this one gets torn."""
        self._fence()
        state.put(keep=self.path / STATE_FILES[1])

    def discard_state(self) -> None:
        """Nobody goes on from here: it is several times the size of the weights."""
        for name in STATE_FILES:
            self.discard(name)
        self.drop_drafts()

    def drop_drafts(self) -> None:
        """Remove states that a worker which was killed has not put in their place."""
        self._fence()
        for path in self.path.glob(f".{STATE_FILES[0]}.*"):
            path.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def discard(self, name: str) -> None:
        """Remove a file that is no longer needed, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def append(self, row: Row) -> None:
        """Add an epoch's row. A missing value is None; NaN raises ValueError."""
        self._fence()
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        written = self.read("history.jsonl") or b"\n"
        path = self.path / "history.jsonl"
        with _telling(path), path.open("ab", buffering=0) as file:
            if not written.endswith(b"\n"):  # an earlier writer died in the middle of its line
                line = b"\n" + line
            # one write(2): the whole line or, after a crash or on a full disk, a torn last line
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def history(self) -> list[Row]:
        """Rows by epoch; the first row of an epoch stands, torn lines are ignored."""
        lines = (self.read("history.jsonl") or b"").split(b"\n")[:-1]
        rows: dict[int, Row] = {}
        for row in _parsed([line for line in lines if line]):
            rows.setdefault(row["epoch"], row)
        return [rows[epoch] for epoch in sorted(rows)]

    def save_predictions(self, split: str, predictions: Predictions) -> None:
        self.write(f"{split}.npz", packed(predictions))

    def predictions(self, split: str) -> Predictions | None:
        """The stored predictions, rows of `probs` summing to 1; None where there are none.

        Raises ValueError for a file that cannot be read or holds non-finite values.
        """
        path = self.path / f"{split}.npz"
        data = self.read(path.name)
        if data is None:
            return None
        try:
            found = npz.read(data)
            probs, au_probs = (found[name].astype(np.float32) for name in ("probs", "au_probs"))
            ids, labels, aus = npz.names(found["ids"]), found["labels"], found["aus"]
        except Exception as error:
            raise ValueError(f"{path}: not a predictions file ({error})") from error
        if not np.isfinite(probs).all() or len(ids) != len(labels) or len(ids) != len(probs):
            raise ValueError(f"{path}: predictions are non-finite or of unequal length")
        total = probs.sum(1, keepdims=True)
        if (probs < 0).any() or (total <= 0).any():
            raise ValueError(f"{path}: rows of probabilities are negative or sum to 0")
        return Predictions(ids, labels, probs / total, aus, au_probs)

    def finish(self, result: TrialResult) -> None:
        """Close the trial; the first verdict stands."""
        if self.result() is None:
            self._fence()
            write_json(self.path / "result.json", asdict(result))

    def result(self) -> TrialResult | None:
        data = self.read("result.json")
        return TrialResult(**json.loads(data)) if data else None

    def _fence(self) -> None:
        current = self.read("attempt")
        if self.attempt is not None and current is not None and int(current) != self.attempt:
            raise Fenced(f"trial {self.id}: attempt {self.attempt} was replaced by {int(current)}")


@dataclass(frozen=True)
class RunStore:
    """The folder of one run."""

    root: Path

    @classmethod
    def create(cls, root: Path, meta: Mapping[str, Any]) -> "RunStore":
        """Start a run. Raises FileExistsError when there is one already."""
        if (root / "run.json").exists():
            raise FileExistsError(f"run '{root}' exists")
        (root / "trials").mkdir(parents=True, exist_ok=True)
        write_json(root / "run.json", meta)
        return cls(root)

    @classmethod
    def open(cls, root: Path) -> "RunStore":
        """Raises FileNotFoundError where there is no run."""
        if not (root / "run.json").is_file():
            raise FileNotFoundError(f"no run at '{root}': it has no run.json")
        return cls(root)

    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.root / "run.json").read_text())
        return meta

    def update_meta(self, **values: Any) -> None:
        write_json(self.root / "run.json", {**self.meta(), **values})

    def create_trial(self, config: TrialConfig, index: int, role: str = "proposed") -> str:
        """Make the folder of a new trial; its id. Raises FileExistsError for a repeat."""
        path = self.root / "trials" / config.trial_id
        if (path / "config.json").exists():
            raise FileExistsError(f"trial {path.name} exists")
        path.mkdir(
            parents=True, exist_ok=True
        )  # a crash may have left the folder without its config
        write_json(path / "config.json", {"index": index, "role": role, "config": config.flat()})
        return path.name

    def hand_out(self, trial_id: str) -> int:
        """The number of a new attempt at a trial; writers of earlier attempts are fenced off."""
        path = self.root / "trials" / trial_id / "attempt"
        attempt = int(path.read_text()) + 1 if path.exists() else 1
        replace_file(path, str(attempt).encode(), is_durable=True)
        return attempt

    def trial(self, trial_id: str, attempt: int | None = None) -> TrialStore:
        return TrialStore(self.root / "trials" / trial_id, attempt)

    def records(self) -> list[Record]:
        """All trials in the order they were proposed."""
        records = []
        for path in (self.root / "trials").glob("*/config.json"):
            trial = TrialStore(path.parent)
            head = trial.head()
            records.append(
                Record(
                    trial.id,
                    head["index"],
                    head["role"],
                    head["config"],
                    trial.history(),
                    trial.result(),
                )
            )
        return sorted(records, key=lambda r: (r.index, r.id))


def finite(row: Mapping[str, Any]) -> bool:
    """Whether no number in the row is NaN or infinite."""
    return all(math.isfinite(v) for v in row.values() if isinstance(v, float))
