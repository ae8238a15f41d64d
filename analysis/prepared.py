"""The prepared data that a run was made on, where this machine still has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.data.bundle import DataBundle


def place_of(meta: Mapping[str, Any]) -> Path:
    """The folder of the prepared data. Raises ValueError where it is gone."""
    data = meta["data"]
    path = Path(data.get("cache") or "")
    if not data.get("cache") or not path.is_dir():
        raise ValueError(
            f"the prepared data '{path}' is gone: prepare '{data.get('source')}' again"
        )
    return path


def bundle_of(meta: Mapping[str, Any]) -> "DataBundle":
    """The data. Raises ValueError where it is gone, damaged, or has changed since."""
    from trainables.data import cache

    path, wanted = place_of(meta), meta["data"].get("fingerprint")
    try:
        bundle = cache.load(path)
    except (OSError, cache.CacheDamaged) as error:
        raise ValueError(str(error)) from error
    if bundle.fingerprint != wanted:
        raise ValueError(
            f"the data at '{path}' has fingerprint {bundle.fingerprint}, the run was made on "
            f"{wanted}: these are other images"
        )
    return bundle
