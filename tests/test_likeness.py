"""Pairs that look alike: all that a comparison of each with each finds, and of many the copies."""

import numpy as np
import pytest
from small_data import draw

from trainables.data import decoding, images, likeness
from trainables.data.pixels import PixelFile


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and thumbnails of which many are near each other, as those of faces are."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2**64, (count // 20 + 1, 2), np.uint64)
    of = rng.integers(len(kinds), size=count)
    flips = np.zeros((count, 2), np.uint64)
    for _ in range(4):
        places = rng.integers(0, 64, (count, 2)).astype(np.uint64)
        flips ^= np.uint64(1) << places
    hashes = kinds[of] ^ flips
    colours = rng.integers(60, 190, (len(kinds), 8, 8, 3))
    light = rng.integers(-15, 16, (count, 1, 1, 1))
    thumbs = colours[of] + light + rng.integers(-8, 9, (count, 8, 8, 3))
    turned = rng.random(count) < 0.3
    hashes[turned] = hashes[turned][:, ::-1]
    thumbs[turned] = thumbs[turned][:, :, ::-1]
    return hashes, thumbs.astype(np.uint8)


def each_with_each(hashes: np.ndarray, thumbs: np.ndarray) -> set[tuple[int, int]]:
    found = set()
    for a in range(len(hashes)):
        for b in range(a + 1, len(hashes)):
            for mirrored, other in ((0, thumbs[b]), (1, thumbs[b][:, ::-1])):
                bits = int(hashes[a, 0] ^ hashes[b, mirrored]).bit_count()
                gap = np.abs(thumbs[a].astype(int) - other).mean()
                if bits <= likeness.MOST_BITS and gap <= likeness.MOST_LEVELS:
                    found.add((a, b))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_no_near_pair_is_missed_and_none_is_added(seed):
    hashes, thumbs = drawn(200, seed)
    pairs = likeness.near_pairs(hashes, thumbs)
    wanted = each_with_each(hashes, thumbs)
    assert len(wanted) > 50
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(wanted)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_few_pairs(count):
    hashes, thumbs = drawn(40)
    same = np.zeros(count, int)
    assert len(likeness.near_pairs(hashes[same], thumbs[same])) == max(0, count - 1)


def test_bits_at_the_limit_count_and_one_more_does_not():
    hashes, thumbs = drawn(1)
    for bits, pairs in ((likeness.MOST_BITS, [[0, 1]]), (likeness.MOST_BITS + 1, [])):
        for shift in range(64 - bits):
            other = hashes ^ np.uint64(((1 << bits) - 1) << shift)
            other[:, 1] = ~hashes[:, 0]  # no mirror image
            both = np.concatenate([hashes, other]), np.repeat(thumbs, 2, axis=0)
            assert likeness.near_pairs(*both).tolist() == pairs


def test_of_very_many_images_copies_are_found_in_a_crowd(monkeypatch):
    monkeypatch.setattr(likeness, "MOST_IMAGES", 100)
    monkeypatch.setattr(likeness, "REACH", 8)
    hashes, thumbs = drawn(300)
    copies = hashes[:50] ^ np.uint64(5), thumbs[:50]  # saved anew: two bits, the same light
    pairs = likeness.near_pairs(
        np.concatenate([hashes, copies[0]]), np.concatenate([thumbs, copies[1]])
    )
    found = {tuple(pair) for pair in pairs.tolist()}
    assert {(k, k + 300) for k in range(50)} <= found
    assert found <= each_with_each(
        np.concatenate([hashes, copies[0]]), np.concatenate([thumbs, copies[1]])
    )


@pytest.mark.parametrize(
    ("shape", "then"),
    [((256, 128), (64, 32)), ((250, 250), (125, 125)), ((255, 200), (255, 200)), ((64, 126), None)],
)
def test_an_image_is_halved_as_long_as_whole_pixels_come_out(shape, then):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = likeness.halved(image)
    assert found.shape[:2] == (then or shape)
    assert (found is image) == (found.shape == image.shape)


def test_looks_do_not_depend_on_the_size_of_a_run(tmp_path):
    paths = [draw(tmp_path / f"{side}.png", side, side) for side in (24, 96, 192, 384)]
    found = []
    for size in (32, 64, 112):
        into = PixelFile.create(tmp_path / "images.npy", 4, size)
        found.append(decoding.decode(paths, np.arange(4), into, "decode", None))
    looks = [likeness.look(images.read(path.read_bytes())) for path in paths]
    for decoded in found:
        np.testing.assert_array_equal(decoded.hashes, [bits for bits, _ in looks])
        np.testing.assert_array_equal(decoded.thumbs, [thumb for _, thumb in looks])
