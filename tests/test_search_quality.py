"""The benchmark of search quality: its arithmetic, its record, and that peers are what they are."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from search import simulate
from search.problems import PROBLEMS
from trainables import cli

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import peers
import peers_course
import peers_optuna
import peers_ray
import search_quality
import search_quality_table as tables

STOCK = ("ray:tpe+asha", "optuna:tpe+hyperband")
TWO_SEEDS = {("a", 0): 10.0, ("b", 0): 30.0, ("a", 1): 20.0, ("b", 1): 60.0}


def line(method, problem, seed, regret, version="1"):
    """A run on record; problems a, b, ... are of one kind."""
    return {
        "method": method, "problem": f"k:{problem}", "seed": seed, "workers": 1, "budget": 5.0,
        "first_rung": 2, "version": version, "regret": {"5": regret}, "trials": 7,
        "cpu_seconds": 2.0, "wall_seconds": 3.0,
    }  # fmt: skip


def lines(method, regrets, version="1"):
    return [line(method, p, seed, value, version) for (p, seed), value in regrets.items()]


def test_the_error_is_over_seeds_of_the_mean_over_problems():
    [table] = tables.summary(lines("x", TWO_SEEDS))
    [row] = table["methods"]
    assert row["mean"] == {"5": 30.0}  # of 20 and 40
    assert row["error"] == {"5": 10.0}  # stdev 14.14 over the root of 2
    assert row["problem_means"] == {"5": {"k:a": 15.0, "k:b": 45.0}}
    assert (row["n"], row["seeds"], row["cpu_seconds"]) == (4, 2, 2.0)


def test_one_seed_has_no_error():
    [table] = tables.summary([line("x", "a", 0, 8.0)])
    assert table["methods"][0]["error"] == {"5": None}
    assert "| x | 1 | 8.0 | 1.00 |" in tables.markdown([table])


def test_a_rank_is_what_to_expect_over_all_pairs_of_seeds():
    ranks = tables.mean_ranks({"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [2.0, 5.0, 5.0, 5.0]})
    assert ranks == {"a": 1.0, "b": 2.125, "c": 2.875}  # c ties with b in a quarter of the pairs
    assert sum(ranks.values()) == 1 + 2 + 3


def test_ranks_are_averaged_over_problems():
    better, worse = dict.fromkeys(TWO_SEEDS, 1.0), dict.fromkeys(TWO_SEEDS, 2.0)
    crossed = {key: 3.0 if key[0] == "a" else 0.0 for key in TWO_SEEDS}
    [table] = tables.summary(
        [*lines("x", better), *lines("y", worse), *lines("z", crossed)],
    )
    assert {r["method"]: r["rank"]["5"] for r in table["methods"]} == {"x": 1.5, "y": 2.5, "z": 2.0}
    assert [r["method"] for r in table["methods"]] == ["x", "z", "y"]  # by the mean


def test_only_whole_seeds_of_the_newest_version_count():
    old, new = lines("x", TWO_SEEDS), lines("x", dict(list(TWO_SEEDS.items())[:3]), "2")
    [table] = tables.summary([*old, *new, line("y", "a", 0, 1.0)])
    [row] = table["methods"]
    assert (row["version"], row["seeds"], row["mean"]) == ("2", 1, {"5": 20.0})
    assert table["partial"] == {"y": ["k:a"]}
    assert "y: no seed on all 2 problems yet" in tables.markdown([table])


def test_marks_and_the_first_rung_are_those_of_the_simulator():
    assert peers_course.MARKS == simulate.MARKS
    problem = PROBLEMS["crossing"]()
    own = peers.run("random+none", problem, 0, 2, 5, peers_course.first_rung_of(problem, 0))
    assert own.regret == simulate.run(problem, "random", "none", 0, 2, 5).regret


@pytest.mark.parametrize("method", STOCK)
@pytest.mark.parametrize("workers", [1, 8])
def test_a_peer_run_again_is_the_same(method, workers):
    first, again = (peers.run(method, PROBLEMS["cliffs"](), 3, workers, 10, 6) for _ in range(2))
    assert set(first.regret) == {5, 10}
    assert (first.regret, first.trials, first.seconds, first.epochs) == (
        again.regret, again.trials, again.seconds, again.epochs,
    )  # fmt: skip


def test_workers_share_the_clock():
    one, eight = (peers.run(STOCK[0], PROBLEMS["cliffs"](), 0, w, 10, 6) for w in (1, 8))
    assert one.epochs == eight.epochs == 510
    assert one.seconds == pytest.approx(510)
    assert eight.seconds == pytest.approx(510 / 8, rel=0.02)


def test_ray_tells_a_stopped_trial_as_complete_with_its_value_at_the_rung():
    peer = peers_ray.Tune(PROBLEMS["crossing"](), RandomSampler(0), first_rung=3)
    good, bad = peer.start()[0], peer.start()[0]
    assert all(peer.report(good, epoch, 0.5 + epoch / 10) for epoch in (1, 2, 3))
    assert [peer.report(bad, epoch, 0.2 + epoch / 10) for epoch in (1, 2, 3)] == [True, True, False]
    told = peer.searcher._ot_study.trials[1]
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.5)
    assert told.intermediate_values == {1: pytest.approx(0.3), 2: pytest.approx(0.4)}
    ends = [peer.report(good, epoch, 1.0) for epoch in range(4, 28)]
    assert ends == [True] * 23 + [False]
    assert peer.searcher._ot_study.trials[0].value == 1.0


def test_ray_keeps_the_scores_that_reach_the_cutoff():
    peer = peers_ray.Tune(PROBLEMS["crossing"](), RandomSampler(0), first_rung=3)
    trials = [peer.start()[0] for _ in range(5)]
    # the cutoff is the percentile 66.7 of those before: none, 0.3, 0.37, 0.4, 0.4
    goes_on = [
        peer.report(t, 3, s) for t, s in zip(trials, (0.3, 0.4, 0.2, 0.4, 0.39), strict=True)
    ]
    assert goes_on == [True, True, False, True, False]


def test_optuna_tells_a_stopped_trial_as_pruned():
    problem = PROBLEMS["crossing"]()
    rule = peers_optuna.PRUNERS["sha"](3, problem.max_epochs)
    peer = peers_optuna.Study(problem, RandomSampler(0), rule, "study")
    good, bad = peer.start()[0], peer.start()[0]
    assert [peer.report(t, e, s) for t, s in ((good, 0.9), (bad, 0.1)) for e in (1, 2, 3)] == [
        True, True, True, True, True, False,
    ]  # fmt: skip
    assert peer.study.trials[1].state is TrialState.PRUNED


def test_only_new_epochs_of_a_replayed_configuration_are_charged():
    problem = PROBLEMS["crossing"]()
    course, flat = peers_course.Course(problem, 5), problem.space.defaults()
    replay = peers_course.Replay(course)
    assert replay.train(flat, 3) == pytest.approx(100 - problem.curve(flat)[0][2])
    replay.train(flat, 9)
    assert (course.epochs, course.trials, course.seconds) == (9, 1, pytest.approx(9))
    replay.train(flat, 9, resumes=False)
    assert (course.epochs, course.seconds) == (18, pytest.approx(18))


def test_rungs_counted_down_begin_where_ours_do():
    problem = SimpleNamespace(max_epochs=51)
    assert peers_course.lowest_of(problem, 6) == pytest.approx(51 / 9)
    assert peers_course.lowest_of(problem, 2) == pytest.approx(51 / 27)


def asked(*words):
    return search_quality._parser().parse(words)


def test_a_plan_is_seed_by_seed_and_says_who_cannot_run(monkeypatch):
    monkeypatch.setitem(peers.FAMILIES, "dehb", peers.Family(("x",), {"no_such": "x"}, "pip no"))
    jobs, notes = search_quality.plan(
        asked("--methods", "tpe+asha,dehb:dehb", "--problems", "cliffs", "--seeds", "2")
    )
    assert [(job.seed, job.workers, job.first_rung) for job in jobs] == [
        (0, 1, 6), (0, 8, 6), (1, 1, 6), (1, 8, 6),
    ]  # fmt: skip
    assert notes == ["dehb:dehb: no no_such here; pip no"]


def test_a_version_is_of_the_modules_that_a_method_uses():
    problem = PROBLEMS["cliffs"]()
    shallow = {path.stem for path in peers.closure("simulate", is_deep=False)}
    assert {"core", "pruners", "study", "simulate"} <= shallow
    assert not {"mfgp", "problems", "curves"} & shallow
    assert "mfgp" in {path.stem for path in peers.closure("simulate", is_deep=True)}
    assert peers.version("tpe+asha", problem) != peers.version("mfgp+asha", problem)
    assert "optuna" in peers.version("ray:tpe+asha", problem)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "tpe+ash"], "unknown method 'tpe.ash'.*Did you mean 'tpe\\+asha'"),
        (["--methods", "ray:tpe"], "unknown method 'ray:tpe'; known: ray:tpe\\+asha"),
        (["--methods", "rai:tpe+asha"], "unknown family of methods 'rai'"),
        (["--problems", "cliff"], "no curves 'cliff'"),
        (["--problems", "lcbench:1"], "no LCBench task '1'"),
    ],
)
def test_what_does_not_exist_is_refused(words, message):
    with pytest.raises(LookupError, match=message):
        search_quality.plan(asked("--methods", "tpe+asha", *words))


def test_the_command_tells_a_mistake_in_a_line(place, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--results", "r", "--methods", "tpe+ash"])
    with pytest.raises(SystemExit) as ended:
        cli.run_command(search_quality.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown method 'tpe+ash'")


def test_what_is_on_record_is_not_run_again(tmp_path):
    path = tmp_path / "record.jsonl"
    jobs, _ = search_quality.plan(asked("--methods", "tpe+asha", "--problems", "cliffs"))
    for job in jobs:
        search_quality.add(path, {**asdict(job), "wall_seconds": 1.0, "regret": {"20": 1.0}})
    before = path.read_text()
    assert search_quality.run_all(jobs, 1, path) == 0
    assert path.read_text() == before
    search_quality.forget(path, jobs[1:])
    assert [r["seed"] for r in search_quality.read(path)] == [jobs[0].seed]


def test_a_line_cut_short_costs_only_itself(tmp_path, capsys):
    path = tmp_path / "record.jsonl"
    search_quality.add(path, {"seed": 1})
    path.write_text(path.read_text() + '{"seed": 2, "meth')
    search_quality.add(path, {"seed": 3})
    assert search_quality.read(path) == [{"seed": 1}, {"seed": 3}]
    assert "cannot be read" in capsys.readouterr().err


def test_a_run_is_a_line_of_the_record():
    [job] = search_quality.plan(
        asked("--methods", "ray:random+asha", "--problems", "cliffs", "--seeds", "1",
              "--workers", "8", "--budget", "5")
    )[0]  # fmt: skip
    record = json.loads(json.dumps(search_quality.work(job)))
    assert set(record["regret"]) == {"5"}
    assert asdict(job).items() <= record.items()
    assert record["epochs"] == 5 * 51
