"""Several nodes on this machine: one dies, one joins, one is blind; what is then on record."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from test_driver import assert_sound
from toy import start

from search import cluster as ours
from search.cluster import _brings_code, our_code, start_ray
from search.prepare import check_address
from search.visibility import Blind, blindness, check_worker, needs

pytestmark = pytest.mark.filterwarnings(  # of the pipes of the nodes
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
HERE = Path(__file__).parent
QUICK = {  # a node is dead after 3 seconds of silence, not 15
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}
can_hide = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
needs_root = pytest.mark.skipif(not can_hide, reason="hiding a folder from a node takes root")


def wait_for(claim, seconds=90.0):
    """Until the claim holds; what it then gives."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := claim():
            return found
        time.sleep(0.1)
    raise AssertionError("it never came to hold")


def drive(root, *words):
    """A driver in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(HERE)}  # the rest is installed
    command = [sys.executable, "-m", "drive", str(root), *map(str, words)]
    return subprocess.Popen(
        command, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def places(root):
    """Node -> how many epochs were trained there."""
    seen = {}
    for file in root.glob("trials/*/places"):
        for node in file.read_text().split():
            seen[node] = seen.get(node, 0) + 1
    return seen


@contextmanager
def nodes_here(**head):
    """Ray's nodes in processes of their own. Nothing of them is left in this one afterwards.

    Ray would keep their clients, with threads that go on asking dead nodes, until Python has ended.
    """
    there = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
    nodes = [there.head_node]
    try:
        yield there
    finally:
        nodes += there.worker_nodes
        there.shutdown()
        there.global_state.disconnect()
        forget(*nodes)


def forget(*nodes):
    for node in nodes:
        node._gcs_client = None


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        with nodes_here(num_cpus=0, _system_config=QUICK) as there:
            yield there


@pytest.fixture
def join(cluster):
    """Adds nodes of one CPU, which are gone again when the test ends."""
    nodes = []

    def add():
        nodes.append(cluster.add_node(num_cpus=1))
        return nodes[-1]

    yield add
    for node in nodes:
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)
    forget(*nodes)
    wait_for(lambda: len(cluster.global_state._live_node_ids()) == 1)


@contextmanager
def blind_node(cluster, hidden):
    """A node that sees an empty folder where everyone else sees `hidden`."""
    ray_start = f"ray start --address {cluster.address} --num-cpus 1 --block"
    script = f"mount -t tmpfs none {hidden} && PATH={Path(sys.executable).parent}:$PATH {ray_start}"
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        yield node
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(40)


@pytest.mark.slow
def test_a_node_dies_and_one_joins_and_no_result_is_lost(cluster, join, tmp_path):
    nodes = [join() for _ in range(3)]
    words = ("--trials", 30, "--pace", 0.3, "--losses", 0)  # a loss that counts fails its trial
    driver = drive(tmp_path, "--address", cluster.address, *words)
    victim = nodes[1].node_id
    wait_for(lambda: places(tmp_path).get(victim, 0) >= 3)
    cluster.remove_node(nodes[1], allow_graceful=False)
    late = join()
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    search = start(tmp_path, budget=30)
    assert len(search.results) == 30
    assert not search.backlog
    assert {r.status for r in search.results.values()} == {"completed", "stopped"}
    assert_sound(search)
    attempts = [int(search.store.trial(t).read("attempt")) for t in search.results]
    assert sum(attempts) == 31, attempts  # the one trial that was there began again
    assert places(tmp_path)[late.node_id] >= 5
    origins = {path.read_text() for path in tmp_path.glob("trials/*/code")}
    assert all("py_modules" in origin for origin in origins), origins  # the driver's own code


@pytest.mark.slow
@needs_root
def test_a_node_that_joins_blind_gets_no_trials_and_costs_none(cluster, join, tmp_path):
    node = join()
    words = ("--trials", 24, "--pace", 0.4, "--losses", 0)
    driver = drive(tmp_path, "--address", cluster.address, *words)
    wait_for(lambda: places(tmp_path).get(node.node_id, 0) >= 1)
    with blind_node(cluster, tmp_path):
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    assert f"gets no trials: '{tmp_path / '.token'}' cannot be read there" in err
    search = start(tmp_path, budget=24)
    assert {r.status for r in search.results.values()} == {"completed", "stopped"}
    assert_sound(search)
    assert list(places(tmp_path)) == [node.node_id]


@pytest.mark.slow
@needs_root
def test_a_node_that_is_blind_at_the_start_is_named(cluster, tmp_path):
    with blind_node(cluster, tmp_path):
        wait_for(lambda: len(cluster.global_state._live_node_ids()) == 2)
        driver = drive(tmp_path, "--address", cluster.address)
        out, err = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert f"'{tmp_path / '.token'}' cannot be read there (No such file or directory)" in err
    assert "on a disk that all nodes mount under the same path" in err
    assert not list(tmp_path.glob("trials/*"))


def test_what_a_node_sees_otherwise_is_said(tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    run.mkdir()
    data.mkdir()
    (data / "images.npy").write_bytes(b"1234")
    wanted = needs(run, [data])
    assert wanted == needs(run, [data])  # a resumed run has the same token
    assert blindness(wanted, 0) == ""
    (data / "images.npy").write_bytes(b"123")  # a copy that was cut short
    assert f"what lies at '{data}' there is not what the driver sees" in blindness(wanted, 0)
    (run / ".token").write_text("of another run")
    with pytest.raises(Blind, match=r"\.token' there is not what the driver sees"):
        check_worker(wanted, 0)


def test_rays_client_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"ray job submit --address http://10\.0\.0\.1:8265 "):
        check_address("ray://10.0.0.1:10001")


def test_workers_get_our_code_unless_the_job_brings_it(monkeypatch):
    assert [path.name for path in our_code()] == ["search", "spaces", "trainables", "analysis"]
    assert all((path / "__init__.py").is_file() for path in our_code())
    name = "RAY_JOB_CONFIG_JSON_ENV_VAR"
    monkeypatch.delenv(name, raising=False)
    assert not _brings_code()
    monkeypatch.setenv(name, '{"runtime_env": {"env_vars": {"A": "b"}}, "metadata": {}}')
    assert not _brings_code()
    monkeypatch.setenv(name, '{"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}')
    assert _brings_code()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, r"started here \(Exception: The node timed out\): try again \(or .* --inline\)$"),
        ("1.2.3.4:6379", r"joined at '1\.2\.3\.4:6379' \(Exception: .*\): try again$"),
    ],
)
def test_a_ray_that_does_not_start_is_told_in_a_line(monkeypatch, address, message):
    def fail(**options):
        raise Exception("The node timed out.\nIt may be overloaded.")

    monkeypatch.setattr(ours.ray, "init", fail)
    with pytest.raises(OSError, match=message):
        start_ray(address)


def test_who_cannot_join_hears_of_tokens(monkeypatch) -> None:
    """Ray names the address alone, after twenty lines of C++."""

    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(OSError, match="6379. If it asks for a token, .*MODE=token here"):
        start_ray("10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(OSError, match="6379$"):
        start_ray("10.0.0.1:6379")
