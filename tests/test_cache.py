"""The decoded cache: found again, safe to share, checked, and sealed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_data import class_folders, draw, entries, rafce

from trainables.config import Part, TrialConfig
from trainables.data import aus, cache, entry, ingest
from trainables.data.aus import Policy
from trainables.feed import make_feed

SIZE = 16


@pytest.fixture
def prepared(tmp_path) -> Path:
    return cache.prepare(str(rafce(tmp_path / "data")), SIZE, cache_root=tmp_path / "cache")


def test_arrays_hold_what_the_files_say(prepared):
    bundle = cache.load(prepared)
    assert bundle.train.ids == ("0000.jpg", "0001.jpg", "0006.jpg")
    assert bundle.val.ids == ("0004.jpg", "0005.jpg")
    assert bundle.test.ids == ("0002.jpg", "0003.jpg")
    assert bundle.train.labels.tolist() == [0, 1, 0]
    assert bundle.au_names == ("AU1", "AU12")  # of train, twice each; 9 is of test
    assert bundle.train.aus.tolist() == [[1, 1], [-1, -1], [1, 1]]
    assert bundle.val.aus.tolist() == [[1, 1], [-1, -1]]  # 0005 is not in the AU file
    assert (bundle.train.labels.dtype, bundle.train.aus.dtype) == (np.int64, np.int8)
    assert bundle.name == "RAF-CE"
    assert bundle.components is not None
    assert "foo" in " ".join(bundle.notes)


def test_images_are_memory_mapped_rgb(prepared, tmp_path):
    images = cache.load(prepared).train.images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert (images.shape, images.dtype) == ((3, 3, SIZE, SIZE), np.uint8)
    file = cv2.imread(str(tmp_path / "data" / "aligned" / "0006_aligned.jpg"))[..., ::-1]
    small = cv2.resize(file, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert np.abs(images[2].astype(int) - small.transpose(2, 0, 1)).max() <= 2


def test_votes_are_kept_where_there_are_any_and_never_of_test(prepared):
    bundle = cache.load(prepared)
    assert bundle.train.distributions is not None
    assert bundle.train.distributions[0].tolist() == [0.25, 0, 0, 0.75, 0, 0]
    assert bundle.val.distributions is not None
    assert bundle.val.distributions[0].tolist() == [0] * 6  # 0004 has no votes
    assert bundle.test.distributions is None  # they tell the label


def test_test_is_sealed_until_it_is_unsealed(prepared):
    bundle = cache.load(prepared)
    assert bundle.test.labels.tolist() == [-1, -1]
    assert bundle.test.aus.tolist() == [[-1, -1], [-1, -1]]
    labels, units = cache.unseal(prepared)
    assert labels.tolist() == [0, 1]
    assert units.tolist() == [[0, 1], [0, 0]]


def test_load_never_opens_the_sealed_files(prepared):
    for name in ("test_labels.npy", "test_aus.npy"):
        path = prepared / name
        path.write_bytes(bytes(path.stat().st_size))  # right size, no sense
    cache.load(prepared)
    with pytest.raises(cache.CacheDamaged, match="test_labels"):
        cache.unseal(prepared)


def test_second_call_finds_the_entry_and_decodes_nothing(tmp_path, monkeypatch):
    source, root = str(class_folders(tmp_path / "data")), tmp_path / "cache"
    path = cache.prepare(source, SIZE, cache_root=root)
    monkeypatch.setattr(ingest, "decode_all", None)
    assert cache.prepare(source, SIZE, cache_root=root) == path
    assert entries(root) == [path]  # nothing half-built is left


def test_key_follows_all_that_is_asked(tmp_path):
    source, root = rafce(tmp_path / "data"), tmp_path / "cache"

    def fingerprint(**options):
        asked = {"image_size": SIZE, "cache_root": root} | options
        return cache.load(cache.prepare(str(source), **asked)).fingerprint

    first = fingerprint()
    seen = {first, fingerprint(image_size=24), fingerprint(policy=Policy("1,9")),
            fingerprint(policy=Policy(null="zeros")),
            fingerprint(policy=Policy(sides="keep"))}  # fmt: skip
    (source / "RAFCE_AUlabel.txt").write_text("0000.jpg 1+12\n0006.jpg 12\n")
    seen.add(fingerprint())
    draw(source / "aligned" / "0003_aligned.jpg", 99)
    seen.add(fingerprint())
    assert len(seen) == 7
    (source / "notes.txt").write_text("no part of the data")
    assert fingerprint() in seen


def test_fingerprint_does_not_depend_on_the_place(tmp_path):
    class_folders(tmp_path / "one" / "faces")
    shutil.copytree(tmp_path / "one" / "faces", tmp_path / "two" / "faces")
    shutil.copytree(tmp_path / "one" / "faces", tmp_path / "other name")
    paths = [
        cache.prepare(str(tmp_path / place), SIZE, cache_root=tmp_path / "cache")
        for place in ("one/faces", "two/faces", "other name")
    ]
    bundles = [cache.load(path) for path in paths]
    assert paths[0] == paths[1]
    assert len({b.fingerprint for b in bundles}) == 1
    assert [b.name for b in bundles] == ["faces", "faces", "other name"]


def test_sides_are_kept_when_asked_and_reach_the_batches(tmp_path):
    source = rafce(tmp_path / "data")
    lines = source / "RAFCE_AUlabel.txt"
    lines.write_text(lines.read_text().replace("0001.jpg null", "0001.jpg R12"))
    path = cache.prepare(str(source), 32, cache_root=tmp_path, policy=Policy(sides="keep"))
    bundle = cache.load(path)
    assert bundle.au_names == ("AU1", "AUL12", "AUR12")
    assert bundle.train.aus.tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 1]]
    config = TrialConfig(augment=Part("light"), batch_size=3)
    feed = make_feed(config, bundle, torch.device("cpu"))
    (batch,) = feed.batches(np.array([0, 0, 0]), torch.Generator().manual_seed(0))
    assert batch.aus.unique(dim=0).tolist() == [[1, 0, 1], [1, 1, 0]]  # one is mirrored


def test_null_lines_count_as_no_au_when_asked(tmp_path):
    path = cache.prepare(
        str(rafce(tmp_path / "data")),
        SIZE,
        cache_root=tmp_path / "cache",
        policy=Policy(null="zeros"),
    )
    assert cache.load(path).train.aus.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_a_preset_vocabulary_tells_of_aus_never_shown(tmp_path):
    path = cache.prepare(
        str(rafce(tmp_path / "data")), SIZE, cache_root=tmp_path, policy=Policy("plan18")
    )
    bundle = cache.load(path)
    assert bundle.au_names == aus.PLAN_18
    assert "AU45" in " ".join(bundle.notes)


def test_cache_lies_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    path = cache.prepare(str(class_folders(tmp_path / "data")), SIZE)
    assert path.parent == tmp_path / "xdg" / "fer-search"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard has these ignored
    assert cache.default_root() == Path.home() / ".cache" / "fer-search"


def test_data_folder_is_left_as_it_was(tmp_path):
    source = class_folders(tmp_path / "data")
    before = sorted((p, p.stat().st_mtime_ns) for p in source.rglob("*"))
    cache.prepare(str(source), SIZE, cache_root=tmp_path / "cache")
    assert sorted((p, p.stat().st_mtime_ns) for p in source.rglob("*")) == before


PREPARE = "import sys; from pathlib import Path; from trainables.data import cache; " \
    "print(cache.prepare(sys.argv[1], 16, cache_root=Path(sys.argv[2])))"  # fmt: skip


def test_processes_that_build_at_once_agree(tmp_path):
    source = class_folders(tmp_path / "data", count=40)
    command = [sys.executable, "-c", PREPARE, str(source), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert {str(path) for path in entries(tmp_path / "cache")} == said
    assert len(cache.load(Path(said.pop())).train) == 72


def test_the_loser_of_a_race_discards_its_copy(tmp_path):
    source, root = str(class_folders(tmp_path / "data")), tmp_path / "cache"
    winner = cache.prepare(source, SIZE, cache_root=tmp_path / "winner")
    build = entry.write

    def slow(*args):
        build(*args)
        shutil.copytree(winner, root / winner.name)  # while we wrote, another process was first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "write", slow)
        path = cache.prepare(source, SIZE, cache_root=root)
    assert entries(root) == [path]
    cache.load(path)


@pytest.mark.parametrize("name", ["images.npy", "val_labels.npy", "ids.json", "meta.json",
                                  "train_rows.npy", "test_labels.npy"])  # fmt: skip
@pytest.mark.parametrize("harm", ["cut", "gone", "changed"])
def test_damage_is_seen_and_mended(prepared, tmp_path, name, harm):
    path = prepared / name
    data = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    if harm == "changed":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 255]) + data[-4:])
    if (name, harm) != ("test_labels.npy", "changed"):  # sealed: only its size is looked at
        with pytest.raises(cache.CacheDamaged):
            cache.load(prepared)
    again = cache.prepare(str(tmp_path / "data"), SIZE, cache_root=tmp_path / "cache")
    assert again == prepared
    assert cache.load(again).train.labels.tolist() == [0, 1, 0]
    assert cache.unseal(again)[0].tolist() == [0, 1]
    assert entries(again.parent) == [again]


def test_a_large_file_is_checked_all_over(tmp_path):
    path = tmp_path / "images.npy"
    path.write_bytes(bytes(2_000_000))
    whole = entry._checksum(path)
    for place in (0, 1_000_000, 1_999_999):
        with path.open("r+b") as file:
            file.seek(place - place % 4096 if 0 < place < 1_999_999 else place)
            file.write(b"\1" * 40_000)
        assert entry._checksum(path) != whole
        path.write_bytes(bytes(2_000_000))


def test_an_entry_of_an_earlier_version_says_so(prepared):
    meta = json.loads((prepared / "meta.json").read_text())
    (prepared / "images.npy").rename(prepared / "train_images.npy")
    body = meta["body"]
    body["files"]["train_images.npy"] = body["files"].pop("images.npy")
    meta = {"sha256": entry.content_hash(body), "body": body}
    (prepared / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(cache.CacheDamaged, match="an earlier version: prepare the data again"):
        cache.load(prepared)


def test_no_entry_is_not_damage(tmp_path):
    with pytest.raises(FileNotFoundError, match="cache.prepare"):
        cache.load(tmp_path / "nothing")


def test_progress_counts_to_the_end(tmp_path):
    told: list[tuple[str, int, int]] = []
    cache.prepare(
        str(class_folders(tmp_path / "data")),
        SIZE,
        lambda *step: told.append(step),
        cache_root=tmp_path / "cache",
    )
    assert [step for step in told if step[1] == step[2]] == [("read", 24, 24), ("decode", 24, 24)]


def test_files_hold_no_pickles(prepared):
    for path in prepared.glob("*.npy"):
        np.load(path, allow_pickle=False)
    assert json.loads((prepared / "meta.json").read_text())["body"]["name"] == "RAF-CE"
