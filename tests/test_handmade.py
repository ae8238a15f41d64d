"""The extractors that need no network, as parts of a trial."""

from dataclasses import replace

import numpy as np
import pytest
from small_data import class_folders

from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.features import classical, face_shape, landmark_file, landmarks
from trainables.features.cache import hidden
from trainables.features.plugins import EXTRACTORS
from trainables.features.trial import run

CONFIG = TrialConfig()


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """The landmarks of the faces that all tests share."""
    file = tmp_path_factory.mktemp("landmarks") / "l.npz"
    assert landmarks.main(["faces:300:easy", "--out", str(file)]) == 0
    return file


def _config(**flat):
    plain = {"classifier": "lda", "image_size": 48, "augment": "none"}
    return TrialConfig.from_flat({**plain, **flat})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lbp", {"radius": 2, "grid": 3}),
        ("hog", {"orientations": 9, "cell": 12}),
        ("gabor", {"scales": 2, "orientations": 4, "grid": 2}),
        ("colour", {"bins": 8, "grid": 3}),
    ],
)
def test_an_extractor_is_its_function_with_its_arguments(faces, name, arguments):
    bundle = cache.load(faces)
    seen = EXTRACTORS[name](CONFIG, bundle, **arguments).see(hidden(bundle.val, slice(0, 4)))
    wanted = getattr(classical, name)(np.array(bundle.val.images[:4]), **arguments)
    assert np.array_equal(seen, wanted)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("lbp", {"radius": 0}, "radius 0"),
        ("lbp", {"grid": 49}, "give 1 to 48"),
        ("hog", {"cell": 25}, "at most 24 px"),
        ("hog", {"orientations": 1}, "2 or more"),
        ("gabor", {"scales": 1}, "2 to 8"),
        ("colour", {"bins": 1}, "2 to 256"),
        ("landmarks", {}, "set features.file to its whole path"),
        ("landmarks", {"file": "l.npz"}, r"whole path, as '/.*l\.npz'"),
        ("landmarks", {"file": "/nowhere/l.npz"}, "no landmark file at"),
    ],
)
def test_what_cannot_be_is_told_before_any_trial(faces, name, arguments, told):
    with pytest.raises((ValueError, OSError), match=told):
        EXTRACTORS[name](CONFIG, cache.load(faces), **arguments)


def test_landmarks_are_found_by_id_whatever_the_order(faces, points):
    bundle = cache.load(faces)
    extractor = EXTRACTORS["landmarks"](CONFIG, bundle, file=str(points), use="ratios")
    seen = extractor.see(hidden(bundle.val, slice(2, 5)))
    found = landmark_file.read(points)
    assert seen.shape == (3, 16)
    assert np.array_equal(seen, face_shape.features(found.rows_of(bundle.val.ids[2:5]), "ratios"))
    assert not extractor.has_mirror  # a mirrored picture's points are not in the file


def test_landmarks_that_lack_images_of_any_split_stop_the_trial_at_once(faces, points, tmp_path):
    bundle = cache.load(faces)
    found = landmark_file.read(points)
    kept = [k for k, name in enumerate(found.ids) if name != bundle.test.ids[0]]
    part = landmark_file.Landmarks(tuple(found.ids[k] for k in kept), found.points[kept])
    landmark_file.write(tmp_path / "part.npz", part)
    with pytest.raises(ValueError, match=rf"lacks 1 of 300 images: {bundle.test.ids[0]}"):
        EXTRACTORS["landmarks"](CONFIG, bundle, file=str(tmp_path / "part.npz"))


def test_another_landmark_file_is_other_features(faces, points, tmp_path):
    bundle = cache.load(faces)
    moved = landmark_file.read(points)
    landmark_file.write(tmp_path / "b.npz", replace(moved, points=moved.points * np.float32(1.1)))
    keys = {
        EXTRACTORS["landmarks"](CONFIG, bundle, file=str(file)).content
        for file in (points, tmp_path / "b.npz")
    }
    assert len(keys) == 2


def test_landmarks_tell_faces_apart_and_colour_does_not(faces, points):
    shape, _ = run(_config(features="landmarks", **{"features.file": str(points)}), faces)
    tint, _ = run(_config(features="colour"), faces)
    guess = np.bincount(cache.load(faces).val.labels).max() / len(cache.load(faces).val)
    assert shape["accuracy"] > guess + 0.15, (shape["accuracy"], guess)
    assert tint["accuracy"] < guess + 0.15, (tint["accuracy"], guess)


def test_colour_raises_the_alarm_where_the_light_tells_the_class(faces):
    # the twin of the test above: the same faces, each class a little darker than the next
    bundle = cache.load(faces)
    lit = {}
    for name in ("train", "val", "test"):
        split = getattr(bundle, name)
        dim = 1 - 0.05 * np.maximum(split.labels, 0)
        images = (split.images * dim[:, None, None, None]).astype(np.uint8)
        lit[name] = classical.colour(images, bins=32, grid=1)
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    told = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    told.fit(lit["train"], bundle.train.labels)
    assert told.score(lit["val"], bundle.val.labels) > 0.3


def test_photographs_take_the_same_way(tmp_path):
    data = cache.prepare(str(class_folders(tmp_path / "data", 10)), 32, cache_root=tmp_path / "c")
    row, outcome = run(_config(features="hog", image_size=32), data)
    assert np.isfinite(outcome.val.probs).all()
    assert row["features"] == 3 * 3 * 32


def test_a_trial_says_how_its_synthetic_rows_look(faces):
    flat = {"features": "hog", "features.cell": 12}
    plain, _ = run(_config(**flat), faces)
    assert not {"synthetic_probe_auc", "nearest_train_distance_ratio"} & set(plain)
    again, _ = run(_config(**flat, synthesis="repeat"), faces)
    assert again["nearest_train_distance_ratio"] < 0.01
    made, _ = run(_config(**flat, synthesis="calibration", **{"synthesis.ratio": 1.0}), faces)
    assert made["synthetic"] > 1.5 * again["synthetic"]
    assert made["nearest_train_distance_ratio"] > 0.2
    assert 0 <= made["synthetic_probe_auc"] <= 1
    assert made["accuracy"] != plain["accuracy"]  # the rows were trained on


def test_parts_are_named_as_the_issue_names_them():
    assert {"lbp", "hog", "gabor", "colour", "landmarks"} <= set(EXTRACTORS)
    assert Part("lbp") == TrialConfig.from_flat({"features": "lbp", "classifier": "lda"}).features
