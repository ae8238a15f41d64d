"""Trial configurations: flat round trip, identity, refusals."""

import pytest

from trainables.config import LOSSES_THAT_REBALANCE, Part, TrialConfig
from trainables.contradictions import check_rebalancing

FLAT = {"loss": "focal", "loss.gamma": 2.0, "lr": 0.01, "seed": 3}


def test_flat_form_reads_back() -> None:
    config = TrialConfig.from_flat(FLAT)
    assert config.loss == Part("focal", {"gamma": 2.0})
    assert TrialConfig.from_flat(config.flat()) == config


def test_identity_is_content_not_order() -> None:
    shuffled = dict(reversed(FLAT.items()))
    assert TrialConfig.from_flat(FLAT).trial_id == TrialConfig.from_flat(shuffled).trial_id
    assert (
        TrialConfig.from_flat({**FLAT, "lr": 0.02}).trial_id != TrialConfig.from_flat(FLAT).trial_id
    )


def test_group_ignores_seed_and_fold_only() -> None:
    one, other = (TrialConfig.from_flat({**FLAT, "seed": s, "fold": s}) for s in (0, 1))
    assert one.trial_id != other.trial_id
    assert one.group_id == other.group_id
    assert one.group_id != TrialConfig.from_flat({**FLAT, "lr": 0.5}).group_id


@pytest.mark.parametrize(
    ("flat", "error", "message"),
    [
        ({"los": "focal"}, LookupError, "Did you mean 'loss'"),
        ({"lr.x": 1}, LookupError, "unknown setting 'lr.x'"),
        ({"loss.gamma": 1.0}, LookupError, "not set"),
        ({"lr": "fast"}, TypeError, "'lr' wants float"),
        ({"epochs": 1.5}, TypeError, "'epochs' wants int"),
        ({"epochs": True}, TypeError, "'epochs' wants int"),
    ],
)
def test_a_bad_setting_is_refused(flat, error, message) -> None:
    with pytest.raises(error, match=message):
        TrialConfig.from_flat(flat)


def test_an_integer_is_accepted_where_a_float_is_wanted() -> None:
    assert TrialConfig.from_flat({"lr": 1}) == TrialConfig.from_flat({"lr": 1.0})


@pytest.mark.parametrize("loss", ["class_balanced", "balanced_softmax", "ldam"])
@pytest.mark.parametrize("rebalance", ["deferred", "sampler"])
def test_two_imbalance_corrections_are_refused(loss: str, rebalance: str) -> None:
    with pytest.raises(ValueError, match="two corrections multiply"):
        check_rebalancing(TrialConfig(loss=Part(loss), rebalance=Part(rebalance)))


def test_one_imbalance_correction_is_fine() -> None:
    for config in (
        TrialConfig(loss=Part("focal"), rebalance=Part("sampler")),
        TrialConfig(loss=Part("ldam")),
    ):
        check_rebalancing(config)  # raises when there are two
        assert (config.loss.name in LOSSES_THAT_REBALANCE) != (config.rebalance.name != "none")
