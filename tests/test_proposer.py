"""Contracts that every sampler keeps, and the order and repetition of proposals."""

import optuna
import pytest
from toy import EPOCHS, SPACE, flat, quality

from search.proposer import REPEATS, SAMPLERS, OptunaProposer, own_value, params_of
from spaces.space import Choice, IntRange, LogUniform, Space
from trainables.config import TrialConfig

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def curve(config, epochs=EPOCHS):
    return [{"epoch": e, "score": quality(config) * e / EPOCHS} for e in range(1, epochs + 1)]


def ending(config, index):
    """Every third trial is stopped, every seventh fails: samplers must cope with all."""
    if index % 7 == 6:
        return [], "failed"
    return (curve(config, 3), "stopped") if index % 3 == 2 else (curve(config), "completed")


def propose(proposer, trials):
    """The configurations of a sequential run, each told before the next is asked."""
    configs = []
    for index in range(trials):
        config = proposer.ask().config
        proposer.tell(config.trial_id, *ending(config, index))
        configs.append(config)
    return configs


def restarted(sampler, configs, **options):
    proposer = OptunaProposer(SPACE, sampler, seed=3, **options)
    for index, config in enumerate(configs):
        proposer.reopen(config.flat())
        proposer.tell(config.trial_id, *ending(config, index))
    return proposer


@every_sampler
def test_proposals_are_new_and_lie_in_the_space(sampler):
    configs = propose(OptunaProposer(SPACE, sampler, seed=3, budget=24), 24)
    assert len({c.trial_id for c in configs}) == 24
    for config in configs:
        assert params_of(SPACE, config) is not None
        assert set(config.loss.args) == ({"gamma"} if config.loss.name == "focal" else set())
    assert {c.loss.name for c in configs} == {"cross_entropy", "focal"}


@every_sampler
def test_the_same_seed_proposes_the_same_and_another_seed_does_not(sampler):
    one, same, other = (
        propose(OptunaProposer(SPACE, sampler, seed=s, budget=16), 12) for s in (3, 3, 4)
    )
    assert one == same
    assert one != other


@every_sampler
@pytest.mark.parametrize("cut", [1, 9, 17])
def test_a_restart_proposes_what_would_have_come(sampler, cut):
    straight = propose(OptunaProposer(SPACE, sampler, seed=3, budget=24), 24)
    resumed = restarted(sampler, straight[:cut], budget=24)
    for index in range(cut, 24):
        config = resumed.ask().config
        assert config == straight[index]
        resumed.tell(config.trial_id, *ending(config, index))


@every_sampler
def test_many_open_trials_still_get_different_proposals(sampler):
    proposer = OptunaProposer(SPACE, sampler, seed=0, budget=16)
    assert len({proposer.ask().config.trial_id for _ in range(16)}) == 16


def test_the_model_beats_chance_on_the_toy():
    means = {}
    for sampler in ("tpe", "random"):
        runs = (propose(OptunaProposer(SPACE, sampler, seed=s, budget=32), 32) for s in range(3))
        means[sampler] = sum(quality(c) for run in runs for c in run[16:]) / 48
    assert means["tpe"] > means["random"] + 0.03


def test_anchors_come_first_and_once():
    baseline = flat(backbone="resnet50", lr=0.01)
    anchors = [("baseline", baseline), ("default", SPACE.defaults()), ("default", baseline)]
    proposer = OptunaProposer(SPACE, anchors=anchors)
    first = [proposer.ask() for _ in range(3)]
    assert [p.role for p in first] == ["baseline", "default", "proposed"]
    assert first[0].config == TrialConfig.from_flat(baseline)
    assert first[1].config == TrialConfig.from_flat(SPACE.defaults())


def test_a_resumed_run_does_not_repeat_its_anchors():
    anchors = [("default", SPACE.defaults())]
    straight = propose(OptunaProposer(SPACE, seed=3, anchors=anchors), 3)
    assert restarted("tpe", straight[:2], anchors=anchors).ask().config == straight[2]


def test_a_baseline_outside_the_space_is_kept_from_the_study():
    anchors = [("baseline", flat(backbone="resnet50"))]
    proposer = OptunaProposer(SPACE, anchors=anchors)
    config = proposer.ask().config
    proposer.tell(config.trial_id, curve(config), "completed")
    assert proposer.study.get_trials() == []
    assert proposer.asked == 1


def test_a_baseline_that_cannot_run_is_an_error_and_a_default_is_passed_over():
    def refuse(config):
        if config["backbone"] == "resnet50":
            raise ValueError("no such weights")

    wrong = flat(backbone="resnet50")
    with pytest.raises(ValueError, match="no such weights"):
        OptunaProposer(SPACE, anchors=[("baseline", wrong)], validate=refuse).ask()
    passed = OptunaProposer(SPACE, anchors=[("default", wrong)], validate=refuse)
    assert passed.ask().role == "proposed"
    assert passed.invalid == 1


def test_what_cannot_run_is_asked_anew_and_counted():
    def refuse(config):
        if config["loss"] == "focal":
            raise LookupError("unknown loss 'focal'")

    proposer = OptunaProposer(SPACE, "random", validate=refuse)
    configs = [proposer.ask().config for _ in range(8)]
    assert {c.loss.name for c in configs} == {"cross_entropy"}
    failed = [t for t in proposer.study.get_trials() if t.state is optuna.trial.TrialState.FAIL]
    assert len(failed) == proposer.invalid > 0


def test_a_space_where_nothing_can_run_comes_to_an_end():
    def refuse(config):
        raise ValueError("never")

    assert OptunaProposer(SPACE, "random", validate=refuse).ask() is None


def test_a_repeat_becomes_a_new_seed_and_a_used_up_space_ends():
    space = Space("tiny", {"epochs": 9, "seed": 5, "batch_size": Choice((16, 32), 16)})
    proposer = OptunaProposer(space, "random")
    configs = []
    while (proposal := proposer.ask()) is not None:
        configs.append(proposal.config)
    assert len(configs) == 2 * REPEATS
    assert len({c.group_id for c in configs}) == 2
    assert {c.seed for c in configs} == {5, 6, 7}


def test_the_study_is_told_the_truth():
    proposer = OptunaProposer(SPACE)
    configs = [proposer.ask().config for _ in range(5)]
    whole, part = curve(configs[0]), curve(configs[1], 3)
    proposer.tell(configs[0].trial_id, whole, "completed")
    proposer.tell(configs[1].trial_id, part, "stopped")
    proposer.tell(configs[2].trial_id, part, "failed")
    proposer.tell(configs[3].trial_id, [{"epoch": 1, "score": float("nan")}], "completed")
    proposer.tell(configs[4].trial_id, [{"epoch": 1, "score": None}], "stopped")
    trials = proposer.study.get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    assert trials[0].value == whole[-1]["score"]
    for trial, rows in zip(trials, (whole, part, part), strict=False):
        assert trial.intermediate_values == {row["epoch"]: row["score"] for row in rows}


def test_telling_twice_or_of_a_stranger_changes_nothing():
    proposer = OptunaProposer(SPACE)
    config = proposer.ask().config
    proposer.tell(config.trial_id, curve(config), "completed")
    proposer.tell(config.trial_id, [], "failed")
    proposer.tell("stranger", [], "failed")
    assert [t.state.name for t in proposer.study.get_trials()] == ["COMPLETE"]


def test_a_value_is_read_back_in_the_form_of_its_dimension():
    assert own_value(IntRange(0, 4, 1), 3.0) == 3
    assert isinstance(own_value(IntRange(0, 4, 1), 3.0), int)
    assert isinstance(own_value(Choice((1, 2.5), 1), 1.0), int)
    with pytest.raises(ValueError, match="not in"):
        own_value(LogUniform(1e-4, 1e-2, 1e-3), 0.5)
    with pytest.raises(ValueError, match="not in"):
        own_value(Choice((1, 2), 1), True)


def test_an_unknown_sampler_is_named():
    with pytest.raises(LookupError, match="unknown sampler 'tpee'.*Did you mean 'tpe'"):
        OptunaProposer(SPACE, "tpee")
