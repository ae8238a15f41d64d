"""What techniques go with: known worlds, confounding, what cannot be told."""

import numpy as np
import pandas as pd
import pytest

from analysis.contributions import Contribution, contributions, regressed, welch
from analysis.importance import Target


def world(
    trials: int, rng: np.random.Generator, effect: float = 0.05, together: float = 0.5
) -> tuple[pd.DataFrame, Target]:
    """Attention adds `effect`, the loss 0.1; the two go together more often than not, if asked."""
    loss = rng.choice(["cross_entropy", "focal"], trials)
    same = rng.random(trials) < together
    attention = np.where((loss == "focal") == same, "se", "none")
    lr = 10 ** rng.uniform(-4, -2, trials)
    noise = rng.normal(0, 0.02, trials)
    score = 0.5 + effect * (attention == "se") + 0.1 * (loss == "focal") + noise
    score -= 0.02 * (np.log10(lr) + 3) ** 2
    names = [f"t{n}" for n in range(trials)]
    table = pd.DataFrame(
        {"trial": names, "setting loss": loss, "setting attention": attention, "setting lr": lr}
    )
    return table, Target(dict(zip(names, score.tolist(), strict=True)))


SETTINGS = ["loss", "attention", "lr", "seed"]
BASE = {"loss": "cross_entropy", "attention": "none"}


def of(found: list[Contribution], setting: str) -> Contribution:
    return next(c for c in found if c.setting == setting)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        table, target = world(60, np.random.default_rng(seed))
        adjusted = of(contributions(table, SETTINGS, target, BASE), "attention").adjusted
        assert adjusted is not None
        held += adjusted.low < 0.05 < adjusted.high
    assert 180 <= held <= 198


def test_what_came_with_something_else_is_not_credited_with_its_effect() -> None:
    table, target = world(200, np.random.default_rng(0), effect=0.0, together=0.9)
    row = of(contributions(table, SETTINGS, target, BASE), "attention")
    assert row.plain.low > 0.05  # what the loss did
    assert row.adjusted is not None
    assert row.adjusted.low < 0 < row.adjusted.high


def test_what_always_came_together_is_not_told_apart() -> None:
    table, target = world(80, np.random.default_rng(0), together=1.0)
    assert [c.adjusted for c in contributions(table, SETTINGS, target, BASE)] == [None, None]


def test_options_are_against_what_the_baseline_has() -> None:
    table, target = world(60, np.random.default_rng(0))
    found = contributions(table, SETTINGS, target, BASE)
    assert {(c.setting, c.option, c.against) for c in found} == {
        ("loss", "focal", "cross_entropy"),
        ("attention", "se", "none"),
    }
    turned = contributions(table, SETTINGS, target, {"loss": "focal", "attention": "se"})
    one, other = of(found, "loss").adjusted, of(turned, "loss").adjusted
    assert one is not None
    assert other is not None
    assert one.value == pytest.approx(-other.value)


def test_an_option_of_few_trials_is_left_out_and_few_trials_have_no_adjusted_difference() -> None:
    table, target = world(40, np.random.default_rng(0))
    table.loc[:3, "setting loss"] = "ldam"
    assert "ldam" not in {c.option for c in contributions(table, SETTINGS, target, BASE)}
    few, target = world(14, np.random.default_rng(3))
    found = contributions(few, SETTINGS, target, BASE)
    assert found
    assert all(c.adjusted is None for c in found)
    assert contributions(few.head(0), SETTINGS, target, BASE) == []


def test_regression_of_two_groups_is_their_difference_of_means() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 30)
    scores = rng.normal(group, 1.0)
    found = regressed(np.stack([np.ones(60), group], 1), scores)[1]
    plain = welch(scores[30:], scores[:30])
    assert found.value == pytest.approx(plain.value)
    assert found.low == pytest.approx(plain.low, abs=0.05)


def test_welch_by_hand() -> None:
    # means 2 and 0, variances 1 and 1, three each: standard error sqrt(2/3), 4 degrees of freedom
    found = welch(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.0, 1.0]))
    assert found.value == pytest.approx(2)
    assert found.high - 2 == pytest.approx(2.776445 * np.sqrt(2 / 3), rel=1e-5)
