"""What a file of pretrained weights says of itself: a JSON record in the header of the file.

Reading it runs nothing and loads no tensor. It is what the one who pretrained claims: the digests
in it let whoever has the images check the claim (`exclusion.verify`).
"""

import json
import logging
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

KEY = "pretraining"
Record = dict[str, Any]
log = logging.getLogger(__name__)


def as_metadata(record: Mapping[str, Any]) -> dict[str, str]:
    """The record as the header of a safetensors file takes it."""
    return {"format": "pt", KEY: json.dumps(record, sort_keys=True, allow_nan=False)}


def read_record(path: Path) -> Record | None:
    """The record of a file of weights; None for a file from elsewhere."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
        record: Record | None = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"'{path}' is no file of weights ({error})") from error
    return record


def origin(record: Record | None) -> str:
    """A sentence on how weights were made, with a warning where they may know the answers."""
    if record is None:
        return ""
    proof, settings = record["proof"], record["settings"]
    said = f"pretrained by {settings['method']['name']} on {proof['seen']} images"
    if settings["control"] != "none":
        said += f" ({settings['control']}: a control)"
    if not proof["data"]:
        return f"{said}; WARNING: no validation or test image was kept out of them"
    out = f"{len(proof['excluded'])} of {proof['candidates']} left out"
    return f"{said}, without validation and test of '{proof['data']}' ({out})"


def foreign(record: Record | None, held_out_ids: str, name: str) -> str:
    """A warning where weights may have seen the validation or test images of a data set."""
    if record is None or record["proof"]["held_out_ids"] == held_out_ids:
        return ""
    kept = record["proof"]["data"]
    what = f"those of '{kept}' only" if kept else "none"
    return (
        f"the weights were pretrained with validation and test images kept out: {what}. They may "
        f"have seen those of '{name}', and scores may look better than they are; pretrain again "
        f"with --data of '{name}'"
    )


def versions() -> dict[str, str]:
    """Of what the weights depend on."""
    names = ("torch", "timm", "numpy")
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in names}}
