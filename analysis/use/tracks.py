"""Faces of a video followed from frame to frame, and their probabilities smoothed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from analysis.use.faces import Box
from analysis.use.rows import Seen

SAME = 0.3  # overlap over union with a face of the frame before
Floats = NDArray[np.float32]


@dataclass
class Tracks:
    """The faces of the last frame of one video; a new video begins anew. It changes as it goes."""

    smooth: float = 0.0  # share of what was said before: y = smooth y + (1 - smooth) x
    path: str = ""
    last: dict[int, Box | None] = field(default_factory=dict)
    said: dict[tuple[str, int], tuple[Floats, Floats]] = field(default_factory=dict)
    next_number: int = 0

    def numbers(self, path: str, boxes: Sequence[Box | None]) -> list[int]:
        """A number for each face of the next frame: that of the face it continues, or a new one."""
        if path != self.path:
            self.path, self.last, self.next_number = path, {}, 0
        free, out = dict(self.last), []
        for box in boxes:
            best = max(free, key=lambda n: overlap(free[n], box), default=None)
            if best is None or overlap(free[best], box) < SAME:
                best, self.next_number = self.next_number, self.next_number + 1
            free.pop(best, None)
            out.append(best)
        if boxes:  # a frame without a face does not end a track
            self.last = dict(zip(out, boxes, strict=True))
        return out

    def smoothed(self, seen: Seen) -> Seen:
        """What is said of a face of a video, with what was said of it before."""
        if not self.smooth or seen.frame is None or seen.face is None:
            return seen
        assert seen.probs is not None
        assert seen.aus is not None
        key, own = (seen.path, seen.face), (seen.probs, seen.aus)
        a, old = np.float32(self.smooth), self.said.get(key, own)
        probs, aus = (a * before + (1 - a) * now for before, now in zip(old, own, strict=True))
        self.said[key] = probs, aus
        return replace(seen, probs=probs, aus=aus)


def overlap(one: Box | None, other: Box | None) -> float:
    """Intersection over union; whole pictures, which have no box, are the same."""
    if one is None or other is None:
        return float(one is other)
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return shared / max(1e-9, sum(areas) - shared)
