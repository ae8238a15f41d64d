"""What the cache refuses, and what it says then."""

import errno
import os
import shutil

import pytest
from small_data import class_folders, draw, entries, rafce

from trainables.data import cache

SIZE = 16


def test_all_images_that_cannot_be_used_are_named_at_once(tmp_path):
    source = class_folders(tmp_path / "data")
    (source / "sad" / "0.png").write_bytes(b"")
    (source / "sad" / "1.png").write_text("hello")
    whole = (source / "sad" / "2.png").read_bytes()
    (source / "sad" / "2.png").write_bytes(whole[:-30])
    (source / "sad" / "3.png").unlink()
    (source / "sad" / "3.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match="4 of 24 images") as error:
        cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache")
    for said in (
        "0.png (empty file)",
        "1.png (not an image)",
        "2.png (",
        "3.png (missing)",
        "doctor",
    ):
        assert said in str(error.value)
    assert entries(tmp_path / "cache") == []  # nothing half-built is left


def test_empty_files_are_not_taken_for_one_image(tmp_path):
    source = class_folders(tmp_path / "data")
    for name in ("sad", "glad"):
        (source / name / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="2 of 24 images.*empty file"):
        cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache")


def test_a_pipe_is_not_waited_for(tmp_path):
    source = class_folders(tmp_path / "data")
    os.mkfifo(source / "sad" / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe.png \(not a file\)"):
        cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache")


def test_one_image_in_two_classes_is_refused_by_name(tmp_path):
    source = class_folders(tmp_path / "data")
    shutil.copy(source / "sad" / "0.png", source / "glad" / "x.png")
    with pytest.raises(
        ValueError, match="'glad/x.png' and 'sad/0.png' are the same image"
    ) as error:
        cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache")
    assert "'glad' and 'sad'" in str(error.value)


def test_classes_of_copies_of_one_picture_cannot_be_validated(tmp_path):
    for name, seed in (("sad", 0), ("glad", 1)):
        for k in range(5):
            draw(tmp_path / "data" / name / f"{k}.png", seed)
    with pytest.raises(ValueError, match="too few different images for a validation split"):
        cache.prepare(str(tmp_path / "data"), SIZE, cache_root=tmp_path / "cache")


def test_an_au_file_that_is_none_is_refused(tmp_path):
    source = rafce(tmp_path / "data")
    lines = [f"{k:04d}.jpg happy" for k in range(7)]
    (source / "RAFCE_AUlabel.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="only 0 of 7 AU lines"):
        cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 8}, "image size 8"),
        ({"image_size": 5000}, "image size 5000"),
        ({"source": "faces:10"}, "asked for 10 faces"),
        ({"source": "faces:300:odd"}, "unknown difficulty"),
        ({"source": "nowhere"}, "no such file or folder"),
    ],
)
def test_what_cannot_be_asked_for_is_told_before_any_work(tmp_path, options, said):
    asked = {"source": str(class_folders(tmp_path / "data")), "image_size": SIZE} | options
    with pytest.raises(ValueError, match=said):
        cache.prepare(cache_root=tmp_path / "cache", **asked)
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_told_before_it_is_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="needs 0.1 GiB of disk.*set XDG_CACHE_HOME"):
        cache.prepare(str(class_folders(tmp_path / "data")), SIZE, cache_root=tmp_path / "cache")


def test_too_little_memory_is_told_before_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_memory", lambda: 1000)
    with pytest.raises(MemoryError, match="ask for fewer or smaller images"):
        cache.prepare("faces:200", SIZE, cache_root=tmp_path)


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write to the cache.*set XDG_CACHE_HOME"):
        cache.prepare(
            str(class_folders(tmp_path / "data")), SIZE, cache_root=tmp_path / "file" / "x"
        )


def test_a_disk_that_runs_full_while_it_is_written_is_told_and_left_empty(tmp_path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="ran full while 'data' was built: make room"):
        cache.prepare(str(class_folders(tmp_path / "data")), SIZE, cache_root=tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_ctrl_c_leaves_nothing_half_built(tmp_path):
    def interrupt(stage: str, *_: int) -> None:
        if stage == "decode":
            raise KeyboardInterrupt

    source = str(class_folders(tmp_path / "data"))
    with pytest.raises(KeyboardInterrupt):
        cache.prepare(source, SIZE, interrupt, cache_root=tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
