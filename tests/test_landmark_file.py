"""Files of landmarks and the command that writes them: what is refused, and what comes back."""

import csv
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from small_data import class_folders

from trainables import cli
from trainables.data import cache, mesh_landmarks
from trainables.data.faces import FacesSpec
from trainables.features import landmark_file, landmarks
from trainables.features.landmark_file import Landmarks

POINTS = np.random.default_rng(0).normal(size=(3, 68, 2)).astype(np.float32)
FOUND = Landmarks(("a.jpg", "b.jpg", "c.jpg"), POINTS)


def _write_csv(path, rows, count=68, axes="xy"):
    names = [f"{axis}_{k}" for axis in axes for k in range(count)]  # x first, as OpenFace has them
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["frame", "id", *names], *rows])
    return path


def _cells(points):
    return [str(value) for value in points.T.ravel()]


def test_what_is_written_is_read_back(tmp_path):
    lost = POINTS.copy()
    lost[1] = np.nan
    landmark_file.write(tmp_path / "l.npz", Landmarks(FOUND.ids, lost))
    back = landmark_file.read(tmp_path / "l.npz")
    assert np.array_equal(back.points, lost, equal_nan=True)
    assert back.lost() == ("b.jpg",)
    assert np.array_equal(back.rows_of(["c.jpg", "a.jpg"]), lost[[2, 0]])


def test_a_csv_is_read_by_the_names_of_its_columns(tmp_path):
    rows = [["1", "a.jpg", *_cells(POINTS[0])], ["2", "b.jpg", *[""] * 136]]
    back = landmark_file.read(_write_csv(tmp_path / "l.csv", rows))
    assert back.ids == ("a.jpg", "b.jpg")
    assert back.points[0] == pytest.approx(POINTS[0])
    assert back.lost() == ("b.jpg",)


def test_images_that_the_file_lacks_are_named():
    with pytest.raises(ValueError, match=r"lacks 2 of 3 images: d\.jpg, e\.jpg.*such as a\.jpg"):
        FOUND.rows_of(["a.jpg", "d.jpg", "e.jpg"])


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"ids": np.array(FOUND.ids)}, "no points in it"),
        ({"ids": np.array(FOUND.ids), "points": POINTS[:, :5]}, "68, 468, 478 points"),
        ({"ids": np.array(FOUND.ids[:2]), "points": POINTS}, "2 ids and 3 rows"),
        ({"ids": np.array(["a", "b", "a"]), "points": POINTS}, "images twice: a"),
        ({"ids": np.arange(3), "points": POINTS}, "ids of type int64"),
        ({"ids": np.array(FOUND.ids), "points": POINTS.astype(str)}, "points of type"),
        ({"ids": np.array(FOUND.ids, object), "points": POINTS}, "pickle"),
        ({"ids": np.array(FOUND.ids), "points": np.full_like(POINTS, np.nan)}, "no face in 3 of 3"),
        ({"ids": np.array(FOUND.ids), "points": np.full_like(POINTS, np.inf)}, "not finite"),
    ],
)
def test_a_file_that_is_not_one_is_refused(tmp_path, arrays, told):
    np.savez(tmp_path / "l.npz", **arrays)
    with pytest.raises(ValueError, match=told):
        landmark_file.read(tmp_path / "l.npz")


def test_half_a_face_is_refused(tmp_path):
    half = POINTS.copy()
    half[2, 5, 0] = np.nan
    np.savez(tmp_path / "l.npz", ids=np.array(FOUND.ids), points=half)
    with pytest.raises(ValueError, match=r"some points of c\.jpg"):
        landmark_file.read(tmp_path / "l.npz")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="writes one"):
        landmark_file.read(tmp_path / "absent.npz")
    (tmp_path / "l.txt").write_text("a")
    with pytest.raises(ValueError, match=r"give a \.npz or a \.csv"):
        landmark_file.read(tmp_path / "l.txt")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="is no landmark file"):
        landmark_file.read(tmp_path / "torn.npz")


@pytest.mark.parametrize(
    ("rows", "axes", "told"),
    [
        ([["1", "a.jpg", *_cells(POINTS[0])[:-1]]], "xy", "line 2: it ends before y_67"),
        ([["1", "a.jpg", "left", *_cells(POINTS[0])[1:]]], "xy", "line 2: could not convert"),
        ([["1", "a.jpg", *_cells(POINTS[0])[:68]]], "x", "no column y_0"),
        ([["1", "a.jpg", *_cells(POINTS[0])[:68]]], "y", "no column x_0"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path, rows, axes, told):
    with pytest.raises(ValueError, match=told):
        landmark_file.read(_write_csv(tmp_path / "l.csv", rows, axes=axes))


def test_the_command_writes_the_landmarks_of_the_embedded_faces(tmp_path, capsys):
    out = tmp_path / "l.npz"
    assert landmarks.main(["faces:200:easy", "--out", str(out)]) == 0
    assert "200 faces of 200 images" in capsys.readouterr().out
    found = landmark_file.read(out)
    spec = FacesSpec(200, 64, 0, "easy")
    assert np.array_equal(found.points, mesh_landmarks.landmarks(spec))
    bundle = cache.load(cache.prepare("faces:200:easy", 16, cache_root=tmp_path))
    for split in (bundle.train, bundle.val, bundle.test):  # every image by its own id
        assert found.rows_of(split.ids).shape == (len(split), 68, 2)


def _refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: landmarks.main(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    out = ["--out", str(tmp_path / "l.npz")]
    assert "leave out --model" in _refused(capsys, "faces:200", *out, "--model", "a.task")
    data = str(class_folders(tmp_path / "data", 2))
    assert "need --model FILE" in _refused(capsys, data, *out)
    assert "no model at" in _refused(capsys, data, *out, "--model", str(tmp_path / "a.task"))
    assert "ends in .npz" in _refused(capsys, "faces:200", "--out", "l.csv")
    assert not (tmp_path / "l.npz").exists()


def test_images_without_a_face_are_kept_as_such_and_told(tmp_path, capsys, monkeypatch):
    data = class_folders(tmp_path / "data", 2)
    face = np.random.default_rng(1).normal(size=(478, 2)).astype(np.float32)
    answers = iter([face, None, face, face, face, face])
    monkeypatch.setattr(landmarks, "finder", lambda model: nullcontext(lambda _: next(answers)))
    out = tmp_path / "l.npz"
    assert landmarks.main([str(data), "--out", str(out), "--model", "any"]) == 1
    told = capsys.readouterr().out
    assert "5 faces of 6 images" in told
    assert "no face in 1, which are taken for the mean face: angry/1.png" in told
    assert landmark_file.read(out).lost() == ("angry/1.png",)


def test_a_file_that_is_no_image_is_named(tmp_path, capsys, monkeypatch):
    data = class_folders(tmp_path / "data", 2)
    (data / "angry" / "1.png").write_bytes(b"no image")
    monkeypatch.setattr(landmarks, "finder", lambda model: nullcontext(lambda _: None))
    found = _refused(capsys, str(data), "--out", str(tmp_path / "l.npz"), "--model", "any")
    assert "'angry/1.png' cannot be used (not an image): restore it" in found


def test_why_mediapipe_cannot_be_used_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    (tmp_path / "a.task").write_bytes(b"a model")
    data = str(class_folders(tmp_path / "data", 2))
    out = str(tmp_path / "l.npz")
    found = _refused(capsys, data, "--out", out, "--model", str(tmp_path / "a.task"))
    assert "MediaPipe cannot be used here (import of mediapipe halted" in found


class Landmarker:
    """Sees a face whose points lie all in the middle of the picture; knows whether it is closed."""

    is_closed = False

    @classmethod
    def create_from_options(cls, options):
        return cls()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        Landmarker.is_closed = True

    def detect(self, image):
        return SimpleNamespace(face_landmarks=[[SimpleNamespace(x=0.5, y=0.5)] * 478])


def test_places_are_of_the_picture_as_it_was_and_the_model_is_closed(tmp_path, monkeypatch):
    anything = SimpleNamespace
    vision = anything(FaceLandmarker=Landmarker, FaceLandmarkerOptions=anything)
    python = anything(BaseOptions=anything, vision=vision)
    image = anything(Image=anything, ImageFormat=anything(SRGB=1))
    for name, module in (("", image), (".tasks", anything()), (".tasks.python", python)):
        monkeypatch.setitem(sys.modules, f"mediapipe{name}", module)
    (tmp_path / "a.task").write_bytes(b"a model")
    with landmarks.finder(tmp_path / "a.task") as find:
        found = find(np.zeros((100, 60, 3), np.uint8))
        assert not Landmarker.is_closed
    assert found == pytest.approx(np.full((478, 2), (30, 50)), abs=0.5)
    assert Landmarker.is_closed


def test_a_margin_is_put_around_and_taken_back():
    image = np.random.default_rng(0).integers(0, 256, (100, 60, 3), np.uint8)
    framed, offset, scale = landmarks.with_margin(image)
    assert min(framed.shape[:2]) == landmarks.LEAST
    place = np.array([17.0, 42.0])  # a pixel of the image, where is it in the frame?
    x, y = ((place + 0.5 + offset) * scale).astype(int)
    assert np.abs(framed[y, x].astype(int) - image[42, 17]).max() < 40
    assert np.array([x, y]) / scale - offset == pytest.approx(place + 0.5, abs=0.5)


def test_a_file_of_landmarks_is_not_replaced_and_its_folder_is_made(tmp_path, capsys):
    out = tmp_path / "new" / "l.npz"
    assert landmarks.main(["faces:200:easy", "--out", str(out)]) == 0
    assert f"features.file '{out}'" in capsys.readouterr().out
    before = out.stat().st_mtime_ns
    assert "is there: move it away" in _refused(capsys, "faces:200", "--out", str(out))
    assert out.stat().st_mtime_ns == before


def test_a_file_with_a_damaged_array_is_refused(tmp_path):
    path = tmp_path / "l.npz"
    landmark_file.write(path, FOUND)
    data = bytearray(path.read_bytes())
    data[-900:-500] = bytes(byte ^ 0x5A for byte in data[-900:-500])  # within the points
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is no landmark file"):
        landmark_file.read(path)


def test_no_image_at_all_and_zeros_for_a_lost_face_are_refused(tmp_path):
    zeros = POINTS.copy()
    zeros[1] = 0  # what some programs write where they find no face
    with pytest.raises(ValueError, match=r"all points of b\.jpg lie on one; .* has nan for all"):
        landmark_file.write(tmp_path / "l.npz", Landmarks(FOUND.ids, zeros))
    with pytest.raises(ValueError, match="holds no image"):
        landmark_file.read(_write_csv(tmp_path / "l.csv", []))
