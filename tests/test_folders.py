"""Class folders, manifests, and how a layout is recognised."""

from pathlib import Path

import numpy as np
import pytest
from small_data import draw

from trainables.data import cache, folders, listing, loaders, manifest, rafce
from trainables.data.tables import CLASS_NAMES

WIKIMEDIA = Path(__file__).parents[2] / "shared" / "data" / "wikimedia42"


def test_class_folders_without_splits(tmp_path):
    draw(tmp_path / "sad" / "b.png")
    draw(tmp_path / "happy" / "A.JPG")
    (tmp_path / "README.md").write_text("not an image, and not in a class folder")
    (tmp_path / "sad" / ".DS_Store").write_text("litter")
    found = loaders.read(tmp_path)
    assert found.class_names == ("happy", "sad")
    assert [(r.id, r.label, r.split) for r in found.rows] == [
        ("happy/A.JPG", 0, None),
        ("sad/b.png", 1, None),
    ]
    assert found.name == tmp_path.name


def test_class_folders_in_split_folders(tmp_path):
    for split in ("train", "validation", "Test"):
        draw(tmp_path / split / "10" / "a.jpg")
        draw(tmp_path / split / "9" / "a.jpg")
    found = loaders.read(tmp_path)
    assert found.class_names == ("9", "10")  # by value, not by letter
    assert {(r.id, r.split) for r in found.rows if r.label == 0} == {
        ("train/9/a.jpg", "train"),
        ("validation/9/a.jpg", "val"),
        ("Test/9/a.jpg", "test"),
    }


def test_rafdb_repack_has_the_names_of_rafdb(tmp_path):
    for k in range(1, 8):
        draw(tmp_path / "DATASET" / "train" / str(k) / f"train_{k}_aligned.jpg")
        draw(tmp_path / "DATASET" / "test" / str(k) / f"test_{k}_aligned.jpg")
    found = loaders.read(tmp_path)
    assert found.class_names == listing.RAF_DB_NAMES
    assert found.splits_given() == {"train", "test"}
    assert ("train/1/train_1_aligned.jpg", 0) in {(r.id, r.label) for r in found.rows}


def test_compound_folders_know_their_basic_emotions(tmp_path):
    draw(tmp_path / "sadly_angry" / "a.jpg")
    draw(tmp_path / "Happily-Surprised" / "b.jpg")
    found = loaders.read(tmp_path)
    assert found.class_names == ("Happily-Surprised", "sadly_angry")
    assert found.components == ((3, 0), (4, 5))
    assert found.basic_names[3] == "happiness"


def test_an_empty_class_folder_is_left_out_and_told(tmp_path):
    draw(tmp_path / "sad" / "a.png")
    (tmp_path / "happy").mkdir()
    found = loaders.read(tmp_path)
    assert found.class_names == ("sad",)
    assert "without an image: happy" in " ".join(found.warnings)


def test_what_cannot_be_read_in_class_folders_is_told(tmp_path):
    draw(tmp_path / "a" / "deep" / "x.png")
    draw(tmp_path / "a" / "y.png")
    assert "'a/deep' lies a level too deep" in loaders.read(tmp_path).problems[0]
    draw(tmp_path / "train" / "a" / "x.png")
    assert "'a' stands beside the split folders train" in " ".join(loaders.read(tmp_path).problems)


def test_wikimedia_folders_are_rafdb_classes():
    if not WIKIMEDIA.is_dir():
        pytest.skip(f"the photographs of {WIKIMEDIA} are not here")
    found = loaders.read(WIKIMEDIA)
    assert found.class_names == listing.RAF_DB_NAMES
    assert [found.counts()[k] for k in range(7)] == [6] * 7
    assert (found.problems, listing.faults(found)) == ((), [])


def test_wikimedia_photographs_are_decoded(tmp_path):
    if not WIKIMEDIA.is_dir():
        pytest.skip(f"the photographs of {WIKIMEDIA} are not here")
    bundle = cache.load(cache.prepare(str(WIKIMEDIA), 32, cache_root=tmp_path))
    assert [len(s) for s in (bundle.train, bundle.val, bundle.test)] == [21, 14, 7]
    assert bundle.class_counts().tolist() == [3] * 7
    assert np.asarray(bundle.train.images).std() > 30  # pictures, not blanks
    assert bundle.au_names == ()


def write_manifest(root: Path, text: str, name: str = "manifest.csv") -> Path:
    draw(root / "images" / "a.png")
    (root / name).write_text(text)
    return root


def test_manifest_by_hand(tmp_path):
    root = write_manifest(
        tmp_path,
        "\ufeffpath,Label,split,aus\n"
        'images/a.png, sad ,train,"1,4+L12"\n'
        "images/b.png,happy,valid,null\n"
        "\n"
        "images/c.png,happy,test,\n",
    )
    found = loaders.read(root)
    assert found.class_names == ("happy", "sad")
    assert [(r.id, r.label, r.split, r.aus) for r in found.rows] == [
        ("images/a.png", 1, "train", "1,4+L12"),
        ("images/b.png", 0, "val", "null"),
        ("images/c.png", 0, "test", None),  # an empty cell says nothing
    ]
    assert found.rows[0].path == root / "images" / "a.png"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_manifest_separators(tmp_path, mark):
    lines = ["path,label,id", "images/a.png,sad,one"]
    write_manifest(tmp_path, "\n".join(lines).replace(",", mark), "faces.tsv")
    found = loaders.read(tmp_path / "faces.tsv")
    assert (found.rows[0].id, found.name) == ("one", "faces")


@pytest.mark.parametrize("leading", ["../outside.png", "/etc/hostname", "images/../../x.png"])
def test_manifest_paths_stay_in_its_folder(tmp_path, leading):
    root = write_manifest(tmp_path / "in", f"path,label\nimages/a.png,sad\n{leading},sad\n")
    assert "leads out of the folder" in loaders.read(root).problems[0]


def test_links_out_of_the_folder_are_refused(tmp_path):
    draw(tmp_path / "secret.png")
    root = write_manifest(tmp_path / "in", "path,label\nlink.png,sad\ndeep/secret.png,sad\n")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "deep").symlink_to(tmp_path)
    assert len(loaders.read(root).problems) == 2


def test_a_link_within_the_folder_is_fine(tmp_path):
    root = write_manifest(tmp_path, "path,label\nlink.png,sad\n")
    (root / "link.png").symlink_to(root / "images" / "a.png")
    assert loaders.read(root).problems == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na,b", "no column path"),
        ("", "no column path and no label"),
        ("path,label,spilt\na,b,c", "Did you mean 'split'"),
        ("path,label,label\na,b,c", "names a column twice"),
        ("path,label\na,b,c", "line 2: 3 cells under 2 columns"),
        ('path,label\n"a,b', "is no manifest"),
    ],
)
def test_a_manifest_that_cannot_be_understood_raises(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        loaders.read(write_manifest(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png,,train", "line 2: no label"),
        (",sad,train", "line 2: no path"),
        ("a.png,sad,trian", "unknown split 'trian'; known: train"),
    ],
)
def test_manifest_faults_are_told(tmp_path, line, said):
    found = loaders.read(write_manifest(tmp_path, f"path,label,split\n{line}\n"))
    assert said in " ".join(found.problems)


def test_columns_that_are_not_read_are_told(tmp_path):
    found = loaders.read(write_manifest(tmp_path, "path,label,photographer\na.png,sad,Ada\n"))
    assert "photographer" in " ".join(found.warnings)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a.png,sad,\nb.png,sad,", "one class, 'sad'"),
        ("a.png,sad,\nb.png,glad,\nc.png,glad,", "single image cannot be split: sad"),
        ("a.png,sad,train\nb.png,glad,", "1 images have no split"),
        ("a.png,sad,val\nb.png,glad,test", "none named 'train'"),
        ("a.png,sad,train\na.png,glad,train", "'a.png' is listed twice, as 'sad' and as 'glad'"),
    ],
)
def test_faults_of_any_layout_are_told(tmp_path, lines, said):
    found = loaders.read(write_manifest(tmp_path, f"path,label,split\n{lines}\n"))
    assert said in " ".join(listing.faults(found))


def test_layouts_are_told_apart(tmp_path):
    draw(tmp_path / "sad" / "a.png")
    assert loaders.detect(tmp_path) is folders.read
    (tmp_path / "manifest.tsv").write_text("path\tlabel\n")
    assert loaders.detect(tmp_path) is manifest.read
    (tmp_path / "RAFCE_emolabel.txt").write_text("")
    assert loaders.detect(tmp_path) is rafce.read


@pytest.mark.parametrize("held", ["nothing", "a note", "folders without images", "a text file"])
def test_an_unknown_layout_lists_the_known(tmp_path, held):
    path = tmp_path
    if held == "a note":
        (tmp_path / "note.txt").write_text("hello")
    if held == "folders without images":
        (tmp_path / "one").mkdir()
    if held == "a text file":
        path = tmp_path / "labels.txt"
        path.write_text("a.jpg 1")
    with pytest.raises(ValueError, match="no known data layout") as error:
        loaders.detect(path)
    for layout in ("faces[", "RAF-CE", "RAF-DB", "class folders", "manifest"):
        assert layout in str(error.value)


def test_no_such_path_says_so():
    with pytest.raises(ValueError, match="no such file or folder.*Did you mean 'faces'"):
        loaders.detect("face:300")


def test_faces_are_a_source_and_a_folder_of_that_name_is_not(tmp_path):
    assert loaders.is_faces("faces")
    assert loaders.is_faces("faces:300:easy")
    assert not loaders.is_faces("./faces")
    assert not loaders.is_faces(str(tmp_path))


def test_class_names_stand_for_rafce_when_all_are_known():
    assert listing.components_of(CLASS_NAMES) is not None
    assert listing.components_of((*CLASS_NAMES, "neutral")) is None
