"""Warm start: earlier trials in a new space."""

import json
import shutil

import pytest
from toy import EPOCHS, SPACE, proposer_of

from search.samplers import SAMPLERS
from search.transfer import Earlier, first_trials, gather, load, save, teach
from spaces.space import Choice, LogUniform, Space, Uniform
from trainables.config import TrialConfig
from trainables.store import RunStore, TrialResult

META = {
    **dict.fromkeys(("sampler", "pruner", "seed", "objectives", "space", "rungs", "trials"), 0),
    **dict.fromkeys(("started", "command"), ""),
    "epochs": EPOCHS, "metric": "macro_f1", "data": {"fingerprint": "f"},
}  # fmt: skip
WIDER = Space(
    "wider",
    {
        "epochs": 2 * EPOCHS,
        "attention": Choice(("none", "se"), "none"),  # new
        "lr": LogUniform(1e-4, 1e-1, 1e-3),  # shared, but shorter
        "loss": Choice(("cross_entropy", "ldam"), "cross_entropy"),  # other options
    },
)


@pytest.fixture
def run(tmp_path):
    """A run of four trials: two completed, one stopped, one that has not ended."""
    store = RunStore.create(tmp_path / "first", META)
    for index, (lr, loss, score, status) in enumerate(
        [
            (1e-2, "cross_entropy", 0.6, "completed"),
            (1e-5, "focal", 0.4, "completed"),
            (1e-3, "cross_entropy", 0.2, "stopped"),
            (2e-3, "cross_entropy", 0.3, None),
        ]
    ):
        flat = {"lr": lr, "loss": loss, "epochs": EPOCHS}
        trial = store.create_trial(TrialConfig.from_flat(flat), index)
        last = EPOCHS if status == "completed" else 3
        store.trial(trial).append({"epoch": 1, "score": 0.1})
        store.trial(trial).append({"epoch": last, "score": score})
        if status:
            store.trial(trial).finish(TrialResult(status))
    return store.root


def test_shared_settings_are_kept_and_others_take_their_defaults(run):
    earlier, notes = gather([run], WIDER, 2 * EPOCHS, "macro_f1", "f")
    assert [e.params for e in earlier] == [
        {"attention": "none", "lr": 1e-2, "loss": "cross_entropy"},
        {"attention": "none", "lr": 1e-3, "loss": "cross_entropy"},  # both out of range
        {"attention": "none", "lr": 1e-3, "loss": "cross_entropy"},
    ]
    assert [e.is_exact for e in earlier] == [True, False, True]  # configurations are whole
    assert [e.scores for e in earlier][::2] == [{2: 0.1, 18: 0.6}, {2: 0.1, 6: 0.2}]
    assert [e.status for e in earlier] == ["completed", "completed", "stopped"]
    assert "3 trials, 2 of them as they would be here" in notes[0]
    assert notes[0].endswith("where theirs do not fit")


@pytest.mark.parametrize(
    ("drives", "taken"),
    [(None, "none"), ("au_weight", "linear"), (("data", "au_weight"), "linear")],
)
def test_a_curriculum_of_another_thing_is_not_taken_for_one_of_this(tmp_path, drives, taken):
    store = RunStore.create(tmp_path / "first", META)
    flat = {"curriculum": "linear", "curriculum.full_at": 0.25, "curriculum_drives": "au_weight"}
    trial = store.create_trial(TrialConfig.from_flat(flat), 0)
    store.trial(trial).append({"epoch": 1, "score": 0.1})
    store.trial(trial).finish(TrialResult("stopped"))
    settings = {
        "curriculum": Choice(("none", "linear"), "none"),
        "curriculum.full_at": Uniform(0.1, 0.3, 0.2, {"curriculum": ("linear",)}),
    }
    if isinstance(drives, tuple):
        settings["curriculum_drives"] = Choice(drives, "data")
    elif drives:
        settings["curriculum_drives"] = drives
    (found,), _ = gather([store.root], Space("s", settings), EPOCHS, "macro_f1", "f")
    assert found.params["curriculum"] == taken
    assert found.params.get("curriculum.full_at") == (0.25 if taken == "linear" else None)


def test_a_trial_under_another_constant_is_not_as_it_would_be_here(run):
    other = Space("other", {**WIDER.settings, "dropout": 0.3})
    earlier, _ = gather([run], other, EPOCHS, "macro_f1", "f")
    assert [e.is_exact for e in earlier] == [False] * 3


def test_runs_of_one_name_in_two_folders_are_two_runs(run, tmp_path):
    shutil.copytree(run, tmp_path / "elsewhere" / run.name)
    roots = [run, tmp_path / "elsewhere" / run.name]
    earlier, _ = gather(roots, WIDER, EPOCHS, "macro_f1", "f")
    assert len({e.id for e in earlier}) == 6


def test_other_data_are_told_and_another_metric_is_refused(run):
    _, (note,) = gather([run], WIDER, EPOCHS, "macro_f1", "other")
    assert note.endswith("its data are others, so what it found may not hold here")
    with pytest.raises(ValueError, match="scored by macro_f1, not uar: give --metric macro_f1"):
        gather([run], WIDER, EPOCHS, "uar", "f")
    with pytest.raises(FileNotFoundError, match="no run at"):
        gather([run / "nowhere"], WIDER, EPOCHS, "uar", "f")


def test_the_copy_is_read_back_as_it_was(run, tmp_path):
    earlier, _ = gather([run], WIDER, EPOCHS, "macro_f1", "f")
    save(earlier, tmp_path)
    assert load(tmp_path) == earlier
    assert json.loads((tmp_path / "warm_start.json").read_text())
    assert load(run) == []


def test_the_best_are_tried_again_each_once(run):
    earlier, _ = gather([run, run], WIDER, EPOCHS, "macro_f1", "f")
    assert [(role, flat["lr"]) for role, flat in first_trials(earlier)] == [
        ("warm start", 1e-2), ("warm start", 1e-3),
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_can_be_taught(sampler):
    model = proposer_of(sampler=sampler).model
    good = [
        Earlier(f"r/{i}", {**point, "lr": lr}, {}, {3: 0.5 * q, 9: q}, "completed", True)
        for i, (lr, q) in enumerate([(1e-5, 0.1), (1e-2, 0.9), (9e-3, 0.8), (1e-4, 0.2)])
        for point in [{"loss": "cross_entropy", "au_weight": 0.0, "batch_size": 8}]
    ]
    teach(model, good)
    flat = model.draw(7)
    assert set(flat) <= set(SPACE.settings)
    model.keep("own")
    model.observe("own", 1, 0.5)
    model.tell("own", [{"epoch": 1, "score": 0.5}], "stopped")
    model.draw(8)
    model.drop()


def test_a_taught_model_needs_no_random_start():
    """TPE, told of 30 trials, goes where they were good; a new one cannot know."""
    rates = [10 ** (-1 - 4 * i / 29) for i in range(30)]
    point = {"loss": "cross_entropy", "au_weight": 0.0, "batch_size": 8}
    told = [
        Earlier(f"r/{i}", {**point, "lr": lr}, {}, {9: float(1e-3 < lr < 1e-2)}, "completed", True)
        for i, lr in enumerate(rates)
    ]

    def hits(is_taught):
        found = 0
        for seed in range(20):
            model = proposer_of(seed=seed).model
            teach(model, told if is_taught else [])
            found += 1e-3 < model.draw(seed)["lr"] < 1e-2
            model.drop()
        return found

    assert hits(is_taught=True) >= 14
    assert hits(is_taught=False) <= 10  # a quarter of the range
