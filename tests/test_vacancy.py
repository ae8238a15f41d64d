"""GPU memory is free before a slot is used again: with fake memory, on the CPU."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_driver import handed
from toy import EPOCHS, run_toy, start

from search import driver, nodes, vacancy, worker
from search.cluster import Resources
from search.driver import TuneSearcher, run_ray
from search.nodes import AVOIDED, REFUSALS, Nodes
from search.vacancy import PATIENCE_SECONDS, Occupied, check_gpu, holders, occupancy
from search.worker import TrialActor

GIB = 2**30


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only by waiting."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(vacancy.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(vacancy.time, "sleep", lambda s: setattr(clock, "now", clock.now + s))
    return clock


def test_a_share_that_is_free_is_not_waited_for(clock):
    assert occupancy(1.0, lambda: (72 * GIB, 80 * GIB)) == ""
    assert occupancy(0.5, lambda: (36 * GIB, 80 * GIB)) == ""  # a neighbour has the rest
    assert clock.now == 0


def test_memory_that_comes_free_is_waited_for(clock):
    assert occupancy(1.0, lambda: (80 * GIB if clock.now > 7 else 20 * GIB, 80 * GIB)) == ""
    assert 7 < clock.now < 8


def test_memory_that_stays_taken_is_told_in_numbers(clock):
    problem = occupancy(1.0, lambda: (20 * GIB, 80 * GIB))
    assert problem == "20.0 of 80.0 GiB of GPU memory are free, a trial needs 90% (waited 30 s)"
    assert clock.now == PATIENCE_SECONDS
    assert "needs 45%" in occupancy(0.5, lambda: (35 * GIB, 80 * GIB))


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi that tells what it is asked and of three processes."""
    file = tmp_path / "nvidia-smi"
    file.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n'
        f"echo '4321, python train.py, 61000 MiB'\necho '{os.getpid()}, pytest, 5 MiB'\n"
        "echo '99, [Not Found], [N/A]'\n"
    )
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    return tmp_path / "asked"


def test_who_holds_the_memory_is_told_and_not_ourselves(smi):
    assert holders() == "pid 4321 (python train.py, 61000 MiB); pid 99 ([Not Found], [N/A])"
    assert smi.read_text().split()[-2:] == ["-i", "3"]


def test_without_nvidia_smi_nobody_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert holders() == ""


@pytest.fixture
def cuda(monkeypatch, clock, smi):
    """Stands in for torch's view of a GPU with 80 GiB."""
    import torch

    there = SimpleNamespace(free=80, own=0, kept=None)

    def keep(share):
        there.kept = share

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (there.free * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: there.own * GIB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", keep)
    return there


def test_a_worker_on_a_taken_gpu_says_where_and_by_whom(cuda):
    cuda.free = 19
    with pytest.raises(Occupied, match=r"19\.0 of 80\.0 GiB.*held by pid 4321") as told:
        check_gpu(1.0, "node1")
    assert told.value.node == "node1"


def test_what_a_worker_holds_itself_is_free_to_it(cuda):
    cuda.free, cuda.own = 19, 60
    check_gpu(1.0)
    assert cuda.kept is None  # it has the whole GPU


def test_trials_that_share_a_gpu_are_kept_to_their_shares(cuda):
    cuda.free = 41
    check_gpu(0.5)
    assert cuda.kept == pytest.approx(0.45)


def test_a_gpu_too_full_to_be_asked_is_taken(cuda, monkeypatch):
    import torch

    def full():
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    with pytest.raises(Occupied, match=r"0\.0 of"):
        check_gpu(1.0)


# --- what becomes of the trial -------------------------------------------------------------------


def refuse(gpus, node):
    raise Occupied("20 of 80 GiB are free", node)


def test_a_worker_raises_it_and_the_trial_is_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "use_threads", lambda cpus: None)
    monkeypatch.setattr(worker, "check_gpu", refuse)
    search = start(tmp_path)
    actor = TrialActor(handed(search, gpus=1))
    with pytest.raises(Occupied):
        actor.step()
    (record,) = search.store.records()
    assert (record.result, record.history) == (None, [])
    assert search.store.trial(record.id).read("error.txt") is None


@pytest.fixture
def searcher(tmp_path, monkeypatch):
    """A driver without Ray: a node `big` with two GPUs and a node `small` with one."""
    there = [
        {"NodeID": name, "Alive": True, "Resources": {"CPU": 8, "GPU": gpus},
         "NodeManagerHostname": name}
        for name, gpus in (("big", 2), ("small", 1))
    ]  # fmt: skip
    monkeypatch.setattr(nodes.ray, "nodes", lambda: there)
    found = Nodes(Resources(gpus_per_trial=1))
    yield TuneSearcher(start(tmp_path), {}, found, lambda: False)
    AVOIDED.clear()


def lose(searcher, node):
    """A trial meets a GPU there that is not free; its id."""
    tune_id = f"tune{len(searcher.handouts)}"
    trial = searcher.suggest(tune_id)["tid"]
    searcher.on_error(tune_id, Occupied("20 of 80 GiB are free", node))
    return trial


def test_a_taken_gpu_is_not_held_against_the_trial(searcher, caplog):
    first = lose(searcher, "small")
    assert searcher.search.losses == Counter()
    assert searcher.suggest("next")["tid"] == first
    assert "20 of 80 GiB are free" in caplog.text


def test_a_node_is_avoided_when_none_of_its_gpus_has_been_free_for_long(searcher):
    for _ in range(REFUSALS - 1):
        lose(searcher, "small")
    assert not AVOIDED
    lose(searcher, "small")
    assert {"small"} == AVOIDED
    for _ in range(2 * REFUSALS - 1):
        lose(searcher, "big")
    assert {"small"} == AVOIDED
    assert searcher.failure is None
    lose(searcher, "big")
    assert "no node is left that could run a trial: 20 of 80" in str(searcher.failure)


def test_a_row_from_a_node_clears_it(searcher):
    lose(searcher, "small")
    lose(searcher, "small")
    searcher.suggest("works")
    searcher.on_row("works", {"node": "small", "rows": [{"epoch": 1, "score": 0.5}]})
    lose(searcher, "small")
    assert not AVOIDED


class Crowded(TrialActor):
    """A worker whose GPU is taken as often as the file `.taken` (hidden, in the data) has bytes."""

    def step(self):
        taken = Path(self.config["data"]) / ".taken"

        def check(gpus, node):
            if left := taken.read_bytes():
                taken.write_bytes(left[1:])
                refuse(gpus, node)

        worker.check_gpu = check
        return super().step()


@pytest.mark.slow
def test_a_search_goes_on_when_the_memory_comes_free(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "TrialActor", Crowded)
    (tmp_path / ".taken").write_bytes(b"...")
    search = start(tmp_path / "run", budget=6)
    assert run_ray(search, tmp_path, run_toy)
    assert (tmp_path / ".taken").read_bytes() == b""
    results = [record.result for record in search.store.records()]
    assert {result.status for result in results} <= {"completed", "stopped"}
    assert any(result.epoch == EPOCHS for result in results)
    assert search.losses == Counter()
