"""The splits that the cache makes, and what it says of them."""

import shutil
from pathlib import Path

import cv2
import numpy as np
from small_data import class_folders, draw, rafce

from trainables.data import aus, cache, splits

SIZE = 16


def sides(source: Path, root: Path, size: int) -> dict[str, str]:
    bundle = cache.load(cache.prepare(str(source), size, cache_root=root))
    return {name: s for s in ("train", "val", "test") for name in getattr(bundle, s).ids}


def textured(path: Path, seed: int, shift: int) -> None:
    """A file like a photograph: 200 px of coarse colour under fine noise, moved to the side."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(0, 255, (5, 5, 3)), (200, 200), interpolation=cv2.INTER_CUBIC)
    fine = np.clip(coarse + rng.normal(0, 60, coarse.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.roll(fine, shift, 1))


def test_splits_do_not_depend_on_the_image_size(tmp_path):
    source = tmp_path / "data"
    for seed in range(20):
        for shift in (0, 4, 8):  # alike, but at the edge of what is taken for a copy
            textured(source / "ab"[seed % 2] / f"{seed}-{shift}.png", seed, shift)
    small, large = (sides(source, tmp_path / "cache", size) for size in (48, 96))
    assert small == large


def test_splits_are_made_once_and_told(tmp_path):
    source = class_folders(tmp_path / "data", count=10)
    shutil.copy(source / "sad" / "0.png", source / "sad" / "copy.png")
    bundle = cache.load(cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache"))
    side = {name: s for s in ("train", "val", "test") for name in getattr(bundle, s).ids}
    assert side["sad/0.png"] == side["sad/copy.png"]
    assert bundle.class_counts().min() >= 6
    assert "no split train, val, test: made here" in " ".join(bundle.notes)


def test_a_picture_in_two_official_splits_is_told(tmp_path):
    source = rafce(tmp_path / "data")
    flipped = cv2.imread(str(source / "aligned" / "0000_aligned.jpg"))[:, ::-1]
    cv2.imwrite(str(source / "aligned" / "0002_aligned.jpg"), flipped)
    bundle = cache.load(cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache"))
    said = "two official splits look alike: 0000.jpg (train) ~ 0002.jpg (test)."
    assert said in " ".join(bundle.notes)
    assert "same picture" not in " ".join(bundle.notes)


def test_a_set_too_small_for_a_test_split_has_an_empty_one(tmp_path):
    source = class_folders(tmp_path / "data", count=4)
    bundle = cache.load(cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache"))
    assert [len(s) for s in (bundle.train, bundle.val, bundle.test)] == [6, 6, 0]
    assert bundle.test.images.shape == (0, 3, SIZE, SIZE)


def test_a_set_too_large_to_be_compared_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "MOST_IMAGES", 10)
    source = class_folders(tmp_path / "data")
    bundle = cache.load(cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache"))
    assert (
        "Above 10 images not all pairs that could look alike are compared: among these 24"
        in " ".join(bundle.notes)
    )


def test_split_version_is_part_of_the_key(tmp_path, monkeypatch):
    source = str(class_folders(tmp_path / "data"))
    before = cache._listing_plan(source, SIZE, aus.Policy(), tmp_path, None).key
    monkeypatch.setattr(splits, "VERSION", splits.VERSION + 1)
    assert cache._listing_plan(source, SIZE, aus.Policy(), tmp_path, None).key != before


def test_one_more_image_moves_few_others(tmp_path):
    source = class_folders(tmp_path / "data", count=30)
    before = sides(source, tmp_path / "cache", SIZE)
    draw(source / "angry" / "#first.png", 999)
    after = sides(source, tmp_path / "cache", SIZE)
    assert sum(before[name] != after[name] for name in before) <= 2
