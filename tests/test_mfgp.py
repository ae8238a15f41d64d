"""The multi-fidelity proposer and the simulator it is judged in."""

import math

import numpy as np
import pytest
from toy import EPOCHS, SPACE, quality, start

from search import mfgp
from search.encoding import Encoder
from search.mfgp import CROWD, SHARE, Belief, FidelityModel
from search.observed import Known
from search.problems import PROBLEMS
from search.samplers import SAMPLERS
from search.simulate import run
from search.surrogate import Lines, Points, Posterior, Theta, _loss, _Terms, prior
from trainables.config import TrialConfig


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
    one, two = (run(PROBLEMS["branches"](), "mfgp", "thaw", 0, 4, 3) for _ in range(2))
    assert one == two
    assert 3 * 27 <= one.epochs < 3 * 27 + 4  # the other workers end the epoch they are in


def test_a_score_of_zero_is_a_score_and_an_end_without_one_is_the_worst():
    known = Known(0, {1: 0.0}, "stopped")
    assert known.tops((1,)) == {1: 0.0}
    assert Known(0, {1: math.nan}, "stopped").tops((1,)) == {1: -math.inf}
    model = SAMPLERS["mfgp"](SPACE, 10, ("score",))
    model.draw(0)
    model.keep("a")
    model.tell("a", [{"epoch": 1, "score": 0.0}], "stopped")
    assert model.trials["a"].scores == {1: 0.0}


def test_a_posterior_is_that_of_the_textbook():
    """Against the matrices written out, for an observed trial at gap 0.3 and a new point at 0."""
    rng = np.random.default_rng(1)
    points = Points(rng.random((5, 2)), np.array([0, 0, 1, 2, 2]), np.array([1, 0.4, 1, 1, 0.0]))
    y, sizes = rng.normal(size=5), np.log([1.0, 0.3, 0.7, 0.4, 0.2, 0.1])
    f, e, g, c, d, noise = np.exp(2 * sizes)

    def kernel(a, trial_a, gap_a, b, trial_b, gap_b):
        r = math.sqrt(5 * (((a - b) / [0.5, 2.0]) ** 2).sum())
        shape, same, gaps = (1 + r + r * r / 3) * math.exp(-r), trial_a == trial_b, gap_a * gap_b
        return (f + g * gaps) * shape + gaps * c + (e + d * gaps) * same

    known = list(zip(points.x, points.trial, points.gap, strict=True))
    matrix = np.array([[kernel(*p, *q) for q in known] for p in known])
    matrix += (noise + 1e-6) * np.eye(5)
    posterior = Posterior(points, y, Theta(np.log([0.5, 2.0]), sizes), np.array([0, 1]))
    for asked, trial, gap in ((points.x[0], 0, 0.3), (rng.random(2), -1, 0.0)):
        cross = np.array([kernel(asked, trial, gap, *p) for p in known])
        mean = cross @ np.linalg.solve(matrix, y)
        own = kernel(asked, trial, gap, asked, trial, gap)
        sd = math.sqrt(own - cross @ np.linalg.solve(matrix, cross))
        told = posterior.predict(asked[None], np.array([trial]), np.array([gap]))
        assert told[0] == pytest.approx([mean])
        assert told[1] == pytest.approx([sd])


def test_a_point_that_settings_cannot_tell_from_a_known_trial_is_not_new():
    points = Points(np.array([[0.0, 0.0], [1.0, 1.0]]), np.arange(2), np.zeros(2))
    sizes = np.log([1.0, 0.1, 0.5, 0.5, 0.15, 0.03])  # trials differ by 0.1 beyond their settings
    posterior = Posterior(points, np.zeros(2), Theta(np.zeros(2), sizes), np.array([0, 1]))
    # Matern 5/2 near 0 is 1 - 5/6 (distance / length scale)^2: 0.1 apart from about 0.078 on
    x = np.array([[0.0, 0.0], [0.07, 0.0], [0.09, 0.0], [1.0, 0.95], [0.5, 0.5]])
    assert posterior.are_new(x).tolist() == [False, False, True, False, True]


def test_nothing_is_proposed_that_is_known_already():
    model, _ = crowded(running=1)
    belief = model._belief(np.random.default_rng(0))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        point, _ = model._climb(belief, belief.goal(rng), 3.0, rng, seed)
        assert belief.posterior.are_new(model.encoder.features(point[None])).all()


def test_a_batch_proposes_nothing_that_is_known_already_and_nothing_twice(monkeypatch):
    monkeypatch.setattr(mfgp, "RANDOM_SHARE", 0.0)
    model, _ = crowded(running=4 * SHARE)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        belief = model._belief(np.random.default_rng(seed))  # that of the batch
        x = model.encoder.features(np.array(model._decide({}, rng, seed)))
        assert belief.posterior.are_new(x).all()
        assert len(np.unique(x, axis=0)) == len(x) == 8


def belief_of(f, e):
    """What is believed of three points, when settings and trials differ so much."""
    points = Points(np.array([[0.0], [0.5], [1.0]]), np.arange(3), np.zeros(3))
    theta = Theta(np.zeros(1), np.log([f, e, 0.5, 0.5, 0.15, 0.03]))
    return Belief(Posterior(points, np.zeros(3), theta, np.array([0])), points.x, 0.0, 1.0)


def test_where_nothing_is_new_it_does_not_matter_that_nothing_is():
    belief = belief_of(0.5, 0.9)  # settings explain less than chance
    x = np.linspace(0, 1, 50)[:, None]
    assert not belief.posterior.are_new(x).any()
    assert not belief.put_back(x).any()
    known = belief_of(1.0, 0.1)
    assert known.put_back(np.array([[0.5], [0.25]])).tolist() == [mfgp.FAR, 0]


def believed(n=7, seed=2):
    """Two features, trials 0 to 3, at gaps by chance."""
    rng = np.random.default_rng(seed)
    points = Points(rng.random((n, 2)), np.arange(n) // 2, rng.random(n))
    theta = Theta(np.log([0.5, 2.0]), np.log([1.0, 0.3, 0.7, 0.4, 0.2, 0.1]))
    return points, rng.normal(size=n), theta, rng


def test_lines_tell_at_each_gap_what_the_posterior_tells():
    points, y, theta, rng = believed()
    posterior = Posterior(points, y, theta, np.array([0, 1]))
    x, trial, gap = rng.random((5, 2)), np.array([0, 3, -1, -1, 1]), rng.random(5)
    told = Lines(posterior, x, trial).at(gap)
    np.testing.assert_allclose(told, posterior.predict(x, trial, gap), rtol=1e-9)
    gaps = rng.random((3, 1))  # of new points, several at once
    means, sds = Lines(posterior, x).at(gaps)
    for row, at in enumerate(gaps):
        np.testing.assert_allclose((means[row], sds[row]), posterior.predict(x, gap=at), rtol=1e-9)


def test_what_lines_are_to_believe_is_one_more_observation():
    points, y, theta, rng = believed()
    posterior = Posterior(points, y, theta, np.array([0, 1]))
    x, trial, gap = rng.random((6, 2)), np.array([0, 3, -1, -1, 1, -1]), rng.random(6)
    lines = Lines(posterior, x, trial, room=2)
    for point in (1, 3):  # a trial that is known, and one that is new
        end, _ = posterior.predict(x[[point]], trial[[point]])
        own = trial[point] if trial[point] >= 0 else 99
        points = Points(
            np.vstack([points.x, x[[point]]]),
            np.append(points.trial, own),
            np.append(points.gap, 0),
        )
        y = np.append(y, end)
        posterior = Posterior(points, y, theta, np.array([0, 1]))
        lines.believe(point)
        others = [i for i in range(6) if i not in (1, 3)]
        told = [part[others] for part in lines.at(gap)]
        wanted = posterior.predict(x[others], trial[others], gap[others])
        np.testing.assert_allclose(told, wanted, rtol=1e-7)


def crowded(running, seed=0):
    """A model with as many trials waiting as run; scores rise with the learning rate to 0.01."""
    rng, model, paused = np.random.default_rng(seed), FidelityModel(SPACE, EPOCHS, 10_000), {}
    for number in range(2 * running):
        lr = float(10 ** -rng.uniform(1, 5))
        model.reopen(str(number), {**SPACE.defaults(), "lr": lr}, 0)
        if number < running:
            model.observe(str(number), 3, 1 - abs(math.log10(lr) + 2) + 0.01 * rng.normal())
            paused[str(number)] = 3
    return model, paused


def decisions(model, paused, n):
    """What a core is told by n questions, each of which changes who waits and who runs."""
    told, paused = [], dict(paused)
    for seed in range(n):
        trial = model.prefer(paused, seed)
        if trial is None:
            told.append(model.draw(seed))
            model.keep(f"new{seed}")
        else:
            del paused[trial]
            told.append(trial)
    return told


def test_a_crowd_is_decided_on_in_batches_and_by_the_same_record_the_same():
    model, paused = crowded(running=4 * SHARE)
    told = decisions(model, paused, 12)
    assert told == decisions(*crowded(running=4 * SHARE), 12)
    assert len({str(choice) for choice in told}) == 12
    chosen = [choice for choice in told if isinstance(choice, str)]
    ranks = sorted(paused, key=lambda trial: -model.trials[trial].best)
    assert chosen
    assert set(chosen) <= set(ranks[:16])  # of 64


def test_few_are_decided_on_one_by_one(monkeypatch):
    model, paused = crowded(running=CROWD // 2)
    monkeypatch.setattr(FidelityModel, "_decide", None)
    assert len(decisions(model, paused, 6)) == 6


def test_a_batch_has_a_decision_for_one_in_so_many_that_run(monkeypatch):
    model, paused = crowded(running=4 * SHARE)
    sizes, decide = [], FidelityModel._decide

    def counted(self, *args):
        batch = decide(self, *args)
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(FidelityModel, "_decide", counted)
    decisions(model, paused, 8)
    assert sizes == [4, 4]


def leading(seed, tops, epoch=1):
    """A model that has seen a score of each trial, by learning rate, and all of them waiting."""
    model = SAMPLERS["mfgp"](SPACE, 40, ("score",))
    for number, (lr, value) in enumerate(tops):
        model.reopen(str(number), {**SPACE.defaults(), "lr": lr}, seed)
        model.observe(str(number), epoch, value)
    return model, {str(number): epoch for number in range(len(tops))}


def test_the_model_prefers_the_best_of_those_that_wait_and_not_those_that_run():
    tops = [(10.0 ** -(1 + k / 4), 0.5 - 0.03 * abs(k - 6)) for k in range(13)]
    model, paused = leading(0, tops, epoch=5)
    told = [model.prefer(paused, seed) for seed in range(40)]
    chosen = [trial for trial in told if trial is not None]
    assert chosen
    assert set(chosen) <= {"5", "6", "7"}
    assert told == [model.prefer(paused, seed) for seed in range(40)]
    del paused["6"]  # it has a worker now
    assert "6" not in [model.prefer(paused, seed) for seed in range(40)]


def test_nobody_waits_for_too_little():
    model, paused = leading(0, [(1e-3, 0.5), (1e-2, 0.6)])
    assert model.prefer(paused, 0) is None  # two are too few to model


def test_the_point_that_beat_those_that_wait_is_the_next_one_drawn():
    model, paused = leading(0, [(10.0**-k, 0.1 * k) for k in (1, 2, 3, 4, 5)] * 2)
    seed = next(s for s in range(99) if model.prefer(paused, s) is None)
    drawn = model.draw(seed + 1)
    again, _ = leading(0, [(10.0**-k, 0.1 * k) for k in (1, 2, 3, 4, 5)] * 2)
    again.prefer(paused, seed)
    assert again.draw(seed + 2) == drawn
    assert again.draw(seed + 2) != drawn


def test_a_search_led_by_its_model_ends_and_trains_the_best_whole(tmp_path):
    search = start(tmp_path, budget=16, pruner="thaw", sampler="mfgp")
    while (handout := search.next()) is not None:
        own = search.store.trial(handout.id, handout.attempt)
        done, value, verdict = len(own.history()), quality(own.config()), "continue"
        while verdict == "continue" and done < EPOCHS:
            done += 1
            row = {"epoch": done, "score": value * done / EPOCHS, "seconds": 1.0}
            own.append(row)
            verdict = search.on_row(handout.id, row)
        if verdict == "continue":
            search.on_end(handout.id)
    assert search.is_finished
    ended = {r.id: r.result.status for r in search.store.records()}
    assert len(ended) == 16
    assert set(ended.values()) == {"completed", "stopped"}
    best = max(ended, key=lambda trial: quality(TrialConfig.from_flat(search.configs[trial])))
    assert ended[best] == "completed"
