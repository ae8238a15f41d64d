"""Classifiers on features: each formula by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from test_contracts_features import CONFIG, examples, lesson_of
from torch import nn

from trainables.config import TrialConfig
from trainables.features import linear as heads
from trainables.features import nearest, shallow
from trainables.features.descent import Descent, Teaching, descend, train_head
from trainables.features.examples import Examples, joined
from trainables.features.plugins import CLASSIFIERS
from trainables.rebalance import REBALANCE


def fitted(name: str, seen: Examples, flat=None, seed: int = 0, **args):
    config = TrialConfig.from_flat({**CONFIG.flat(), **(flat or {})})
    return CLASSIFIERS[name](**args)(lesson_of(seen, config), np.random.default_rng(seed))


def rows(features, labels, pairs=None, basics: int = 0, classes: int | None = None) -> Examples:
    labels = np.array(labels, np.int64)
    k = classes or int(labels.max()) + 1
    targets = np.eye(k, dtype=np.float32)[labels]
    return Examples(np.array(features, np.float32), targets, labels, pairs, basics)


# --- heads by descent ----------------------------------------------------------------------------


def test_a_linear_head_reaches_the_solution_of_logistic_regression() -> None:
    seen = examples((60, 50, 40, 30), dim=3)
    one = fitted("linear", seen, {"lr": 0.05, "weight_decay": 0.0}, passes=60)
    other = shallow.logistic(c=1e4, pca=1.0)(lesson_of(seen), np.random.default_rng(0))
    agree = one.probs(seen.features).argmax(1) == other.probs(seen.features).argmax(1)
    assert agree.mean() > 0.97


def test_the_linear_head_is_the_one_of_the_configuration() -> None:
    seen = examples()
    assert set(fitted("linear", seen).tensors) == {"weight", "bias"}
    cosine = fitted("linear", seen, {"head": "cosine", "head.scale": 8.0})
    assert set(cosine.tensors) == {"weight"}
    unit = seen.features[:1] / np.linalg.norm(seen.features[:1])
    w = cosine.tensors["weight"]
    logits = 8.0 * unit @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    np.testing.assert_allclose(
        cosine.probs(seen.features[:1]), nearest.softmax(logits), rtol=1e-4, atol=1e-6
    )
    assert "basic.weight" in fitted("linear", seen, {"head": "additive"}).tensors


def test_the_loss_of_the_configuration_is_what_trains() -> None:
    seen = examples((200, 10, 10, 10), dim=2)  # too narrow to be told apart
    plain = fitted("linear", seen).probs(seen.features).argmax(1)
    flat = {"loss": "balanced_softmax", "loss.tau": 2.0}
    corrected = fitted("linear", seen, flat).probs(seen.features).argmax(1)
    assert (corrected == 0).sum() < (plain == 0).sum()


def test_soft_targets_are_what_is_taught() -> None:
    seen = examples()
    flat = np.full_like(seen.targets, 1 / seen.classes)
    probs = fitted("linear", replace(seen, targets=flat)).probs(seen.features)
    np.testing.assert_allclose(probs, 1 / seen.classes, atol=0.02)


def test_one_step_of_descent_by_hand() -> None:
    # a single weight at 1 with loss w^2 / 2: SGD of rate .5 at the start of a cosine
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    descend(module, lambda at, p: module.weight.square().sum() / 2, lambda p: np.arange(4),
            Descent(1, "sgd", 4, 0.5, 0.0))  # fmt: skip
    assert module.weight.item() == pytest.approx(1 - 0.5 * 0.01)  # the rate has only begun to rise


def test_a_loss_that_is_not_finite_is_told() -> None:
    module = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="loss is nan in pass 1"):
        descend(module, lambda at, p: module.weight.sum() * torch.nan, lambda p: np.arange(4),
                Descent(1, "adamw", 4, 0.5, 0.0))  # fmt: skip


def test_rows_are_drawn_by_the_sampler() -> None:
    seen = examples((300, 20), dim=2)
    drawn: list[int] = []

    class Spy(nn.Linear):
        def forward(self, x):
            drawn.extend((x @ torch.ones(2)).tolist())
            return super().forward(x)

    labelled = replace(seen, features=np.stack([seen.labels, 0 * seen.labels], 1).astype("f4"))
    balanced = REBALANCE["sampler"](seen.counts(), exponent=1.0)
    teaching = replace(Teaching.of(CONFIG, seen.counts()), rebalance=balanced)
    how = Descent(3, "adamw", 64, 0.01, 0.0)
    train_head(Spy(2, 2), labelled, teaching, how, np.random.default_rng(0))
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("name", "bad"), [("linear", {"optimizer": "adma"}),
                                           ("linear", {"passes": 0})])  # fmt: skip
def test_descent_that_cannot_be_is_refused(name, bad) -> None:
    with pytest.raises((LookupError, ValueError), match="adamw|passes 0"):
        fitted(name, examples(), **bad)


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_more_work_than_a_lifetime_is_refused_when_it_is_built(name) -> None:
    known = CLASSIFIERS.arguments(name)
    for argument in {"passes", "rescaling", "episodes", "width", "inner_steps"} & set(known):
        for count in (1e9, 10**9, -1, 1.5):
            with pytest.raises(ValueError, match="give"):
                CLASSIFIERS[name](**{argument: count})


# --- decoupled heads -----------------------------------------------------------------------------


def test_rows_over_their_norm_by_hand() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert torch.allclose(heads.normalised(weight, 0.0), weight)
    # norms 5 and 1: factors .2 and 1, over their mean .6
    wanted = torch.tensor([[3.0, 4.0], [0.0, 1.0]]) * torch.tensor([[0.2], [1.0]]) / 0.6
    assert torch.allclose(heads.normalised(weight, 1.0), wanted)


def test_tau_of_zero_is_the_head_itself_and_one_makes_norms_equal() -> None:
    seen = examples((80, 40, 8, 4))
    own, scaled = (fitted("tau_norm", seen, tau=tau).tensors["weight"] for tau in (0.0, 1.0))
    norms = np.linalg.norm(scaled, axis=1)
    np.testing.assert_allclose(norms, norms.mean(), rtol=1e-4)
    cosines = (own * scaled).sum(1) / np.linalg.norm(own, axis=1) / norms
    np.testing.assert_allclose(cosines, 1, rtol=1e-4)
    assert np.linalg.norm(own, axis=1).std() > 0.05 * norms.mean()


def test_tau_norm_sees_features_as_they_were_before_centring() -> None:
    seen = examples()
    found = fitted("tau_norm", seen, tau=0.0)
    logits = (seen.features[:3] + 1.0) @ found.tensors["weight"].T  # the lesson's center is 1
    np.testing.assert_allclose(found.probs(seen.features[:3]), nearest.softmax(logits), rtol=1e-4)


def test_retraining_on_balanced_classes_finds_the_rare() -> None:
    seen = examples((300, 12, 12, 12), dim=2)
    control, balanced = (
        fitted("crt", seen, exponent=e).probs(seen.features).argmax(1) for e in (0.0, 1.0)
    )
    rare = seen.labels > 0
    assert (balanced[rare] == seen.labels[rare]).mean() > (
        control[rare] == seen.labels[rare]
    ).mean()


def test_retraining_at_exponent_zero_is_the_plain_head() -> None:
    seen = examples()
    one = fitted("crt", seen, exponent=0.0, passes=20).probs(seen.features)
    other = fitted("linear", seen, passes=20).probs(seen.features)
    assert (one.argmax(1) == other.argmax(1)).mean() > 0.97  # drawn with and without replacement
    assert np.abs(one - other).mean() < 0.1


def test_scaling_only_scales() -> None:
    seen = examples((100, 30, 8, 4))
    plain = fitted("lws", seen, rescaling=0)
    scaled = fitted("lws", seen, rescaling=10)
    np.testing.assert_array_equal(plain.tensors["scale"], 1)
    for name in ("head.weight", "head.bias"):
        np.testing.assert_array_equal(plain.tensors[name], scaled.tensors[name])
    assert np.abs(scaled.tensors["scale"] - 1).max() > 0.01
    t = scaled.tensors
    logits = t["scale"] * (seen.features[:4] @ t["head.weight"].T + t["head.bias"])
    np.testing.assert_allclose(scaled.probs(seen.features[:4]), nearest.softmax(logits), rtol=1e-4)


# --- prototypes ----------------------------------------------------------------------------------

PAIRS = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3))


def test_prototypes_by_hand() -> None:
    seen = rows([[0, 0], [2, 0], [0, 4]], [0, 0, 1])
    found = fitted("prototypes", seen, distance="euclidean", temperature=2.0, shrink=0.0)
    np.testing.assert_allclose(found.tensors["prototypes"], [[1, 0], [0, 4]])
    # squared distances of (1, 2) are 4 and 5, over D = 2 and over the temperature: 1 and 1.25
    wanted = np.exp([-1.0, -1.25]) / np.exp([-1.0, -1.25]).sum()
    np.testing.assert_allclose(found.probs(np.array([[1, 2]], np.float32))[0], wanted, rtol=1e-5)
    cosine = fitted("prototypes", seen, temperature=0.5, shrink=0.0)
    wanted = np.exp([-0.0, -2.0]) / np.exp([-0.0, -2.0]).sum()  # (1, 0) and the two: 1 - 1, 1 - 0
    np.testing.assert_allclose(cosine.probs(np.array([[1, 0]], np.float32))[0], wanted, rtol=1e-5)


def test_prototypes_shrink_by_hand_to_what_pairs_say() -> None:
    # u0 = 1, u1 = 2, u2 = 3, u3 = 4 told exactly by four classes of 1000; the fifth says 9, not 6
    means = np.array([3.0, 4.0, 5.0, 5.0, 9.0])
    labels = np.repeat(np.arange(5), [1000, 1000, 1000, 1000, 1])
    seen = rows(means[labels][:, None], labels, PAIRS, 4)
    found = nearest.shrunk_means(lesson_of(seen), 10.0)[:, 0]
    np.testing.assert_allclose(found[:4], means[:4], atol=0.01)
    assert found[4] == pytest.approx((1 * 9 + 10 * 6) / 11, abs=0.01)
    np.testing.assert_allclose(nearest.shrunk_means(lesson_of(seen), 0.0)[:, 0], means)


def test_prototypes_of_absent_classes_raise_unless_pairs_tell_them() -> None:
    labels = np.repeat(np.arange(4), 5)
    seen = rows(np.array([3.0, 4.0, 5.0, 5.0])[labels][:, None], labels, PAIRS, 4, classes=5)
    assert nearest.shrunk_means(lesson_of(seen), 5.0)[4, 0] == pytest.approx(6.0)
    with pytest.raises(ValueError, match="no training image of class 4"):
        fitted("prototypes", seen, shrink=0.0)
    single = replace(seen, components=None)
    with pytest.raises(ValueError, match="no training image of class 4"):
        fitted("prototypes", single, shrink=5.0)
    untold = replace(seen, components=(*PAIRS[:4], (2, 4)), basics=5)  # emotion 4 is in no other
    with pytest.raises(ValueError, match="no training image of class 4"):
        fitted("prototypes", untold, shrink=5.0)


def test_single_emotions_are_not_shrunk() -> None:
    seen = replace(examples(), components=None)
    one, other = (fitted("prototypes", seen, shrink=k).tensors["prototypes"] for k in (0.0, 9.0))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [{"distance": "cosin"}, {"temperature": 0.0}, {"shrink": -1.0}])
def test_prototypes_that_cannot_be_are_refused(bad) -> None:
    with pytest.raises((LookupError, ValueError)):
        CLASSIFIERS["prototypes"](**bad)


# --- episodes ------------------------------------------------------------------------------------


def test_an_episode_never_shows_an_image_as_support_and_as_query() -> None:
    seen = examples((30, 20, 10, 4))
    draw = nearest.Episodes.of(lesson_of(seen), 3, 2, 4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        support, query, labels = (v.numpy() for v in draw.episode(rng))
        assert not set(support.reshape(-1)) & set(query)
        assert support.shape == (3, 2)
        assert len(query) == 12
        of = seen.labels[support[:, 0]]
        assert (seen.labels[support] == of[:, None]).all()
        np.testing.assert_array_equal(seen.labels[query], of[labels])
        assert 3 not in of  # of 4 images, and 6 are needed


def test_an_image_and_its_mirror_image_are_never_in_one_episode() -> None:
    once = examples((8, 8))
    made = rows(once.features[:3] + 9, once.labels[:3], classes=2)
    lesson = replace(lesson_of(once), seen=joined([once, once, made]), counts=np.array([11, 8]))
    views = lesson.views()
    assert views.tolist() == [[k, 16 + k] for k in range(16)] + [[k, k] for k in (32, 33, 34)]
    draw, rng, drawn = nearest.Episodes.of(lesson, 2, 2, 6), np.random.default_rng(0), set()
    for _ in range(20):
        support, query, _ = (v.numpy().reshape(-1) for v in draw.episode(rng))
        both = np.concatenate([support, query])
        images = np.where(both < 32, both % 16, both)
        assert len(set(images)) == len(both) == 16
        drawn |= set(both)
    assert drawn == set(range(35))  # each view of each image has its turn


def test_classes_too_small_for_episodes_have_a_prototype_all_the_same() -> None:
    seen = examples((40, 40, 40, 4))
    found = fitted("protonet", seen, episodes=50)
    assert found.tensors["prototypes"].shape == (4, 64)
    assert (found.probs(seen.features)[seen.labels == 3].argmax(1) == 3).mean() > 0.5


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_episodes_without_two_able_classes_are_refused(name) -> None:
    with pytest.raises(ValueError, match="two classes that have as many, and there are 1"):
        fitted(name, examples((40, 8, 8, 8)))
    with pytest.raises(ValueError, match="2 or more ways"):
        CLASSIFIERS[name](ways=1)


def test_an_embedding_learned_by_episodes_drops_what_is_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    told = np.eye(3)[labels] + 0.2 * rng.normal(size=(180, 3))
    noise = 3 * rng.normal(size=(180, 20))
    seen = rows(np.concatenate([told, noise], 1), labels)
    held = np.concatenate([np.eye(3)[labels], 3 * rng.normal(size=(180, 20))], 1).astype("f4")
    plain = fitted("prototypes", seen, distance="euclidean", shrink=0.0).probs(held).argmax(1)
    found = fitted("protonet", seen, {"lr": 0.01}, episodes=300, ways=3).probs(held).argmax(1)
    assert (found == labels).mean() > (plain == labels).mean() + 0.1


def test_adapting_by_hand() -> None:
    # loss w^2: a step of rate .1 takes w to .8 w, and its derivative by the start is .8
    from trainables.features.maml import adapt

    start = {"w": torch.tensor([2.0], requires_grad=True)}
    end = adapt(start, lambda p: p["w"].square().sum(), 0.1, 2)["w"]
    assert end.item() == pytest.approx(2 * 0.8**2)
    (slope,) = torch.autograd.grad(end.sum(), start["w"])
    assert slope.item() == pytest.approx(0.8**2)


# --- scikit-learn --------------------------------------------------------------------------------


def test_principal_components_hold_their_share() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([10.0, 5.0, 1.0, 0.1])
    features = (rng.normal(size=(500, 4)) * scales).astype(np.float32)
    assert shallow.principal(features, 1.0, rng) is None  # as they are
    for share, wanted in ((0.75, 1), (0.95, 2), (0.9999, 3)):
        turn = shallow.principal(features, share, rng)
        assert turn.shape == (4, wanted)
        held = (features @ turn).var(0).sum() / features.var(0).sum()
        assert held >= share - 1e-3
    np.testing.assert_allclose(np.abs(turn[:, 0]), [1, 0, 0, 0], atol=0.05)


@pytest.mark.parametrize("name", ["logistic", "svm", "lda"])
def test_a_class_without_images_gets_no_chance_from_shallow_classifiers(name) -> None:
    seen = rows(examples((30, 30, 0, 30)).features, examples((30, 30, 0, 30)).labels, classes=4)
    probs = fitted(name, seen).probs(seen.features)
    assert (probs[:, 2] == 0).all()
    assert (probs.argmax(1) == seen.labels).mean() > 0.9


@pytest.mark.parametrize("name", ["logistic", "svm", "lda"])
def test_balanced_shallow_classifiers_find_more_of_the_rare(name) -> None:
    seen = examples((300, 12, 12, 12), dim=2)
    plain, balanced = (
        fitted(name, seen, balanced=b).probs(seen.features).argmax(1) for b in (False, True)
    )
    rare = seen.labels > 0
    assert (balanced[rare] == seen.labels[rare]).sum() > (plain[rare] == seen.labels[rare]).sum()


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize(("dim", "shrinkage"), [(6, 0.0), (6, 0.1), (90, 0.1), (90, 1.0)])
def test_discriminant_analysis_is_that_of_scikit_learn(dim, shrinkage, is_balanced) -> None:
    seen = examples((20, 30, 10), dim=dim)  # 90 features are more than rows
    priors = np.full(3, 1 / 3) if is_balanced else None
    known = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=priors)
    known.fit(seen.features.astype(np.float64), seen.labels)
    found = fitted("lda", seen, shrinkage=shrinkage, pca=1.0, balanced=is_balanced)
    wanted = known.predict_proba(seen.features)
    np.testing.assert_allclose(found.probs(seen.features), wanted, atol=1e-4)
    np.testing.assert_allclose(found.tensors["coef"], known.coef_, rtol=1e-4, atol=1e-4)
    assert set(found.tensors) == {"coef", "intercept"}


def test_discriminant_analysis_of_more_features_than_rows_needs_no_shrinkage() -> None:
    seen = examples((20, 30, 10), dim=90)
    found = fitted("lda", seen, shrinkage=0.0, pca=1.0)
    assert (found.probs(seen.features).argmax(1) == seen.labels).mean() > 0.9
    assert (
        np.abs(found.tensors["coef"]).max() < 10
    )  # scikit-learn's are of 1e14: rounding, blown up


def test_two_classes_have_two_margins() -> None:
    seen = rows([[-1, 0], [-2, 1], [1, 0], [2, 1]], [0, 0, 1, 1])
    probs = fitted("svm", seen, c=1.0, pca=1.0).probs(seen.features)
    assert probs.shape == (4, 2)
    assert probs.argmax(1).tolist() == [0, 0, 1, 1]
