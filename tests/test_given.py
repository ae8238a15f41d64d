"""A run of given configurations: the file, the order, the resume, and what it says of bad input."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_inline import Counter, outcome
from toy import run_toy

from search import given, run
from search.core import Search
from search.inline import run_inline
from search.plan import choose_sizes
from search.pruners import PRUNERS
from trainables.config import TrialConfig
from trainables.store import RunStore, TrialStore

PLAIN = {"backbone": "small_resnet", "epochs": 2, "lr": 3e-3}
TWO = [
    {"role": "baseline", "config": PLAIN},
    {"role": "focal", "config": {**PLAIN, "loss": "focal"}},
]
WHERE = ("--inline", "--data", "faces:200:easy", "--image-size", "32", "--name", "two")


def written(place: Path, entries: object, name: str = "two.json") -> str:
    (place / name).write_text(json.dumps(entries))
    return name


# --- end to end ----------------------------------------------------------------------------------


def shape(root: Path) -> list[tuple[str, str, int, str, int]]:
    return [
        (r.role, str(r.config["loss"]), int(r.config["seed"]), r.result.status, len(r.history))
        for r in RunStore.open(root).records()
        if r.result is not None
    ]


@pytest.fixture
def interrupted(place, monkeypatch, capsys):
    """Two configurations under seeds 3 and 4, cut in the middle of the third trial."""
    ends, real = iter([None] * 4 + [KeyboardInterrupt]), TrialStore.append

    def append(self, row):
        real(self, row)
        if error := next(ends, None):
            raise error

    words = ["--configs", written(place, TWO), "--seeds", "2", "--seed", "3", *WHERE]
    with monkeypatch.context() as patch:
        patch.setattr(TrialStore, "append", append)
        assert run.main(words) == 130
    assert "interrupted; what is done is kept" in capsys.readouterr().err
    return words


def test_every_configuration_is_trained_whole_under_every_seed_after_an_interruption(
    ended, interrupted, place
):
    root = place / "runs" / "two"
    assert len(shape(root)) == 2  # a third is unfinished
    code, out, err = ended(*interrupted, "--resume")
    assert (code, err) == (0, "")
    assert shape(root) == [
        ("baseline", "cross_entropy", 3, "completed", 2),
        ("focal", "focal", 3, "completed", 2),
        ("baseline", "cross_entropy", 4, "completed", 2),
        ("focal", "focal", 4, "completed", 2),
    ]
    meta = RunStore.open(root).meta()
    assert (meta["sampler"], meta["pruner"], meta["trials"], meta["rungs"]) == (
        "given",
        "none",
        4,
        [],
    )
    assert [entry["role"] for entry in meta["configs"]] == ["baseline", "focal"]
    assert all(meta["configs"][0]["config"][name] == value for name, value in PLAIN.items())
    assert "best" in out
    changed = [TWO[0], {"role": "focal", "config": {**PLAIN, "loss": "ldam"}}]
    code, _, err = ended(*interrupted, "--resume", "--configs", written(place, changed, "b.json"))
    assert code == 2
    assert "the configurations have changed (focal)" in err
    code, _, err = ended("--space", "smoke", *WHERE, "--resume")
    assert code == 2
    assert "is a run of given configurations: --resume it with --configs" in err


def test_a_dry_run_tells_the_plan_and_starts_nothing(ended, place, monkeypatch):
    monkeypatch.setattr("search.prospect.MEASURE_SECONDS", 90.0)  # a GPU takes its time to start
    words = ["--configs", written(place, TWO), "--seeds", "5", *WHERE, "--dry-run"]
    code, out, err = ended(*words)
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "2 configurations, seeds 0 to 4: 10 trials of 2 epochs at 32 px" in said
    assert "focal:" in said
    assert "An epoch of 2 configurations" in said
    assert not (place / "runs").exists()


# --- the proposer --------------------------------------------------------------------------------


def toy_search(root: Path, trials) -> Search:
    fresh = not (root / "run.json").exists()
    store = RunStore.create(root, {"name": "toy"}) if fresh else RunStore.open(root)
    return Search(store, given.GivenProposer(trials), PRUNERS["none"](9, 1, 3), len(trials))


def test_given_trials_run_once_each_in_their_order_however_often_they_are_interrupted(tmp_path):
    trials = [(f"t{k}", {"epochs": 9, "lr": 10.0**-k}) for k in range(1, 6)]
    straight = toy_search(tmp_path / "straight", trials)
    assert run_inline(straight, tmp_path, run_toy)
    for patience in (1, 12, 20):
        assert not run_inline(
            toy_search(tmp_path / "cut", trials), tmp_path, run_toy, Counter(patience)
        )
    resumed = toy_search(tmp_path / "cut", trials)
    assert run_inline(resumed, tmp_path, run_toy)
    assert outcome(resumed) == outcome(straight)
    assert [role for _, role, *_ in outcome(straight)] == ["t1", "t2", "t3", "t4", "t5"]
    assert {status for _, _, status, _ in outcome(straight)} == {"completed"}
    assert straight.is_finished


def test_what_is_common_is_a_space_of_constants():
    entries = [("a", {**PLAIN, "loss": "focal"}), ("b", {"backbone": "small_resnet", "lr": 1e-3})]
    space = given.space_of(Path("x/mine.json"), entries)
    assert space.name == "mine"
    assert space.settings == {"backbone": "small_resnet", "epochs": 2}
    assert not space.dimensions


def test_weights_may_differ_unless_a_flag_overrules_them():
    args = SimpleNamespace(seed=0, seeds=1, weights="none", metric="macro_f1")
    args.folds, args.fold_seed = 1, 0
    sizes = choose_sizes("tiny", "faces", 0, 32, 1, 2)
    args.given = [("a", {"weights": "/w/a.pt"}), ("b", {})]
    assert "weights" not in given.space_of(Path("x.json"), args.given).settings
    args.has_own_weights = True
    assert [flat.get("weights") for _, flat in given.trials(args, sizes)] == ["/w/a.pt", None]
    args.has_own_weights = False
    with pytest.raises(ValueError, match="'a' and 'b' are the same"):
        given.trials(args, sizes)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "must be a list of {role, config}, one or more"),
        ([], "must be a list of {role, config}, one or more"),
        ([TWO[0], {"role": "x"}], 'entry 2: it must be {"role": "...", "config": {...}} and hold'),
        ([{"role": " ", "config": {}}], "entry 1: its role must be a text that is not empty"),
        ([{"role": "x", "config": 3}], "entry 1: its config must be {setting: value}"),
        ([{"role": "x", "config": {"los": "focal"}}], "unknown setting 'los'; .*'loss'"),
        ([{"role": "x", "config": {"lr": "fast"}}], "setting 'lr' wants float, not 'fast'"),
        ([{"role": "x", "config": {"seed": 1}}], "entry 1: seeds are given by --seed"),
        ([TWO[0], {"role": "twin", "config": PLAIN}], "'baseline' and 'twin' are the same: drop"),
        ([TWO[0], {"role": "x", "config": {"epochs": 3}}], "epochs is one for the whole run, and"),
        (
            [{"role": "two", "config": {**PLAIN, "loss": "ldam", "rebalance": "sampler"}}],
            "configuration 'two' cannot be trained: loss 'ldam' already corrects",
        ),
        (
            [{"role": "arg", "config": {**PLAIN, "loss": "focal", "loss.gama": 1.0}}],
            "configuration 'arg' cannot be trained: unknown argument of loss 'focal' 'gama'",
        ),
        ([{"role": "b", "config": {"backbone": "resnt50"}}], "Did you mean 'resnet50'"),
        ([{"role": "b", "config": {**PLAIN, "epochs": 10**12}}], "epochs 1000000000000 is too la"),
        ([{"role": "b", "config": {**PLAIN, "sam": 1e300}}], "'sam' cannot be 1e.300.*10 at most"),
        (
            [
                {
                    "role": "b",
                    "config": {"features": "hog", "classifier": "linear", "classifier.passes": 1e9},
                }
            ],
            r"passes 1000000000.0 cannot be: give a whole number, 1 to 10000",
        ),
    ],
)
def test_a_list_that_cannot_be_trained_is_refused(refused, place, entries, message):
    assert re.search(message, refused("--configs", written(place, entries), *WHERE))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--configs", "none.json"], "--configs: no file at 'none.json'"),
        (["--configs", "torn.json"], "--configs 'torn.json' cannot be read as JSON"),
        (
            ["--configs", "x", "--space", "smoke"],
            "--space says what is tried, and so does --configs",
        ),
        (["--configs", "x", "--sampler", "tpe"], "--sampler says what is tried"),
        (["--configs", "x", "--pruner", "asha"], "--pruner says what is tried"),
        (["--configs", "x", "--trials", "3"], "--trials says what is tried"),
        (["--configs", "x", "--warm-start", "y"], "--warm-start says what is tried"),
        (["--space", "smoke", "--seeds", "2"], "--seeds is how often each of --configs is trained"),
        (["--configs", "x", "--seeds", "0"], "--seeds: 0 is too small; give 1 to 1000"),
    ],
)
def test_flags_that_contradict_a_list_are_refused(refused, place, words, message):
    (place / "torn.json").write_text("[{")
    assert message in refused(*words, *WHERE)


def test_the_seed_of_a_recorded_configuration_is_what_a_list_may_not_hold():
    flat = TrialConfig().flat()
    with pytest.raises(ValueError, match="seeds are given by"):
        given._entry({"role": "x", "config": flat})
    role, kept = given._entry(
        {"role": "x", "config": {n: v for n, v in flat.items() if n != "seed"}}
    )
    assert TrialConfig.from_flat(kept) == TrialConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"role": "x", "config": {"lr": NaN}}]', "entry 1: setting 'lr' cannot be nan: give a"),
        ('[{"role": "x", "config": {"lr": 1e999}}]', "setting 'lr' cannot be inf: give a finite"),
        (
            '[{"role": "x", "config": {"mix": "mixup", "mix.alpha": [1]}}]',
            "cannot be [1]: give",
        ),
        ('[{"role": "x", "config": {"lr": 0.1, "lr": 0.2}}]', "'lr' stands twice in one object"),
        ('[{"role": "x", "config": {}}, {"role": "x", "config": {"lr": 0.1}}]', "two configurat"),
        ("[" * 100_000, "cannot be read as JSON: maximum recursion depth"),
    ],
)
def test_json_that_says_two_things_or_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        given.read(tmp_path / "list.json")


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(TWO), encoding="utf-8-sig")
    assert [role for role, _ in given.read(tmp_path / "list.json")] == ["baseline", "focal"]
