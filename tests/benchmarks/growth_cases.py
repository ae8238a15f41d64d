"""What is measured as a run grows, and how: each a call at a size, in processor seconds.

A run of n trials is made up: configurations of sprint2 at 27 epochs, scores that follow from a few
settings, every trial waiting at a rung, or ended as successive halving ends it.
"""

import io
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ensemble import votes_of
from fake_run import FakeData
from report_growth import make as make_report_run
from report_growth import row as report_row
from rich.console import Console

from analysis import ensemble, written
from analysis.leaderboard import frame, read_board
from analysis.report import write_report
from search.core import Search
from search.journal import Journal
from search.monitor import Monitor, Place
from search.outlook import Outlook
from search.proposer import INVALID, SpaceProposer
from search.pruners import PRUNERS
from search.samplers import SAMPLERS
from search.standing import look
from search.status import page
from spaces.sprint2 import SPACE
from spaces.tiers import TIERS, at_tier
from trainables import metrics
from trainables.config import TrialConfig, pacing_horizon
from trainables.losses import LOSSES
from trainables.store import RunStore, TrialResult

EPOCHS, FIRST_RUNG = 27, 3
CROWD = 128  # running trials, in one of the cases
STEPS = 5  # decisions or rows that are timed together
Measure = Callable[[], float]  # -> processor seconds


@dataclass(frozen=True)
class Case:
    """Something whose cost may grow with `axis`; `each` is a step, of which a run has as many."""

    axis: str
    name: str
    sizes: tuple[int, ...]
    make: Callable[[int, Path], Measure]
    is_each: bool = False
    repeats: int = 3


def timed(call: Callable[[], Any], steps: int = 1) -> Measure:
    """Processor seconds of a call that does so many steps, for one of them."""

    def measure() -> float:
        began = time.process_time()
        call()
        return (time.process_time() - began) / steps

    return measure


# --- trials --------------------------------------------------------------------------------------


@cache
def space() -> Any:
    return at_tier(SPACE, TIERS["tiny"]).fixed({"epochs": EPOCHS})


def opened(root: Path) -> Search:
    """A search by the default methods on the record, as a resume makes it."""
    store, most = RunStore.open(root), 10**6
    model = SAMPLERS["mfgp"](space(), most, ("score",))
    rule = PRUNERS["thaw"](EPOCHS, FIRST_RUNG, 3)
    return Search(store, SpaceProposer(space(), model, 0), rule, most)


@cache
def recorded(trials: int, folder: Path) -> Path:
    """The record of a run of so many trials, written without waiting for the disk."""
    root, rng = folder / f"run{trials}", np.random.default_rng(0)
    run = RunStore.create(root, {"name": "growth", "trials": trials, "rungs": [3, 9]})
    rungs = (*PRUNERS["thaw"](EPOCHS, FIRST_RUNG, 3).milestones, EPOCHS)
    chance, known = random.Random(0), set[str]()
    while len(known) < trials:
        with suppress(*INVALID):
            config = TrialConfig.from_flat(space().sample(chance))
        if config.trial_id in known:
            continue
        trial = run.trial(config.trial_id)
        trial.path.mkdir(parents=True)
        epochs = rungs[min(int(rng.geometric(0.45)) - 1, len(rungs) - 1)]
        skill = 0.5 - 0.05 * abs(np.log(config.lr / 3e-3)) + 0.05 * rng.normal()
        rows = [
            {"epoch": e, "score": skill * (1 - 0.5 / e), "seconds": 4.0}
            for e in range(1, epochs + 1)
        ]
        (trial.path / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        head = {"index": len(known), "role": "proposed", "config": config.flat()}
        (trial.path / "config.json").write_text(json.dumps(head))
        (trial.path / "attempt").write_text("1")
        must_end = epochs == EPOCHS or epochs < pacing_horizon(config)  # no rung is for it
        if must_end or rng.random() < 0.5:
            status = "completed" if epochs == EPOCHS else "stopped"
            result = TrialResult(status, rows[-1], epochs, 4.0 * epochs)  # type: ignore[arg-type]
            (trial.path / "result.json").write_text(json.dumps(vars(result)))
        known.add(config.trial_id)
    return root


@cache
def shared(trials: int, folder: Path, running: int) -> Search:
    """A search on that record with so many trials in hand."""
    search = opened(recorded(trials, folder))
    while search.backlog or len(search.live) < running:
        assert search.next() is not None
    return search


def decisions(running: int) -> Callable[[int, Path], Measure]:
    def make(trials: int, folder: Path) -> Measure:
        search = shared(trials, folder, running)

        steps = max(2 * STEPS, running // 8)

        def decide() -> None:
            for _ in range(steps):
                assert search.next() is not None

        return timed(decide, steps)

    return make


def advance(search: Search) -> None:
    """A row of each of a few running trials, none at a rung."""
    for trial in list(search.live)[:STEPS]:
        epoch = max(search.rows[trial], default=0) + 1
        while epoch in search.pruner.milestones or epoch >= EPOCHS:
            epoch += 1
        search.on_row(trial, {"epoch": epoch, "score": 0.3, "seconds": 4.0})


def rows(trials: int, folder: Path) -> Measure:
    search = shared(trials, folder, CROWD)
    return timed(lambda: advance(search), STEPS)


def after_rows(look_at: Callable[[], Any], search: Search) -> Measure:
    """The cost of a look after a few rows have come."""

    def measure() -> float:
        advance(search)
        return timed(look_at)()

    return measure


def live_table(trials: int, folder: Path) -> Measure:
    search = shared(trials, folder, CROWD)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monitor = Monitor(search, 10**6, EPOCHS, console, Place(workers=CROWD))
    monitor.table()
    return after_rows(lambda: console.print(monitor.table()), search)


def forecasts(trials: int, folder: Path) -> Measure:
    search = shared(trials, folder, CROWD)
    outlook = Outlook(search, CROWD)
    outlook.began = (outlook.clock(), 0.0)
    return timed(lambda: outlook._make(outlook.clock()))


def journals(trials: int, folder: Path) -> Measure:
    search = opened(recorded(trials, folder))

    def write() -> None:
        journal = Journal(search, space())
        journal.path.unlink(missing_ok=True)
        journal.start()

    return timed(write)


def journal_rows(trials: int, folder: Path) -> Measure:
    search = shared(trials, folder, CROWD)
    journal = Journal(search, space())
    journal.path.unlink(missing_ok=True)
    journal.start()
    return after_rows(journal.stop, search)


def resumes(trials: int, folder: Path) -> Measure:
    root = recorded(trials, folder)
    return timed(lambda: opened(root))


def statuses(trials: int, folder: Path) -> Measure:
    root = recorded(trials, folder)
    return timed(lambda: Console(file=io.StringIO()).print(page(look(root), time.time())))


def leaderboards(trials: int, folder: Path) -> Measure:
    """With 90 validation images, so that trials and not images are what costs."""
    run = make_report_run(folder / f"board{trials}", trials, FakeData(val_share=0.034))
    return timed(lambda: written.parquet(frame(read_board(run))))


def reports(trials: int, folder: Path) -> Measure:
    return lambda: report_row(trials, None)["processor s"]


# --- classes, and models in a pool ---------------------------------------------------------------


def predicted(models: int, images: int, classes: int) -> tuple[Any, Any]:
    """Probabilities (M, N, K) of models that are right half of the time, and the labels (N,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=images)
    probs = rng.random((models, images, classes), np.float32)
    probs[:, np.arange(images), labels] += (rng.random((models, images)) < 0.5) * 1.0
    return probs / probs.sum(2, keepdims=True), labels


def scoring(classes: int, folder: Path) -> Measure:
    probs, labels = predicted(1, 5000, classes)
    return timed(lambda: metrics.scores(labels, probs[0]))


def losses(classes: int, folder: Path) -> Measure:
    """All losses, built from the class counts and run forward and back on a batch of 64."""
    counts = np.random.default_rng(0).integers(1, 500, classes)
    logits = torch.randn(64, classes, requires_grad=True)
    targets = torch.nn.functional.one_hot(torch.arange(64) % classes, classes).float()

    def run() -> None:
        for name in LOSSES:
            LOSSES[name](counts)(logits, targets).mean().backward()  # type: ignore[no-untyped-call]

    return timed(run)


def ensembles_of_classes(classes: int, folder: Path) -> Measure:
    votes = votes_of(*predicted(20, 500, classes))
    return timed(lambda: ensemble.build(votes))


def reports_of_classes(classes: int, folder: Path) -> Measure:
    """All of the report of ten trials, with the confusions and the recalls."""
    base = FakeData()
    counts = tuple(int(n) for n in np.random.default_rng(0).integers(3, 60, classes))
    names = tuple(f"class {k}" for k in range(classes))
    data = replace(base, class_names=names, train_counts=counts)
    run = make_report_run(folder / f"classes{classes}", 10, data)
    return timed(lambda: write_report(run))


def ensembles(models: int, folder: Path) -> Measure:
    votes = votes_of(*predicted(models, 300, 7))
    return timed(lambda: ensemble.build(votes))


TRIALS = (10, 30, 100, 300, 1000, 3000, 10_000)
MANY = (300, 1000, 3000, 10_000)
CLASSES = (7, 20, 50, 100, 200, 500, 1000)
POOL = (10, 30, 100, 300, 1000, 5000)


def cases() -> Iterator[Case]:
    yield Case("trials", "a decision, few run", TRIALS, decisions(1), is_each=True, repeats=2)
    yield Case("trials", f"a decision, {CROWD} run", MANY, decisions(CROWD), is_each=True)
    yield Case("trials", "a row taken", MANY, rows, is_each=True)
    yield Case("trials", "a look at the live table", MANY, live_table, is_each=True)
    yield Case("trials", "a row in the journal", MANY, journal_rows, is_each=True)
    yield Case("trials", "a forecast", MANY, forecasts)
    yield Case("trials", "the journal, written anew", TRIALS, journals, repeats=1)
    yield Case("trials", "resume", TRIALS, resumes)
    yield Case("trials", "search.status", TRIALS, statuses)
    yield Case("trials", "leaderboard and Parquet", TRIALS, leaderboards)
    yield Case("trials", "the whole report", MANY, reports, repeats=1)
    yield Case("classes", "scores of an epoch", CLASSES, scoring)
    yield Case("classes", "all losses", CLASSES, losses)
    yield Case("classes", "ensemble of 20", CLASSES, ensembles_of_classes, repeats=1)
    yield Case("classes", "report of 10 trials", CLASSES, reports_of_classes, repeats=1)
    yield Case("models", "ensemble", POOL, ensembles, repeats=1)
