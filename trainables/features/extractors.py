"""What turns images into features, fixed before any trial. n images, D features, S pixels a side.

A builder takes the configuration of the trial, its data (of which it may learn from the training
images alone) and its hyper-parameters by keyword.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.data.bundle import DataBundle, Split
from trainables.registry import Registry

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Extractor:
    """How features come about. The cache asks for some images at a time, and mirrors them.

    `see` looks at each image by itself: the images of a part are in memory, as are its ids; its
    labels and AUs are hidden (-1). Work that only `see` needs (building a network) is left to its
    first call, for most trials find their features in the cache.
    """

    see: Callable[[Split], Floats]  # a part of n images -> (n, D)
    content: str = ""  # what the features depend on besides name, arguments and data: the key's
    has_mirror: bool = True  # False where pixels are not looked at, but points of a file
    parameters: Callable[[], int] = lambda: 0  # how many numbers it has learned


ExtractorBuilder = Callable[..., Extractor]
EXTRACTORS: Registry[ExtractorBuilder] = Registry("features")


@EXTRACTORS.register
def none_(config: TrialConfig, bundle: DataBundle) -> Extractor:
    """No features: the trial trains its network."""
    return Extractor(lambda part: np.zeros((len(part), 0), np.float32))
