"""Which images a network must not be pretrained on, and the proof that it was not.

N images, M held out, S pixels a side. Images are compared as the network sees them, decoded to S
pixels: by their pixels, and by what they look like (`data/likeness.py`), each mirrored or not. A
crop of another size or place is another picture to this: no fingerprint finds it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data import likeness
from trainables.data.bundle import DataBundle
from trainables.data.listing import several
from trainables.data.parallel import Progress, in_threads

Pixels = NDArray[np.uint8]
Bools = NDArray[np.bool_]
_BLOCK = 512
RULE = (
    f"equal pixels, or at most {likeness.MOST_BITS} of 64 bits of the difference hash and "
    f"{likeness.MOST_LEVELS:g} of 255 levels of the thumbnail apart, mirrored or not"
)


@dataclass(frozen=True)
class Fingerprints:
    """What to know images by."""

    digests: tuple[str, ...]  # of the pixels: the same for an image and its mirror image
    hashes: likeness.Hashes
    thumbs: likeness.Thumbs

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, chosen: Bools) -> "Fingerprints":
        digests = tuple(np.array(self.digests, np.str_)[chosen].tolist())
        return Fingerprints(digests, self.hashes[chosen], self.thumbs[chosen])


def fingerprints(
    images: Pixels, rows: Sequence[int] | None = None, progress: Progress | None = None
) -> Fingerprints:
    """Of (N, 3, S, S) images, or of some rows of them, read one by one."""

    def work(number: int) -> tuple[str, likeness.Hashes, likeness.Thumbs]:
        image = np.ascontiguousarray(images[number].transpose(1, 2, 0))
        return pixel_digest(image), *likeness.look(image)

    chosen = range(len(images)) if rows is None else rows
    found = in_threads(work, chosen, "fingerprint", progress)
    return Fingerprints(
        tuple(digest for digest, _, _ in found),
        np.array([bits for _, bits, _ in found], np.uint64).reshape(-1, 2),
        np.array([thumb for _, _, thumb in found], np.uint8).reshape(-1, 8, 8, 3),
    )


def pixel_digest(image: Pixels) -> str:
    """Of an (S, S, 3) image or its mirror image: the lesser of their two hashes."""
    both = (image, np.ascontiguousarray(image[:, ::-1]))
    return min(hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in both)


def held_out(data: DataBundle) -> Fingerprints:
    """Of all that a data set scores on: validation and test."""
    both = [fingerprints(split.images) for split in (data.val, data.test)]
    return Fingerprints(
        both[0].digests + both[1].digests,
        np.concatenate([part.hashes for part in both]),
        np.concatenate([part.thumbs for part in both]),
    )


def equal(candidates: Fingerprints, held: Fingerprints) -> Bools:
    """(N,) whether the pixels are those of a held-out image."""
    known = set(held.digests)
    return np.array([digest in known for digest in candidates.digests], bool)


def alike(candidates: Fingerprints, held: Fingerprints) -> Bools:
    """(N,) whether a held-out image looks the same; of any number of candidates."""
    found = np.zeros(len(candidates), bool)
    for start in range(0, len(candidates), _BLOCK):
        block = slice(start, start + _BLOCK)
        for is_mirrored in (0, 1):
            bits = np.bitwise_count(candidates.hashes[block, :1] ^ held.hashes[:, is_mirrored])
            near, of = np.nonzero(bits <= likeness.MOST_BITS)
            other = held.thumbs[:, :, ::-1] if is_mirrored else held.thumbs
            gap = np.abs(candidates.thumbs[block][near].astype(np.int16) - other[of])
            found[start + near[gap.mean((1, 2, 3)) <= likeness.MOST_LEVELS]] = True
    return found


@dataclass(frozen=True)
class Proof:
    """What was looked at, what was left out, and that nothing else was to be."""

    data: str  # whose validation and test images these are; empty: nothing was excluded
    held_out: int  # images
    held_out_digest: str  # of the set of their fingerprints
    held_out_ids: str  # of their names, the same at any image size
    candidates: int
    seen: int
    seen_digest: str  # of the set of fingerprints of the images that are trained on
    excluded_equal: int
    excluded_alike: int  # and not equal
    excluded: tuple[str, ...]  # names
    rule: str = RULE


def exclude(
    names: Sequence[str], candidates: Fingerprints, data: DataBundle | None
) -> tuple[Bools, Proof]:
    """(N,) which images may be trained on, and the proof; all may where `data` is None.

    Raises ValueError when none is left.
    """
    if data is None:
        kept = np.ones(len(candidates), bool)
        digest = set_digest(candidates)
        return kept, Proof("", 0, "", "", len(kept), len(kept), digest, 0, 0, (), "no exclusion")
    held = held_out(data)
    same, near = equal(candidates, held), alike(candidates, held)
    kept = ~(same | near)
    if not kept.any():
        raise ValueError(
            f"all {len(kept)} images are validation or test images of '{data.name}': none is left"
        )
    seen = candidates[kept]
    proof = Proof(
        data=data.name,
        held_out=len(held),
        held_out_digest=set_digest(held),
        held_out_ids=held_out_ids(data),
        candidates=len(candidates),
        seen=len(seen),
        seen_digest=set_digest(seen),
        excluded_equal=int(same.sum()),
        excluded_alike=int((near & ~same).sum()),
        excluded=tuple(names[k] for k in np.flatnonzero(~kept).tolist()),
    )
    return kept, proof


def verify(names: Sequence[str], seen: Fingerprints, proof: Proof, data: DataBundle | None) -> None:
    """Raise ValueError unless images of these fingerprints bear out the proof: none of them is a
    held-out image, and they are the set that the proof names."""
    if data is not None:
        held = held_out(data)
        overlap = np.flatnonzero(equal(seen, held) | alike(seen, held))
        if len(overlap):
            raise ValueError(
                f"{len(overlap)} images are validation or test images of '{data.name}': "
                f"{several([names[k] for k in overlap.tolist()])}"
            )
        if set_digest(held) != proof.held_out_digest:
            raise ValueError(f"the proof is of other held-out images than those of '{data.name}'")
    if set_digest(seen) != proof.seen_digest:
        raise ValueError("these are not the images that the proof is of")


def set_digest(of: Fingerprints) -> str:
    """One hash of the set of fingerprints, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(of.digests))).encode()).hexdigest()


def held_out_ids(data: DataBundle) -> str:
    """One hash of the names of what a data set scores on."""
    lines = [data.name, *sorted(data.val.ids), "", *sorted(data.test.ids)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
