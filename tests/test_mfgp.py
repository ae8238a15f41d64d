"""The multi-fidelity proposer and the simulator it is judged in."""

import math

import numpy as np
import pytest
from toy import SPACE

from search.encoding import Encoder
from search.mfgp import Known
from search.problems import PROBLEMS
from search.samplers import SAMPLERS
from search.simulate import run
from search.surrogate import Points, _loss, _Terms, prior


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_point_is_its_configuration_and_back(name):
    encoder = Encoder(PROBLEMS[name]().space)
    points = encoder.sample(50, np.random.default_rng(0))
    points = np.vstack([points, encoder.mutate(points, np.random.default_rng(1))])
    again = np.array([encoder.point(encoder.flat(row)) for row in points])
    np.testing.assert_allclose(again, points, atol=1e-9)


def test_the_gradient_of_the_fit_is_that_of_its_loss():
    rng = np.random.default_rng(0)
    points = Points(rng.random((9, 3)), np.arange(9) // 2, rng.random(9))
    terms, y = _Terms.of(points, np.array([0, 0, 1]), 2), rng.normal(size=9)
    median, spread = prior(2)
    theta = median + 0.3 * rng.normal(size=8)

    def loss(at):
        return _loss(at, terms, y, median, spread)

    slopes = [(loss(theta + h)[0] - loss(theta - h)[0]) / 2e-5 for h in 1e-5 * np.eye(8)]
    np.testing.assert_allclose(loss(theta)[1], slopes, rtol=1e-4, atol=1e-6)


def test_a_simulated_run_spends_its_budget_and_repeats_exactly():
    one, two = (run(PROBLEMS["branches"](), "mfgp", "promotion", 0, 4, 3) for _ in range(2))
    assert one == two
    assert 3 * 27 <= one.epochs < 3 * 27 + 4  # the other workers end the epoch they are in


def test_a_score_of_zero_is_a_score_and_an_end_without_one_is_the_worst():
    known = Known(np.zeros(1), {1: 0.0}, "stopped")
    assert known.tops((1,)) == {1: 0.0}
    assert Known(np.zeros(1), {1: math.nan}, "stopped").tops((1,)) == {1: -math.inf}
    model = SAMPLERS["mfgp"](SPACE, 10, ("score",))
    model.draw(0)
    model.keep("a")
    model.tell("a", [{"epoch": 1, "score": 0.0}], "stopped")
    assert model.trials["a"].scores == {1: 0.0}
