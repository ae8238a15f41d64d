"""What the cache stores of a data set beside its pixels. N images, B basic emotions, A AUs.

Light to import: whoever opens the cache need not know how data are read or faces rendered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Content:
    """A whole data set but for its pixels."""

    name: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    splits: tuple[str, ...]
    aus: NDArray[np.int8]
    au_names: tuple[str, ...]
    groups: NDArray[np.int64]  # equal where images are of one picture or person, as far as is seen
    distributions: NDArray[np.float32] | None = None  # (N, B); a row of zeros where there are none
    basic_names: tuple[str, ...] = ()
    components: tuple[tuple[int, int], ...] | None = None
    is_synthetic: bool = False
    notes: tuple[str, ...] = ()
    ceiling: Mapping[str, float] = field(default_factory=dict)
