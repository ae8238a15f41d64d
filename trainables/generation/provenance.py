"""What a GAN has seen: hashes of its training images, and proof that no image held out is in there.

N images. Test images are looked at (their pixels, not their labels) to keep them out, and so are
those of validation; neither is handed on.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainables.data import splits
from trainables.data.bundle import DataBundle, Split

Ints = NDArray[np.int64]
HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Seen:
    """The training images that a GAN may see, and why the others may not be seen."""

    train: Split
    left_out: tuple[str, ...]  # ids of training images that are, or look like, one held out
    compared: int  # images held out


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
    """The training images without those that validation or test hold too, exactly or nearly."""
    held_out = [getattr(bundle, name).images for name in HELD_OUT]
    copies = np.unique(shared(bundle.train.images, held_out))
    kept = np.setdiff1d(np.arange(len(bundle.train)), copies)
    train = take(bundle.train, kept)
    return Seen(train, tuple(bundle.train.ids[k] for k in copies), sum(map(len, held_out)))


def proof(seen: Seen, bundle: DataBundle) -> dict[str, object]:
    """The evidence for the record, found on what was seen: its hash, and the copies among it."""
    left = shared(seen.train.images, [getattr(bundle, name).images for name in HELD_OUT])
    return {
        "images": len(seen.train),
        "sha256": content(seen.train),
        "compared_with_held_out": seen.compared,
        "exact_or_near_copies_of_held_out": len(np.unique(left)),
        "near_copies_were_sought": len(seen.train) + seen.compared <= splits.MOST_IMAGES,
        "left_out": list(seen.left_out),
    }


def shared(images: NDArray[np.uint8], others: list[NDArray[np.uint8]]) -> Ints:
    """Which of the images are among the others too: equal pixels, or alike, mirrored or not."""
    own = len(images)
    parts = [images, *others]
    digests = [_digest(image) for part in parts for image in part]
    known = set(digests[own:])
    exact = np.array([k for k in range(own) if digests[k] in known], np.int64)
    looks = [splits.look(np.asarray(image).transpose(1, 2, 0)) for part in parts for image in part]
    near = splits.near_pairs(np.stack([h for h, _ in looks]), np.stack([t for _, t in looks]))
    across = near[(near[:, 0] < own) & (near[:, 1] >= own), 0]
    return np.concatenate([exact, across])


def take(part: Split, rows: Ints) -> Split:
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


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
