"""The embedded faces: what is drawn, what is written of it, and the ceiling that both imply."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from trainables.data import faces, mesh, render, tables
from trainables.data.faces import FacesSpec
from trainables.data.mesh import DIFFICULTIES
from trainables.data.tables import AUS, CLASS_COUNTS, SPLITS, Action, AuLaw

SMALL = FacesSpec(200, 32, seed=3)
BOTH = Action(1.0)


def draw(aus, size=64, seed=0):
    rng = np.random.default_rng(seed)
    return render.render(mesh.load_head(), aus, DIFFICULTIES["easy"], size, rng).astype(np.float32)


def change(aus, seed=0, size=64):
    return np.abs(draw(aus, size, seed) - draw({}, size, seed)).mean(2)


def tokens(text):
    found = [] if text == "null" else text.split("+")
    return {tables.split_au(token) for token in found}


def picture(image):
    return image.transpose(2, 0, 1)


# What is drawn


@pytest.fixture(scope="module")
def images():
    return faces.render_all(SMALL, workers=1)


def test_other_processes_draw_the_same_pixels(images):
    told = []
    again = faces.render_all(SMALL, lambda done, total: told.append((done, total)), workers=2)
    assert np.array_equal(images, again)
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]


def test_one_face_is_the_face_of_the_whole_set(images):
    person = faces.draw_people(SMALL)[70]
    assert np.array_equal(images[70], picture(faces.render_face(person, SMALL)))


@pytest.mark.parametrize("au", mesh.SHOWN_AUS)
def test_an_au_changes_its_region_far_more_than_the_rest(au):
    level, head = DIFFICULTIES["easy"], mesh.load_head()
    inside, outside = [], []
    for seed in range(3):
        who = mesh.draw_nuisance(head, level, np.random.default_rng(seed))
        mask = render.region_masks(head, {au: BOTH}, who, 64, [au])[0].astype(bool)
        changed = change({au: BOTH}, seed)
        inside.append(changed[mask].mean())
        outside.append(changed[~mask].mean())
    assert np.mean(inside) > 8 * np.mean(outside)


def test_the_subjects_left_is_on_the_right_of_the_image():
    left, right = change({12: Action(1.0, True, False)}), change({12: Action(1.0, False, True)})
    half = left.shape[1] // 2
    assert left[:, half:].sum() > 3 * left[:, :half].sum()
    assert right[:, :half].sum() > 3 * right[:, half:].sum()


def test_left_and_right_motions_mirror_each_other():
    head = mesh.load_head()
    left, right = mesh.au_motion(12, "L"), mesh.au_motion(12, "R")
    middle = (head.rest * left[:, None]).sum(0) / left.sum()
    other = (head.rest * right[:, None]).sum(0) / right.sum()
    assert middle[0] > 0.1
    assert middle * [-1, 1, 1] == pytest.approx(other, abs=0.01)


def test_eyes_lie_where_the_region_maps_expect_them():
    head = mesh.load_head()
    level = replace(DIFFICULTIES["easy"], jitter=0.0, pose_degrees=(0, 0, 0))
    who = mesh.draw_nuisance(head, level, np.random.default_rng(1))
    _, place, _ = render._pose(head, {}, who)
    left, right = (place[ids].mean(0) for ids in head.eyes)
    assert (left + right) / 2 == pytest.approx([0.5, 0.38], abs=0.01)
    assert right[0] - left[0] == pytest.approx(0.31, abs=0.03)


def chin_height(level, aus, seed):
    head = mesh.load_head()
    who = mesh.draw_nuisance(head, DIFFICULTIES[level], np.random.default_rng(seed))
    chin = np.abs(head.rest - mesh.CHIN).sum(1).argmin()
    return render._pose(head, aus, who)[1][chin, 1]


@pytest.mark.parametrize("level", DIFFICULTIES)
def test_the_chin_stays_in_the_picture(level):
    assert max(chin_height(level, {}, seed) for seed in range(50)) < 1
    assert np.mean([chin_height(level, {25: BOTH, 26: BOTH}, seed) for seed in range(50)]) < 1


def test_what_is_shown_moves_no_nuisance():
    smile, frown = draw({12: BOTH, 27: BOTH}), draw({4: BOTH, 15: BOTH})
    assert np.array_equal(smile[:8, :4], frown[:8, :4])  # a corner: backdrop, light and noise


def test_the_class_moves_no_pixel():
    person = faces.draw_people(SMALL)[5]
    other = replace(person, label=(person.label + 1) % 14, split="test", text="null")
    assert np.array_equal(faces.render_face(person, SMALL), faces.render_face(other, SMALL))


def test_region_masks_do_not_depend_on_the_names_asked_beside():
    both = faces.region_masks(SMALL, [4, 9], ["AU1", "12"])
    assert both.shape == (2, 2, 32, 32)
    assert np.array_equal(both[1:, 1:], faces.region_masks(SMALL, [9], [12]))


def test_an_au_without_face_unit_is_named():
    with pytest.raises(LookupError, match="cannot show AU 11; it shows 1, 2, 4"):
        mesh.au_motion(11)


# Who is drawn


def test_counts_at_full_size_are_those_of_rafce():
    counts = faces.split_counts(4549)
    assert {split: tuple(counts[split]) for split in SPLITS} == CLASS_COUNTS


@pytest.mark.parametrize("count", [200, 777, 1500, 100_000])
def test_every_class_is_in_every_split_at_any_size(count):
    counts = faces.split_counts(count)
    assert sum(int(c.sum()) for c in counts.values()) == count
    assert counts["train"].min() >= 2
    assert counts["val"].min() >= 1
    assert counts["test"].min() >= 1


def test_ids_reveal_neither_class_nor_split():
    people = faces.draw_people(FacesSpec(2000))
    index = np.arange(2000)
    for value in ([p.label for p in people], [p.split == "train" for p in people]):
        assert abs(np.corrcoef(index, value)[0, 1]) < 0.08


def test_clean_labels_read_back_as_what_is_shown():
    for person in faces.draw_people(FacesSpec(300, difficulty="easy")):
        assert tokens(person.text) == {("", au) for au in person.aus}


def test_sides_are_written_as_shown():
    rng = np.random.default_rng(0)
    aus = tables.show_aus([4, 12, 25], (1.0, 1.0), 1.0, rng)
    sides = {("L" if a.left else "R", au) for au, a in aus.items() if a.left != a.right}
    assert {au for _, au in sides} == {4, 12}  # lips have no sides to part on their own
    assert tokens(tables.write_aus(aus, 0.0, 0.0, rng)) == sides | {("", 25)}


def test_label_noise_drops_and_adds_as_often_as_it_says():
    rng, aus = np.random.default_rng(0), {au: BOTH for au in (1, 4, 12, 25)}
    shown = {("", au) for au in aus}
    written = [tokens(tables.write_aus(aus, 0.1, 0.0, rng)) for _ in range(4000)]
    assert np.mean([len(shown - w) / 4 for w in written]) == pytest.approx(0.1, abs=0.01)
    assert np.mean([len(w - shown) / 4 for w in written]) == pytest.approx(0.1, abs=0.01)


def test_no_face_is_impossible():
    law, rng = AuLaw(0.6, 1.0, 0.4), np.random.default_rng(0)
    shown = tables.draw_aus(law, rng.integers(0, 14, 5000), rng.random((5000, len(AUS))))
    on = {au: shown[:, k] for k, au in enumerate(AUS)}
    assert not (on[24] & (on[25] | on[26] | on[27])).any()
    assert not ((on[26] | on[27]) & ~on[25]).any()
    assert not (on[5] & on[43]).any()
    assert (on[23] & on[24]).any()


# The ceiling


class TwoClasses:
    """A law of two AUs and two classes, to be worked out by hand."""

    def factors(self):
        states = np.array([[False], [True]])
        first, second = np.array([[0.1, 0.9], [0.6, 0.4]]), np.array([[0.5, 0.5], [0.8, 0.2]])
        return [((1,), states, first), ((2,), states, second)]


def test_ceiling_by_hand():
    # likelihoods of the states 00 01 10 11: class a .05 .05 .45 .45, class b .48 .12 .32 .08
    # b wins 00 and 01, a wins 10 and 11: recall of a .9, of b .6
    scores = tables.law_ceiling(TwoClasses(), [1, 1])
    assert scores["accuracy"] == pytest.approx(0.75)
    assert scores["uar"] == pytest.approx(0.75)
    # F1 of a: 2 x .9 / (.9 + .4 + 1), of b: 2 x .6 / (.6 + .1 + 1)
    assert scores["macro_f1"] == pytest.approx((1.8 / 2.3 + 1.2 / 1.7) / 2)
    only = tables.law_ceiling(TwoClasses(), [1, 1], classes=[1])
    assert only["macro_f1"] == pytest.approx(1.2 / 1.7)


def test_a_lopsided_prior_decides_by_hand():
    # prior .8 to .2: b holds .2 x .48 of 00 against .8 x .05, and .024 of 01 against .04
    scores = tables.law_ceiling(TwoClasses(), [4, 1])
    assert scores["accuracy"] == pytest.approx(0.8 * 0.95 + 0.2 * 0.48)


def test_drawn_faces_score_what_the_ceiling_says():
    law, rng = DIFFICULTIES["hard"].law, np.random.default_rng(0)
    prior = np.array(CLASS_COUNTS["test"]) / 909
    labels = rng.choice(14, 20_000, p=prior)
    shown = tables.draw_aus(law, labels, rng.random((20_000, len(AUS))))
    score = np.tile(np.log(prior), (20_000, 1))
    for group, states, probs in law.factors():
        mine = shown[:, [AUS.index(au) for au in group]]
        which = (mine[:, None] == states[None]).all(2).argmax(1)
        score += np.log(probs[:, which]).T
    accuracy = (score.argmax(1) == labels).mean()
    assert accuracy == pytest.approx(faces.bayes_ceiling("hard", prior)["accuracy"], abs=0.01)


def test_ceiling_by_draws_nears_the_exact_one():
    exact = faces.bayes_ceiling("medium", CLASS_COUNTS["val"])
    drawn = faces.bayes_ceiling("medium", CLASS_COUNTS["val"], draws=100_000, seed=1)
    assert drawn["accuracy"] == pytest.approx(exact["accuracy"], abs=0.005)
    assert drawn["macro_f1"] == pytest.approx(exact["macro_f1"], abs=0.02)


@pytest.mark.parametrize("score", ["accuracy", "uar", "macro_f1"])
def test_harder_faces_have_a_lower_ceiling(score):
    easy, medium, hard = (
        faces.bayes_ceiling(level, CLASS_COUNTS["test"])[score]
        for level in ("easy", "medium", "hard")
    )
    assert 1 > easy > medium > hard > 0.5


# Tables


def test_region_map_by_hand():
    # AU4: u -.6..0.6, v -.45..0.05 of .32 round (.50, .38): x .308..0.692, y .236..0.396
    box = tables.region_maps(["AU4"], 1000)[0]
    rows, columns = np.flatnonzero(box.max(1) > 0.5), np.flatnonzero(box.max(0) > 0.5)
    assert (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1) == (308, 692, 236, 396)
    assert tables.region_maps([4], 7).mean() == pytest.approx(box.mean(), rel=1e-5)


def test_region_map_of_a_side_is_half_of_the_pair():
    pair, left, right = tables.region_maps([12, "L12", "R12"], 40)
    assert np.allclose(pair, left + right)
    assert left[:, :20].max() == 0
    assert np.allclose(left, right[:, ::-1], atol=1e-6)


def test_each_class_has_the_two_emotions_of_its_name():
    stems = {"surprise": "surpris", "fear": "fear", "disgust": "disgust", "happiness": "happ",
             "sadness": "sad", "anger": "angr"}  # fmt: skip
    for name, pair in zip(tables.CLASS_NAMES, tables.CLASS_PAIRS, strict=True):
        first, second = (stems[tables.BASIC_NAMES[k]] for k in pair)
        assert re.match(rf"{first}\w* {second}", name)


# Files and command


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


@pytest.mark.parametrize("arguments", [[], ["--count", "3"], ["--size", "5"], ["--seed", "-1"]])
def test_bad_input_ends_the_command_with_2_and_a_message(arguments, tmp_path, capsys):
    where = ["--out", str(tmp_path / "new")] if arguments else []
    assert faces.main([*arguments, *where]) == 2
    assert capsys.readouterr().err.startswith("faces: ")
    assert not (tmp_path / "new").exists()


def test_command_spares_a_folder_that_is_not_empty(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert faces.main(["--out", str(tmp_path), "--count", "200"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_command_writes_a_contact_sheet(tmp_path):
    sheet = tmp_path / "sheet.png"
    assert faces.main(["--montage", str(sheet), "--size", "16"]) == 0
    assert cv2.imread(str(sheet)).shape == (6 * 16, 14 * 16, 3)


def test_faces_come_without_torch():
    code = "import sys, trainables.data.faces; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
