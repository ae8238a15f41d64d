"""Ray Tune as a front: what is on record after bugs, dead workers and interrupts."""

import io
import os
import signal

import pytest
from rich.console import Console
from test_core import recomputed
from threadpoolctl import threadpool_limits
from toy import EPOCHS, flat, quality, run_toy, start

from search.driver import Resources, count_workers, dotted_name, run_ray
from search.monitor import Monitor
from search.worker import TrialActor, use_threads
from trainables.config import TrialConfig


class Interrupter:
    """An observer that presses Ctrl-C once so many rows are on record."""

    def __init__(self, search, rows):
        self.search, self.rows = search, rows

    def start(self): ...

    def update(self):
        if self.rows and sum(map(len, self.search.rows.values())) >= self.rows:
            self.rows = 0
            os.kill(os.getpid(), signal.SIGINT)

    def stop(self): ...


def assert_sound(search):
    """No epoch is missing, doubled or wrong, and the rungs are those of the histories."""
    for record in search.store.records():
        config, rows = TrialConfig.from_flat(record.config), record.history
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            assert row["score"] == pytest.approx(quality(config) * row["epoch"] / EPOCHS)
    assert search.pruner.rungs == recomputed(search)


@pytest.mark.slow
def test_bugs_and_dead_workers_are_outcomes_and_the_rest_goes_on(cluster, tmp_path):
    anchors = [
        ("baseline", flat(lr=1e-5)),  # the worst there is
        ("default", flat(weights="raise", fold=1)),
        ("default", flat(weights="die", fold=4, lr=1e-2, loss="focal", seed=2)),  # the best
    ]
    search = start(tmp_path, budget=12, anchors=anchors)
    monitor = Monitor(search, 12, EPOCHS, Console(file=io.StringIO(), force_terminal=True))
    assert run_ray(search, tmp_path, run_toy, observer=monitor)  # Tune pickles what watches it
    baseline, raised, died, *others = search.store.records()
    assert baseline.result.status == "completed"
    assert (raised.result.status, raised.result.epoch) == ("failed", 0)
    assert raised.result.error == "RuntimeError: a bug at this epoch"
    assert "in fault" in search.store.trial(raised.id).read("error.txt").decode()
    assert died.result.status == "completed"
    assert search.store.trial(died.id).read("attempt") == b"2"
    assert len({row["pid"] for row in died.history}) == 2
    assert len(others) == 9
    assert "stopped" in {r.result.status for r in others} <= {"completed", "stopped"}
    assert_sound(search)


@pytest.mark.slow
def test_a_trial_that_kills_every_worker_fails_and_says_so(cluster, tmp_path):
    anchors = [("baseline", flat(weights="die_always", fold=2))]
    search = start(tmp_path, budget=2, anchors=anchors)
    assert run_ray(search, tmp_path, run_toy)
    killer, other = search.store.records()
    assert killer.result.error == "its worker was lost 3 times"
    assert [row["epoch"] for row in killer.history] == [1]
    assert other.result.status == "completed"


@pytest.mark.slow
def test_an_interrupted_run_is_taken_up_again(cluster, tmp_path):
    search = start(tmp_path, budget=8)
    assert not run_ray(search, tmp_path, run_toy, observer=Interrupter(search, 12))
    unfinished = [r.id for r in search.store.records() if r.result is None]
    assert unfinished
    resumed = start(tmp_path, budget=8)
    assert resumed.backlog == unfinished
    assert run_ray(resumed, tmp_path, run_toy)
    assert len(resumed.results) == 8
    assert_sound(resumed)


@pytest.mark.slow
def test_ray_is_asked_for_no_more_than_there_is(cluster, tmp_path):
    assert (cluster.cpus, cluster.gpus, cluster.dashboard) == (2, 0, "")
    with pytest.raises(
        ValueError, match="1 CPUs and 1 GPUs, for which no node has room; there are 2 CPUs"
    ):
        run_ray(start(tmp_path), tmp_path, run_toy, Resources(gpus_per_trial=1))


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "workers"),
    [
        (Resources(), 2, 0, 2),
        (Resources(cpus_per_trial=1.5), 4, 0, 2),
        (Resources(cpus_per_trial=0.1), 1, 0, 10),
        (Resources(gpus_per_trial=1), 16, 4, 4),
        (Resources(gpus_per_trial=0.5), 16, 4, 8),
        (Resources(gpus_per_trial=0.4), 16, 4, 8),  # a share of a GPU does not span two
        (Resources(gpus_per_trial=2), 16, 5, 2),
        (Resources(cpus_per_trial=8, gpus_per_trial=0.25), 16, 4, 2),
        (Resources(max_concurrent=3), 8, 0, 3),
        (Resources(max_concurrent=30), 8, 0, 8),
    ],
)
def test_workers_are_as_many_as_fit(resources, cpus, gpus, workers):
    assert count_workers(resources, cpus, gpus) == workers


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(cpus_per_trial=8), "asks for 8 CPUs, but there are 4; lower --cpus-per-trial"),
        (Resources(gpus_per_trial=4), "asks for 4 GPUs, but there are 2; lower --gpus-per-trial"),
        (Resources(gpus_per_trial=1.5), "only whole GPUs"),
        (Resources(cpus_per_trial=0), "more than 0 CPUs"),
        (Resources(gpus_per_trial=-1), "no fewer than 0 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(resources, message):
    with pytest.raises(ValueError, match=message):
        count_workers(resources, 4, 2)


def test_a_trial_function_must_be_importable():
    assert dotted_name(run_toy) == "toy:run_toy"
    with pytest.raises(ValueError, match="top of a module"):
        dotted_name(lambda store, data: iter(()))


def test_a_worker_takes_as_many_threads_as_its_trial_has_cpus(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delitem(__import__("sys").modules, "torch", raising=False)
    with threadpool_limits(user_api="blas"):  # gives the tests after it their threads back
        use_threads(0.5)
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("1", "1")
        use_threads(3.0)
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("3", "3")


def handed(search, **more):
    handout = search.next()
    where = {
        "store": str(search.store.root),
        "data": ".",
        "cpus": 1,
        "gpus": 0,
        "trial": "toy:run_toy",
    }
    return {"tid": handout.id, "attempt": handout.attempt, **where, **more}


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which a worker without GPUs sets
    monkeypatch.setattr("search.worker.use_threads", lambda cpus: None)


def test_a_worker_goes_from_trial_to_trial(tmp_path, one_thread):
    search = start(tmp_path)
    first, second = handed(search), handed(search)
    actor = TrialActor(first)
    for epoch in range(1, EPOCHS + 1):
        result = actor.step()
        assert result["rows"][0]["epoch"] == epoch
        assert result["done"] == (epoch == EPOCHS)
    assert actor.rows is None  # the model is let go of before the next trial comes
    assert actor.reset_config(second)
    assert actor.step()["rows"][0]["epoch"] == 1
    open_rows = actor.rows
    actor.cleanup()
    assert open_rows.gi_frame is None
    assert [len(r.history) for r in search.store.records()] == [EPOCHS, 1]


def test_a_worker_that_was_replaced_ends_without_a_word(tmp_path, one_thread):
    search = start(tmp_path)
    actor = TrialActor(handed(search))
    actor.step()
    trial = next(iter(search.live))
    search.on_lost(trial)
    search.next()
    result = actor.step()
    assert (result["done"], result["problem"]) == (True, "")
    assert len(search.store.trial(trial).history()) == 1


def spoilt_process(store, data):
    raise RuntimeError("CUDA error: device-side assert triggered")
    yield


def test_a_process_that_lost_its_gpu_is_given_up(tmp_path, one_thread):
    search = start(tmp_path)
    actor = TrialActor(handed(search, trial=f"{__name__}:spoilt_process"))
    with pytest.raises(RuntimeError, match="CUDA error"):
        actor.step()
    (record,) = search.store.records()
    assert b"device-side assert" in search.store.trial(record.id).read("error.txt")


def test_a_function_that_is_not_there_is_the_trials_failure(tmp_path, one_thread):
    result = TrialActor(handed(start(tmp_path), trial="nowhere:run")).step()
    assert result["problem"] == "ModuleNotFoundError: No module named 'nowhere'"
    assert result["done"]
