"""Shared by all: a small set of embedded faces, rendered once, and the main command in-process."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")  # the same cases every time: a red run can be run again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests have more time: Ray takes minutes where its cores are busy with other work."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared cache entry: 300 easy faces of 48 pixels."""
    from trainables.data import cache

    return cache.prepare("faces:300:easy", 48, cache_root=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are trained on the meta device, as they would be on a GPU."""
    from trainables import device, feed, loop, trial

    adam = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: adam(groups, foreach=fused))
    monkeypatch.setattr(trial, "choose_device", lambda: torch.device("meta"))
    monkeypatch.setattr(feed, "_free_bytes", lambda: 1e9)
    monkeypatch.setattr(loop, "has_aus", lambda batch: False)  # else once an epoch
    monkeypatch.setattr(loop, "means_of", lambda *_: {})  # every `loop.LOOK` steps
    device._constant.cache_clear()  # what other tests have sent


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory):
    """The cache that commands of all tests share."""
    return tmp_path_factory.mktemp("xdg")


@pytest.fixture
def place(tmp_path, cache_home, monkeypatch):
    """An empty folder to run the main command in; signals as they were afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("COLUMNS", "80")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ended(place, capsys):
    """Runs the main command as the shell would: its exit code, what it printed, and its errors."""

    from search import run
    from trainables import cli

    def ended_with(*words):
        with pytest.raises(SystemExit) as ended:
            cli.run_command(lambda: run.main(words))
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return ended_with


@pytest.fixture
def refused(ended, place):
    """The one message of a command that is refused; it must leave nothing behind."""

    def message(*words):
        before = sorted(place.rglob("*"))
        code, out, err = ended(*words)
        assert code == 2, (out, err)
        assert err.count("error:") == 1
        assert err.startswith("error: ")
        assert sorted(place.rglob("*")) == before
        return err

    return message


@pytest.fixture(scope="module")
def cluster():
    """Ray on two CPUs, whose workers can import the modules of the tests."""
    from search.cluster import start_ray, stop_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield start_ray(cpus=2, gpus=0, dashboard=False)
        stop_ray()
