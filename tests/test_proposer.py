"""Contracts that every sampler keeps, and the order and repetition of proposals."""

import optuna
import pytest
from toy import EPOCHS, SPACE, flat, proposer_of, quality

from search.proposer import REPEATS, SpaceProposer, own_value, params_of
from search.samplers import SAMPLERS
from search.study import Study, nsga2
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


def tell(proposer, trial, rows, status):
    """As the core does it: every score as it arrives, then the end."""
    for row in rows:
        value = row["score"]
        proposer.observe(trial, row["epoch"], float("nan") if value is None else value)
    proposer.tell(trial, rows, status)


def propose(proposer, trials):
    """The configurations of a sequential run, each told before the next is asked."""
    configs = []
    for index in range(trials):
        config = proposer.ask().config
        tell(proposer, config.trial_id, *ending(config, index))
        configs.append(config)
    return configs


def restarted(sampler, configs, **options):
    proposer = proposer_of(SPACE, sampler, seed=3, **options)
    for index, config in enumerate(configs):
        proposer.reopen(config.flat())
        tell(proposer, config.trial_id, *ending(config, index))
    return proposer


@every_sampler
def test_proposals_are_new_and_lie_in_the_space(sampler):
    configs = propose(proposer_of(SPACE, sampler, seed=3, budget=24), 24)
    assert len({c.trial_id for c in configs}) == 24
    for config in configs:
        assert params_of(SPACE, config) is not None
        assert set(config.loss.args) == ({"gamma"} if config.loss.name == "focal" else set())
    assert {c.loss.name for c in configs} == {"cross_entropy", "focal"}


@every_sampler
def test_the_same_seed_proposes_the_same_and_another_seed_does_not(sampler):
    one, same, other = (
        propose(proposer_of(SPACE, sampler, seed=s, budget=16), 12) for s in (3, 3, 4)
    )
    assert one == same
    assert one != other


@every_sampler
@pytest.mark.parametrize("cut", [1, 9, 17])
def test_a_restart_proposes_what_would_have_come(sampler, cut):
    straight = propose(proposer_of(SPACE, sampler, seed=3, budget=24), 24)
    resumed = restarted(sampler, straight[:cut], budget=24)
    for index in range(cut, 24):
        config = resumed.ask().config
        assert config == straight[index]
        tell(resumed, config.trial_id, *ending(config, index))


@every_sampler
def test_many_open_trials_still_get_different_proposals(sampler):
    proposer = proposer_of(SPACE, sampler, seed=0, budget=16)
    assert len({proposer.ask().config.trial_id for _ in range(16)}) == 16


def test_the_model_beats_chance_on_the_toy():
    means = {}
    for sampler in ("tpe", "random"):
        runs = (propose(proposer_of(SPACE, sampler, seed=s, budget=32), 32) for s in range(3))
        means[sampler] = sum(quality(c) for run in runs for c in run[16:]) / 48
    assert means["tpe"] > means["random"] + 0.03


def test_anchors_come_first_and_once():
    baseline = flat(backbone="resnet50", lr=0.01)
    anchors = [("baseline", baseline), ("default", SPACE.defaults()), ("default", baseline)]
    proposer = proposer_of(SPACE, anchors=anchors)
    first = [proposer.ask() for _ in range(3)]
    assert [p.role for p in first] == ["baseline", "default", "proposed"]
    assert first[0].config == TrialConfig.from_flat(baseline)
    assert first[1].config == TrialConfig.from_flat(SPACE.defaults())


def test_a_resumed_run_does_not_repeat_its_anchors():
    anchors = [("default", SPACE.defaults())]
    straight = propose(proposer_of(SPACE, seed=3, anchors=anchors), 3)
    assert restarted("tpe", straight[:2], anchors=anchors).ask().config == straight[2]


def test_a_baseline_outside_the_space_is_kept_from_the_study():
    anchors = [("baseline", flat(backbone="resnet50"))]
    proposer = proposer_of(SPACE, anchors=anchors)
    config = proposer.ask().config
    tell(proposer, config.trial_id, curve(config), "completed")
    assert proposer.model.study.get_trials() == []
    assert proposer.asked == 1


def test_what_the_model_does_not_know_goes_on_first():
    proposer = proposer_of(SPACE, "mfgp", anchors=[("default", flat(backbone="resnet50"))])
    strange = proposer.ask().config.trial_id
    known = [proposer.ask().config.trial_id for _ in range(2)]
    assert proposer.prefer({trial: 1 for trial in (*known, strange)}) == strange
    assert proposer.prefer(dict.fromkeys(known, 1)) is None  # two are too few to model


def test_a_baseline_that_cannot_run_is_an_error_and_a_default_is_passed_over():
    def refuse(config):
        if config["backbone"] == "resnet50":
            raise ValueError("no such weights")

    wrong = flat(backbone="resnet50")
    with pytest.raises(ValueError, match="no such weights"):
        proposer_of(SPACE, anchors=[("baseline", wrong)], validate=refuse).ask()
    passed = proposer_of(SPACE, anchors=[("default", wrong)], validate=refuse)
    assert passed.ask().role == "proposed"
    assert passed.invalid == 1


def test_what_cannot_run_is_asked_anew_and_counted():
    def refuse(config):
        if config["loss"] == "focal":
            raise LookupError("unknown loss 'focal'")

    proposer = proposer_of(SPACE, "random", validate=refuse)
    configs = [proposer.ask().config for _ in range(8)]
    assert {c.loss.name for c in configs} == {"cross_entropy"}
    failed = [
        t for t in proposer.model.study.get_trials() if t.state is optuna.trial.TrialState.FAIL
    ]
    assert len(failed) == proposer.invalid > 0


def test_a_space_where_nothing_can_run_comes_to_an_end():
    def refuse(config):
        raise ValueError("never")

    assert proposer_of(SPACE, "random", validate=refuse).ask() is None


def test_a_repeat_becomes_a_new_seed_and_a_used_up_space_ends():
    space = Space("tiny", {"epochs": 9, "seed": 5, "batch_size": Choice((16, 32), 16)})
    proposer = proposer_of(space, "random")
    configs = []
    while (proposal := proposer.ask()) is not None:
        configs.append(proposal.config)
    assert len(configs) == 2 * REPEATS
    assert len({c.group_id for c in configs}) == 2
    assert {c.seed for c in configs} == {5, 6, 7}


def test_the_study_is_told_the_truth():
    proposer = proposer_of(SPACE)
    configs = [proposer.ask().config for _ in range(5)]
    whole, part = curve(configs[0]), curve(configs[1], 3)
    tell(proposer, configs[0].trial_id, whole, "completed")
    tell(proposer, configs[1].trial_id, part, "stopped")
    tell(proposer, configs[2].trial_id, part, "failed")
    tell(proposer, configs[3].trial_id, [{"epoch": 1, "score": float("nan")}], "completed")
    tell(proposer, configs[4].trial_id, [{"epoch": 1, "score": None}], "stopped")
    trials = proposer.model.study.get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    assert trials[0].value == whole[-1]["score"]
    for trial, rows in zip(trials, (whole, part, part), strict=False):
        assert trial.intermediate_values == {row["epoch"]: row["score"] for row in rows}


def test_telling_twice_or_of_a_stranger_changes_nothing():
    proposer = proposer_of(SPACE)
    config = proposer.ask().config
    tell(proposer, config.trial_id, curve(config), "completed")
    tell(proposer, config.trial_id, [], "failed")
    proposer.tell("stranger", [], "failed")
    assert [t.state.name for t in proposer.model.study.get_trials()] == ["COMPLETE"]


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
        proposer_of(SPACE, "tpee")


@every_sampler
def test_first_draws_stay_near_defaults_that_are_believed_in(sampler):
    sure = Space("sure", {"epochs": EPOCHS, "lr": LogUniform(1e-5, 1e-1, 1e-3, confidence=0.9)})
    believing = [proposer_of(sure, sampler, seed=s).ask().config.lr for s in range(40)]
    near = sum(1e-4 < lr < 1e-2 for lr in believing)  # half of the range in the logarithm
    assert near >= 34  # 0.9 + 0.1 * 0.5 of 40, three standard deviations less
    assert max(believing) > min(believing)


def test_several_objectives_are_told_and_stopped_trials_are_not_values():
    model = Study(SPACE, nsga2, 20, ("score", "latency_ms"))
    proposer = SpaceProposer(SPACE, model)
    one, other = proposer.ask().config.trial_id, proposer.ask().config.trial_id
    tell(proposer, one, [{"epoch": EPOCHS, "score": 0.5, "latency_ms": 12.0}], "completed")
    tell(proposer, other, [{"epoch": 3, "score": 0.2}], "stopped")
    trials = model.study.get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED"]
    assert trials[0].values == [0.5, 12.0]
    assert proposer.ask() is not None
