"""The embedded faces: what is drawn, what is written of it, and the ceiling that both imply."""

from dataclasses import replace

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
