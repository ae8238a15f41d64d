"""Mixing: what each rule does to pixels, targets, AUs and region maps, and when it is off."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_trial import AU_GUIDED, QUICK, new_trial, timeless
from torch import Generator

from trainables.augment import AUGMENTS, MIXERS, Batch
from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.mixing import beta, cutmix, mixaugment, mixing, mixup, remix, repeated
from trainables.trial import Training, run_trial

COUNTS = np.array([90, 40, 10, 6])


def columns(n: int = 4) -> Batch:
    """Image i is column i white: the mean of column j is the share of image j."""
    return Batch(
        torch.eye(n)[:, None, None, :].expand(n, 3, n, n).contiguous(),
        torch.eye(n),
        torch.arange(n)[:, None] / n,
        torch.eye(n)[:, None, :, None].expand(n, 1, n, n).contiguous(),
        torch.arange(n)[:, None, None].expand(n, 1, 4) / n,
    )


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_keeps_the_mirror(name: str) -> None:
    before = replace(columns(), mirror=torch.tensor([0]))
    after = MIXERS[name](COUNTS, probability=1.0)(before, Generator().manual_seed(1))
    assert after.mirror is before.mirror


def test_mixup_mixes_targets_by_the_share_of_the_images() -> None:
    before = Batch(
        torch.eye(4)[:, None, None, :].expand(4, 3, 4, 4).contiguous(),
        torch.eye(4),
        torch.tensor([[1.0], [0.0], [1.0], [-1.0]]),
    )
    after = mixup(COUNTS, alpha=1.0, probability=1.0)(before, Generator().manual_seed(5))
    # image i is column i white, so the mean of column j is the share of image j: the target itself
    torch.testing.assert_close(after.images[:, 0, 0, :], after.targets)
    for target, au in zip(after.targets, after.aus, strict=True):
        if target[3] > 0:  # the image whose AU is unknown takes part
            assert au == -1
        else:
            torch.testing.assert_close(au[0], target @ torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_cutmix_targets_are_the_pixels_shares_and_aus_follow_the_regions() -> None:
    n = 8
    images = (torch.arange(n) / n)[:, None, None, None].expand(n, 3, 32, 32).contiguous()
    maps = torch.zeros(n, 2, 16, 16)
    maps[:, 0, 0:4, 0:4], maps[:, 1, 12:16, 12:16] = 1, 1
    aus = torch.arange(n)[:, None].expand(n, 2) / n
    after = cutmix(COUNTS, alpha=1.0, probability=1.0)(
        Batch(images, torch.eye(n), aus, maps), Generator().manual_seed(2)
    )
    for i in range(n):
        shares = torch.stack([(after.images[i, 0] == j / n).float().mean() for j in range(n)])
        torch.testing.assert_close(after.targets[i], shares)
        for au, patch in ((0, after.images[i, 0, :8, :8]), (1, after.images[i, 0, 24:, 24:])):
            owner = patch.flatten().mode().values
            assert after.aus[i, au] == owner


def test_mixing_off_returns_the_batch_itself() -> None:
    before = columns()
    assert mixup(COUNTS, probability=0.0)(before, Generator()) is before
    assert cutmix(COUNTS, probability=0.0)(before, Generator()) is before


def test_mixup_share_is_beta_distributed() -> None:
    g = Generator().manual_seed(0)
    draws = np.array([beta(0.2, g) for _ in range(2000)])
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.02)


@pytest.mark.parametrize("seed", range(12))
def test_remix_by_hand(seed) -> None:
    kappa, tau = 2.5, 0.4  # 90 : 40 is below kappa, 40 : 10 above, 10 : 6 below
    rule = remix(COUNTS, alpha=1.0, probability=1.0, kappa=kappa, tau=tau)
    after = rule(columns(), Generator().manual_seed(seed))
    for i, pixels in enumerate(after.images[:, 0, 0, :]):
        j = next((k for k in range(4) if k != i and pixels[k] > 0), i)
        share = float(pixels[i])  # lambda, of image i
        wanted = share
        if j != i and COUNTS[i] / COUNTS[j] >= kappa and share < tau:
            wanted = 0.0
        if j != i and COUNTS[i] / COUNTS[j] <= 1 / kappa and 1 - share < tau:
            wanted = 1.0
        target = torch.zeros(4)
        target[i] += wanted
        target[j] += 1 - wanted
        torch.testing.assert_close(after.targets[i], target)
        torch.testing.assert_close(after.aus[i, 0], pixels @ columns().aus[:, 0])


def test_remix_leans_to_the_tail_and_is_mixup_where_classes_are_as_frequent() -> None:
    mass, alike = torch.zeros(4), np.full(4, 9)
    for seed in range(300):
        one, two, plain = (
            rule(counts, alpha=1.0, probability=1.0)(columns(), Generator().manual_seed(seed))
            for rule, counts in ((remix, COUNTS), (remix, alike), (mixup, COUNTS))
        )
        torch.testing.assert_close(two.targets, plain.targets)
        assert torch.equal(one.images, plain.images)
        mass += one.targets.sum(0) / 300
    assert mass[0] < 0.9
    assert mass[3] > 1.1


def test_remix_takes_the_largest_class_of_a_soft_target() -> None:
    before = columns()
    soft = torch.tensor([[0.6, 0, 0, 0.4], [0.6, 0, 0, 0.4], [0.4, 0, 0, 0.6], [0.4, 0, 0, 0.6]])
    rule = remix(COUNTS, alpha=1.0, probability=1.0)
    seen = set()
    for seed in range(20):
        after = rule(replace(before, targets=soft), Generator().manual_seed(seed))
        seen |= {round(float(t), 3) for t in after.targets[:, 3]}
    assert {0.4, 0.6} <= seen
    assert max(seen) <= 0.6


@pytest.mark.parametrize("n", [2, 5, 6])
def test_mixaugment_is_every_real_image_and_the_blend_of_each_pair(n) -> None:
    before = columns(n)
    after = mixaugment(np.ones(n), alpha=1.0)(before, Generator().manual_seed(3))
    assert len(after.images) == n + n // 2
    torch.testing.assert_close(after.images[:, 0, 0, :], after.targets)
    real = (after.targets == 1).any(1)
    assert sorted(after.targets[real].argmax(1).tolist()) == list(range(n))
    virtual = after.targets[~real]
    assert ((virtual > 0).sum(1) == 2).all()  # of two images,
    assert ((virtual > 0).sum(0) <= 1).all()  # and each image in one pair only
    assert after.regions is not None
    assert after.boxes is not None
    torch.testing.assert_close(after.regions[:, 0, :, 0], after.targets)
    torch.testing.assert_close(after.aus[:, 0], after.targets @ before.aus[:, 0])
    whose = (after.boxes[:, 0, 0] * n).round().long()
    assert (after.targets[torch.arange(len(whose)), whose] > 0).all()


def test_the_mean_loss_of_mixaugment_is_a_third_of_the_papers_sum() -> None:
    before, weights = columns(), torch.tensor([1.0, 2.0, 5.0, 9.0])

    def losses(batch: Batch):  # anything that is not linear in the image
        return (batch.images.mean((1, 2)) @ weights).square() + (batch.targets @ weights).sqrt()

    after = mixaugment(COUNTS, alpha=1.0)(before, Generator().manual_seed(3))
    real = losses(before)
    total = 0.0
    for target in after.targets[(after.targets < 1).all(1)]:
        i, j = target.nonzero()[:, 0].tolist()
        blend = target @ before.images.flatten(1)
        virtual = Batch(blend.view(1, 3, 4, 4), target[None], torch.zeros(1, 1))
        total += float(losses(virtual) + real[i] + real[j])
    assert float(losses(after).mean()) == pytest.approx(total / 2 / 3, rel=1e-5)


def test_the_control_of_mixaugment_has_as_many_images_and_no_blend() -> None:
    before = columns(6)
    control = repeated(COUNTS)(before, Generator().manual_seed(3))
    mixed = mixaugment(COUNTS)(before, Generator().manual_seed(3))
    assert len(control.images) == len(mixed.images) == 9
    assert (control.targets.max(1).values == 1).all()
    seen = control.targets.sum(0)
    assert sorted(seen.tolist()) == [1, 1, 1, 2, 2, 2]
    order = torch.randperm(6, generator=Generator().manual_seed(3))  # not the order it came in
    assert not torch.equal(control.targets.argmax(1)[:3], order[:3])


@pytest.mark.parametrize(("off", "epochs", "still"), [(0.2, 12, 2), (0.2, 5, 1), (0.1, 10, 1),
    (0.0, 7, 0), (1.0, 3, 3), (0.3, 10, 3), (0.05, 12, 1), (0.1, 9, 1)])  # fmt: skip
def test_mixing_is_off_in_the_last_share_of_the_epochs(off, epochs, still) -> None:
    rule = mixing(Part("mixup", {"probability": 1.0}), COUNTS, off, epochs)
    before = columns()
    is_off = [rule(epoch / epochs)(before, Generator()) is before for epoch in range(epochs)]
    assert is_off == [False] * (epochs - still) + [True] * still


MIXED = {**QUICK, "mix": "mixup", "mix.alpha": 1.0, "mix.probability": 1.0}


def test_a_trial_with_mixing_off_differs_from_then_on_only_and_resumes_exactly(
    faces, tmp_path
) -> None:
    always, ends = (new_trial(tmp_path / str(off), {**MIXED, "mix_off": off}) for off in (0.0, 0.4))
    rows = [[timeless(row) for row in run_trial(trial, faces)] for trial in (always, ends)]
    assert rows[0][:2] == rows[1][:2]
    assert rows[0][2] != rows[1][2]
    broken = new_trial(tmp_path / "broken", {**MIXED, "mix_off": 0.4})
    for rest in (run_trial(broken, faces) for _ in range(2)):
        next(rest), next(rest)  # the second time the first row comes again, then another
        rest.close()
    assert [timeless(row) for row in run_trial(broken, faces)][-1] == rows[1][2]
    assert [timeless(row) for row in broken.history()] == rows[1]


def test_a_batch_that_grows_trains_on_all_of_its_images(faces) -> None:
    bundle = cache.load(faces)
    config = TrialConfig.from_flat({**QUICK, "mix": "mixaugment", "batch_size": 16})
    training = Training(config, bundle)
    (first, *_) = training.plan.feed.batches(np.arange(40), Generator().manual_seed(0))
    assert len(first.images) == 24
    row = training.run_epoch()
    assert row["images"] == len(bundle.train)
    assert math.isfinite(row["train_loss"])


@pytest.mark.parametrize(
    "rules",
    [*({"augment": name} for name in AUGMENTS), *({"mix": name} for name in MIXERS)],
    ids=lambda rules: "-".join(map("-".join, rules.items())),
)
def test_a_trial_with_regions_and_local_boxes_takes_a_step_under_every_rule(faces, rules) -> None:
    flat = {**QUICK, **AU_GUIDED, "local": "face", "batch_size": 8, **rules}
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    before = [p.detach().clone() for p in training.model.parameters()]
    training.train_on(16)
    after = list(training.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.isfinite().all() for p in after)


@pytest.mark.parametrize("name", ["mixup", "remix", "mixaugment", "repeated", "cutmix"])
def test_a_chance_of_mixing_beyond_one_is_refused(name):
    with pytest.raises(ValueError, match="probability 7 of mixing must be within 0 and 1"):
        MIXERS[name](np.array([3, 2]), probability=7)
