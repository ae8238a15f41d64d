"""What an ablation would train: the ladder and the winner without each technique, by hand."""

import json
from dataclasses import replace

import pytest
from fake_run import edit_json, make_run, small

from analysis import ablation
from analysis.ablation import make_plan
from analysis.leaderboard import frame, read_board
from analysis.techniques import OPTIMISER, goes_with, group_of, techniques, without
from trainables.config import Part, TrialConfig
from trainables.contradictions import check_config

BASE = TrialConfig(
    backbone=Part("test_resnet"), loss=Part("cross_entropy", {"smoothing": 0.0}), epochs=9, lr=3e-3
)
WINNER = replace(
    BASE,
    attention=Part("au_spatial"),
    attention_stage="middle",
    region_weight=0.1,
    loss=Part("focal", {"gamma": 2.0}),
    au_loss=Part("bce", {"clip": 5.0}),
    au_weight=0.3,
    curriculum=Part("linear", {"start": 0.4}),
    curriculum_order="random",
    soft_labels=0.5,
    lr=1e-3,
    weight_decay=0.01,
    batch_size=16,
)
OFF = {  # technique -> the settings in which the winner without it differs from the winner
    "attention": {"attention", "attention_stage", "region_weight"},
    "loss": {"loss", "loss.gamma", "loss.smoothing"},
    "au_loss": {"au_loss", "au_loss.clip", "au_weight", "region_weight"},
    "curriculum": {"curriculum", "curriculum.start", "curriculum_order"},
    "soft_labels": {"soft_labels"},
    "optimiser settings": {"lr", "weight_decay", "batch_size"},
}


def flat(config: TrialConfig) -> ablation.Flat:
    return ablation.unseeded(config.flat())


def test_every_technique_of_the_winner_is_found_once_the_optimiser_last():
    found = techniques(flat(WINNER), flat(BASE))
    assert sorted(found) == sorted(OFF)
    assert found[-1] == "optimiser settings"
    assert techniques(flat(BASE), flat(BASE)) == []


@pytest.mark.parametrize("technique", OFF)
def test_a_technique_switched_off_is_as_in_the_baseline_and_takes_its_dependents_along(technique):
    winner, base = flat(WINNER), flat(BASE)
    found = without(winner, base, technique)
    names = {n for n in {**winner, **found} if winner.get(n) != found.get(n)}
    assert names == OFF[technique]
    assert all(found.get(n) == base.get(n) for n in names)
    ids = {TrialConfig.from_flat(c).group_id for c in (winner, found, base)}
    assert len(ids) == 3
    assert technique not in techniques(found, base)


def test_weights_are_a_technique_and_those_of_another_network_go_with_it():
    winner = replace(BASE, backbone=Part("vit"), weights="/w/vit.safetensors")
    assert techniques(flat(winner), flat(BASE)) == ["backbone", "weights"]
    assert without(flat(winner), flat(BASE), "backbone") == flat(BASE)
    assert without(flat(winner), flat(BASE), "weights") == {**flat(winner), "weights": "none"}


def test_features_take_their_classifier_along():
    own = {"features": "frozen", "classifier": "logistic", "synthesis": "smote"}
    winner = TrialConfig.from_flat({**BASE.flat(), **own})
    assert without(flat(winner), flat(BASE), "features") == flat(BASE)


def test_a_technique_may_be_kept(boards):
    whole = make_plan(boards, seeds=2)
    plan = make_plan(boards, seeds=2, kept=["au_loss"])
    assert {a.role for a in whole.arms} - {a.role for a in plan.arms} == {"without au_loss"}
    assert "au_loss was not switched off, as was asked" in plan.notes
    with pytest.raises(LookupError, match="unknown technique of the winner 'au_los'; known: .*"):
        make_plan(boards, seeds=2, kept=["au_los"])


def test_a_curriculum_goes_with_what_it_drives():
    driven = replace(WINNER, curriculum_order="class_count", curriculum_drives="au_weight")
    found = without(flat(driven), flat(BASE), "au_loss")
    assert (found["curriculum"], found["curriculum_drives"]) == ("none", "data")
    check_config(TrialConfig.from_flat(found))
    assert without(flat(driven), flat(BASE), "loss")["curriculum"] == "linear"


def test_a_part_whose_arguments_alone_differ_is_a_technique():
    other = replace(BASE, loss=Part("cross_entropy", {"smoothing": 0.1}))
    assert techniques(flat(other), flat(BASE)) == ["loss"]
    assert without(flat(other), flat(BASE), "loss") == flat(BASE)


def test_every_setting_of_a_trial_belongs_to_one_technique():
    for name in TrialConfig().flat():
        assert goes_with(group_of(name), name)
    assert group_of("attention_stage") == "attention"
    assert group_of("au_weight") == "au_loss"
    assert group_of("warmup_epochs") == OPTIMISER


@pytest.fixture
def boards(tmp_path):
    """Two runs of the same data; the second has the better best."""
    runs = [make_run(tmp_path / name, 12, small()) for name in ("one", "two")]
    for run, space in zip(runs, ("sprint1", "sprint2"), strict=True):
        edit_json(run.root / "run.json", name=run.root.name, space={"name": space})
    return [read_board(run) for run in runs]


def crown(board, number: int) -> None:
    """Give a completed trial of the run perfect predictions, and a technique of its own."""
    record = next(r for r in board.records if r.index == number)
    trial = board.run.trial(record.id)
    votes = trial.predictions("val")
    assert votes is not None
    probs = votes.probs * 0 + 1e-3
    probs[range(len(votes.labels)), votes.labels] = 1
    trial.save_predictions("val", replace(votes, probs=probs))


def test_the_plan_has_the_baseline_each_best_and_the_best_without_each_technique(boards):
    crown(boards[1], 4)
    boards[1] = read_board(boards[1].run)
    plan = make_plan(boards, seeds=3)
    by_role = {arm.role: arm for arm in plan.arms}
    base, first, second, *rest = plan.arms
    assert [arm.kind for arm in (base, first, second)] == ["baseline", "rung", "rung"]
    assert (first.role, second.role) == ("best of sprint1", "best of sprint2")
    assert plan.winner == second.role
    table = frame(boards[0])
    best = table[table["status"] == "completed"].iloc[0]
    assert first.source == f"one/{best['trial']}"
    assert {arm.kind for arm in rest} == {"without"}
    assert [a.role for a in rest] == [
        f"without {name}" for name in techniques(second.config, base.config)
    ]
    for arm in rest:
        technique = arm.role.removeprefix("without ")
        assert arm.config == without(second.config, base.config, technique)
    assert len({TrialConfig.from_flat(a.config).group_id for a in plan.arms}) == len(plan.arms)
    assert all("seed" not in arm.config for arm in plan.arms)
    assert "→" in by_role["without au_loss"].change


def test_seeds_are_fresh(boards):
    used = {int(r.config["seed"]) for board in boards for r in board.records}
    plan = make_plan(boards, seeds=4)
    assert len(plan.seeds) == 4
    assert not used & set(plan.seeds)
    assert plan.seeds[0] == max(used) + 1


def test_a_plan_is_what_was_saved(boards, tmp_path):
    plan = make_plan(boards, seeds=2)
    path = ablation.save(plan, tmp_path / "ablation")
    assert ablation.load(tmp_path / "ablation") == plan
    assert json.loads(path.read_text()) == [
        {"role": arm.role, "config": arm.config} for arm in plan.arms
    ]


def test_the_best_of_two_runs_that_is_one_configuration_is_one_row(boards):
    plan = make_plan([boards[0], boards[0]], seeds=2)
    assert [arm.kind for arm in plan.arms].count("rung") == 1
    assert "is the same configuration as best of sprint1" in plan.notes[0]


def test_the_top_of_each_run_are_rungs(boards):
    plan = make_plan(boards[:1], seeds=2, top=3)
    roles = [arm.role for arm in plan.arms if arm.kind == "rung"]
    assert roles == [f"best of sprint1, rank {place}" for place in (1, 2, 3)]
    assert plan.winner == roles[0]


def test_the_cost_is_the_measured_seconds_of_an_epoch_times_the_epochs(boards):
    plan = make_plan(boards[:1], seeds=2, epochs=5)
    assert {arm.config["epochs"] for arm in plan.arms} == {5}
    assert set(plan.seconds.values()) == {5 * 4.0}  # the fake run has 4 s an epoch


def test_a_winner_that_trains_longer_gets_a_baseline_that_trains_as_long():
    base = ablation.Arm("baseline", "baseline", flat(BASE), "a/b")
    (control,) = ablation._as_long(base, 2.5)
    assert (control.role, control.kind) == (ablation.AS_LONG, "control")
    assert set(control.config.items()) - set(base.config.items()) == {
        ("synthetic", "repeated"), ("synthetic.ratio", 1.5), ("synthetic.balance", 0.0)
    }  # fmt: skip
    assert list(ablation._as_long(base, 1.2)) == []
    check_config(TrialConfig.from_flat(control.config))


def test_how_long_a_winner_trains_is_measured_beside_the_baseline_of_its_own_run(boards):
    board = boards[0]
    winner = make_plan([board], seeds=2).arms[1]
    paces = ablation._paces([board])
    assert ablation._cost(winner, [board], paces) == 1.0  # the fake run has 4 s an epoch
    assert ablation._cost(winner, [board], {**paces, winner.source: 10.0}) == 2.5


def test_without_the_only_technique_the_winner_is_the_baseline(boards):
    base = ablation.Arm("baseline", "baseline", flat(BASE), "a/b")
    winner = ablation.Arm("w", "rung", flat(replace(BASE, soft_labels=0.5)), "a/c")
    arms, notes = ablation._left_out(winner, base, [winner])
    assert arms == []
    assert notes == ["without soft_labels the winner is 'baseline': one row stands for both"]


def test_what_cannot_be_switched_off_alone_is_told(boards):
    # ldam may not be read by au_reading, which the baseline has here
    base = ablation.Arm("baseline", "baseline", flat(replace(BASE, loss=Part("ldam"))), "a/b")
    own = replace(
        BASE, loss=Part("focal"), au_loss=Part("bce"), au_weight=0.3, au_reading=Part("linear")
    )
    winner = ablation.Arm("w", "rung", flat(own), "a/c")
    arms, notes = ablation._left_out(winner, base, [winner])
    assert [arm.role for arm in arms] == ["without au_loss", "without au_reading"]
    assert notes[0].startswith("loss cannot be switched off alone: au_reading 'linear' adds to")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"fingerprint": "beef"}}, "do not compare, their data differ: faces:4000 and"),
        ({"metric": "uar"}, "do not compare, their metric differ: macro_f1 and uar"),
        ({"epochs": 30}, "their epochs differ: 27 and 30: give --epochs, for all of them"),
    ],
)
def test_runs_that_do_not_compare_are_refused(boards, change, message):
    meta = boards[1].run.meta()
    data = {**meta["data"], **change.pop("data", {})}
    edit_json(boards[1].run.root / "run.json", **change, data=data)
    with pytest.raises(ValueError, match=message):
        make_plan([boards[0], read_board(boards[1].run)], seeds=2)


def test_a_run_without_a_baseline_or_a_completed_trial_is_refused(boards, tmp_path):
    board = boards[0]
    others = tuple(r for r in board.records if r.role != "baseline")
    with pytest.raises(ValueError, match="has no baseline trial"):
        make_plan([replace(board, records=others)], seeds=2)
    for record in board.records:
        (board.run.trial(record.id).path / "result.json").unlink()
    with pytest.raises(ValueError, match="has no completed trial: let it run to its end"):
        make_plan([read_board(board.run)], seeds=2)
