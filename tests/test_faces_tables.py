"""The laws behind the embedded faces: the ceiling they imply, regions, and names of classes."""

import re

import numpy as np
import pytest

from trainables.data import faces, tables
from trainables.data.mesh import DIFFICULTIES
from trainables.data.tables import AUS, CLASS_COUNTS


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
