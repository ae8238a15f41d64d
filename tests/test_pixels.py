"""Pixels of many images: one file filled in any order, and arrays of some of them."""

import os

import numpy as np
import pytest

from trainables.data.pixels import PixelFile, mapped, sources, view

SHAPE = (7, 3, 4, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def file(tmp_path):
    into = PixelFile.create(tmp_path / "images.npy", 7, 4)
    with into.open() as opened:
        into.put(opened, IMAGES[4:], 4)
        for k in (2, 0, 3):
            into.put(opened, IMAGES[k], k)
    return into.path


def test_images_lie_where_they_were_put_and_others_are_black(file):
    found = np.load(file)
    np.testing.assert_array_equal(found[1], np.zeros(SHAPE[1:]))
    np.testing.assert_array_equal(np.delete(found, 1, 0), np.delete(IMAGES, 1, 0))


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5, 6], [2, 3, 4], [6], [4, 3], [0, 2, 5], []])
def test_some_images_are_those_of_the_file(file, rows):
    found = mapped(file, np.array(rows, np.int64))
    assert (found.shape, found.dtype) == ((len(rows), *SHAPE[1:]), np.uint8)
    np.testing.assert_array_equal(np.asarray(found), np.load(file)[np.array(rows, np.int64)])


def test_images_in_a_row_are_a_map_that_knows_its_place(file):
    found = mapped(file, np.array([2, 3]))
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert file.read_bytes()[found.offset :].startswith(IMAGES[2:4].tobytes())


def test_a_disk_that_takes_less_than_it_is_given_is_full(file, monkeypatch):
    into = PixelFile(file, 4, 128)
    monkeypatch.setattr(os, "pwrite", lambda *_: 10)
    with into.open() as opened, pytest.raises(OSError, match="No space left"):
        into.put(opened, IMAGES[0], 0)


def test_sources_of_views_of_views_are_the_arrays_that_hold_the_pixels():
    first, second = IMAGES[:4], IMAGES[4:]
    inner = view(first, np.array([3, 0, 5, 1]), second)
    outer = view(inner, np.array([2, 4, 0, 5]), IMAGES)
    found = list(sources(outer, np.arange(4)))
    assert [array is own for (array, _), own in zip(found, (first, second, IMAGES), strict=True)]
    assert [places.tolist() for _, places in found] == [[3], [1], [0, 1]]
    assert [len(places) for _, places in sources(outer, np.arange(0))] == [0, 0, 0]
