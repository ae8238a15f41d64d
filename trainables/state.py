"""Where a trial goes on from: its state as a file, and which of the stored states is whole."""

import io
import logging
from collections.abc import Collection
from typing import Any, BinaryIO

import torch

from trainables.store import STATE_FILES, TrialStore, Write

log = logging.getLogger(__name__)


def writing(state: dict[str, Any]) -> Write:
    """What writes the state to a file: straight there, in a quarter of the time."""

    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, of the end of a file that it could not write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    return write


def unpack(data: bytes) -> dict[str, Any]:
    """The state of a file, on the CPU. Raises errors of all sorts when the file is torn."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def whole(store: TrialStore, epochs: Collection[int]) -> tuple[bytes, dict[str, Any]] | None:
    """The newest stored state that can be read and is of one of the epochs, as bytes and as it is.

    Writing is atomic, and yet a loss of power can leave half a file; the state before is kept.
    """
    for name in STATE_FILES:
        data = store.read(name)
        if data is None:
            continue
        try:
            state = unpack(data)
            epoch = state["epoch"]
        except Exception as error:  # whatever half a file may look like
            log.warning("trial %s: %s cannot be read (%s)", store.id, name, error)
            continue
        if epoch not in epochs:
            log.warning("trial %s: epoch %d of %s is not on record", store.id, epoch, name)
            continue
        if name != STATE_FILES[0]:
            store.write(STATE_FILES[0], data)  # else the torn one would take its place
        return data, state
    return None
