"""Who earns a further fold: the rule by hand, whole searches with it, and their resumes."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_inline import Counter
from toy import EPOCHS, SPACE, proposer_of, run_toy

from search import folds
from search.core import Search
from search.folds import FoldLadder, pooled_score
from search.inline import run_inline
from search.pruners import PRUNERS
from trainables import metrics
from trainables.config import TrialConfig
from trainables.store import Predictions, RunStore

K = 5
FOLDED = replace(SPACE, settings={**SPACE.settings, "folds": K})
BASE = ("baseline", {**FOLDED.defaults(), "lr": 3e-3})


def start(root: Path, budget: int = 30, pruner: str = "asha", sampler: str = "random") -> Search:
    fresh = not (root / "run.json").exists()
    store = RunStore.create(root, {"name": "toy"}) if fresh else RunStore.open(root)
    proposer = proposer_of(FOLDED, sampler, budget, anchors=[BASE])
    return Search(store, proposer, PRUNERS[pruner](EPOCHS, 1, 3), budget, folds=K)


def shape(search: Search) -> dict[str, tuple[str, list[int]]]:
    """Of each configuration its role and folds."""
    return {
        first: (entry.role, sorted(entry.trials)) for first, entry in search.ladder.entries.items()
    }


def history(root: Path) -> list[tuple[str, str, int]]:
    return [(r.id, r.role, len(r.history)) for r in RunStore.open(root).records()]


# --- the rule ----------------------------------------------------------------------------------


def config(number: int, fold: int = 0) -> TrialConfig:
    return TrialConfig(folds=K, fold=fold, lr=1e-3 * (1 + number))


def ladder_of(scores: list[float]) -> tuple[FoldLadder, list[str]]:
    """A ladder on which so many configurations have ended their first fold."""
    value = dict[str, float]()
    ladder = FoldLadder(K, lambda trials: value[trials[0]])
    names = []
    for number, score in enumerate(scores):
        own = config(number)
        names.append(own.trial_id)
        value[own.trial_id] = score
        ladder.add(own.trial_id, own, "proposed")
        ladder.close(own, "completed")
    return ladder, names


def counts(ladder: FoldLadder) -> dict[int, int]:
    """How many configurations have so many folds."""
    ended = [len(entry.ended) for entry in ladder.entries.values()]
    return {n: ended.count(n) for n in sorted(set(ended) - {0}, reverse=True)}


def run_fold(ladder: FoldLadder, left: int = 100, is_last: bool = False):
    """Begin and end the next fold: (configuration, fold), or None."""
    found = ladder.next(left, is_last)
    if found is None:
        return None
    own, role = found
    ladder.add(own.trial_id, own, role)
    ladder.close(own, "completed")
    return ladder.first_of(own), own.fold


def test_the_best_third_goes_on_to_three_folds_and_of_those_the_best_third_to_all():
    ladder, names = ladder_of([0.1 * k for k in range(9)])
    begun = []
    while (step := run_fold(ladder)) is not None:
        begun.append(step)
    best = names[::-1]
    expected = [(name, fold) for name in best[:3] for fold in (1, 2)]
    assert begun[:6] == expected
    assert begun[6:] == [(best[0], 3), (best[0], 4)]
    assert counts(ladder) == {5: 1, 3: 2, 1: 6}


def test_fewer_than_three_tell_no_best_third_until_nothing_else_comes():
    ladder, names = ladder_of([0.3, 0.7])
    assert ladder.next(100) is None
    begun = []
    while (step := run_fold(ladder, is_last=True)) is not None:
        begun.append(step)
    assert begun == [(names[1], fold) for fold in range(1, K)]


def test_the_baseline_has_all_folds_whatever_it_scores():
    value = {config(0).trial_id: 0.0}
    ladder = FoldLadder(K, lambda trials: value[trials[0]])
    ladder.add(config(0).trial_id, config(0), "baseline")
    ladder.close(config(0), "completed")
    assert [run_fold(ladder) for _ in range(K)] == [
        *((config(0).trial_id, fold) for fold in range(1, K)),
        None,
    ]


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_a_fold_that_is_not_whole_ends_its_configuration(status):
    ladder, names = ladder_of([0.1, 0.2, 0.9])
    own, role = ladder.next(100)
    assert ladder.first_of(own) == names[2]
    ladder.add(own.trial_id, own, role)
    ladder.close(own, status)
    assert ladder.next(100) is None
    assert ladder.next(100, is_last=True)[0].lr == config(1).lr


def test_what_one_configuration_needs_for_all_folds_is_kept_back():
    ladder = FoldLadder(K, lambda trials: 0.5)
    assert ladder.owed == K - 1
    ladder.add(config(0).trial_id, config(0), "baseline")
    assert ladder.owed == 2 * (K - 1)
    ladder.close(config(0), "completed")
    while run_fold(ladder) is not None:
        pass
    ladder, _ = ladder_of([0.1, 0.2, 0.9])
    assert ladder.owed == K - 1
    assert run_fold(ladder, K - 1) is not None
    assert ladder.owed == 1 + K - 3  # one that is due, two up to the last
    assert ladder.next(0) is None


def test_the_score_of_a_rung_is_that_of_all_its_images_together(tmp_path):
    store = RunStore.create(tmp_path, {})
    rng, ids, parts = np.random.default_rng(0), [], []
    for fold in range(3):
        labels = rng.integers(0, 3, 40)
        probs = rng.dirichlet(np.ones(3), 40).astype(np.float32)
        said = Predictions(
            tuple(f"{fold}/{k}" for k in range(40)),
            labels,
            probs,
            np.zeros((40, 0), np.int8),
            np.zeros((40, 0), np.float32),
        )
        ids.append(store.create_trial(config(0, fold), fold))
        store.trial(ids[-1]).save_predictions("val", said)
        parts.append(store.trial(ids[-1]).predictions("val"))
    labels = np.concatenate([part.labels for part in parts])
    whole = metrics.scores(labels, np.concatenate([part.probs for part in parts]), "macro_f1")
    assert pooled_score(store, "macro_f1")(ids) == pytest.approx(whole["score"])
    each = [metrics.scores(p.labels, p.probs, "macro_f1")["score"] for p in parts]
    assert pooled_score(store, "macro_f1")(ids) != pytest.approx(np.mean(each), abs=1e-4)


# --- whole searches ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "pruner", "budget"),
    [
        ("random", "none", 2 * K),
        ("random", "none", 40),
        ("tpe", "asha", 23),
        ("random", "promotion", 23),
        ("mfgp", "thaw", 23),
    ],
)
def test_a_search_spends_its_trainings_and_leaves_a_whole_configuration(
    tmp_path, sampler, pruner, budget
):
    search = start(tmp_path, budget, pruner, sampler)
    assert run_inline(search, tmp_path, run_toy)
    assert search.is_finished
    assert len(search.results) == len(search.rows) <= budget
    found = shape(search)
    whole = [role for role, own in found.values() if own == list(range(K))]
    assert whole.count("baseline") == 1
    assert len(whole) >= 2
    assert len(search.rows) >= budget - 2  # a last promotion may be dearer than what is left
    for trial, settings in search.configs.items():
        if settings["fold"]:
            assert search.results[trial].status == "completed"
            assert all(trial not in rung for rung in search.pruner.rungs.values())


def test_the_sampler_learns_of_each_fold(tmp_path):
    search = start(tmp_path, 20, "none", "mfgp")
    run_inline(search, tmp_path, run_toy)
    assert set(search.proposer.model.trials) == set(search.rows)


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "asha"), ("mfgp", "thaw")])
def test_a_search_interrupted_anywhere_equals_one_that_was_not(tmp_path, sampler, pruner):
    run_inline(start(tmp_path / "whole", 16, pruner, sampler), tmp_path, run_toy)
    for patience in range(3, 400, 5):
        search = start(tmp_path / "cut", 16, pruner, sampler)
        if run_inline(search, tmp_path, run_toy, Counter(patience % 17 + 2)):
            break
    assert history(tmp_path / "cut") == history(tmp_path / "whole")


def test_a_crash_between_two_folds_that_were_earned_together_loses_none(tmp_path):
    search = start(tmp_path, 40, "none")
    while counts(search.ladder).get(2, 0) < 2:  # baseline and another have two of three
        handout = search.next()
        for row in run_toy(search.store.trial(handout.id, handout.attempt), tmp_path):
            search.on_row(handout.id, row)
        search.on_end(handout.id)
        if any(e.role != "baseline" and e.due for e in search.ladder.entries.values()):
            break
    before = {f: (e.due, len(e.trials)) for f, e in search.ladder.entries.items()}
    again = start(tmp_path, 40, "none")
    assert {f: (e.due, len(e.trials)) for f, e in again.ladder.entries.items()} == before
    assert again.ladder.paused == search.ladder.paused


# --- several workers -----------------------------------------------------------------------------


def advance(search: Search, live: dict, chance: random.Random, workers: int = 4) -> bool:
    """One epoch of one trial of those that run, by chance; False once nothing runs."""
    while len(live) < workers and (handout := search.next()) is not None:
        live[handout.id] = run_toy(search.store.trial(handout.id, handout.attempt), Path())
    if not live:
        return False
    trial = chance.choice(sorted(live))
    row = next(live[trial])
    verdict = search.on_row(trial, row)
    if row["done"] or verdict != "continue":
        del live[trial]
        if verdict != "pause":
            search.on_end(trial)
    return True


def standing(search: Search):
    """All that the ladder knows, but for the order in which it came to know it."""
    found = {
        first: (
            entry.role,
            entry.trials,
            sorted(entry.ended),
            entry.due,
            entry.scores,
            entry.is_out,
        )
        for first, entry in search.ladder.entries.items()
    }
    return found, search.ladder.paused, search.ladder.owed


@pytest.mark.parametrize(("seed", "pruner"), [(0, "none"), (1, "asha"), (2, "promotion")])
def test_a_driver_that_dies_at_any_moment_finds_every_fold_where_it_was(tmp_path, seed, pruner):
    chance, live = random.Random(seed), {}
    search = start(tmp_path, 24, pruner)
    for step in range(1000):
        if not advance(search, live, chance):
            break
        if step == 40:
            search.on_end(trial := sorted(live)[0], "a bug")
            del live[trial]
        if step % 5 == 0:
            assert standing(start(tmp_path, 24, pruner)) == standing(search), step
    assert search.is_finished
    assert sum(len(entry.ended) == K for entry in search.ladder.entries.values()) >= 2


def test_folds_of_one_configuration_are_trained_at_once(tmp_path):
    search, live, chance = start(tmp_path, 2 * K, "none"), {}, random.Random(0)
    together = 0
    while advance(search, live, chance):
        firsts = [search.ladder.first_of(TrialConfig.from_flat(search.configs[t])) for t in live]
        together = max(together, *(firsts.count(first) for first in firsts), 0)
    assert together == 4  # all workers at the baseline's further folds


def test_what_a_failed_baseline_was_to_have_goes_to_new_configurations(tmp_path):
    search, live, chance = start(tmp_path, 20, "none"), {}, random.Random(0)
    while advance(search, live, chance):
        for trial in [t for t in live if search.roles[t] == "baseline"]:
            search.on_end(trial, "a bug")
            del live[trial]
    assert search.is_finished
    assert len(search.rows) == 20


def test_as_long_as_folds_are_owed_something_is_to_come(tmp_path):
    search, live, chance = start(tmp_path, 2 * K, "none"), {}, random.Random(0)
    while advance(search, live, chance):
        begun = len(search.rows)
        assert search.to_come == 2 * K - begun
    assert search.to_come == 0


def test_without_folds_there_is_no_ladder(tmp_path):
    store = RunStore.create(tmp_path, {})
    search = Search(store, proposer_of(), PRUNERS["none"](EPOCHS, 1, 3), 3)
    assert search.ladder is None
    run_inline(search, tmp_path, run_toy)
    assert search.is_finished
    assert {settings["fold"] for settings in search.configs.values()} == {0}


def test_a_budget_that_is_too_small_is_refused_with_what_is_needed():
    folds.check_budget(1, 1)
    folds.check_budget(K, 2 * K)
    with pytest.raises(ValueError, match="need 10, but --trials is 9"):
        folds.check_budget(K, 9)


def test_a_forecast_leaves_room_for_further_folds():
    assert folds.further(1, 50, is_pruned=False) == 0
    assert 2 * (K - 1) <= folds.further(K, 30, is_pruned=True) < 30
    assert folds.further(K, 60, is_pruned=False) > folds.further(K, 60, is_pruned=True)


def test_what_is_told_of_folds():
    assert folds.told({5: 2, 1: 3}, 5) == "of 5, configurations: 2 with 5, 3 with 1"
    assert replace(config(0), fold=3).group_id == config(0).group_id
