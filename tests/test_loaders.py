"""RAF-CE and RAF-DB: what their files say, to the letter (reference/datasets.md 1 and 2)."""

from pathlib import Path

import pytest

from trainables.data import listing, loaders
from trainables.data.tables import CLASS_NAMES, CLASS_PAIRS


def rafce(root: Path, emotions: str, parts: str, aus: str | None = None, images="aligned") -> Path:
    (root / images).mkdir(parents=True)
    (root / "RAFCE_emolabel.txt").write_text(emotions)
    (root / "RAFCE_partition.txt").write_text(parts)
    if aus is not None:
        (root / "RAFCE_AUlabel.txt").write_text(aus)
    return root


def test_rafce_to_the_letter(tmp_path):
    root = rafce(
        tmp_path,
        "0001.jpg 0\n0002.jpg 13\n0007.jpg 8",  # no final newline
        "0001.jpg 0\n0002.jpg 1\n0007.jpg 2",  # 1 is TEST, 2 is VAL
        "0001.jpg 26+26  \n0002.jpg null\n",
    )
    found = loaders.read(root)
    assert found.problems == ()
    assert [(r.id, r.label, r.split, r.aus) for r in found.rows] == [
        ("0001.jpg", 0, "train", "26+26"),
        ("0002.jpg", 13, "test", "null"),
        ("0007.jpg", 8, "val", None),
    ]
    assert found.rows[0].path == root / "aligned" / "0001_aligned.jpg"
    assert found.class_names == CLASS_NAMES
    assert found.components == CLASS_PAIRS
    assert "train 1, val 1, test 1" in found.notes[0]
    assert "1 images are not in RAFCE_AUlabel.txt" in " ".join(found.warnings)


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("aligned", "0001_aligned.jpg"),
        ("RAF-AU/aligned", "0001_aligned.jpg"),
        ("original", "0001.jpg"),
        ("RAF-AU/original", "0001.jpg"),
    ],
)
def test_rafce_images_lie_where_copies_have_them(tmp_path, images, name):
    root = rafce(tmp_path, "0001.jpg 0", "0001.jpg 0", images=images)
    assert loaders.read(root).rows[0].path == root / images / name


def test_rafce_partition_read_the_other_way_round_is_warned_of(tmp_path):
    labels = "\n".join(f"{k:04d}.jpg 0" for k in range(9))
    parts = "\n".join(f"{k:04d}.jpg {1 if k < 7 else 0}" for k in range(9))
    assert "train is not the largest" in " ".join(
        loaders.read(rafce(tmp_path, labels, parts)).warnings
    )


def test_rafce_without_an_au_file_has_no_aus(tmp_path):
    found = loaders.read(rafce(tmp_path, "0001.jpg 0", "0001.jpg 0"))
    assert found.rows[0].aus is None
    assert "is not there: no action units" in " ".join(found.notes)


def test_an_au_file_of_other_images_is_told(tmp_path):
    found = loaders.read(rafce(tmp_path, "0001.jpg 0", "0001.jpg 0", "0002.jpg 12"))
    assert "knows none of the images" in " ".join(found.notes)


def test_rafce_votes_become_shares(tmp_path):
    root = rafce(tmp_path, "0001.jpg 0", "0001.jpg 0")
    (root / "distribution.txt").write_text("0001.jpg 3 0 0 1 0 0 \n0002.jpg x\n")
    found = loaders.read(root)
    assert found.rows[0].distribution == (0.75, 0, 0, 0.25, 0, 0)
    assert found.problems == ()  # RAF-ML's lines of other images are no business of ours


@pytest.mark.parametrize(
    ("emotions", "parts", "aus", "said"),
    [
        ("0001.jpg 14", "0001.jpg 0", "", "RAFCE_emolabel.txt, line 1: class '14'"),
        ("0001.jpg", "0001.jpg 0", "", "'0001.jpg' has no value after it"),
        ("0001.jpg 1", "0001.jpg 3", "", "partition '3'"),
        ("0001.jpg 1\n0002.jpg 1", "0001.jpg 0", "", "1 images of RAFCE_emolabel.txt are not in"),
        ("0001.jpg 1", "0001.jpg 0\n0002.jpg 0", "", "1 images of RAFCE_partition.txt are not in"),
        ("0001.jpg 1", "0001.jpg 0", "0001.jpg 1\n0001.jpg 2", "has AUs '2' here and '1' above"),
        ("../0001.jpg 1", "../0001.jpg 0", "", "'../0001.jpg' is not a plain file name"),
        ("0001.jpg 1\n0001.jpg 2", "0001.jpg 0", "", "'0001.jpg' is listed twice, as 'happily dis"),
        ("0001.jpg 1", "0001.jpg 0\n0001.jpg 1", "", "listed twice, with different splits"),
        ("", "", "", "lists no image"),
    ],
)
def test_rafce_faults_are_told(tmp_path, emotions, parts, aus, said):
    found = loaders.read(rafce(tmp_path, emotions, parts, aus))
    assert said in " ".join([*found.problems, *listing.faults(found)])
    with pytest.raises(ValueError, match="RAF-CE"):
        listing.check(found)


def test_a_line_repeated_word_for_word_is_read_once(tmp_path):
    found = loaders.read(rafce(tmp_path, "0001.jpg 1\n0001.jpg 1", "0001.jpg 0"))
    assert len(found.rows) == 1
    assert "listed more than once" in " ".join(found.warnings)


def test_rendered_faces_say_so(tmp_path):
    root = rafce(tmp_path, "0001.jpg 0", "0001.jpg 0")
    assert not loaders.read(root).is_synthetic
    (root / "SYNTHETIC.md").write_text("rendered")
    assert loaders.read(root).is_synthetic


@pytest.mark.parametrize("missing", ["RAFCE_partition.txt", "aligned"])
def test_half_a_rafce_says_what_is_missing(tmp_path, missing):
    root = rafce(tmp_path, "0001.jpg 0", "0001.jpg 0")
    (root / missing).rename(root / "away")
    with pytest.raises(ValueError, match=missing):
        loaders.read(root)


def rafdb(root: Path, lines: str) -> Path:
    (root / "EmoLabel").mkdir(parents=True)
    (root / "Image" / "aligned").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text(lines)
    return root


def test_rafdb_basic_counts_from_one(tmp_path):
    found = loaders.read(rafdb(tmp_path, "train_00001.jpg 5\ntest_0001.jpg 1\n"))
    assert [(r.id, r.label, r.split) for r in found.rows] == [
        ("train_00001.jpg", 4, "train"),
        ("test_0001.jpg", 0, "test"),
    ]
    assert found.rows[0].path.name == "train_00001_aligned.jpg"
    assert found.class_names[0] == "surprise"
    assert found.class_names[4] == "sadness"
    assert found.components is None


def test_rafdb_compound_has_its_own_order_of_classes(tmp_path):
    found = loaders.read(rafdb(tmp_path / "compound", "train_0001.jpg 9\ntest_0001.jpg 11"))
    assert found.class_names[8] == "angrily surprised"  # RAF-CE has "fearfully disgusted" there
    assert found.components is not None
    assert found.components[8] == (5, 0)
    assert [r.label for r in found.rows] == [8, 10]


def test_rafdb_is_found_from_the_folder_above(tmp_path):
    rafdb(tmp_path / "basic", "train_00001.jpg 7")
    assert loaders.read(tmp_path).class_names[6] == "neutral"
    rafdb(tmp_path / "compound", "train_00001.jpg 7")
    with pytest.raises(ValueError, match="basic or compound"):
        loaders.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"), [("train_1.jpg 12", "class '12'"), ("x_1.jpg 1", "neither with train_")]
)
def test_rafdb_faults_are_told(tmp_path, line, said):
    assert said in " ".join(loaders.read(rafdb(tmp_path, line)).problems)
