"""The folder of a run before it is one: where it lies, whether it is free, who works in it."""

import argparse
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from trainables.store import RunStore

# With the space: what proposals and scores mean.
ONE_FOR_A_RUN = ("sampler", "pruner", "seed", "metric", "objectives")
NEEDED = (*ONE_FOR_A_RUN, "space", "data", "rungs", "trials", "epochs", "started", "command")
LOCK = ".lock"
LEAST_FREE = 64 << 20  # bytes of disk: a few dozen tiny trials
REMAINS = (LOCK, "trials")  # what may be left of a run that was killed before it began


def run_folder(args: argparse.Namespace, space: str) -> Path:
    """Where the run is or will be. Raises FileExistsError, FileNotFoundError or OSError."""
    if args.name is not None:
        _check_name(args.name)
    if args.resume:
        root: Path = args.runs / args.name if args.name else _latest(args.runs, space)
        read_meta(RunStore.open(root))
    else:
        name = args.name or f"{Path(space).name}-{datetime.now():%Y%m%d-%H%M%S}"
        root = args.runs / name
        _check_free(root)
    if not args.dry_run:
        _check_writable(root)
    return root


def _check_name(name: str) -> None:
    if not name.strip() or Path(name).name != name or name in (".", ".."):
        raise ValueError(f"--name '{name}' is not a folder name; use --runs to say where it lies")


def _check_free(root: Path) -> None:
    if (root / "run.json").exists():
        raise FileExistsError(f"'{root}' exists; give another --name, or --resume to go on with it")
    if os.path.lexists(root) and not is_empty(root):
        raise FileExistsError(f"'{root}' exists and is no run; give another --name")


def is_empty(root: Path) -> bool:
    """Whether a folder holds nothing, or only what a run leaves that never began."""
    trials = root / "trials"
    return (
        root.is_dir()
        and all(path.name in REMAINS for path in root.iterdir())
        and not (trials.is_dir() and any(trials.iterdir()))
    )


def _check_writable(root: Path) -> None:
    """Raise OSError unless a file can be made where the run will be; leaves nothing behind."""
    there = root
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x" * 4096)
            file.flush()
        free = shutil.disk_usage(there).free
        if free < LEAST_FREE:
            raise OSError(errno.ENOSPC, f"{free / 2**20:.0f} MiB free, not enough for a run")
    except OSError as error:
        raise unwritable(root, error) from error


def unwritable(root: Path, error: OSError) -> OSError:
    """What to say of a run that cannot be written."""
    return OSError(
        f"cannot write the run to '{root}' ({error.strerror or error}): "
        "give --runs a folder that can be written to"
    )


def _latest(runs: Path, space: str) -> Path:
    """The run of that space that was started last."""
    started = {}
    for path in runs.glob("*/run.json"):
        with suppress(ValueError, OSError):
            meta = read_meta(RunStore(path.parent))
            if meta["space"]["name"] == space:
                started[path.parent] = meta["started"]
    if not started:
        raise FileNotFoundError(f"nothing to resume: no run of space '{space}' in '{runs}'")
    return max(started, key=lambda root: started[root])


def read_meta(store: RunStore) -> dict[str, Any]:
    """What run.json holds. Raises ValueError when it is damaged or of another program."""
    path = store.root / "run.json"
    try:
        meta = store.meta()
        missing = [name for name in NEEDED if name not in meta]
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{path}' cannot be read ({error}): there is nothing to resume") from None
    if missing:
        raise ValueError(f"'{path}' lacks {', '.join(missing)}: there is nothing to resume")
    return meta


def is_over(root: Path, trials: int | None) -> bool:
    """Whether a run that is to be resumed has nothing left to do."""
    store = RunStore(root)
    meta, records = read_meta(store), store.records()
    wanted = trials or meta["trials"]
    is_exhausted = bool(meta.get("finished")) and wanted <= meta["trials"]
    has_all = len(records) >= wanted or is_exhausted
    return has_all and all(record.result is not None for record in records)


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Make the folder and hold it; no second process can, until the block or this process ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / LOCK).open("w")
    except OSError as error:
        raise unwritable(root, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process works on '{root}': wait for its end, or give another --name"
            ) from None
        except OSError:
            pass  # a network disk may know no locks
        yield
