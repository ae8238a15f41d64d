"""Small data sets on disk for the tests: coloured squares, no faces."""

from pathlib import Path

import cv2
import numpy as np


def draw(path: Path, seed: int = 0, pixels: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    cell = np.ones((pixels // 6, pixels // 6, 1), np.uint8)
    cv2.imwrite(str(path), np.kron(coarse, cell))
    return path


def class_folders(root: Path, count: int = 8) -> Path:
    for k, name in enumerate(["angry", "glad", "sad"]):
        for seed in range(count):
            draw(root / name / f"{seed}.png", seed + 100 * k)
    return root


def rafce(root: Path, splits_: str = "0011220") -> Path:
    code = list(enumerate(splits_))
    for k, _ in code:
        draw(root / "aligned" / f"{k:04d}_aligned.jpg", k)
    (root / "RAFCE_emolabel.txt").write_text("\n".join(f"{k:04d}.jpg {k % 2}" for k, _ in code))
    (root / "RAFCE_partition.txt").write_text("\n".join(f"{k:04d}.jpg {c}" for k, c in code))
    (root / "RAFCE_AUlabel.txt").write_text(
        "0000.jpg 1+L12\n0001.jpg null\n0002.jpg 12\n0003.jpg 9\n0004.jpg 12+1\n0006.jpg 12+1+foo\n"
    )
    votes = [f"{k:04d}.jpg 1 0 0 3 0 0" for k, _ in code if k != 4]
    (root / "distribution.txt").write_text(" \n".join(votes))
    return root


def entries(root: Path) -> list[Path]:
    """What lies in a cache, whole or half-built, but for the hashes of files (known.py)."""
    return [path for path in root.iterdir() if not path.name.startswith("hashes-")]
