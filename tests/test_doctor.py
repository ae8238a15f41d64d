"""The doctor survives whatever it is shown, and says what is wrong and what to do."""

import json
import shutil
import signal
from pathlib import Path

import cv2
import pytest
from small_data import draw

from trainables.cli import run_command
from trainables.data import cache, doctor, splits
from trainables.data.diagnosis import diagnose

WIKIMEDIA = Path(__file__).parents[2] / "shared" / "data" / "wikimedia42"


def rafce(root: Path, count: int = 12) -> Path:
    names = [f"{k:04d}" for k in range(count)]
    for k, name in enumerate(names):
        draw(root / "aligned" / f"{name}_aligned.jpg", k)
    (root / "RAFCE_emolabel.txt").write_text("\n".join(f"{n}.jpg {int(n) % 2}" for n in names))
    codes = "000000001122"
    parts = [f"{n}.jpg {c}" for n, c in zip(names, codes, strict=True)]
    (root / "RAFCE_partition.txt").write_text("\n".join(parts))
    lines = ["1+L12", "null", "12", "1+4", "12+foo", "12", "1", "1"]
    (root / "RAFCE_AUlabel.txt").write_text(
        "".join(f"{k:04d}.jpg {line}\n" for k, line in enumerate(lines))
    )
    return root


def test_a_sound_data_set_by_hand(tmp_path):
    found = diagnose(str(rafce(tmp_path)))
    assert found.is_sound
    assert found.splits == {"train": 8, "val": 2, "test": 2}
    assert found.classes["happily surprised"] == {"train": 4, "val": 1, "test": 1}
    assert found.majority_share == 0.5
    assert found.aus is not None
    assert (found.aus.labelled, found.aus.nulls, found.aus.unlabelled) == (8, 1, 4)
    assert found.aus.support["AU12"] == {"train": 4, "val": 0, "test": 0}
    assert found.aus.unknown == {"foo": 1}
    assert found.aus.vocabulary == ("AU1", "AU12")
    assert found.files.sizes == {"24 x 24": 12}


def break_all(root: Path) -> Path:
    """A folder with every fault that stops a run."""
    aligned = rafce(root) / "aligned"
    (aligned / "0000_aligned.jpg").unlink()
    (aligned / "0001_aligned.jpg").write_text("hello")
    (aligned / "0002_aligned.jpg").write_bytes((aligned / "0002_aligned.jpg").read_bytes()[:300])
    shutil.copy(aligned / "0003_aligned.jpg", aligned / "0004_aligned.jpg")
    with (root / "RAFCE_emolabel.txt").open("a") as file:
        file.write("\n0005.jpg 9\n0006.jpg 77\nnonsense\n0099.jpg 3\n")
    return root


def test_broken_data_is_told_in_full(tmp_path):
    found = diagnose(str(break_all(tmp_path)))
    assert not found.is_sound
    told = " ".join(found.problems)
    for said in (
        "1 of 13 images are missing: 0000.jpg",
        "2 of 13 images are unreadable: 0001.jpg (not an image), 0002.jpg (",
        "'0003.jpg' and '0004.jpg' are the same image",
        "'0005.jpg' is listed twice",
        "class '77'",
        "'nonsense' has no value",
        "0099.jpg",
    ):
        assert said in told


def test_what_stops_the_cache_is_a_problem_of_the_doctor(tmp_path):
    root = rafce(tmp_path / "data")
    (root / "aligned" / "0001_aligned.jpg").write_text("hello")
    with pytest.raises(ValueError, match="cannot be used"):
        cache.prepare(str(root), 16, cache_root=tmp_path / "cache")
    assert not diagnose(str(root)).is_sound


def test_copies_and_leaks_are_warned_of(tmp_path):
    aligned = rafce(tmp_path) / "aligned"
    shutil.copy(aligned / "0000_aligned.jpg", aligned / "0008_aligned.jpg")  # train, test
    mirrored = cv2.imread(str(aligned / "0001_aligned.jpg"))[:, ::-1]
    cv2.imwrite(str(aligned / "0002_aligned.jpg"), mirrored)
    found = diagnose(str(tmp_path))
    assert found.is_sound
    assert found.files.exact_duplicates == [("0000.jpg", "0008.jpg")]
    assert found.files.near_duplicates == [("0001.jpg", "0002.jpg")]
    assert found.files.near_contradictions == [("0001.jpg", "0002.jpg")]
    assert found.files.leaks == ["0000.jpg (train) = 0008.jpg (test)"]
    assert found.files.near_leaks == []
    told = " ".join(found.warnings)
    assert "1 pairs of images of two official splits show the same picture: 0000.jpg" in told
    assert "scores look better than they are" in told


def test_pictures_that_only_look_alike_are_not_called_the_same(tmp_path, capsys):
    aligned = rafce(tmp_path) / "aligned"
    mirrored = cv2.imread(str(aligned / "0000_aligned.jpg"))[:, ::-1]
    cv2.imwrite(str(aligned / "0008_aligned.jpg"), mirrored)  # train, test
    found = diagnose(str(tmp_path))
    assert found.files.leaks == []
    assert found.files.near_leaks == ["0000.jpg (train) ~ 0008.jpg (test)"]
    told = " ".join(found.warnings)
    assert "1 pairs of images of two official splits look alike: 0000.jpg" in told
    assert "scores may look better" in told
    assert doctor.main([str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the same" not in told + out
    assert "across official splits 1" in out


def test_a_set_too_large_to_be_compared_says_so(tmp_path, monkeypatch):
    root = str(rafce(tmp_path))
    assert "not all pairs" not in " ".join(diagnose(root).notes)
    monkeypatch.setattr(splits, "MOST_IMAGES", 11)
    assert "among these 12, each with some 896 others" in " ".join(diagnose(root).notes)


def test_too_few_readable_au_lines_stop_a_run(tmp_path, capsys):
    (rafce(tmp_path) / "RAFCE_AUlabel.txt").write_text("0000.jpg 12\n0001.jpg a\n0002.jpg b\n")
    assert doctor.main([str(tmp_path)]) == 1
    assert "only 1 of 3 AU lines" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("is_broken", [False, True])
def test_exit_code_and_tables(tmp_path, capsys, is_broken):
    root = break_all(tmp_path) if is_broken else rafce(tmp_path)
    assert doctor.main([str(root)]) == int(is_broken)
    out = " ".join(capsys.readouterr().out.split())
    assert "happily surprised" in out
    assert ("would stop a run" in out) == is_broken
    assert ("a run can start" in out) != is_broken


@pytest.mark.parametrize("is_broken", [False, True])
def test_json_holds_all_of_it(tmp_path, capsys, is_broken):
    root = break_all(tmp_path) if is_broken else rafce(tmp_path)
    assert doctor.main([str(root), "--json"]) == int(is_broken)
    said = json.loads(capsys.readouterr().out)
    assert said["is_sound"] != is_broken
    assert {"splits", "classes", "aus", "files", "problems", "warnings"} <= set(said)


@pytest.fixture
def ended(capsys):
    """Runs the doctor as a command; its exit code and what it says of a mistake."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as end:
            run_command(lambda: doctor.main(arguments))
        return end.value.code, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, before)


def test_unsound_data_exits_with_one(tmp_path, ended):
    assert ended(str(break_all(tmp_path)))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["x", "--jsn"], "Did you mean '--json'?"), ([], "required: source")],
)
def test_a_bad_flag_exits_with_two_and_a_hint(ended, arguments, said):
    code, error = ended(*arguments)
    assert code == 2
    assert said in error
    assert error.startswith("error: ")


@pytest.mark.parametrize("source", ["nowhere", "empty", "faces:3", "note.txt", "half"])
def test_what_is_no_data_set_exits_with_two(tmp_path, ended, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "RAFCE_emolabel.txt").write_text("0001.jpg 1")
    path = source if ":" in source else str(tmp_path / source)
    code, error = ended(path)
    assert code == 2
    assert error.startswith("error: ")


def test_labels_without_a_line_are_survived(tmp_path, capsys):
    (rafce(tmp_path) / "RAFCE_emolabel.txt").write_text("")
    assert doctor.main([str(tmp_path)]) == 1
    assert "lists no image" in " ".join(capsys.readouterr().out.split())


def test_file_names_of_any_bytes_are_printed(tmp_path, capsys):
    for name in ("a", "b"):
        for k in range(4):
            draw(tmp_path / name / f"{k}.png", k + 10 * (name == "a"))
    (tmp_path / "a" / "[red]odd\udcff.png").write_text("hello")
    assert doctor.main([str(tmp_path)]) == 1
    assert r"[red]odd\udcff.png" in "".join(capsys.readouterr().out.split())
    assert doctor.main([str(tmp_path), "--json"]) == 1


def test_splits_are_those_that_the_cache_makes(tmp_path):
    for k, name in enumerate(["angry", "glad"]):
        for seed in range(9):
            draw(tmp_path / "data" / name / f"{seed}.png", seed + 20 * k)
    found = diagnose(str(tmp_path / "data"))
    bundle = cache.load(cache.prepare(str(tmp_path / "data"), 32, cache_root=tmp_path / "cache"))
    assert found.splits == {s: len(getattr(bundle, s)) for s in ("train", "val", "test")}
    assert found.is_official == {"train": False, "val": False, "test": False}


def test_embedded_faces_are_sound():
    found = diagnose("faces:200:easy")
    assert (found.is_sound, found.images, found.layout) == (True, 200, "embedded faces")
    assert found.aus is not None
    assert found.aus.unlabelled == 0


def test_wikimedia_photographs_are_sound():
    if not WIKIMEDIA.is_dir():
        pytest.skip(f"the photographs of {WIKIMEDIA} are not here")
    found = diagnose(str(WIKIMEDIA))
    assert found.is_sound
    assert found.files.exact_duplicates == found.files.near_duplicates == []
    assert found.splits == {"train": 21, "val": 14, "test": 7}
