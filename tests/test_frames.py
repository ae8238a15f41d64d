"""Image sequences, from a manifest's column to the cache, and optical flow on them."""

import csv
import shutil

import cv2
import numpy as np
import pytest
from small_data import draw

from search import plan
from spaces.space import Choice, Space
from trainables.config import TrialConfig
from trainables.data import cache, doctor, frames, manifest
from trainables.data.bundle import Sequences
from trainables.features import flow
from trainables.features.cache import hidden, mirrored
from trainables.features.plugins import EXTRACTORS
from trainables.features.trial import run

SIZE = 32


def _write(root, lines, columns=("path", "label", "frames")):
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])
    return root


def _moving(root, count=10):
    """Two classes of pictures alike: in one the texture has moved right, in the other down."""
    rng, lines = np.random.default_rng(0), []
    root.mkdir(exist_ok=True)
    for k in range(2 * count):
        sheet = cv2.GaussianBlur(rng.normal(size=(48, 48, 3)), (0, 0), 2)
        sheet = np.clip(127 + 200 * sheet, 0, 255).astype(np.uint8)
        dx, dy = (2, 0) if k < count else (0, 2)
        for name, (x, y) in (("on", (8, 8)), ("mid", (8, 8)), ("apex", (8 - dx, 8 - dy))):
            cv2.imwrite(str(root / f"{k}_{name}.png"), sheet[y : y + SIZE, x : x + SIZE])
        label = "right" if k < count else "down"
        lines.append((f"{k}_apex.png", label, f"{k}_on.png; {k}_mid.png"))
    return _write(root, lines)


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    root = tmp_path_factory.mktemp("moving")
    return cache.prepare(str(_moving(root / "data")), SIZE, cache_root=root / "cache")


def test_frames_are_read_in_order_and_beside_the_manifest(tmp_path):
    for k in range(3):
        draw(tmp_path / f"{k}.png", k)
    found = manifest.read(_write(tmp_path, [("2.png", "a", "0.png;1.png"), ("1.png", "b", "")]))
    assert [path.name for path in found.rows[0].frames] == ["0.png", "1.png"]
    assert found.rows[1].frames == ()
    assert found.problems == ()


@pytest.mark.parametrize("name", ["../out.png", "0.png;/etc/passwd", "0.png;../../x.png"])
def test_a_frame_outside_the_folder_is_refused(tmp_path, name):
    draw(tmp_path / "0.png")
    (problem,) = manifest.read(_write(tmp_path, [("0.png", "a", name)])).problems
    assert "leads out of the folder" in problem


def test_the_cache_holds_each_image_with_its_own_frames(moving):
    bundle = cache.load(moving)
    source = moving.parent.parent / "data"
    for split in (bundle.train, bundle.val, bundle.test):
        assert split.sequences.starts.tolist() == list(range(0, 2 * len(split) + 1, 2))
        for k, name in enumerate(split.ids):
            first = cv2.imread(str(source / name.replace("apex", "on")))[..., ::-1]
            kept = split.sequences.frames[split.sequences.starts[k]]
            assert np.array_equal(kept, first.transpose(2, 0, 1))


def test_stills_keep_the_entry_they_had(tmp_path):
    lines = [(f"{k}.png", "ab"[k % 2], "") for k in range(12)]
    for k in range(12):
        draw(tmp_path / f"{k}.png", k)
    plain = _write(tmp_path, [line[:2] for line in lines], ("path", "label"))
    one = cache.prepare(str(plain), 24, cache_root=tmp_path / "c")
    assert not list(one.glob("*frames*"))
    assert cache.load(one).train.sequences is None
    other = cache.prepare(str(_write(tmp_path, lines)), 24, cache_root=tmp_path / "c")
    assert one == other


def test_another_frame_is_another_entry(tmp_path):
    root = _moving(tmp_path / "d", 6)
    before = cache.prepare(str(root), SIZE, cache_root=tmp_path / "c")
    shutil.copy(root / "1_mid.png", root / "0_on.png")
    assert cache.prepare(str(root), SIZE, cache_root=tmp_path / "c") != before


def test_images_of_one_sequence_stay_in_one_split(tmp_path):
    # one neutral face before every three images: twelve sequences
    lines = []
    for k in range(36):
        draw(tmp_path / f"{k}.png", k)
        draw(tmp_path / f"neutral{k // 3}.png", 100 + k // 3)
        lines.append((f"{k}.png", "abc"[k % 3], f"neutral{k // 3}.png"))
    bundle = cache.load(cache.prepare(str(_write(tmp_path, lines)), 24, cache_root=tmp_path / "c"))
    where = {i: s for s in ("train", "val", "test") for i in getattr(bundle, s).ids}
    homes = [{where[f"{3 * g + j}.png"] for j in range(3)} for g in range(12)]
    assert all(len(home) == 1 for home in homes)
    assert {next(iter(home)) for home in homes} == {"train", "val", "test"}


def test_sequences_are_joined_by_a_frame_and_by_an_image_that_is_a_frame():
    pairs = frames.shared(["a", "b", "c", "a", "d"], [["x"], ["x"], ["a"], [], []])
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3]]
    assert frames.shared(["a", "a"], [[], []]).tolist() == []  # copies are told elsewhere


@pytest.mark.parametrize(
    ("broken", "told"),
    [(None, "0_on.png of 0_apex.png (missing)"), (b"text", "not an image"), (20, "its image 32 x")],
)
def test_frames_that_cannot_be_used_are_named(tmp_path, capsys, broken, told):
    root = _moving(tmp_path / "d", 4)
    (root / "0_on.png").unlink()
    if isinstance(broken, bytes):
        (root / "0_on.png").write_bytes(broken)
    elif broken:
        draw(root / "0_on.png", pixels=24)
    with pytest.raises(ValueError, match="1 of 16 frames") as refused:
        cache.prepare(str(root), SIZE, cache_root=tmp_path / "c")
    assert told in str(refused.value)
    assert doctor.main([str(root), "--json"]) == 1
    said = capsys.readouterr().out
    assert "8 of 8 images have frames before them, 16 in all." in said
    assert told in said


def _texture(seed=0):
    sheet = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(96, 96)), (0, 0), 2)
    return np.clip(127 + 250 * sheet, 0, 255).astype(np.uint8)


def _pair(dx, dy):
    """Two pictures (1, 3, 64, 64) between which everything moves right by dx and down by dy."""
    sheet = _texture()
    one, two = sheet[16:80, 16:80], sheet[16 - dy : 80 - dy, 16 - dx : 80 - dx]
    return tuple(np.repeat(image[None, None], 3, 1) for image in (one, two))


@pytest.mark.parametrize("method", flow.METHODS)
@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -2), (-1, 3)])
def test_flow_of_a_known_motion_is_that_motion(method, dx, dy):
    found = flow.flow(*_pair(dx, dy), flow.METHODS[method])[0, :, 12:-12, 12:-12]
    assert np.median(found, (1, 2)) == pytest.approx([dx, dy], abs=0.25)
    assert np.abs(found - np.array([dx, dy])[:, None, None]).mean() < 0.5


@pytest.mark.parametrize(("dx", "dy", "bin_"), [(3, 0, 0), (0, 3, 2), (-3, 0, 4), (0, -3, 6)])
def test_motion_falls_in_the_bin_of_its_direction(dx, dy, bin_):
    values = flow.features(*_pair(dx, dy), "farneback", 8, 1)[0]
    assert values[:8].argmax() == bin_
    assert values[8] * 64 == pytest.approx(3, abs=0.5)  # the mean size of the motion, in pixels


def test_histograms_of_flow_by_hand():
    motion = np.zeros((2, 4, 4), np.float32)
    motion[:, 0, 0] = 0.5, 0.5  # at 45 degrees: between bin 0 and bin 1 of four, half to each
    motion[:, 3, 3] = -1, 0
    votes = flow._histograms(motion, 4, 2).reshape(6, 2, 2)
    still = flow.STILL / 4
    size = np.hypot(0.5, 0.5) / 4  # the mean of four pixels, three of them at rest
    assert votes[:4, 0, 0] == pytest.approx([size / 2 / (size + still)] * 2 + [0, 0], abs=1e-5)
    assert votes[:4, 1, 1] == pytest.approx([0, 0, 0.25 / (0.25 + still), 0], abs=1e-5)
    assert votes[4, 0, 0] == pytest.approx(size)
    assert votes[5, 1, 1] == pytest.approx(np.sqrt(1 / 4 - 1 / 16))
    assert (votes[:, 0, 1] == 0).all()


def test_no_motion_is_no_features():
    still, _ = _pair(0, 0)
    values = flow.features(still, still, "farneback", 8, 4).reshape(10, 16)
    assert values[8:].max() < 1e-3  # of a side: what an iteration leaves at the edges
    assert values[:8].max() < 0.1


def test_flow_tells_motions_apart_that_no_still_shows(moving):
    flat = {"classifier": "lda", "image_size": SIZE, "features": "optical_flow"}
    row, _ = run(TrialConfig.from_flat(flat), moving)
    assert row["accuracy"] == 1


def test_stills_are_refused_with_the_reason(faces):
    with pytest.raises(ValueError, match=r"holds stills: it is not defined.*column 'frames'"):
        EXTRACTORS["optical_flow"](TrialConfig(), cache.load(faces))


def test_an_image_without_frames_among_others_is_named(tmp_path):
    root = _moving(tmp_path / "d", 6)
    lines = list(csv.reader((root / "manifest.csv").read_text().splitlines()))[1:]
    lines[3][2] = ""
    bundle = cache.load(cache.prepare(str(_write(root, lines)), SIZE, cache_root=tmp_path / "c"))
    with pytest.raises(ValueError, match=r"1 of 12 have none: 3_apex\.png"):
        EXTRACTORS["optical_flow"](TrialConfig(), bundle)


@pytest.mark.parametrize("arguments", [{"method": "lk"}, {"bins": 1}, {"grid": 33}])
def test_arguments_out_of_range_are_refused(moving, arguments):
    with pytest.raises((LookupError, ValueError)):
        EXTRACTORS["optical_flow"](TrialConfig(), cache.load(moving), **arguments)


def test_frames_turn_in_the_mirror_with_their_image(moving):
    split = cache.load(moving).train
    part = hidden(split, slice(1, 3))
    assert part.sequences.starts.tolist() == [0, 2, 4]
    assert np.array_equal(part.sequences.frames, split.sequences.frames[2:6])
    seen = mirrored(part)
    assert np.array_equal(seen.sequences.frames, part.sequences.frames[..., ::-1])
    assert np.array_equal(seen.images, part.images[..., ::-1])


def test_a_part_beyond_the_end_has_the_frames_there_are():
    frames_ = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    part = Sequences(frames_, np.array([0, 2, 2, 5])).of(slice(1, 3))
    assert part.starts.tolist() == [0, 0, 3]
    assert part.frames.ravel().tolist() == [2, 3, 4]


def test_a_space_for_stills_does_without_flow_and_says_so(faces):
    known = {"features": Choice(("lbp", "optical_flow"), "lbp"), "classifier": "lda"}
    fitted, notes = plan.fit_to_data(Space("s", known), cache.load(faces))
    assert fitted.settings["features"] == "lbp"
    assert any("optical flow is off" in note for note in notes)
    with pytest.raises(ValueError, match="optical_flow, but the data holds stills"):
        plan.fit_to_data(Space("s", {**known, "features": "optical_flow"}), cache.load(faces))
