"""Corrections after training: each by hand, chosen on other images than those that score it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_run import FakeData, make_run
from page import Page

from analysis import corrections, posthoc, report
from analysis.corrections import (
    ADJUSTMENTS,
    NORMALISATIONS,
    TEMPERATURES,
    Step,
    adjusted,
    after,
    averaged,
    chain,
    crossfitted,
    fit,
    log_prior,
    normalised,
    tempered,
)
from analysis.findings import find
from analysis.leaderboard import read_board
from analysis.statistics import Goal, signed
from trainables import cli
from trainables.store import RunStore
from trainables.views import FLIP, PLAIN, SCALED, Views, file_of, pack

TWO = Goal("accuracy", np.ones(2, bool))


def goal(classes: int, name: str = "uar") -> Goal:
    return Goal(name, np.ones(classes, bool))


# --- by hand -------------------------------------------------------------------------------------


def test_the_mean_of_two_views_by_hand():
    # softmax(0, 0) = (1/2, 1/2); softmax(ln 9, 0) = (9/10, 1/10): mean (7/10, 3/10)
    found = averaged(np.array([[[0.0, 0.0]], [[math.log(9), 0.0]]]))
    np.testing.assert_allclose(np.exp(found), [[0.7, 0.3]])


def test_a_view_may_have_any_constant_added_to_its_logits():
    logits = np.random.default_rng(0).normal(size=(3, 6, 4))
    shifted = logits + np.array([0.0, 5.0, -7.0])[:, None, None]
    np.testing.assert_allclose(averaged(shifted), averaged(logits), atol=1e-12)


def test_adjustment_by_hand():
    # three images of four are of the first class: pi = (3/4, 1/4); tau 1 moves the border by ln 3
    prior = log_prior([3, 1])
    np.testing.assert_allclose(prior, np.log([0.75, 0.25]))
    logits = np.array([[1.0, 0.0], [1.2, 0.0]])  # ln 3 = 1.0986 lies between
    assert adjusted(prior)(logits, 0.0).tolist() == logits.tolist()
    assert adjusted(prior)(logits, 1.0).argmax(1).tolist() == [1, 0]
    gap = adjusted(prior)(logits, 1.0)
    assert (gap[:, 0] - gap[:, 1]).tolist() == pytest.approx([1 - math.log(3), 1.2 - math.log(3)])
    assert np.isfinite(log_prior([3, 0])).all()  # a class without training images


def test_a_temperature_by_hand():
    # right three times of four with logit ln 9: NLL is least where the softmax says 3/4, that is
    # at T = ln 9 / ln 3 = 2
    logits, labels = np.tile([[math.log(9), 0.0]], (4, 1)), np.array([0, 0, 0, 1])
    assert tempered(logits, 2.0)[0].tolist() == [math.log(3), 0.0]
    step = Step("temperature", TEMPERATURES, tempered, "nll")
    found = fit(logits, labels, step, TWO, np.ones(4, bool))
    assert found == pytest.approx(2.0, rel=0.03)
    assert TEMPERATURES.min() == pytest.approx(0.5)
    assert TEMPERATURES.max() == pytest.approx(5)


def test_tau_normalisation_by_hand():
    # norms 4 and 1, geometric mean 2: relative 2 and 1/2
    turn = normalised(np.array([4.0, 1.0]))
    logits = np.array([[3.0, 1.0]])
    assert turn(logits, 0.0).tolist() == [[3.0, 1.0]]
    assert turn(logits, 1.0).tolist() == [[1.5, 2.0]]
    assert turn(logits, 0.5)[0].tolist() == pytest.approx([3 / math.sqrt(2), math.sqrt(2)])


def test_a_parameter_is_the_best_of_its_grid_and_the_first_of_equals():
    logits, labels = np.array([[1.0, 0.0], [0.5, 0.0]]), np.array([0, 1])
    step = Step("tau", ADJUSTMENTS, adjusted(log_prior([3, 1])), "score")
    found = fit(logits, labels, step, TWO, np.ones(2, bool))
    # the second image tips at tau ln 3 = 0.5, the first at 1: the first value above 0.455
    assert found == pytest.approx(0.5)
    only_first = np.array([True, False])
    assert fit(logits, labels, step, TWO, only_first) == 0.0  # all up to 0.9 are right


def test_steps_follow_one_another():
    rng = np.random.default_rng(0)
    logits, labels = 4 * rng.normal(size=(60, 2)), rng.integers(2, size=60)
    prior = log_prior([9, 1])
    steps = [
        Step("temperature", TEMPERATURES, tempered, "nll"),
        Step("tau", ADJUSTMENTS, adjusted(prior), "score"),
    ]
    found, chosen = chain(logits, labels, steps, goal(2), np.ones(60, bool))
    by_hand = logits / chosen["temperature"] - chosen["tau"] * prior
    np.testing.assert_allclose(found, by_hand)
    assert list(chosen) == ["temperature", "tau"]


# --- honesty -------------------------------------------------------------------------------------


def test_no_image_takes_part_in_choosing_what_scores_it():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 3)), np.repeat([0, 1, 2, 0], 10)
    asked: list[np.ndarray] = []

    def turn(part, value):
        asked.append(part)
        return part + value

    step = Step("shift", np.array([1.0]), turn, "nll")
    found = crossfitted(logits, labels, [step], goal(3), np.random.default_rng(1))
    assert found.shape == (3, 40, 3)
    np.testing.assert_allclose(found, np.broadcast_to(logits + 1, found.shape))
    choosing = [part for part in asked if len(part) < 40]
    assert {len(part) for part in choosing} <= {30, 31, 32, 33, 34}
    rows = {tuple(row) for row in logits}
    for repeat in range(3):
        own = choosing[5 * repeat : 5 * repeat + 5]
        for row in rows:  # each image is left out of exactly one of five choices
            assert sum(row in {tuple(r) for r in part} for part in own) == 4


def test_where_nothing_is_to_be_gained_no_gain_is_told():
    """Balanced classes: any tau is noise, whose best would seem to gain on the images it is of."""
    gains, naive = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(4), 25)
        logits = rng.normal(size=(100, 4))
        logits[np.arange(100), labels] += 0.5
        prior = rng.normal(size=4)  # an adjustment that has nothing to do with the images
        steps = [Step("tau", ADJUSTMENTS, adjusted(prior - prior.mean()), "score")]
        before = (logits.argmax(1) == labels).mean()
        found = crossfitted(logits, labels, steps, goal(4), rng)
        gains.append((found.argmax(2) == labels).mean() - before)
        inside, _ = chain(logits, labels, steps, goal(4), np.ones(100, bool))
        naive.append((inside.argmax(1) == labels).mean() - before)
    assert np.mean(naive) > 0.005
    assert np.mean(gains) < 0.003


def shifted(seed: int = 0, images: int = 400) -> tuple[Views, np.ndarray, list[int]]:
    """A model that has learned a prior of 12 to 1 on classes that are equally frequent here."""
    rng = np.random.default_rng(seed)
    counts, labels = [1200, 400, 100], np.arange(images) % 3
    plain, flip = (rng.normal(size=(images, 3)) for _ in range(2))
    shared = rng.normal(size=(images, 3))
    logits = np.stack([shared + plain, shared + flip]) + log_prior(counts)
    logits[:, np.arange(images), labels] += 2.0
    ids = tuple(f"i{n}" for n in range(images))
    norms = np.array([2.0, 1.0, 0.5], np.float32)
    return Views(ids, (PLAIN, FLIP), logits.astype(np.float32), norms), labels, counts


def test_what_helps_is_found_with_its_interval():
    views, labels, counts = shifted()
    found = after("t", views, labels, goal(3), counts)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == [
        "as trained", "mean of flips", "temperature", "logit adjustment", "tau-normalisation",
        "flips, temperature, adjustment",
    ]  # fmt: skip
    assert rows["as trained"].gap is None
    gap = rows["logit adjustment"].gap
    assert gap is not None
    assert gap.low > 0.03
    assert gap.value == pytest.approx(
        rows["logit adjustment"].scores["uar"] - rows["as trained"].scores["uar"]
    )
    assert 0.6 <= rows["logit adjustment"].chosen["tau"] <= 1.5
    assert rows["flips, temperature, adjustment"].scores["uar"] > gap.value
    warm = rows["temperature"]
    assert warm.scores["accuracy"] == rows["as trained"].scores["accuracy"]
    assert warm.scores["nll"] <= rows["as trained"].scores["nll"] + 0.002
    assert found.curve["UAR"][0] == pytest.approx(rows["as trained"].scores["uar"])
    assert found.curve["UAR"].argmax() > 5
    assert NORMALISATIONS.max() == 1.5
    assert ADJUSTMENTS.max() == 2


def test_a_trial_is_offered_what_it_allows():
    views, _, _ = shifted()
    plain = replace(views, names=(PLAIN,), logits=views.logits[:1], norms=views.norms[:0])
    assert list(corrections.corrections(plain, None)) == ["as trained", "temperature"]
    six = np.concatenate([views.logits] * 3)
    whole = replace(views, names=(PLAIN, FLIP, *SCALED), logits=six)
    assert "mean of flips and scales" in corrections.corrections(whole, None)


# --- of a run ------------------------------------------------------------------------------------

DATA = FakeData(("happy", "sad", "calm"), (300, 200, 60), (), 0.8)


def with_views(run: RunStore) -> RunStore:
    """The run, its completed trials with views that say what their predictions say."""
    for record in run.records():
        trial = run.trial(record.id)
        said = trial.predictions("val")
        if said is not None and record.result is not None and record.result.status == "completed":
            logits = np.log(np.maximum(said.probs, 1e-4))
            order = np.random.default_rng(0).permutation(len(said.ids))  # any order will do
            views = Views(
                tuple(said.ids[i] for i in order), (PLAIN, FLIP),
                np.stack([logits, logits[:, :]])[:, order], np.array([1.0, 2.0, 3.0], np.float32),
            )  # fmt: skip
            trial.write(file_of("val"), pack(views))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunStore:
    return with_views(make_run(tmp_path_factory.mktemp("after") / "run", 8, DATA))


def test_the_page_shows_what_can_be_done_after_training(run: RunStore) -> None:
    page = Page(report.write_report(run).read_text())
    found = find(read_board(run))
    answers = posthoc.of_findings(found)
    assert list(answers) == ["best single", "baseline"]
    best = answers["best single"][0]
    assert best is not None
    shown = page.rows["after"]
    count = len(best.rows)
    assert [row[0] for row in shown[1 : count + 1]] == [row.name for row in best.rows]
    for cells, row in zip(shown[1 : count + 1], best.rows, strict=True):
        assert cells[1] == posthoc.told(row)
        assert cells[2:7] == [f"{row.scores[name]:.3f}" for name in posthoc.SHOWN]
        assert cells[7] == signed(row.gap)
    before = best.rows[0].scores["score"]
    assert before == pytest.approx(found.row(str(found.best))["score"], abs=0.01)
    assert posthoc.sentence(best) in page.text


def test_a_run_without_views_says_so(tmp_path) -> None:
    page = Page(report.write_report(make_run(tmp_path / "run", 3, DATA)).read_text())
    assert "has stored no views" in page.text


def test_the_command_corrects_every_completed_trial(run: RunStore, capsys) -> None:
    assert posthoc.main([str(run.root)]) == 0
    table = pd.read_csv(run.root / "report" / "posthoc.csv")
    ended = [r.id for r in run.records() if r.result and r.result.status == "completed"]
    assert sorted(set(table["trial"])) == sorted(ended)
    assert "After training" in " ".join(capsys.readouterr().out.split())
    one = table[(table["trial"] == ended[0]) & (table["correction"] == "as trained")].iloc[0]
    scores = read_board(run)
    assert one["score"] == pytest.approx(
        next(r for _, r in find(scores).table.iterrows() if r["trial"] == ended[0])["score"],
        abs=0.01,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"torn", "not a file of views"),
        (None, "are of other images"),
    ],
)
def test_views_that_cannot_be_used_are_told(tmp_path, change, message) -> None:
    run = with_views(make_run(tmp_path / "run", 3, DATA))
    board = read_board(run)
    trial = next(r.id for r in run.records() if r.result and r.result.status == "completed")
    path = run.trial(trial).path / file_of("val")
    if change is None:
        views, _, _ = shifted()
        path.write_bytes(pack(views))
    else:
        path.write_bytes(change(path.read_bytes()))
    found, why = posthoc.of_trial(board, trial)
    assert found is None
    assert message in why


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no run at 'nowhere'"),
        (["{run}", "--trial", "abc"], "has no completed trial 'abc'; there are: "),
        (["{bare}"], "nothing to correct in"),
        (["{run}", "--trail", "x"], "Did you mean '--trial'"),
    ],
)
def test_a_mistake_is_told_in_a_line(run, tmp_path, capsys, words, message) -> None:
    bare = make_run(tmp_path / "bare", 3, DATA)
    filled = [word.format(run=run.root, bare=bare.root) for word in words]
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: posthoc.main(filled))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
