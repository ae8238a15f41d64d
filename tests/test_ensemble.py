"""The ensemble: which method is taken, honest scores, limits, corners, the command."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import make_run, small
from models import draw, votes_of

from analysis import crossfit, ensemble, record, statistics
from analysis import methods as me
from analysis.ensemble import Known
from analysis.library import Library
from analysis.methods import Limits, Pool
from analysis.statistics import Goal
from analysis.votes import Votes


def test_the_order_of_the_members_does_not_matter() -> None:
    probs, labels = draw(9, 120, 3, 0)
    names = [f"t{m}" for m in range(9)]
    order = np.random.default_rng(1).permutation(9)
    one = ensemble.build(votes_of(probs, labels, names))
    other = ensemble.build(votes_of(probs[order], labels, [names[m] for m in order]))
    assert repr(one) == repr(other)  # NaN, where no latency is on record, is unequal to itself


def test_averaging_pays_where_errors_are_independent() -> None:
    probs, labels = draw(12, 300, 4, 2)
    found = ensemble.build(votes_of(probs, labels))
    assert len(found.members) > 1
    assert found.honest["lead over single"].low > 0


def test_the_single_best_is_kept_where_all_others_are_noise() -> None:
    probs, labels = draw(8, 300, 4, 3)
    probs[:] = np.random.default_rng(0).dirichlet(np.full(4, 0.05), (8, 300))
    probs[5] = 0.94 * np.eye(4)[labels] + 0.015
    found = ensemble.build(votes_of(probs, labels))
    assert found.honest["ensemble"].value >= 0.99
    assert max(found.members, key=lambda t: found.members[t]) == "t005"


def test_honest_scores_of_models_that_guess_are_those_of_guessing() -> None:
    honest, seeming = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        probs = rng.dirichlet(np.ones(4), (20, 200)).astype(np.float32)
        found = ensemble.build(votes_of(probs, rng.integers(4, size=200)))
        honest.append([found.honest[who].value for who in ("ensemble", "single", "top")])
        seeming.append([found.optimistic[who] for who in ("ensemble", "single", "top")])
    assert np.mean(honest, 0) == pytest.approx([0.25] * 3, abs=0.035)
    assert np.mean(seeming, 0).min() > 0.27


def test_weights_sum_to_one_and_the_table_marks_one_method() -> None:
    found = ensemble.build(votes_of(*draw(12, 200, 3, 4)))
    assert sum(found.members.values()) == pytest.approx(1)
    assert sum(row.is_chosen for row in found.table) == 1
    assert list(found.members.values()) == sorted(found.members.values(), reverse=True)


@pytest.mark.parametrize("images", [1, 3, 15, 25, 39])
def test_few_images_give_the_plain_average_or_an_honest_comparison(images: int) -> None:
    found = ensemble.build(votes_of(*draw(4, images, 3, 0)))
    assert sum(found.members.values()) == pytest.approx(1)
    assert not found.honest
    assert bool(found.note) == (images < crossfit.FEW_IMAGES)


def test_one_trial_is_its_own_ensemble() -> None:
    found = ensemble.build(votes_of(*draw(1, 80, 3, 0)))
    assert found.members == {"t000": 1.0}
    assert found.method == "best single trial"


def test_one_class_is_no_obstacle() -> None:
    probs, _ = draw(3, 60, 3, 0)
    assert ensemble.build(votes_of(probs, np.zeros(60, np.int64))).members


@pytest.mark.parametrize(("classes", "costly"), [(50, {"stacking", "CMA-ES"}), (51, set())])
def test_of_very_many_classes_only_what_is_cheap_is_tried(classes, costly) -> None:
    found = ensemble.build(votes_of(*draw(4, 300, classes, 0)))
    assert {row.method for row in found.table} & {"stacking", "CMA-ES"} == costly


def test_no_trial_is_told() -> None:
    empty = votes_of(np.zeros((0, 5, 3), np.float32), np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="no trial"):
        ensemble.build(empty)


def test_the_baseline_stands_in_the_same_honest_column() -> None:
    probs, labels = draw(12, 300, 4, 2)
    worst = probs[(probs.argmax(2) == labels).mean(1).argmin()].argmax(1)
    votes = votes_of(probs, labels)
    without, found = ensemble.build(votes), ensemble.build(votes, baseline=worst)
    goal = Goal("macro_f1", np.ones(4, bool))
    assert set(found.honest) - set(without.honest) == {"baseline", "lead over baseline"}
    own = float(goal.scores(statistics.tally(labels, worst[None], 4))[0])
    assert found.honest["baseline"].value == pytest.approx(own)
    lead = found.honest["lead over baseline"]
    assert lead.value == pytest.approx(found.honest["ensemble"].value - own)
    assert lead.low > 0
    assert found.honest["single"].value == without.honest["single"].value


def test_folds_deal_each_class_evenly() -> None:
    labels = np.repeat([0, 1, 2], [50, 23, 3])
    fold = crossfit.folds(labels, np.random.default_rng(0))
    assert np.ptp(np.bincount(fold)) <= 1
    assert np.ptp(np.bincount(fold[labels == 1], minlength=5)) <= 1


def test_nobody_scores_an_image_that_chose_him() -> None:
    # the label of an image is turned: what is said of that very image must not change
    probs, labels = draw(6, 60, 3, 0)
    turned = labels.copy()
    turned[7] = (labels[7] + 1) % 3
    goal = Goal("macro_f1", np.ones(3, bool))
    fold = np.arange(60) % 5

    def run(truth: "np.ndarray") -> crossfit.Crossfit:
        pool = Pool(Library(probs, truth, goal), np.ones(6), np.arange(6))
        return crossfit.run(pool, np.random.default_rng(0), 1)

    def dealt(labels: "np.ndarray", rng: np.random.Generator) -> "np.ndarray":
        return fold

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossfit, "folds", dealt)
        before, after = run(labels), run(turned)
    mine = fold == fold[7]
    assert (before.calls[0][:, mine] == after.calls[0][:, mine]).all()
    others = before.inner[0, fold[7]], after.inner[0, fold[7]]
    assert (others[0] == others[1]).all()  # inner fits of the fold that holds it out
    assert (others[0][:, mine] == -1).all()
    assert (before.calls[0][:, ~mine] >= 0).all()


def test_inner_calls_are_of_fits_without_both_folds() -> None:
    probs, labels = draw(5, 50, 3, 0)
    goal = Goal("macro_f1", np.ones(3, bool))
    pool = Pool(Library(probs, labels, goal), np.ones(5), np.arange(5))
    found = crossfit.run(pool, np.random.default_rng(0), 1)
    averages = [i for i, (name, _) in enumerate(me.methods(pool)) if name == "average"]
    fold = found.fold[0]
    for outer, inner in ((0, 1), (3, 2)):
        images = np.flatnonzero(~np.isin(fold, (outer, inner)))
        counts = pool.library.parts(fold, 5).without(outer, inner)
        recipes = me.fit(pool, *counts, images, np.random.default_rng(9))
        said = me.calls_of(recipes, pool.library, np.flatnonzero(fold == inner))
        assert (found.inner[0, outer][averages][:, fold == inner] == said[averages]).all()


@pytest.mark.parametrize("name", ["macro_f1", "macro_f1_all", "accuracy", "uar"])
def test_the_standard_error_is_that_of_a_bootstrap(name: str) -> None:
    probs, labels = draw(4, 400, 4, 1)
    goal = Goal(name, np.array([True, True, True, False]))
    calls = probs.argmax(2)[None]
    means, errors = crossfit.judge(calls, labels, goal)
    weights = statistics.resample(labels, 4000, np.random.default_rng(0))
    sampled = statistics.bootstrap(labels, calls[0], goal, weights)["score"]
    best = means.argmax()
    wanted = (sampled[:, [best]] - sampled).std(0)
    assert errors == pytest.approx(wanted, rel=0.08, abs=1e-9)


def test_the_first_method_within_one_standard_error_is_taken() -> None:
    means, errors = np.array([0.60, 0.65, 0.7]), np.array([0.09, 0.06, 0.0])
    assert crossfit.take(means, errors) == 1
    assert crossfit.take(means, errors / 10) == 2


def test_the_averaged_action_units_ignore_members_without_a_head() -> None:
    probs, labels = draw(2, 4, 3, 0)
    said = np.stack([np.full((4, 2), np.nan, np.float32), np.full((4, 2), 0.25, np.float32)])
    base = votes_of(probs, labels)
    votes = Votes(base.trials, base.ids, labels, probs, np.ones((4, 2), np.int8), said, {})
    assert ensemble.average(votes, {"t000": 0.5, "t001": 0.5})[1] == pytest.approx(0.25)
    assert np.isnan(ensemble.average(votes, {"t000": 1.0})[1]).all()


def test_an_ensemble_within_limits() -> None:
    votes = votes_of(*draw(12, 120, 3, 0))
    known = Known({t: 1.0 + m for m, t in enumerate(votes.trials)})
    found = ensemble.build(votes, known=known, limits=Limits(3, 8.0))
    assert len(found.members) <= 3
    assert found.latency_ms == sum(known.latency_ms[t] for t in found.members) <= 8
    assert found.note.startswith("4 trials are slower than 8 ms")
    assert all(row.latency_ms <= 8 for row in found.table)


def test_limits_that_nobody_meets_are_told() -> None:
    votes = votes_of(*draw(3, 60, 3, 0))
    with pytest.raises(ValueError, match="within 1 ms: none is on record"):
        ensemble.build(votes, limits=Limits(None, 1.0))
    known = Known(dict.fromkeys(votes.trials, 2.5))
    with pytest.raises(ValueError, match=r"within 1 ms: the fastest trial takes 2\.5 ms"):
        ensemble.build(votes, known=known, limits=Limits(None, 1.0))


def test_nothing_on_the_front_is_beaten_in_both() -> None:
    votes = votes_of(*draw(15, 150, 3, 0))
    known = Known({t: 1.0 + m % 5 for m, t in enumerate(votes.trials)})
    found = ensemble.build(votes, known=known).front
    best = [p for p in found if p.is_best]
    assert best
    for point in found:
        beaten = any(b.latency_ms <= point.latency_ms and b.score >= point.score for b in best)
        assert beaten
    assert not ensemble.build(votes).front  # no latency on record


def test_the_averaged_seeds_are_among_the_methods() -> None:
    votes = votes_of(*draw(8, 120, 3, 0))
    known = Known(group=dict.fromkeys(votes.trials[:3], "same"))
    names = [row.method for row in ensemble.build(votes, known=known).table]
    assert "average of seeds" in names
    assert "average of seeds" not in [row.method for row in ensemble.build(votes).table]


def test_what_is_stored_gives_the_same_predictions_without_our_code(tmp_path: Path) -> None:
    votes = votes_of(*draw(12, 200, 3, 4))
    pool = ensemble.pool_of(votes, Goal("macro_f1", np.ones(3, bool)), Known(), Limits())
    every = np.arange(200)
    counted = pool.library.parts(np.zeros(200, np.int64), 1).without()
    recipes = me.fit(pool, *counted, every, np.random.default_rng(0))
    for method, recipe in zip(me.methods(pool), recipes, strict=True):
        found = replace(ensemble._described(recipe, method, votes, pool), table=(), honest={})
        members = {t: (tmp_path / "run", t) for t in votes.trials}
        origin = record.Origin(members, ("a", "b", "c"), "f00d", "macro_f1")
        record.save(found, votes, tmp_path / "run" / "report", origin)
        saved = json.loads((tmp_path / "run" / "report" / "ensemble.json").read_text())
        assert saved["sources"][0]["run"] == ".."
        own = [
            votes.probs[votes.row(s["trial"])].astype(np.float64) ** (1 / s["temperature"])
            for s in saved["sources"]
        ]
        own = [p / p.sum(1, keepdims=True) for p in own]
        if saved["coefficients"]:
            x = np.concatenate([*(np.log(p) for p in own), np.ones((200, 1))], 1)
            probs = np.exp(x @ np.array(saved["coefficients"]))
        else:
            probs = sum(s["weight"] * p for s, p in zip(saved["sources"], own, strict=True))
        if saved["shift"]:
            probs = probs * np.exp(-np.array(saved["shift"]))
        probs = probs / probs.sum(1, keepdims=True)
        assert ensemble.predict(found, votes)[0] == pytest.approx(probs, abs=2e-4), method
        assert recipe.apply(pool.library, every) == pytest.approx(probs, abs=2e-4), method


def test_hundreds_of_models_take_a_second() -> None:
    probs, labels = draw(300, 600, 7, 0)
    started = time.process_time()
    ensemble.build(votes_of(probs, labels))
    assert time.process_time() - started < 6  # 1 on a free core: tests/benchmarks/ensemble.py


def test_the_command_writes_members_and_averaged_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", 6, small())
    assert ensemble.main([str(tmp_path / "run")]) == 0
    saved = json.loads((tmp_path / "run" / "report" / "ensemble.json").read_text())
    assert sum(saved["members"].values()) == pytest.approx(1)
    with np.load(tmp_path / "run" / "report" / "ensemble_val.npz") as file:
        assert file["probs"].sum(1) == pytest.approx(1, abs=2e-3)
    assert saved["method"] in capsys.readouterr().out


def test_the_command_says_that_there_is_no_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.ensemble", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no run at")
    assert "Traceback" not in done.stderr
