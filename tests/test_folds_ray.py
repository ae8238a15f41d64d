"""Folds on Ray: what is on record is what one process would have left."""

import numpy as np
import pytest
from test_driver import Interrupter
from test_fold_ladder import FOLDED, K, shape, standing
from toy import EPOCHS, proposer_of, run_toy

from analysis.groups import folds_of, read_folds
from search.core import Search
from search.driver import Resources, run_ray
from search.inline import run_inline
from search.pruners import PRUNERS
from spaces.space import LogUniform, Space
from trainables.data import cache
from trainables.store import RunStore
from trainables.trial import run_trial

pytestmark = pytest.mark.slow
# Its further folds kill their worker at the epoch of their number, once each.
DEADLY = ("baseline", {**FOLDED.defaults(), "lr": 3e-3, "weights": "die"})
SMALL = Space(
    "small",
    {"backbone": "test_resnet", "lr": LogUniform(1e-3, 1e-2, 3e-3), "batch_size": 32,
     "epochs": 1, "image_size": 48, "folds": 3},
)  # fmt: skip


def start(root, budget, space=FOLDED, anchors=(DEADLY,), folds=K, epochs=EPOCHS):
    fresh = not (root / "run.json").exists()
    store = RunStore.create(root, {"name": "toy"}) if fresh else RunStore.open(root)
    proposer = proposer_of(space, "random", budget, anchors=anchors)
    return Search(store, proposer, PRUNERS["none"](epochs, 1, 3), budget, folds=folds)


def test_workers_that_die_and_a_driver_that_is_stopped_in_mid_fold_lose_none(cluster, tmp_path):
    search = start(tmp_path, 20)
    assert not run_ray(search, tmp_path, run_toy, observer=Interrupter(search, 50))
    resumed = start(tmp_path, 20)
    assert resumed.backlog
    assert run_ray(resumed, tmp_path, run_toy)
    assert resumed.is_finished
    found = shape(resumed).values()
    whole = [role for role, folds in found if folds == list(range(K))]
    assert whole.count("baseline") == 1
    assert len(whole) >= 2
    records = resumed.store.records()
    assert {r.result.status for r in records} == {"completed"}
    assert all([row["epoch"] for row in r.history] == list(range(1, EPOCHS + 1)) for r in records)
    died = [r for r in records if r.role == "baseline" and r.config["fold"]]
    assert all(resumed.store.trial(r.id).read("attempt") != b"1" for r in died)
    assert standing(start(tmp_path, 20)) == standing(resumed)


def test_pooled_predictions_on_ray_are_of_each_image_once_and_those_of_one_process(
    cluster, tmp_path
):
    data = cache.prepare("faces:200:easy", 48, cache_root=tmp_path / "cache")
    said = {}
    anchors = [("baseline", {**SMALL.defaults(), "loss": "focal"}), ("default", SMALL.defaults())]
    for name in ("inline", "ray"):
        search = start(tmp_path / name, 6, SMALL, anchors, folds=3, epochs=1)
        if name == "ray":
            assert run_ray(search, data, run_trial, Resources(max_concurrent=2))
        else:
            assert run_inline(search, data, run_trial)
        configurations = folds_of(search.store.records())
        said[name] = {
            first: read_folds(search.store, own, "val") for first, own in configurations.items()
        }
    bundle = cache.load(data)
    assert said["ray"].keys() == said["inline"].keys()
    assert len(said["ray"]) == 2
    for first, pooled in said["ray"].items():
        assert sorted(pooled.ids) == sorted([*bundle.train.ids, *bundle.val.ids])
        assert pooled.ids == said["inline"][first].ids
        np.testing.assert_array_equal(pooled.probs, said["inline"][first].probs)
