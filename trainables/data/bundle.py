"""A data set in memory: N images, K classes, A action units, S pixels a side.

Images are uint8 RGB (N, 3, S, S), usually memory-mapped from the cache (`cache.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """The frames before each image, in order of time; image k has starts[k] to starts[k + 1]."""

    frames: NDArray[np.uint8]  # (F, 3, S, S)
    starts: NDArray[np.int64]  # (N + 1,)

    def of(self, rows: slice) -> "Sequences":
        """Those of some images in a row, in memory."""
        starts = self.starts[rows.start : rows.stop + 1]
        return Sequences(np.array(self.frames[starts[0] : starts[-1]]), starts - starts[0])

    def mirrored(self) -> "Sequences":
        return Sequences(np.ascontiguousarray(self.frames[..., ::-1]), self.starts)


@dataclass(frozen=True)
class Split:
    """The images of one split. The labels and AUs of a sealed split are all -1."""

    images: NDArray[np.uint8]  # (N, 3, S, S), or what is read like it (`pixels.py`)
    labels: NDArray[np.int64]  # (N,)
    aus: NDArray[np.int8]  # (N, A) in {1, 0, -1 unknown}
    ids: tuple[str, ...]
    distributions: NDArray[np.float32] | None = None  # (N, B) crowd votes over the basic emotions
    sequences: Sequences | None = None  # None: stills
    groups: NDArray[np.int64] | None = None  # (N,) equal where images are one picture or person

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class DataBundle:
    """All a trial sees of the data. `test` is sealed: its labels are not in here."""

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    au_names: tuple[str, ...]  # "AU1", "AU12"; empty when the data has no AU labels
    fingerprint: str  # of the content: images, labels, splits and size
    basic_names: tuple[str, ...] = ()
    components: tuple[tuple[int, int], ...] | None = None  # per class, its two basic emotions
    is_synthetic: bool = False
    notes: tuple[str, ...] = ()  # what a user should know, one sentence each
    ceiling: Mapping[str, float] = field(default_factory=dict)  # known Bayes scores, if any
    folder: Path | None = None  # of the cache entry: what is derived of the data is kept there

    @property
    def image_size(self) -> int:
        return int(self.train.images.shape[-1])

    def class_counts(self) -> NDArray[np.int64]:
        """Training images per class (K,)."""
        return np.bincount(self.train.labels, minlength=len(self.class_names))

    def au_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Training images per class and AU (K, A): that show it, and of which it is known."""
        return self._counts(self.train.aus == 1), self._counts(self.train.aus >= 0)

    def _counts(self, marks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Training images per class and column (K, A) that are marked (N, A)."""
        classes = len(self.class_names)
        each = [np.bincount(self.train.labels[column], minlength=classes) for column in marks.T]
        return np.array(each, np.int64).reshape(-1, classes).T

    def unlabelled_classes(self) -> tuple[str, ...]:
        """The classes of which no training image has a label for some AU, or for any."""
        has_all = (self.au_counts()[1] > 0).all(1)
        return tuple(self.class_names[k] for k in np.flatnonzero(~has_all))
