"""What a curriculum drives: the value in force by hand, and that the training has it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_trial import QUICK, new_trial, timeless
from torch import Generator

from search import check
from trainables.backbones import build_backbone
from trainables.config import Flat, TrialConfig, pacing_horizon
from trainables.contradictions import check_curriculum
from trainables.data import cache
from trainables.device import bring, default_device
from trainables.feed import Feed
from trainables.orders import ORDERS
from trainables.pacing import check_sizes, pace
from trainables.trial import Training, run_trial

STRIDES = (8, 16, 32)
HALF = {"curriculum": "linear", "curriculum.start": 0.2, "curriculum.full_at": 0.5}
DRIVEN: dict[str, Flat] = {  # driver -> what it needs, and its full value by default
    "data": {},
    "sampler": {"rebalance": "sampler"},
    "tau": {"loss": "balanced_softmax"},
    "au_weight": {"au_loss": "bce", "au_weight": 0.5},
    "mix": {"mix": "mixup"},
    "size": {"image_size": 48},
}


def driven(by: str, **more) -> TrialConfig:
    return TrialConfig.from_flat({**QUICK, **HALF, **DRIVEN[by], "curriculum_drives": by, **more})


@pytest.mark.parametrize(
    ("by", "more", "values"),
    [  # at progress 0, 1/4, 1/2 and 1: shares .2, .6, 1 and 1
        ("data", {}, [0.2, 0.6, 1.0, 1.0]),
        ("sampler", {"rebalance.exponent": 0.75}, [0.15, 0.45, 0.75, 0.75]),
        ("sampler", {}, [0.1, 0.3, 0.5, 0.5]),  # of the default
        ("tau", {"loss.tau": 1.5}, [0.3, 0.9, 1.5, 1.5]),
        ("au_weight", {}, [0.1, 0.3, 0.5, 0.5]),
        ("mix", {"mix.probability": 0.5}, [0.1, 0.3, 0.5, 0.5]),
        ("size", {"image_size": 224}, [48, 136, 224, 224]),  # 44.8 and 134.4, in steps of 8
        ("size", {"image_size": 64}, [32, 40, 64, 64]),  # one pixel of the coarsest map at least
        ("size", {"image_size": 100}, [32, 64, 100, 100]),
    ],
)
def test_value_in_force_by_hand(by: str, more: Flat, values: list[float]) -> None:
    config = driven(by, **more)
    found = [pace(config, p, STRIDES).value for p in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx(values)


def test_the_patches_of_a_transformer_stay_whole() -> None:
    config = driven("size", image_size=224)
    sides = {int(pace(config, p, (14, 14, 14)).value or 0) for p in np.linspace(0, 0.5, 60)}
    assert {side % 14 for side in sides} == {0}
    assert min(sides) == 42


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_each_epoch_sees_the_easiest_share_and_nothing_else(faces, order, is_reversed) -> None:
    bundle = cache.load(faces)
    votes = np.random.default_rng(0).dirichlet(np.ones(len(bundle.basic_names)), len(bundle.train))
    train = replace(bundle.train, distributions=votes.astype(np.float32))
    bundle = replace(bundle, train=train)
    config = driven("data", epochs=5, curriculum_order=order, curriculum_reversed=is_reversed)
    plan = Training(config, bundle).plan
    difficulty = ORDERS[order](bundle) * (-1 if is_reversed else 1)
    before = set[int]()
    for epoch in range(5):
        seen = set(plan.order(epoch / 5, np.random.default_rng(epoch)).tolist())
        count = round(min(1.0, 0.2 + 0.8 * epoch / 5 / 0.5) * len(train))
        assert len(seen) == count
        left = sorted(set(range(len(train))) - seen)
        assert not left or difficulty[sorted(seen)].max() <= difficulty[left].min()
        assert before <= seen  # what has been seen is seen again
        before = seen
    assert before == set(range(len(train)))


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5])
def test_sampled_class_frequencies_follow_the_exponent_in_force(faces, progress: float) -> None:
    plan = Training(driven("sampler", **{"rebalance.exponent": 1.0}), cache.load(faces)).plan
    counts, rng = plan.bundle.class_counts(), np.random.default_rng(0)
    drawn = np.concatenate([plan.order(progress, rng) for _ in range(200)])
    seen = np.bincount(plan.bundle.train.labels[drawn], minlength=len(counts)) / len(drawn)
    exponent = 0.2 + 0.8 * progress / 0.5
    np.testing.assert_allclose(seen, (w := counts ** (1 - exponent)) / w.sum(), atol=0.01)


def test_tau_in_force_shifts_the_logits(faces) -> None:
    plan = Training(driven("tau", **{"loss.tau": 2.0}), cache.load(faces)).plan
    counts = plan.bundle.class_counts()
    logits = torch.randn(3, len(counts))
    targets = torch.eye(len(counts))[:3]
    prior = torch.tensor(counts / counts.sum()).float().log()
    for progress, tau in ((0.0, 0.4), (0.25, 1.2), (0.5, 2.0), (0.9, 2.0)):
        wanted = -(targets * (logits + tau * prior).log_softmax(1)).sum(1)
        torch.testing.assert_close(plan.objective(progress).emotion(logits, targets), wanted)


def test_lambda_may_grow_from_nothing(faces, tmp_path) -> None:
    config = driven("au_weight", **{"curriculum.start": 0.0, "curriculum.full_at": 0.9})
    trial = new_trial(tmp_path, config.flat())
    rows = list(run_trial(trial, faces))
    assert rows[0]["curriculum_value"] == 0
    assert "lambda" not in rows[0]
    assert "au_loss" in rows[0]
    assert rows[-1]["lambda"] > 0
    assert rows[-1]["gradient_ratio"] > 0


def test_a_curriculum_over_the_data_cannot_start_from_no_image() -> None:
    with pytest.raises(ValueError, match="from 0 on, which is no image"):
        check_curriculum(driven("data", **{"curriculum.start": 0.0}))


def test_classes_that_are_withheld_are_not_taught_to_be_absent(faces) -> None:
    taught = {"loss": "cross_entropy", "loss.smoothing": 0.2}
    config = driven("data", **{"curriculum.start": 0.4, **taught})
    plan = Training(config, cache.load(faces)).plan
    labels = plan.bundle.train.labels
    shown = np.unique(labels[plan.order(0.0, np.random.default_rng(0))])
    counts = plan.bundle.class_counts()
    assert 2 <= len(shown) < (counts > 0).sum()
    logits = torch.randn(3, len(counts), requires_grad=True)
    targets = torch.eye(len(counts))[torch.from_numpy(shown[:2])][[0, 1, 0]]
    found = plan.objective(0.0).emotion(*(bring(t, default_device()) for t in (logits, targets)))
    some = torch.from_numpy(shown)
    goal = 0.8 * targets[:, some] + 0.2 / len(some)
    wanted = -(goal * logits[:, some].log_softmax(1)).sum(1)
    torch.testing.assert_close(found.cpu(), wanted)
    found.sum().backward()
    is_moved = logits.grad.abs().sum(0) > 0
    assert is_moved.nonzero()[:, 0].tolist() == shown.tolist()
    whole = plan.objective(0.5).emotion(logits, targets)  # from then on nothing is withheld
    goal = 0.8 * targets + 0.2 / len(counts)
    torch.testing.assert_close(whole, -(goal * logits.log_softmax(1)).sum(1))


def test_of_one_class_alone_nothing_is_masked(faces) -> None:
    plan = Training(driven("data", **{"curriculum.start": 0.02}), cache.load(faces)).plan
    logits = torch.randn(2, len(plan.bundle.class_names))
    targets = torch.eye(logits.shape[1])[:2]
    wanted = -(targets * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(plan.objective(0.0).emotion(logits, targets), wanted)


def test_reweighting_deferred_into_the_last_epoch_acts_in_it(faces) -> None:
    flat = {**QUICK, "epochs": 9, "rebalance": "deferred", "rebalance.start": 0.9}
    plan = Training(TrialConfig.from_flat(flat), cache.load(faces)).plan
    acts = [bool((plan.objective(e / 9).class_weights != 1).any()) for e in range(9)]
    assert acts == [False] * 8 + [True]


def test_mixing_in_force_happens_as_often_as_it_says(faces) -> None:
    plan = Training(driven("mix", **{"mix.probability": 1.0, "augment": "none"}), cache.load(faces))
    targets, order = plan.plan, np.arange(32)

    def mixed(progress: float) -> float:
        found = [
            any(((b.targets > 0).sum(1) > 1).tolist())
            for seed in range(100)
            for b in targets.batches(progress, order, Generator().manual_seed(seed))
        ]
        return float(np.mean(found))

    for progress, chance in ((0.0, 0.2), (0.25, 0.6), (0.5, 1.0)):
        assert mixed(progress) == pytest.approx(chance, abs=0.11)


def test_a_growing_size_trains_on_small_images_and_is_scored_at_full_size(
    faces, monkeypatch
) -> None:
    training = Training(driven("size", **{"curriculum.full_at": 0.3}), cache.load(faces))
    sides: dict[bool, set[int]] = {True: set(), False: set()}
    forward = type(training.model).forward

    def watched(self, images, boxes=None):
        sides[self.training].add(images.shape[-1])
        return forward(self, images, boxes)

    monkeypatch.setattr(type(training.model), "forward", watched)
    monkeypatch.setattr("trainables.cost.latency_ms", lambda *_: 1.0)
    row = training.run_epoch()
    assert sides == {True: {24}, False: {48}}
    assert row["curriculum_value"] == 24
    row = training.run_epoch()  # a third, where it is full
    assert sides == {True: {24, 48}, False: {48}}
    assert row["curriculum_value"] == 48


def test_a_smaller_image_shows_the_same_face(faces) -> None:
    bundle = cache.load(faces)
    config = driven("size", augment="none")
    plan = Training(config, bundle).plan
    (small,) = plan.batches(0.0, np.arange(8), Generator())
    whole = torch.from_numpy(np.array(bundle.train.images[:8])).float() / 255
    assert small.images.shape == (8, 3, 24, 24)
    coarse = torch.nn.functional.adaptive_avg_pool2d
    torch.testing.assert_close(coarse(small.images.cpu(), 8), coarse(whole, 8), atol=0.05, rtol=0)


def test_a_transformer_takes_smaller_images_when_it_has_to(faces) -> None:
    config = driven("size", backbone="vit_tiny_patch16_224")
    training = Training(config, cache.load(faces))
    assert training.plan.pace(0.0).settings.image_size == 16
    training.model.eval().cpu()
    assert training.model(torch.zeros(1, 3, 16, 16)).logits.isfinite().all()
    plain = build_backbone("vit_tiny_patch16_224", 48).eval()
    with pytest.raises(AssertionError, match="16"):
        plain(torch.zeros(1, 3, 16, 16))


def test_a_network_of_one_size_is_refused_with_its_reason(faces) -> None:
    model = Training(driven("size"), cache.load(faces)).model

    def stiff(images: torch.Tensor) -> None:
        raise RuntimeError("maps of 3 x 3 only")

    model.backbone.forward = stiff  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="would train at 24 px, and .* 3 only. Raise curriculum.s"):
        check_sizes(model, driven("size"))


@pytest.mark.parametrize("by", DRIVEN)
def test_a_driver_changes_the_training_and_is_told(faces, by: str) -> None:
    bundle = cache.load(faces)
    plain = {k: v for k, v in driven(by).flat().items() if not k.startswith("curriculum")}
    one, other = (
        Training(config, bundle).run_epoch()
        for config in (driven(by), TrialConfig.from_flat(plain))
    )
    assert one["train_loss"] != other["train_loss"]
    assert "curriculum_value" in one
    assert "curriculum_value" not in other


@pytest.mark.parametrize("by", ["data", "tau", "mix", "size"])  # one of each place it acts in
def test_a_driven_training_resumes_exactly(faces, tmp_path, by: str) -> None:
    flat = {**HALF, **DRIVEN[by], "curriculum_drives": by, "curriculum.full_at": 0.7}
    wanted = [timeless(row) for row in run_trial(new_trial(tmp_path / "a", flat), faces)]
    broken = new_trial(tmp_path / "b", flat)
    next(run_trial(broken, faces))
    assert [timeless(row) for row in run_trial(broken, faces)] == wanted
    assert len({row["curriculum_value"] for row in wanted}) > 1


# --- what is refused, and when a trial is judged --------------------------------------------------


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"curriculum_drives": "tau"}, "drives 'tau', which needs loss 'balanced_softmax', not"),
        ({"curriculum_drives": "sampler", "rebalance": "deferred"}, "needs rebalance 'sampler'"),
        ({"curriculum_drives": "mix"}, "which needs mix a mixing rule, not 'none'"),
        ({"curriculum_drives": "au_weight"}, "which needs AU supervision, and this trial has none"),
        (
            {"curriculum_drives": "au_weight", "au_loss": "bce", "au_weight": 0.1,
             "au_balance": "gradnorm"},
            "au_balance 'gradnorm' learns that weight",
        ),
        ({"curriculum_drives": "size", "curriculum_order": "random"}, "an order .* is for 'data'"),
        ({"curriculum_drives": "size", "curriculum_reversed": True}, "an order .* is for 'data'"),
    ],
)  # fmt: skip
def test_a_driver_of_what_is_not_there_is_refused(flat: Flat, message: str) -> None:
    settings = {"backbone": "small_resnet", **flat}
    check.check_settings(settings)  # without a curriculum nothing is driven
    with pytest.raises(ValueError, match=message):
        check.check_settings({**settings, "curriculum": "linear"})


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(LookupError, match="unknown curriculum driver 'lambda'.*au_weight"):
        check.check_settings({"backbone": "small_resnet", "curriculum_drives": "lambda"})


@pytest.mark.parametrize("by", DRIVEN)
def test_a_trial_is_judged_when_its_curriculum_is_over(by: str) -> None:
    config = replace(driven(by), epochs=10, warmup_epochs=0.0)
    check_curriculum(config)
    assert pacing_horizon(config) == 5
    full = pace(config, 1.0, STRIDES)
    assert pace(config, pacing_horizon(config) / 10, STRIDES) == full
    assert pace(config, 4 / 10, STRIDES) != full


def test_basics_first_are_judged_after_an_epoch_of_the_classes() -> None:
    flat: Flat = {"epochs": 10, "warmup_epochs": 0.0, "basics": "three_stage"}
    assert pacing_horizon(TrialConfig.from_flat(flat)) == 3  # a tenth and a tenth, and one
    flat |= {"basics.first": 0.25, "basics.second": 0.2}
    assert pacing_horizon(TrialConfig.from_flat(flat)) == math.ceil(4.5) + 1
    flat = {"epochs": 10, "warmup_epochs": 0.0, "basics": "two_stage", "basics.first": 0.3}
    assert pacing_horizon(TrialConfig.from_flat(flat)) == 4


def test_an_average_over_the_tail_is_judged_like_any_other() -> None:
    flat: Flat = {"epochs": 10, "warmup_epochs": 0.0, "average": "swa"}
    assert pacing_horizon(TrialConfig.from_flat(flat)) == 0


def test_images_are_as_they_are_unless_size_is_driven(faces) -> None:
    feed = Training(TrialConfig.from_flat(QUICK), cache.load(faces)).plan.feed
    assert isinstance(feed, Feed)
    assert feed.size == 0
