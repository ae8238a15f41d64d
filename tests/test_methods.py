"""The ways of combining: values by hand, limits, agreement of the fast way and the plain one."""

import numpy as np
import pytest
from models import Ints, draw
from scipy.special import log_softmax, softmax

from analysis import blend, statistics
from analysis import methods as me
from analysis.diversity import diversity, q_statistic
from analysis.library import AS_IS, TEMPERATURES, Library, temper
from analysis.methods import Limits, Pool
from analysis.statistics import Goal


def goal_of(classes: int, name: str = "macro_f1") -> Goal:
    return Goal(name, np.ones(classes, bool))


def pool_of(models: int, images: int, classes: int, seed: int = 0, name: str = "macro_f1") -> Pool:
    library = Library(*draw(models, images, classes, seed), goal_of(classes, name))
    return Pool(library, np.arange(1.0, models + 1), np.arange(models))


def fitted(pool: Pool, images: Ints | None = None) -> dict[me.Method, me.Recipe]:
    library = pool.library
    images = np.arange(library.images) if images is None else images
    part = np.isin(np.arange(library.images), images, invert=True).astype(np.int64)
    counts = library.parts(part, 2).without(1)
    recipes = me.fit(pool, *counts, images, np.random.default_rng(0))
    return dict(zip(me.methods(pool), recipes, strict=True))


def test_a_temperature_is_that_of_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (6, 4))
    probs = softmax(logits, 1).astype(np.float32)
    assert temper(probs, 2.5) == pytest.approx(softmax(logits / 2.5, 1), abs=1e-5)
    assert TEMPERATURES[AS_IS] == 1


def test_the_temperature_is_the_likeliest_of_the_grid() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits, 1)])
    sharp = softmax(logits * TEMPERATURES[6], 1)[None].astype(np.float32)
    library = Library(sharp, labels, goal_of(3))
    assert library.temperatures(np.array([0]), np.arange(4000)).tolist() == [6]
    assert library.tempered(0, 6) == pytest.approx(softmax(logits, 1), abs=2e-3)  # clipped
    likely = library.tempered(0, 6)[np.arange(4000), labels]
    assert library.graded(0)[6] == pytest.approx(likely, abs=1e-6)


def test_counts_without_a_part_are_those_of_the_other_images() -> None:
    pool = pool_of(4, 50, 3)
    part = np.arange(50) % 5
    counts, logs = pool.library.parts(part, 5).without(1, 3)
    keep = ~np.isin(part, (1, 3))
    library = pool.library
    plain = statistics.tally(library.labels[keep], library.predicted[:, keep], 3)
    for name in ("hits", "said", "support"):
        assert getattr(counts, name) == pytest.approx(getattr(plain, name))
    likely = library.probs[:, keep][:, np.arange(keep.sum()), library.labels[keep]]
    assert logs.sum(1) == pytest.approx(np.log(likely).sum(1), rel=1e-4)


def test_each_method_has_a_recipe_whose_weights_sum_to_one() -> None:
    pool = pool_of(12, 90, 4)
    recipes = fitted(pool)
    assert [name for name, _ in me.methods(pool)[-4:]] == [
        "CMA-ES", "stacking", "average, adjusted", "greedy, adjusted",
    ]  # fmt: skip
    for method, recipe in recipes.items():
        assert recipe.weights.sum() == pytest.approx(1), method
        assert (recipe.weights >= 0).all()
        assert len(set(recipe.members.tolist())) == len(recipe.members) <= method[1]
        said = recipe.apply(pool.library, np.arange(90))
        assert said.sum(1) == pytest.approx(1, abs=1e-5), method


def test_the_fast_calls_are_those_of_each_recipe() -> None:
    pool = pool_of(12, 90, 4)
    recipes = list(fitted(pool).values())
    images = np.arange(20, 70)
    fast = me.calls_of(recipes, pool.library, images)
    for calls, recipe in zip(fast, recipes, strict=True):
        assert (calls == recipe.apply(pool.library, images).argmax(1)).mean() > 0.99


def test_nothing_is_learned_of_images_that_are_held_out() -> None:
    pool = pool_of(10, 80, 3)
    held = np.arange(80) % 4 == 0
    turned = np.where(held, (pool.library.labels + 1) % 3, pool.library.labels)
    other = Pool(Library(pool.library.probs, turned, goal_of(3)), pool.latency_ms, pool.groups)
    inside, outside = np.flatnonzero(~held), np.flatnonzero(held)
    said = [
        me.calls_of(list(fitted(p, inside).values()), p.library, outside) for p in (pool, other)
    ]
    assert (said[0] == said[1]).all()


@pytest.mark.parametrize("seed", range(4))
def test_evolved_weights_score_at_least_as_much_as_even_ones(seed: int) -> None:
    probs, labels = draw(5, 80, 4, seed)
    weights = blend.evolved(probs, labels, goal_of(4), np.ones(80), seed)
    goal = goal_of(4)
    mixed = [np.tensordot(w.astype(np.float32), probs, 1) for w in (weights, np.full(5, 0.2))]
    counts = statistics.tally(labels, np.stack([p.argmax(1) for p in mixed]), 4)
    found, plain = goal.scores(counts)
    assert found >= plain - 1e-9
    assert weights.sum() == pytest.approx(1)


def test_evolution_finds_the_one_good_model() -> None:
    probs, labels = draw(4, 200, 4, 0)
    probs[:] = np.random.default_rng(0).dirichlet(np.full(4, 0.2), (4, 200))
    probs[2] = 0.7 * np.eye(4)[labels] + 0.075
    assert blend.evolved(probs, labels, goal_of(4), np.ones(200), 0).argmax() == 2


def test_members_that_agree_on_all_images_keep_even_weights() -> None:
    probs, labels = draw(1, 30, 3, 0)
    same = np.repeat(probs, 3, 0)
    assert blend.evolved(same, labels, goal_of(3), np.ones(30), 0).tolist() == [1 / 3] * 3


def test_stacking_pulled_hard_is_the_geometric_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels = draw(3, 60, 4, 0)
    monkeypatch.setattr(blend, "STRENGTH", 1e9)
    said = blend.applied(blend.stacked(probs, labels), probs)
    assert said == pytest.approx(softmax(np.log(probs).mean(0), 1), abs=1e-4)


def test_stacking_minimises_its_penalised_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels = draw(2, 200, 3, 0)
    monkeypatch.setattr(blend, "STEPS", 500)
    monkeypatch.setattr(blend, "STRENGTH", 5.0)
    found = blend.stacked(probs, labels)
    start = np.concatenate([np.tile(np.eye(3), (2, 1)) / 2, np.zeros((1, 3))])

    def loss(rows: np.ndarray) -> float:
        said = log_softmax(blend.features(probs).astype(np.float64) @ rows, 1)
        return float(-said[np.arange(200), labels].sum() + 2.5 * ((rows - start) ** 2).sum())

    rng = np.random.default_rng(0)
    assert loss(found) < loss(start)
    for _ in range(20):
        assert loss(found + rng.normal(0, 0.05, found.shape)) > loss(found) - 1e-3


def test_the_shift_is_a_logit_adjustment() -> None:
    probs = np.array([[0.6, 0.3, 0.1]], np.float32)
    prior = np.array([0.7, 0.2, 0.1])
    wanted = probs / prior**0.5
    said = me.shifted(probs, 0.5 * np.log(prior))
    assert said == pytest.approx(wanted / wanted.sum(), abs=1e-6)
    assert me.shifted(probs, None) is probs


def test_adjusting_helps_models_that_lean_to_the_common_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 60, 30])
    logits = rng.normal(0, 1, (6, 390, 3)) + 2.0 * np.log(np.array([300, 60, 30]) / 390)
    logits[:, np.arange(390), labels] += 2
    library = Library(softmax(logits, 2).astype(np.float32), labels, goal_of(3))
    prior = np.log(np.array([300, 60, 30]) / 390)
    pool = Pool(library, np.ones(6), np.arange(6), Limits(), prior)
    recipes = fitted(pool)
    plain, adjusted = recipes["average", 6], recipes["average, adjusted", 6]
    calls = me.calls_of([plain, adjusted], library, np.arange(390))
    before, after = library.goal.scores(statistics.tally(labels, calls, 3))
    assert adjusted.tau > 0
    assert after > before + 0.05


def test_there_is_no_adjustment_where_accuracy_is_the_goal() -> None:
    pool = pool_of(4, 40, 3, name="accuracy")
    assert not any("adjusted" in name for name, _ in me.methods(pool))


def test_the_average_of_seeds_is_the_best_group_of_at_least_two() -> None:
    pool = pool_of(6, 100, 3)
    scores = pool.library.goal.scores(
        statistics.tally(pool.library.labels, pool.library.predicted, 3)
    )
    second, third = np.argsort(-scores)[1:3]  # the best has no twin
    groups = np.where(np.isin(np.arange(6), (second, third)), 10, np.arange(6))
    found = fitted(Pool(pool.library, pool.latency_ms, groups))
    assert set(found["average of seeds", 6].members.tolist()) == {second, third}


@pytest.mark.parametrize("most", [3.5, 9.0, 30.0])
def test_no_recipe_is_above_its_limits(most: float) -> None:
    base = pool_of(12, 90, 3)
    latency = np.linspace(1, 3, 12)  # each fits by itself
    pool = Pool(base.library, latency, base.groups, Limits(4, most))
    assert max(k for _, k in me.methods(pool)) == 4
    for method, recipe in fitted(pool).items():
        assert 1 <= len(recipe.members) <= 4, method
        assert latency[recipe.members].sum() <= most


def test_q_and_disagreement_by_hand() -> None:
    right = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]])
    q = q_statistic(right)
    assert q[0, 1] == 0  # one image in each cell
    assert q[0, 2] == 1
    probs = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]]], np.float32)
    found = diversity(probs, np.array([0, 1]), np.array([0.5, 0.5]))
    assert found.mean_disagreement == 0.5
    mean = probs.mean(0)
    brier = ((mean - np.eye(2)) ** 2).sum(1).mean()
    assert found.error == pytest.approx(brier)
    assert found.member_error - found.ambiguity == pytest.approx(brier)
