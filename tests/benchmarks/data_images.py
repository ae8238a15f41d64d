"""Images like those of AffectNet: eight classes as frequent, small JPEG files, no two alike.

Each is two rendered faces blended, turned, moved and lit by chance: 0.3 ms, where a face of its own
would take 5. They are for measuring time; no label can be learned of them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from trainables.data import faces
from trainables.data.parallel import in_chunks

TRAIN = {
    "neutral": 74874, "happy": 134415, "sad": 25459, "surprise": 14090, "fear": 6378,
    "disgust": 3803, "anger": 24882, "contempt": 3750,
}  # fmt: skip
FACES = 400  # that are blended: 80,000 pairs
VALIDATION = 75  # one image of so many


def write(out: Path, count: int, size: int = 96) -> Path:
    """Folders SPLIT/CLASS/NUMBER.jpg below `out`, and listing.csv with path and label; `out`."""
    rendered = out.parent / f"faces-{size}.npy"
    if not rendered.exists():
        pixels = faces.render_all(faces.FacesSpec(FACES, size))
        np.save(rendered, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    shares = np.cumsum(list(TRAIN.values())) / sum(TRAIN.values())
    chance = np.random.default_rng(0).random(count)
    names = [list(TRAIN)[k] for k in np.searchsorted(shares, chance, side="right").clip(max=7)]
    paths = [
        f"{'train' if k % VALIDATION else 'val'}/{name}/{k:06d}.jpg" for k, name in enumerate(names)
    ]
    for folder in {Path(path).parent for path in paths}:
        (out / folder).mkdir(parents=True, exist_ok=True)
    work = partial(_write_some, out=out, rendered=rendered)
    for _ in in_chunks(work, list(enumerate(paths)), "write"):
        pass
    lines = [f"{path},{name}" for path, name in zip(paths, names, strict=True)]
    (out / "listing.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return out


def _write_some(files: Sequence[tuple[int, str]], out: Path, rendered: Path) -> None:
    known = np.load(rendered, mmap_mode="r")
    for number, path in files:
        (out / path).write_bytes(_drawn(known, np.random.default_rng([1, number])))


def _drawn(known: np.ndarray, rng: np.random.Generator) -> bytes:
    size = known.shape[1]
    one, other = (np.asarray(known[k]) for k in rng.integers(len(known), size=2))
    share = rng.uniform(0.3, 0.7)
    image = cv2.addWeighted(one, share, np.ascontiguousarray(other[:, ::-1]), 1 - share, 0)
    turn = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.uniform(-15, 15), rng.uniform(0.8, 1.3)
    )
    turn[:, 2] += rng.uniform(-size / 12, size / 12, 2)
    image = cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.6, 1.3), beta=rng.uniform(-30, 30))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
