"""The embedded faces as files, as a spec, and as a command."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from trainables.data import faces
from trainables.data.faces import FacesSpec


def test_rafce_files_are_byte_for_byte_in_its_format(tmp_path):
    spec = FacesSpec(200, 16)
    faces.write_rafce(spec, tmp_path / "new")
    people = faces.draw_people(spec)
    emotions, parts, aus = (
        (tmp_path / "new" / f"RAFCE_{name}.txt").read_bytes()
        for name in ("emolabel", "partition", "AUlabel")
    )
    assert re.fullmatch(rb"(\d{4}\.jpg \d{1,2}\n){199}\d{4}\.jpg \d{1,2}", emotions)
    assert re.fullmatch(rb"(\d{4}\.jpg [012]\n){199}\d{4}\.jpg [012]", parts)
    assert re.fullmatch(rb"(\d{4}\.jpg (null|[LR]?\d+(\+[LR]?\d+)*)\n){200}", aus)
    codes = [line.split()[1] for line in parts.decode().splitlines()]
    assert codes == [str({"train": 0, "test": 1, "val": 2}[p.split]) for p in people]
    written = {path.name for path in (tmp_path / "new" / "aligned").iterdir()}
    assert written == {f"{i:04d}_aligned.jpg" for i in range(1, 201)}
    assert "No real person" in (tmp_path / "new" / "SYNTHETIC.md").read_text()
    image = cv2.imread(str(tmp_path / "new" / "aligned" / "0007_aligned.jpg"))[..., ::-1]
    truth = faces.render_face(people[6], spec).astype(float)
    assert np.abs(image - truth).mean() < 12  # JPEG at 16 px


def test_manifest_lists_every_picture(tmp_path):
    faces.write_manifest(FacesSpec(200, 16), tmp_path)
    header, *rows = (tmp_path / "manifest.csv").read_text().splitlines()
    assert header == "path,label,split,aus"
    assert len(rows) == 200
    assert all((tmp_path / row.split(",")[0]).is_file() for row in rows)


def test_folders_hold_every_class_in_every_split(tmp_path):
    faces.write_folders(FacesSpec(200, 16), tmp_path)
    assert len(list(tmp_path.glob("*/*"))) == 3 * 14
    assert len(list(tmp_path.glob("*/*/*.jpg"))) == 200


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("faces", FacesSpec()),
        ("faces:1500", FacesSpec(1500)),
        ("faces:1500:hard", FacesSpec(1500, difficulty="hard")),
    ],
)
def test_spec_reads(text, spec):
    assert FacesSpec.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("face", r"cannot read 'face'; write faces\[:N"),
        ("faces:1:2:3", "cannot read 'faces:1:2:3'"),
        ("faces:many", "'many' in 'faces:many' is no number; give 200 to 100000"),
        ("faces:", "'' in 'faces:' is no number"),
        ("faces:-5", "'-5' in 'faces:-5' is no number"),
        ("faces:199", "asked for 199 faces; ask for 200 to 100000"),
        ("faces:100001", "asked for 100001 faces"),
        ("faces:500:evil", "unknown difficulty 'evil'; known: easy, medium, hard"),
    ],
)
def test_a_bad_spec_says_what_to_do(text, message):
    with pytest.raises(ValueError, match=message):
        FacesSpec.parse(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to do: give --out DIR"),
        (["--count", "3"], "asked for 3 faces; ask for 200"),
        (["--size", "5"], "asked for pictures of 5 px"),
        (["--seed", "-1"], "asked for seed -1"),
    ],
)
def test_what_cannot_be_made_is_told_before_a_folder_is(arguments, said, tmp_path):
    where = ["--out", str(tmp_path / "new")] if arguments else []
    with pytest.raises(ValueError, match=said):
        faces.main([*arguments, *where])
    assert not (tmp_path / "new").exists()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "trainables.data.faces", *arguments]
    root = Path(__file__).parents[1]
    return subprocess.run(line, cwd=root, check=False, capture_output=True, text=True)


def test_a_mistake_ends_the_command_with_2_and_a_line():
    done = command()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: nothing to do")


def test_a_bad_flag_gets_a_hint(capsys):
    with pytest.raises(SystemExit) as end:
        faces.main(["--layuot", "rafce"])
    assert end.value.code == 2
    assert "Did you mean '--layout'?" in capsys.readouterr().err


def test_help_says_in_a_sentence_what_the_command_does(capsys):
    with pytest.raises(SystemExit):
        faces.main(["--help"])
    usage, what, _ = capsys.readouterr().out.split("\n\n", 2)
    assert usage.startswith("usage: python -m trainables.data.faces ")
    assert " ".join(what.split()) == (
        "Write rendered faces, labelled with their AUs and classes, as a data set."
    )


def test_command_spares_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        faces.main(["--out", str(tmp_path), "--count", "200"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_command_writes_a_contact_sheet(tmp_path):
    sheet = tmp_path / "sheet.png"
    assert faces.main(["--montage", str(sheet), "--size", "16"]) == 0
    assert cv2.imread(str(sheet)).shape == (6 * 16, 14 * 16, 3)


def test_faces_come_without_torch():
    code = "import sys, trainables.data.faces; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
