"""Gangs: a trial of several ranks is the trial of one, and a rank that dies ends its gang."""

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gangs import as_ranks, run_shared
from torch import Generator
from toy import EPOCHS, flat, quality, start

from search.cluster import Resources, count_workers
from search.driver import run_ray
from trainables.config import Flat, TrialConfig
from trainables.data import cache
from trainables.ranks import here
from trainables.trial import Training


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "gangs"),
    [
        (Resources(ranks=2), 5, 0, 2),
        (Resources(cpus_per_trial=2, ranks=2), 9, 0, 2),
        (Resources(gpus_per_trial=4), 64, 9, 2),
        (Resources(cpus_per_trial=4, gpus_per_trial=2), 16, 16, 2),  # CPUs for each rank
        (Resources(gpus_per_trial=2, ranks=2), 16, 4, 2),
        (Resources(ranks=2, max_concurrent=1), 8, 0, 1),
    ],
)
def test_gangs_are_as_many_as_fit(resources, cpus, gpus, gangs):
    assert count_workers(resources, cpus, gpus) == gangs


def test_a_gang_reserves_one_bundle_for_each_rank():
    gang = Resources(cpus_per_trial=3, gpus_per_trial=4)
    assert (gang.size, gang.bundle) == (4, {"CPU": 3, "GPU": 1})
    assert (Resources(ranks=2).size, Resources(ranks=2).bundle) == (2, {"CPU": 1})
    assert Resources(gpus_per_trial=0.25).bundle == {"CPU": 1, "GPU": 0.25}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(cpus_per_trial=2, ranks=4), "asks for 8 CPUs, but there are 4; .* --cpu-ranks"),
        (Resources(ranks=0), "at least 1 rank"),
        (Resources(gpus_per_trial=0.5, ranks=2), "one rank on each whole GPU"),
        (Resources(gpus_per_trial=2, ranks=4), "one rank on each whole GPU"),
        (Resources(ranks=2, placement="tight"), "unknown placement 'tight'; known: pack"),
    ],
)
def test_gangs_that_cannot_be_are_refused(resources, message):
    with pytest.raises((ValueError, LookupError), match=message):
        count_workers(resources, 4, 2)


MIXED: Flat = {
    "backbone": "test_resnet", "image_size": 48, "dropout": 0.0, "drop_path": 0.0,
    "attention": "au_spatial", "attention_stage": "middle", "region_weight": 0.1,
    "au_loss": "bce", "au_weight": 0.5, "mix": "cutmix",
}  # fmt: skip


def gradients(data: Path, images: int) -> dict[str, np.ndarray]:
    """Of one batch in two pieces, under balances that exchange them in both ways.

    In double precision: single precision flips a ReLU here and there.
    """
    found = {}
    for balance in ("fixed", "gradnorm"):
        flat = {**MIXED, "au_balance": balance, "clip": 1e9}
        training = Training(TrialConfig.from_flat(flat), cache.load(data), here())
        training.model.double().train()
        batch = next(training.plan.feed.batches(np.arange(images), Generator().manual_seed(1)))
        batch = replace(batch, images=batch.images.double(), targets=batch.targets.double())
        model, stepper = training.trained.train(), training.stepper
        stepper.parts = 2
        stepper.step(batch, partial(training.plan.objective(0.0), model))
        found[f"{balance} weights"] = np.array(stepper.balance.weights)
        for name, parameter in training.model.named_parameters():
            if parameter.grad is not None:
                found[f"{balance} {name}"] = parameter.grad.numpy()
    return found


def test_two_ranks_have_the_gradient_of_one(faces, tmp_path):
    alone = gradients(faces, 31)  # pieces of 16 and 15 images
    for found in as_ranks(2, tmp_path, gradients, faces, 31):
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-8, atol=1e-12, err_msg=name)


# --- on Ray --------------------------------------------------------------------------------------


EPOCHS_SEEN = list(range(1, EPOCHS + 1))


def pids(record):
    return {row["pids"] for row in record.history}


def assert_none_alive(said):
    """Every process that was a rank has ended; Ray ends them a moment after the run."""
    left = {pid for ranks in said for pid in json.loads(ranks)}
    until = time.monotonic() + 30
    while left := {pid for pid in left if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() < until, f"processes {left} are left"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_gang_goes_from_trial_to_trial_and_survives_its_dead(cluster, tmp_path):
    anchors = [
        ("baseline", flat(lr=1e-5)),
        ("default", flat(weights="raise", fold=2)),
        ("default", flat(weights="die_peer", fold=4, lr=1e-2)),
        ("default", flat(weights="die_first", fold=4, lr=1e-2, loss="focal")),
    ]
    search = start(tmp_path, budget=7, anchors=anchors, pruner="none")
    assert run_ray(search, tmp_path, run_shared, Resources(ranks=2))
    records = search.store.records()
    baseline, raised, peer, first, *others = records
    assert raised.result.error == "RuntimeError: a bug on every rank"
    assert raised.result.epoch == 1
    assert search.store.trial(raised.id).read("attempt") == b"1"  # a bug is not tried again
    for died in (peer, first):
        assert died.result.status == "completed"
        assert search.store.trial(died.id).read("attempt") == b"2"
        assert len(pids(died)) == 2  # two gangs had it
    assert [r.result.status for r in others] == ["completed"] * 3
    assert len(set.union(*map(pids, others))) == 1  # one gang had them all
    for record in (baseline, peer, first, *others):
        scores = [quality(TrialConfig.from_flat(record.config)) * e / EPOCHS for e in EPOCHS_SEEN]
        assert [row["epoch"] for row in record.history] == EPOCHS_SEEN
        assert [row["score"] for row in record.history] == pytest.approx(scores)
    assert_none_alive(set.union(*map(pids, records)))


@pytest.mark.slow
def test_a_rank_that_fails_alone_does_not_leave_the_others_waiting(cluster, tmp_path):
    anchors = [("baseline", flat(weights="raise_one", fold=1))]
    search = start(tmp_path, budget=1, anchors=anchors)
    search.max_losses = 0
    assert run_ray(search, tmp_path, run_shared, Resources(ranks=2))
    (record,) = search.store.records()
    assert record.result.status == "failed"
    assert record.result.error.startswith("its worker was lost 1 times (RuntimeError: a bug on one")


@pytest.mark.slow
def test_an_exchange_that_breaks_off_because_a_rank_died_is_not_held_against_the_trial(
    cluster, tmp_path
):
    anchors = [("baseline", flat(weights="break_off", fold=2))]
    search = start(tmp_path, budget=1, anchors=anchors)
    assert run_ray(search, tmp_path, run_shared, Resources(ranks=2))
    (record,) = search.store.records()
    assert record.result.status == "completed", record.result.error
    assert search.store.trial(record.id).read("attempt") == b"2"
