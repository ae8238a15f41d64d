"""Hashes of files that are kept: nothing is read twice, and no change is missed."""

import hashlib
import os

import pytest
from small_data import class_folders

from trainables.data import cache, images, known


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * (10 + k))
    return [*paths, tmp_path / "missing.png"]


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read."""
    names, content = [], images.content

    def note(path):
        names.append(path.name)
        return content(path)

    monkeypatch.setattr(images, "content", note)
    return names


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(known, "SETTLED", -(10**18))  # every file counts as old


def test_each_file_is_read_once_and_the_hashes_are_of_the_content(files, tmp_path, reads):
    record = tmp_path / "cache" / "hashes.npz"
    first = known.hashes(files, record, "read", None)
    assert first == [*(hashlib.sha256(p.read_bytes()).hexdigest() for p in files[:5]), ""]
    assert sorted(reads) == sorted(p.name for p in files)
    reads.clear()
    assert known.hashes(files[::-1], record, "read", None) == first[::-1]
    assert reads == ["missing.png"]


def test_what_has_changed_is_read_again(files, tmp_path, reads):
    record = tmp_path / "hashes.npz"
    known.hashes(files, record, "read", None)
    reads.clear()
    about = files[2].stat()
    files[2].write_bytes(b"\xff" * about.st_size)
    os.utime(files[2], ns=(about.st_atime_ns, about.st_mtime_ns))  # as a copy that keeps times
    files[5].write_bytes(b"here now")
    files[0].unlink()
    found = known.hashes(files, record, "read", None)
    assert sorted(reads) == ["0.png", "2.png", "missing.png"]
    assert found[0] == ""
    assert found[2] == hashlib.sha256(files[2].read_bytes()).hexdigest()
    assert found[5] == hashlib.sha256(b"here now").hexdigest()


def test_a_file_that_changed_just_now_is_not_put_on_record(files, tmp_path, reads, monkeypatch):
    monkeypatch.setattr(known, "SETTLED", 10**12)  # a quarter of an hour
    record = tmp_path / "hashes.npz"
    known.hashes(files, record, "read", None)
    assert not record.exists()
    reads.clear()
    known.hashes(files, record, "read", None)
    assert len(reads) == 6


@pytest.mark.parametrize("torn", [b"", b"PK torn", None])
def test_without_a_sound_record_all_is_read(files, tmp_path, reads, torn):
    record = tmp_path / "hashes.npz"
    first = known.hashes(files, record, "read", None)
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2] if torn is None else torn)
    reads.clear()
    assert known.hashes(files, record, "read", None) == first
    assert len(reads) == 6
    assert len(known.read(record)) == 5  # and it is whole again


def test_names_of_all_kinds_are_kept(tmp_path):
    odd = [
        tmp_path / "zwei\nZeilen.png",
        tmp_path / "ß 中.png",
        tmp_path / os.fsdecode(b"\xff.png"),
    ]
    for path in odd:
        path.write_bytes(b"x")
    record = tmp_path / "hashes.npz"
    known.hashes(odd, record, "read", None)
    assert {name for name, _ in known.read(record)} == set(map(str, odd))


def test_a_folder_that_cannot_be_written_to_is_no_failure(files, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    found = known.hashes(files, tmp_path / "taken" / "hashes.npz", "read", None)
    assert all(found[:5])


def test_a_prepared_data_set_is_not_read_again(tmp_path, reads):
    source, root = class_folders(tmp_path / "data"), tmp_path / "cache"
    path = cache.prepare(str(source), 16, cache_root=root)
    assert reads
    reads.clear()
    assert cache.prepare(str(source), 16, cache_root=root) == path
    assert reads == []
