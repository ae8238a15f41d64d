"""Hand-made features: against counts and formulas on images of which we know what they hold."""

import numpy as np
import pytest

from trainables.features import classical

RNG = np.random.default_rng(0)


def _grey(plane):
    return np.repeat(np.asarray(plane, np.uint8)[None, None], 3, 1)


def _wave(frequency, degrees, size=64):
    """A grating of so many cycles a pixel, whose stripes stand across the direction."""
    y, x = np.mgrid[:size, :size]
    angle = np.deg2rad(degrees)
    phase = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
    return _grey(127 + 100 * np.sin(phase))


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_lbp_of_a_constant_image_is_one_pattern_in_every_cell(radius):
    shares = classical.lbp(_grey(np.full((28, 28), 90)), radius, grid=2).reshape(4, 59)
    assert (shares[:, 57] == 1).all()  # all eight neighbours at least as bright: the last uniform
    assert shares.sum() == 4


def test_lbp_by_hand():
    # a bright dot: it alone has eight darker neighbours (code 0), and each of its neighbours one
    # brighter one, which changes nothing: "at least as bright" is true of all eight
    plane = np.full((9, 9), 50)
    plane[4, 4] = 200
    shares = classical.lbp(_grey(plane), grid=1)[0]
    assert shares[0] == pytest.approx(1 / 81)
    assert shares[57] == pytest.approx(80 / 81)


def test_lbp_does_not_change_with_the_light_and_colour_does():
    plane = RNG.integers(40, 100, (1, 3, 32, 32)).astype(np.uint8)
    plane[:] = plane[:, :1]  # grey, so that luma is exact
    assert np.array_equal(classical.lbp(plane), classical.lbp(plane + np.uint8(100)))
    assert not np.array_equal(classical.colour(plane), classical.colour(plane + np.uint8(100)))


def test_lbp_has_its_cells_in_order():
    plane = np.full((16, 16), 50)
    plane[:8, 8:] = RNG.integers(0, 255, (8, 8))  # texture at the top right only
    shares = classical.lbp(_grey(plane), grid=2).reshape(4, 59)
    assert shares[1, 57] < 0.6
    assert shares[2, 57] == 1


def test_hog_of_an_upright_edge_votes_for_one_direction():
    plane = np.zeros((32, 32))
    plane[:, 16:] = 200
    values = classical.hog(_grey(plane), orientations=8, cell=8).reshape(3, 3, 2, 2, 8)
    assert values[..., 0].sum() == pytest.approx(values.sum())  # its gradient runs along x
    across = classical.hog(_grey(plane.T), orientations=8, cell=8).reshape(3, 3, 2, 2, 8)
    assert across[..., 4].sum() == pytest.approx(across.sum())  # the fifth of eight: 90 degrees


def test_hog_is_of_unit_length_in_a_block_and_does_not_see_contrast():
    plane = RNG.integers(0, 120, (32, 32))
    blocks = classical.hog(_grey(plane), 9, 8).reshape(9, 36)
    assert np.linalg.norm(blocks, axis=1) == pytest.approx(1, abs=1e-4)
    assert classical.hog(_grey(2 * plane), 9, 8) == pytest.approx(blocks.reshape(1, -1), abs=1e-3)


def test_hog_refuses_images_smaller_than_a_block():
    with pytest.raises(ValueError, match="at most 10 px"):
        classical.hog(_grey(np.zeros((20, 20))), cell=16)


@pytest.mark.parametrize(("scale", "angle"), [(0, 0), (1, 3), (2, 2), (3, 6)])
def test_gabor_answers_most_at_the_frequency_and_angle_of_a_grating(scale, angle):
    wave = _wave(classical.gabor_frequencies(4)[scale], angle * 22.5)
    means = classical.gabor(wave, grid=1).reshape(4, 8, 2)[..., 0]
    assert np.unravel_index(means.argmax(), means.shape) == (scale, angle)
    # a sine of amplitude 100 / 255 under an analytic filter of unit gain: half of it
    assert means.max() == pytest.approx(100 / 255 / 2, rel=0.2)


def test_gabor_is_skimages_kernel():
    from scipy.signal import fftconvolve
    from skimage.filters import gabor_kernel

    image = RNG.integers(0, 256, (64, 64))
    frequency = classical.gabor_frequencies(4)[2]
    kernel = gabor_kernel(frequency, theta=np.pi / 4, n_stds=6)
    response = fftconvolve(image / 255, kernel, mode="same")
    inner = (slice(16, 48), slice(16, 48))  # one cell of a grid of 2 is not: compare by hand
    ours = classical._responses(
        _grey(image)[:, 0] / np.float32(255),
        classical.gabor_bank(64, 4, 8)[2 * 8 + 2 : 2 * 8 + 3],
        np.eye(64, dtype=np.float32)[16:48],
    )
    assert ours[0, : 32 * 32].reshape(32, 32) == pytest.approx(np.abs(response)[inner], abs=2e-3)


def test_gabor_does_not_answer_to_a_constant_image_nor_wrap_around():
    assert np.abs(classical.gabor(_grey(np.full((32, 32), 200)))).max() < 1e-5
    plane = np.zeros((64, 64))
    plane[:, :3] = 255  # something at the left edge must not be felt at the right
    cells = classical.gabor(_grey(plane), grid=4).reshape(32, 2, 4, 4)[:, 0]
    assert cells[:, :, 3].max() < 0.01 * cells[:, :, 0].max()


def test_colour_counts_by_hand():
    image = np.zeros((1, 3, 4, 4), np.uint8)
    image[0, 0, :2, :2] = [[0, 64], [64, 255]]  # red, top left cell: 1 of 4, 2 of 4, 1 of 4
    shares = classical.colour(image, bins=4, grid=2).reshape(3, 4, 4)
    assert shares[0, 0].tolist() == [0.25, 0.5, 0, 0.25]
    assert shares[0, 1].tolist() == [1, 0, 0, 0]
    assert shares[1, 0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("name", ["lbp", "hog", "gabor", "colour"])
def test_features_of_an_image_do_not_depend_on_its_company(name):
    images = RNG.integers(0, 256, (19, 3, 48, 48), np.uint8)  # more than a chunk
    feature = getattr(classical, name)
    together = feature(images)
    assert together.shape[0] == 19
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    alone = np.concatenate([feature(images[k : k + 1]) for k in (0, 7, 18)])
    assert alone == pytest.approx(together[[0, 7, 18]], abs=1e-6)


def test_a_grid_finer_than_the_image_is_refused():
    with pytest.raises(ValueError, match="give 1 to 16"):
        classical.colour(np.zeros((1, 3, 16, 16), np.uint8), grid=17)
