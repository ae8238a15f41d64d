"""The images that a network is pretrained on. N images, S pixels a side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data import cache
from trainables.data.bundle import DataBundle
from trainables.data.parallel import Progress
from trainables.pretraining.exclusion import Proof, exclude, fingerprints, verify


@dataclass(frozen=True)
class Pool:
    """Images without labels, and the proof that none of them is held out."""

    images: NDArray[np.uint8]  # (N, 3, S, S), memory-mapped, held-out ones among them
    rows: NDArray[np.int64]  # which of them may be trained on
    source: str
    proof: Proof
    notes: tuple[str, ...] = ()


def gather(
    data: str | None,
    folder: Path | None,
    image_size: int,
    progress: Progress | None = None,
    cache_root: Path | None = None,
) -> Pool:
    """The images of a folder, or else the training images of a data set, without what the data set
    scores on; without a data set nothing is left out.

    Raises ValueError for data that cannot be used.
    """
    scored = source = None
    if data is not None:
        scored = cache.load(cache.prepare(data, image_size, progress, cache_root))
        source = scored
    if folder is not None:
        source = cache.load(cache.prepare_unlabelled(folder, image_size, progress, cache_root))
    if source is None:
        raise ValueError("there is nothing to pretrain on: name a data set, or a folder of images")
    return of_bundle(source, scored, progress)


def of_bundle(source: DataBundle, scored: DataBundle | None, progress: Progress | None) -> Pool:
    """The training images of one data set, without those that another one scores on."""
    images, names = source.train.images, source.train.ids
    kept, proof = exclude(names, fingerprints(images, progress=progress), scored)
    rows = np.flatnonzero(kept)
    again = fingerprints(images, rows.tolist())  # from the pixels, not from what was just reckoned
    verify(_at(names, rows), again, proof, scored)
    notes = source.notes if source is not scored else ()
    return Pool(images, rows, source.name, proof, notes)


def _at(names: Sequence[str], rows: NDArray[np.int64]) -> list[str]:
    return [names[row] for row in rows]
