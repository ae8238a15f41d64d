"""SIGKILL for the driver at random moments of one run: what is on record once it has ended."""

import random
import signal
from pathlib import Path

import pytest
from test_cluster import HERE, drive, nodes_here, wait_for
from test_driver import assert_sound
from toy import start

from trainables.store import RunStore

pytestmark = pytest.mark.filterwarnings(  # of the pipes of the nodes
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
LONGEST = 2.5  # seconds of training before a kill


@pytest.fixture
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        with nodes_here(num_cpus=2) as there:
            yield there


def rows_on_record(root):
    """Trial -> its rows."""
    is_run = (root / "run.json").exists()
    return {r.id: r.history for r in RunStore(root).records()} if is_run else {}


def verdicts(root):
    return {path.parent.name: path.read_bytes() for path in root.glob("trials/*/result.json")}


def kill_one(root, words, chance, is_early):
    """Start the driver, SIGKILL it at a random moment; what is then on record, and the moment.

    Early is while it starts, rebuilds its state or waits for Ray, else while trials run. None where
    the driver ended before its moment came.
    """
    before = sum(map(len, rows_on_record(root).values()))
    driver = drive(root, *words)

    def has_begun():
        return driver.poll() is not None or sum(map(len, rows_on_record(root).values())) > before

    if is_early:
        moment = chance.uniform(0, 6)
    else:
        wait_for(has_begun)
        moment = chance.uniform(0, LONGEST)
    try:
        driver.wait(moment)
    except Exception:  # it still runs: that is what the moment is for
        driver.send_signal(signal.SIGKILL)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode in (0, -signal.SIGKILL), err
    if driver.returncode == 0:
        return None
    gone = {"rows": rows_on_record(root), "results": verdicts(root)}
    return {"moment": round(moment, 2), "during": "start" if is_early else "trials", **gone}


def kill_often(root, address, kills, trials, pace, seed=0):
    """Kill the driver of a run so many times, then let it end; each state that was left behind."""
    chance, left = random.Random(seed), []
    words = ("--address", address, "--trials", trials, "--pace", pace)
    for number in range(kills):
        state = kill_one(root, words, chance, is_early=number % 5 == 1)
        assert state is not None, f"the run ended after {len(left)} kills: too few trials"
        left.append(state)
    driver = drive(root, *words)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    return left


def living_workers(root):
    """Processes that trained trials of the run and still do."""
    pids = {row["pid"] for rows in rows_on_record(root).values() for row in rows}
    living = []
    for pid in pids:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        living += [pid] if title.startswith("ray::") and "IDLE" not in title else []
    return living


def faults(root, left, trials):
    """How often each thing went wrong that must not."""
    search = start(root, budget=trials)
    records, results = search.store.records(), verdicts(root)
    final = {record.id: record.history for record in records}
    assert_sound(search)  # every epoch once, with the score that only all epochs before it give
    lines = {r.id: (search.store.trial(r.id).read("history.jsonl") or b"") for r in records}
    return {
        "lost trials": trials - len(records) + sum(t not in final for s in left for t in s["rows"]),
        "duplicated trials": len(records) - len({record.index for record in records}),
        "trials without an end": len(search.backlog) + len(search.paused),
        "failed trials": sum(r.status == "failed" for r in search.results.values()),
        "rows lost or changed": sum(
            rows != final[trial][: len(rows)] for s in left for trial, rows in s["rows"].items()
        ),
        "verdicts lost or changed": sum(
            results.get(trial) != told for s in left for trial, told in s["results"].items()
        ),
        "epochs written twice": sum(
            text.count(b"\n") - len(final[trial]) for trial, text in lines.items()
        ),
    }


@pytest.mark.slow
def test_a_driver_that_is_killed_three_times_loses_and_doubles_nothing(cluster, tmp_path):
    left = kill_often(tmp_path, cluster.address, kills=3, trials=24, pace=0.2)
    wait_for(lambda: not living_workers(tmp_path))
    assert not any(faults(tmp_path, left, 24).values()), faults(tmp_path, left, 24)
    numbers = [int(path.read_text()) for path in tmp_path.glob("trials/*/attempt")]
    assert max(numbers) > 1  # some trial was cut short, and went on
