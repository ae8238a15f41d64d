"""The forecast before a search, kept beside what it then took."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from search import prospect
from search.options import parser
from search.plan import choose_sizes
from search.pruners import PRUNERS
from search.speed import Speed
from trainables.data import cache
from trainables.store import RunStore

SPEEDS = [Speed("small_resnet", 2.0, 0.0, 1_000_000, 0), Speed("vit", 4.0, 0.0, 3_000_000, 0)]


@pytest.fixture
def job(faces, monkeypatch):
    """Twenty trials of nine epochs, whose speeds are known."""
    monkeypatch.setattr(prospect, "_measured", lambda *_: SPEEDS)
    args = parser().parse(["--pruner", "asha", "--folds", "1"])
    sizes = choose_sizes("tiny", "faces", 0, 48, 9, 20)
    return SimpleNamespace(
        args=args, space=None, data=faces, sizes=sizes, bundle=cache.load(faces), root=None
    )


def test_it_tells_time_cost_survivors_and_disk(job):
    there = prospect.look_ahead(job, 2, 0.5)
    told = there.as_dict()
    for name in ("seconds", "worker_hours", "gpu_hours", "epochs"):
        low, middle, high = (told[name][key] for key in ("low", "middle", "high"))
        assert 0 < low < middle < high
    assert told["gpu_hours"]["middle"] == pytest.approx(told["worker_hours"]["middle"] / 2)
    assert 20 < told["epochs"]["low"] <= told["epochs"]["high"] <= 20 * 9
    milestones = PRUNERS["asha"](9, job.sizes.first_rung, 3).milestones
    assert set(told["survivors"]) == {str(milestone) for milestone in milestones}
    assert told["bytes"] > 4 * 1_000_000
    lines = dict(prospect.sentences(there))
    assert set(lines) == {"time", "cost", "rungs", "disk"}
    assert "trials 2 at once" in lines["time"]
    assert "An epoch of 2 configurations takes 2 s to 4 s" in lines["time"]
    assert "GPU-hours" in lines["cost"]
    assert "other work" not in lines["time"]


def test_a_busy_machine_is_told(job, monkeypatch):
    monkeypatch.setattr(prospect, "_measured", lambda *_: [replace(SPEEDS[0], busy=2.0)])
    lines = dict(prospect.sentences(prospect.look_ahead(job, 1, 0.0)))
    assert "takes 2 s on one worker, while other work was using the machine too" in lines["time"]


def test_of_a_cluster_that_is_not_joined_no_time_is_kept(job):
    there = prospect.look_ahead(job, None, 0.0)
    assert there.as_dict()["seconds"] is None
    assert (
        "of one worker, divided by how many the cluster" in dict(prospect.sentences(there))["time"]
    )


def test_nothing_is_told_where_nothing_could_be_measured(job, monkeypatch):
    monkeypatch.setattr(prospect, "_measured", lambda *_: [])
    assert prospect.look_ahead(job, 2, 0.0) is None


def test_forecast_and_truth_are_kept_and_add_up_over_a_resume(ended, place):
    words = ("--space", "smoke", "--inline", "--data", "faces:200:easy", "--image-size", "32")
    words = (*words, "--epochs", "1", "--name", "told")
    code, out, _ = ended(*words, "--trials", "2")
    assert code == 0
    assert "(measured here)" in " ".join(out.split())
    run = RunStore.open(place / "runs" / "told")
    first = run.meta()
    assert first["forecast"]["epochs"] == {"low": 2, "middle": 2, "high": 2}
    assert first["spent"]["epochs"] == 2
    assert first["spent"]["bytes"] > 0
    page = (run.root / "report" / "index.html").read_text()
    assert 'id="outcome"' in page
    assert ended(*words, "--trials", "3", "--resume")[0] == 0
    second = run.meta()
    assert second["forecast"] == first["forecast"]
    assert second["spent"]["epochs"] == 3
    assert second["spent"]["seconds"] > first["spent"]["seconds"]
