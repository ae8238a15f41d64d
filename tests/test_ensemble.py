"""Ensemble selection: properties, a reference by hand, corners."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_run import make_run, small
from numpy.typing import NDArray

from analysis import crossfit, ensemble, statistics
from analysis.statistics import Goal
from analysis.votes import Votes

Floats = NDArray[np.float32]


def draw(models: int, images: int, classes: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Models of unequal skill: probabilities and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.standard_normal((models, images, classes))
    logits += 0.8 * rng.standard_normal((images, classes))  # what is hard for one is for all
    skill = rng.uniform(0.5, 2.5, models)
    logits[:, np.arange(images), labels] += skill[:, None]
    probs = np.exp(logits)
    return (probs / probs.sum(2, keepdims=True)).astype(np.float32), labels


def votes_of(probs: Floats, labels: NDArray[np.int64], names: list[str] | None = None) -> Votes:
    models, images, _ = probs.shape
    trials = names or [f"t{m:03}" for m in range(models)]
    order = sorted(range(models), key=lambda m: trials[m])
    none = np.zeros((images, 0), np.int8)
    return Votes(
        tuple(trials[m] for m in order),
        tuple(f"i{n}" for n in range(images)),
        labels,
        probs[order],
        none,
        np.zeros((models, images, 0), np.float32),
        {},
    )


def slow_selection(probs: Floats, labels: NDArray[np.int64], rounds: int) -> list[float]:
    """Caruana's algorithm as one would write it on a board."""
    chosen: list[int] = []
    best, best_chosen = -np.inf, [0]
    for _ in range(rounds):
        values = []
        for m in range(len(probs)):
            mean = probs[[*chosen, m]].mean(0)
            values.append(np.log(mean[np.arange(len(labels)), labels]).mean())
        chosen.append(int(np.argmax(values)))
        if max(values) > best:
            best, best_chosen = max(values), list(chosen)
    return [best_chosen.count(m) / len(best_chosen) for m in range(len(probs))]


@pytest.mark.parametrize("seed", range(6))
def test_selection_equals_the_slow_one(seed: int) -> None:
    probs, labels = draw(5, 40, 3, seed)
    fast = ensemble.select(probs, labels, ensemble.log_likelihood, 12)
    assert fast == pytest.approx(slow_selection(probs.astype(np.float64), labels, 12))


@pytest.mark.parametrize("seed", range(6))
def test_selection_is_as_good_as_the_best_of_all_mixtures_of_two_models(seed: int) -> None:
    probs, labels = draw(2, 60, 3, seed)
    found = ensemble.select(probs, labels, ensemble.log_likelihood, 40)
    shares = np.linspace(0, 1, 41)
    mixtures = np.stack([s * probs[0] + (1 - s) * probs[1] for s in shares])
    best = ensemble.log_likelihood(labels, mixtures).max()
    value = ensemble.log_likelihood(labels, ensemble.mix(found, probs)[None])[0]
    assert value == pytest.approx(best, abs=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_two_rounds_equal_brute_force_over_pairs_with_the_best(seed: int) -> None:
    probs, labels = draw(6, 50, 4, seed)
    alone = ensemble.log_likelihood(labels, probs)
    pairs = [(probs[alone.argmax()] + probs[m]) / 2 for m in range(6)]
    best = max(alone.max(), ensemble.log_likelihood(labels, np.stack(pairs)).max())
    weights = ensemble.select(probs, labels, ensemble.log_likelihood, 2)
    value = ensemble.log_likelihood(labels, ensemble.mix(weights, probs)[None])[0]
    assert value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("seed", "models"), list(itertools.product(range(8), (1, 2, 3, 12))))
def test_never_below_the_best_member_on_the_images_it_selects_on(seed: int, models: int) -> None:
    probs, labels = draw(models, 30, 3, seed)
    best = ensemble.log_likelihood(labels, probs).max()
    whole = ensemble.select(probs, labels, ensemble.log_likelihood)
    bags = ensemble.bagged(probs, labels, ensemble.log_likelihood, np.random.default_rng(seed))
    for weights in (whole, bags):
        value = ensemble.log_likelihood(labels, ensemble.mix(weights, probs)[None])[0]
        assert value >= best - 1e-6
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()


def test_the_order_of_the_members_does_not_matter() -> None:
    probs, labels = draw(9, 120, 3, 0)
    names = [f"t{m}" for m in range(9)]
    order = np.random.default_rng(1).permutation(9)
    one = ensemble.build(votes_of(probs, labels, names))
    other = ensemble.build(votes_of(probs[order], labels, [names[m] for m in order]))
    assert one == other


def test_a_twin_of_every_model_is_no_better_and_no_worse() -> None:
    probs, labels = draw(4, 120, 3, 0)
    alone = ensemble.select(probs, labels, ensemble.log_likelihood)
    twins = ensemble.select(np.concatenate([probs, probs]), labels, ensemble.log_likelihood)
    assert twins[:4] + twins[4:] == pytest.approx(alone)


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
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), (40, 400)).astype(np.float32)
    labels = rng.integers(4, size=400)
    found = ensemble.build(votes_of(probs, labels))
    assert found.optimistic["single"] > 0.27
    assert found.honest["single"].value == pytest.approx(0.25, abs=0.035)
    assert found.honest["ensemble"].value == pytest.approx(0.25, abs=0.035)


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


def test_no_trial_is_told() -> None:
    empty = votes_of(np.zeros((0, 5, 3), np.float32), np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="no trial"):
        ensemble.build(empty)


def test_the_baseline_stands_in_the_same_honest_column() -> None:
    probs, labels = draw(12, 300, 4, 2)
    worst = probs[int(ensemble.log_likelihood(labels, probs).argmin())].argmax(1)
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
    goal = Goal("macro_f1", np.ones(3, bool))
    turned = labels.copy()
    turned[7] = (labels[7] + 1) % 3
    fold = np.arange(60) % 5

    def said(truth: NDArray[np.int64]) -> NDArray[np.int64]:
        answers = ensemble.answers_of(votes_of(probs, truth))
        inside = answers.at(fold != fold[7])
        weights = ensemble.fit(inside, goal, np.random.default_rng(0))
        return crossfit.calls_of(weights, probs, fold == fold[7])

    assert (said(labels) == said(turned)).all()


def test_the_averaged_action_units_ignore_members_without_a_head() -> None:
    probs, labels = draw(2, 4, 3, 0)
    said = np.stack([np.full((4, 2), np.nan, np.float32), np.full((4, 2), 0.25, np.float32)])
    base = votes_of(probs, labels)
    votes = Votes(base.trials, base.ids, labels, probs, np.ones((4, 2), np.int8), said, {})
    assert ensemble.average(votes, {"t000": 0.5, "t001": 0.5})[1] == pytest.approx(0.25)
    assert np.isnan(ensemble.average(votes, {"t000": 1.0})[1]).all()


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
