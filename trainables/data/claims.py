"""Who builds which cache entry: one process at a time, and what a killed one left is removed.

A builder holds a lock on its folder `.building-KEY-MACHINE`. The system frees the lock when the
process ends, however it ends. Locks of other machines are not relied upon, as some network disks
have none: several machines build side by side, and what they have left goes after a day.
"""

import contextlib
import fcntl
import logging
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

PREFIX = ".building-"
_STALE_SECONDS = 24 * 3600


@contextlib.contextmanager
def building(root: Path, key: str) -> Iterator[Path]:
    """An empty folder in which to build; waits while another process builds the same.

    It is gone in the end, unless it was moved away. Raises OSError where none can be made.
    """
    folder, held = _claimed(root / f"{PREFIX}{key}-{platform.node()}")
    try:
        _empty(folder)
        yield folder
    finally:
        if held is None or _is_same(folder, held):
            shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def sweep(root: Path) -> None:
    """Remove what builders that were killed have left."""
    for left in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # its builder has just finished
            if _is_left(left):
                shutil.rmtree(left, ignore_errors=True)


def _claimed(folder: Path) -> tuple[Path, int | None]:
    """The folder and the descriptor that holds its lock, None where there are no locks."""
    while True:
        folder.mkdir(mode=0o755, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
        try:
            _wait(folder, held)
        except OSError:
            os.close(held)
            with contextlib.suppress(OSError):
                folder.rmdir()
            return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent)), None
        except BaseException:  # Ctrl-C while it waits
            os.close(held)
            raise
        if _is_same(folder, held):
            return folder, held
        os.close(held)  # the builder that we waited for has moved or removed it


def _wait(folder: Path, held: int) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # set while a spawned process imports the script of its parent, which waits for its help
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError(
                "a process that helps to prepare the data runs the script that asked for them "
                "again: put what the script does under `if __name__ == '__main__':`"
            ) from None
        log.warning("another process prepares the same data in '%s': waiting for it", folder)
        fcntl.flock(held, fcntl.LOCK_EX)


def _is_left(folder: Path) -> bool:
    is_old = time.time() - folder.stat().st_mtime > _STALE_SECONDS
    if is_old or not folder.name.endswith(f"-{platform.node()}"):
        return is_old
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or there are no locks
        return False
    finally:
        os.close(held)
    return True


def _is_same(folder: Path, held: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(held))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for left in folder.iterdir():
        left.unlink()
