"""Features of landmarks: against geometry done by hand, and on faces of which we know the AUs."""

import numpy as np
import pytest

from trainables.data import mesh, mesh_landmarks
from trainables.data.faces import FacesSpec, draw_people, render_face
from trainables.data.tables import Action
from trainables.features import face_shape
from trainables.features.face_shape import POINTS, RATIOS

MEAN = np.array([[u, v] for _, _, u, v in POINTS.values()])


def _face(scheme=68, **moved):
    """The mean face in a scheme of landmarks, with some points moved by (u, v)."""
    points = np.zeros((1, scheme, 2))
    for (name, place), at in zip(POINTS.items(), MEAN, strict=True):
        points[0, place[0] if scheme == 68 else place[1]] = at + np.array(moved.get(name, (0, 0)))
    return points


def _ratio(points, name):
    return face_shape.features(points, "ratios")[0, RATIOS.index(name)]


def test_ratios_of_the_mean_face_by_hand():
    mean = _face()  # eyes from .30 to .69: their midpoints are .99 apart
    assert _ratio(mean, "mouth_width") == pytest.approx(0.9 / 0.99)
    assert _ratio(mean, "mouth_height") == pytest.approx(0.33 / 0.9)
    assert _ratio(mean, "lips_gap") == pytest.approx(0.09 / 0.9)
    assert _ratio(mean, "brow_gap") == pytest.approx(0.38 / 0.99)
    # halfway from eye corner to eye corner v is .015; the brow's peak is at -.36
    assert _ratio(mean, "brow_eye_peak_l") == pytest.approx(0.375 / 0.99)
    inner, outer = np.hypot(0.01, 0.12), np.hypot(0.01, 0.12)
    assert _ratio(mean, "aperture_r") == pytest.approx((inner + outer) / 2 / np.hypot(0.39, 0.03))
    # the corner is at 1.09, the middle of the lips at 1.155, half the mouth .45
    assert _ratio(mean, "corner_slope_l") == pytest.approx(-(1.09 - 1.155) / 0.45)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("brow_eye_peak_l", {"brow_peak_l": (0, -0.1)}),
        ("brow_eye_inner_r", {"brow_inner_r": (0, -0.1)}),
        ("aperture_l", {"lid_upper_inner_l": (0, -0.05)}),
        ("corner_slope_r", {"mouth_r": (0, -0.1)}),
        ("lips_gap", {"gap_lower": (0, 0.1)}),
        ("jaw_drop", {"chin": (0, 0.1)}),
    ],
)
def test_a_ratio_grows_with_its_movement_and_its_other_side_does_not(name, moved):
    before, after = _face(), _face(**moved)
    assert _ratio(after, name) > _ratio(before, name) + 0.05
    other = name[:-2] + {"_l": "_r", "_r": "_l"}.get(name[-2:], name[-2:])
    if other != name:
        assert _ratio(after, other) == pytest.approx(_ratio(before, other), abs=0.011)


def test_place_size_and_roll_of_a_face_change_nothing():
    points = _face(mouth_r=(0.1, -0.2))
    turn = np.deg2rad(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = 37 * points @ rotation.T + [120, 80]
    assert face_shape.features(moved) == pytest.approx(face_shape.features(points), abs=1e-5)


def test_both_schemes_of_landmarks_give_the_same_features():
    moved = {"mouth_l": (-0.1, 0.05), "brow_peak_r": (0, -0.1)}
    of_68 = face_shape.features(_face(68, **moved))
    assert face_shape.features(_face(478, **moved)) == pytest.approx(of_68)
    assert face_shape.features(_face(468, **moved)) == pytest.approx(of_68)


def test_distances_are_in_inter_ocular_distances_and_directions_of_unit_length():
    values = face_shape.features(_face(), "distances")[0, :-1].reshape(3, 31 * 30 // 2)
    first = np.hypot(0.92 - 0.58, 0.36 - 0.22) / 0.99  # from brow_outer_l to brow_peak_l
    assert values[0, 0] == pytest.approx(first, rel=1e-5)
    assert values[1:, 0] * first == pytest.approx([0.34 / 0.99, -0.14 / 0.99], rel=1e-4)
    assert np.hypot(*values[1:]).max() == pytest.approx(1, rel=1e-5)


def test_aligning_undoes_a_turn_and_leaves_an_expression():
    face = face_shape.named(_face(mouth_r=(0, -0.2)))
    aligned = face_shape.align(face * np.exp(0.4j) * 3 + 5)
    assert aligned == pytest.approx(face, abs=1e-9)  # the mouth is not among what is aligned


def test_the_parts_make_up_the_whole():
    face = _face(mouth_r=(0.1, 0))
    parts = [face_shape.features(face, use)[:, :-1] for use in ("ratios", "distances", "shape")]
    whole = face_shape.features(face)
    assert whole.shape == (1, 15 + 3 * 465 + 62 + 1)
    assert np.array_equal(np.concatenate(parts, 1), whole[:, :-1])


def test_a_face_not_found_is_the_mean_face_and_says_so():
    lost = np.full((1, 68, 2), np.nan)
    both = face_shape.features(np.concatenate([_face(), lost]))
    assert both[:, -1].tolist() == [1, 0]
    assert both[0, :-1] == pytest.approx(both[1, :-1], abs=1e-6)


def test_no_face_at_all_in_the_points_is_refused():
    with pytest.raises(ValueError, match="all on one point"):
        face_shape.features(np.ones((1, 68, 2)))
    with pytest.raises(ValueError, match="68, 468, 478 points"):
        face_shape.features(np.ones((1, 5, 2)))
    with pytest.raises(ValueError, match="known: all, ratios"):
        face_shape.features(_face(), "angles")


# The embedded faces: no test of names against names, but of places against what was drawn.


def _shown(monkeypatch, aus, index=3):
    """Landmarks of one easy face that shows just these AUs."""
    spec = FacesSpec(200, 64, 0, "easy")
    people = draw_people(spec)
    shown = {au: Action(1.0) for au in aus}
    people[index] = type(people[index])(index, "", "", 0, shown, "")
    monkeypatch.setattr(mesh_landmarks, "draw_people", lambda spec: people)
    return mesh_landmarks.landmarks(spec, [index])


@pytest.mark.parametrize(
    ("aus", "name", "way"),
    [
        ((1,), "brow_eye_inner_l", 1), ((2,), "brow_eye_peak_r", 1), ((4,), "brow_eye_peak_l", -1),
        ((4,), "brow_gap", -1), ((5,), "aperture_l", 1), ((43,), "aperture_r", -1),
        ((9,), "nose_eye", -1), ((12,), "corner_slope_r", 1), ((12,), "mouth_width", 1),
        ((15,), "corner_slope_l", -1), ((18,), "mouth_width", -1), ((25, 26), "lips_gap", 1),
        ((26,), "jaw_drop", 1),
    ],
)  # fmt: skip
def test_an_action_unit_moves_its_ratio_the_right_way(monkeypatch, aus, name, way):
    change = _ratio(_shown(monkeypatch, aus), name) - _ratio(_shown(monkeypatch, ()), name)
    assert way * change > 0.03, change


def test_closed_eyes_are_closed(monkeypatch):
    assert _ratio(_shown(monkeypatch, ()), "aperture_l") > 0.25
    assert _ratio(_shown(monkeypatch, (43,)), "aperture_l") < 0.12


# Boxes of AUs in the unit frame, right of the image (methods 3.4), and the landmarks within.
BOXES = {
    (0.564, 0.322, 0.756, 0.438): range(42, 48),  # AU7: the eye
    (0.500, 0.124, 0.852, 0.348): range(22, 27),  # AU1 and AU2: the brow
    (0.340, 0.650, 0.660, 0.834): range(48, 68),  # AU23: the lips, ours a little higher
}


@pytest.mark.parametrize("box", BOXES)
def test_landmarks_of_embedded_faces_lie_in_the_boxes_of_their_action_units(box):
    spec = FacesSpec(200, 64, 0, "easy")
    places = mesh_landmarks.landmarks(spec).mean(0)[list(BOXES[box])] / 64  # of the mean face
    left, top, right, bottom = np.array(box) + np.array([-0.03, -0.03, 0.03, 0.03])
    assert (places > [left, top]).all(), places
    assert (places < [right, bottom]).all(), places


def test_landmarks_lie_where_the_renderer_drew():
    # the mesh's own eyeballs, seen by the same camera: each eye's landmarks surround its centre
    spec = FacesSpec(200, 64, 0, "hard")
    head, people = mesh.load_head(), draw_people(spec)
    for index in (0, 50, 150):
        who = mesh.draw_nuisance(head, spec.level, np.random.default_rng([0, index]))
        _, place, _ = mesh_landmarks.render._pose(head, people[index].aus, who)
        eyes = [place[ids].mean(0) * 64 for ids in head.eyes]
        points = mesh_landmarks.landmarks(spec, [index])[0]
        for eye, corners in zip(eyes, (points[36:42], points[42:48]), strict=True):
            assert np.abs(corners.mean(0) - eye).max() < 2.5
            assert corners[:, 0].min() < eye[0] < corners[:, 0].max()


def test_the_picture_has_lips_where_the_landmarks_say():
    # pixels, not the mesh: lips are redder than the skin as far below them as they are high
    spec = FacesSpec(200, 128, 0, "easy")
    people = draw_people(spec)
    points = mesh_landmarks.landmarks(spec, range(12))
    redder = 0
    for person, face in zip(people[:12], points, strict=True):
        image = render_face(person, spec).astype(float)
        lip, height = (face[57] + face[66]) / 2, face[57] - face[66]
        inside, below = (image[int(y), int(x)] for x, y in (lip, lip + 2 * height))
        redder += inside[1] / inside[0] < 0.9 * below[1] / below[0]
    assert redder >= 11


def test_mirrored_landmarks_are_on_the_other_side_of_the_mesh():
    rest = mesh.load_head().rest[mesh_landmarks.vertices()]
    pairs = {16 - k: k for k in range(8)} | {48: 54, 36: 45, 31: 35, 17: 26}
    for a, b in pairs.items():
        assert rest[a] * [-1, 1, 1] == pytest.approx(rest[b], abs=2e-3)
