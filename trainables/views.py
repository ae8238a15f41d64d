"""What a trained model says of several views of the same images, kept for corrections after it.

views_val.npz and views_test.npz hold logits, no labels: flips and scales are averaged, temperatures
and adjustments are tried, without the model (analysis/posthoc.py). Light: no torch.
V views, N images, K classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables import npz

PLAIN, FLIP = "plain", "flip"
SCALES = (0.9, 1.1)
SCALED = tuple(f"{scale}{flip}" for scale in SCALES for flip in ("", " flip"))
SHARE = 0.05  # of the time of a trial that scaled views may take, by the images they look at
STEP = 3.0  # what training on an image costs, in looks at one


@dataclass(frozen=True)
class Views:
    """Logits of views of the images of one split."""

    ids: tuple[str, ...]
    names: tuple[str, ...]  # of the views
    logits: NDArray[np.float32]  # (V, N, K)
    norms: NDArray[np.float32]  # (K,) of the class weights of a linear head; (0,) for others

    def of(self, *names: str) -> NDArray[np.float32]:
        """The logits of some of the views (V', N, K). Raises LookupError for one not there."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise LookupError(f"no view {', '.join(missing)}; there are: {', '.join(self.names)}")
        return self.logits[[self.names.index(name) for name in names]]


def file_of(split: str) -> str:
    """The name of the file in a trial's folder."""
    return f"views_{split}.npz"


def affordable(epochs: int, train: int, val: int, test: int) -> tuple[str, ...]:
    """The views that are looked at: plain and flipped always, scaled ones if they cost little.

    By counts, not by the clock, so that a trial is the same on every machine; of the plain view,
    too, though it costs nothing (its logits are those of the predictions).
    """
    names = (PLAIN, FLIP, *SCALED)
    training = epochs * (STEP * train + val)
    return names if len(names) * (val + test) <= SHARE * training else (PLAIN, FLIP)


def pack(views: Views) -> bytes:
    """The file."""
    return npz.pack(
        ids=np.array(views.ids, dtype=np.str_),
        names=np.array(views.names, dtype=np.str_),
        logits=views.logits.astype(np.float16),
        norms=views.norms.astype(np.float32),
    )


def unpack(data: bytes, path: Path) -> Views:
    """What the file holds. Raises ValueError for one that cannot be read or is not finite."""
    try:
        found = npz.read(data)
        ids, names = npz.names(found["ids"]), tuple(map(str, found["names"]))
        logits, norms = found["logits"].astype(np.float32), found["norms"]
    except Exception as error:
        raise ValueError(f"{path}: not a file of views ({error})") from error
    if logits.shape[:2] != (len(names), len(ids)) or len(norms) not in (0, logits.shape[-1]):
        raise ValueError(f"{path}: views, images and logits do not go together")
    if not np.isfinite(logits).all():
        raise ValueError(f"{path}: logits are not finite")
    return Views(ids, names, logits, norms)
