"""What a GAN may see: training images without those held out, and the record that it saw no more.

N images. Test images are looked at (their pixels, not their labels) to keep them out, and so are
those of validation; neither is handed on.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.bundle import DataBundle, Split
from trainables.pretraining.exclusion import Proof, exclude, fingerprints, verify


@dataclass(frozen=True)
class Seen:
    """The training images that a GAN may see, and why the others may not be seen."""

    train: Split
    proof: Proof


def content(part: Split) -> str:
    """Hash of the pixels, labels and AUs of a split, in their order."""
    total = hashlib.sha256()
    for start in range(0, len(part), 256):
        total.update(np.ascontiguousarray(part.images[start : start + 256]).tobytes())
    for array in (part.labels, part.aus):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def identity(bundle: DataBundle) -> dict[str, object]:
    """What a trial must share with a synthetic set that it trains on, as JSON."""
    return {
        "name": bundle.name,
        "image_size": bundle.image_size,
        "class_names": list(bundle.class_names),
        "au_names": list(bundle.au_names),
        "train_images": len(bundle.train),
        "train_sha256": content(bundle.train),
    }


def only_training(bundle: DataBundle) -> Seen:
    """The training images without those that validation or test hold too, exactly or nearly.

    Raises ValueError when none is left.
    """
    train = bundle.train
    kept, proof = exclude(train.ids, fingerprints(train.images), bundle)
    return Seen(take(train, np.flatnonzero(kept)), proof)


def evidence(seen: Seen, bundle: DataBundle) -> dict[str, Any]:
    """The proof for the record, found to hold on fingerprints made anew from what is to be seen.

    Raises ValueError where an image held out is among it.
    """
    verify(seen.train.ids, fingerprints(seen.train.images), seen.proof, bundle)
    return {**asdict(seen.proof), "sha256": content(seen.train)}


def take(part: Split, rows: NDArray[np.int64]) -> Split:
    """These images of a split, in memory, and all that is known of them."""
    votes = part.distributions
    return replace(
        part,
        images=np.asarray(part.images[rows]),
        labels=part.labels[rows],
        aus=part.aus[rows],
        ids=tuple(part.ids[k] for k in rows),
        distributions=None if votes is None else votes[rows],
    )
