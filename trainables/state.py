"""Where a trial goes on from: its state as bytes, and which of the stored states is whole."""

import io
import logging
from typing import Any

import torch

from trainables.store import STATE_FILES, TrialStore

log = logging.getLogger(__name__)


def pack(state: dict[str, Any]) -> bytes:
    """The state as the bytes of a file."""
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """The state of a file, on the CPU. Raises errors of all sorts when the file is torn."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def whole(store: TrialStore) -> tuple[bytes, dict[str, Any]] | None:
    """The newest stored state that can be read, as bytes and as it is; None where there is none.

    Writing is atomic, and yet a loss of power can leave half a file; the state before is kept.
    """
    for name in STATE_FILES:
        data = store.read(name)
        if data is None:
            continue
        try:
            state = unpack(data)
        except Exception as error:  # whatever half a file may look like
            log.warning("trial %s: %s cannot be read (%s)", store.id, name, error)
            continue
        if name != STATE_FILES[0]:
            store.write(STATE_FILES[0], data)  # else the torn one would take its place
        return data, state
    return None
