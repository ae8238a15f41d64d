"""Trials told to TensorBoard, Weights & Biases and MLflow: all of it once, resumed or not."""

import json
import struct
import threading
from collections import Counter

import pytest
from test_core import begin, row
from toy import flat, run_toy, start

from search import trackers
from search.inline import run_inline
from search.trackers import PACKAGES, SINKS, Tracker, check_log, numbers
from search.watchers import Watchers

ANCHORS = [
    ("baseline", flat(weights="interrupt", fold=5)),
    ("default", flat(weights="raise", fold=1)),
]


class Remembered:
    """A sink that notes all it is told."""

    def __init__(self):
        self.told, self.ended, self.opened = Counter(), Counter(), set()

    def open(self, news, after):
        assert news.trial not in self.opened
        self.opened.add(news.trial)
        return after

    def write(self, trial, epoch, values):
        assert trial in self.opened
        self.told[trial, epoch, values["score"]] += 1

    def close(self, trial, result):
        self.opened.remove(trial)
        if result:
            self.ended[trial, result.status] += 1


def track(search, sink):
    tracker = Tracker(search, "tensorboard", "toy")
    tracker.make = lambda: sink
    return tracker


def whole(search):
    """What a sink must have been told of a search, once each."""
    rows = {(t, e, r["score"]): 1 for t, rows in search.rows.items() for e, r in rows.items()}
    return rows, {(t, result.status): 1 for t, result in search.results.items()}


@pytest.mark.parametrize("pruner", ["asha", "promotion"])
def test_every_row_and_every_end_is_told_once_over_an_interrupt(tmp_path, pruner):
    sink, finished = Remembered(), False
    while not finished:
        search = start(tmp_path, 8, pruner, anchors=ANCHORS)
        finished = run_inline(search, tmp_path, run_toy, track(search, sink))
        assert not sink.opened
    assert (dict(sink.told), dict(sink.ended)) == whole(search)
    again = start(tmp_path, 8, pruner)
    assert run_inline(again, tmp_path, run_toy, track(again, sink))
    assert (dict(sink.told), dict(sink.ended)) == whole(again)


def test_a_tool_that_fails_is_left_out_and_the_search_goes_on(tmp_path):
    search, said = start(tmp_path, budget=3), []
    sink = Remembered()

    def refuse(*_):
        raise OSError("no network")

    sink.write = refuse
    assert run_inline(search, tmp_path, run_toy, Watchers([track(search, sink)], said.append))
    assert said == ["Tracker stopped (OSError: no network); the search goes on without it"]
    assert len(search.results) == 3


def test_a_tool_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "STOP_SECONDS", 0.05)
    search, may_end = start(tmp_path), threading.Event()
    sink = Remembered()
    sink.write = lambda *_: may_end.wait()
    tracker = track(search, sink)
    tracker.start()
    begin(search, row(1, 0.5))
    with pytest.raises(TimeoutError, match="took longer than"):
        tracker.stop()
    may_end.set()
    tracker.thread.join()


def test_only_finite_numbers_are_told():
    told = {"epoch": 2, "score": 0.5, "loss": float("nan"), "au_f1": None, "done": True, "pid": 7}
    assert numbers(told) == {"score": 0.5, "done": 1.0, "pid": 7.0}


def test_what_is_not_there_is_refused_with_what_to_do(monkeypatch):
    check_log(["tensorboard"])
    with pytest.raises(LookupError, match="unknown tool 'wandbb'; .*Did you mean 'wandb'"):
        check_log(["wandbb"])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--log wandb is not installed here: pip install wandb"):
        check_log(["wandb"])
    assert set(PACKAGES) == set(SINKS)


# --- the tools themselves ------------------------------------------------------------------------


def interrupted_and_resumed(root, name, budget=4):
    """A run told to one tool, interrupted once."""
    failing, interrupted = flat(weights="raise", fold=1), flat(weights="interrupt", fold=5)
    anchors = [("default", failing), ("default", interrupted)]
    search = start(root, budget, "none", anchors=anchors)
    assert not run_inline(search, root, run_toy, Tracker(search, name, "toy"))
    resumed = start(root, budget, "none")
    assert run_inline(resumed, root, run_toy, Tracker(resumed, name, "toy"))
    assert sum(map(len, resumed.rows.values())) == 3 * 9
    return resumed


def events(folder):
    """The events of a folder, as the files hold them, by TensorBoard's own format."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_tensorboard_has_each_score_once(tmp_path):
    search = interrupted_and_resumed(tmp_path, "tensorboard")
    for trial, rows in search.rows.items():
        found = [
            (event.step, value.simple_value)
            for event in events(tmp_path / "logs" / "tensorboard" / trial)
            for value in event.summary.value
            if value.tag == "score"
        ]
        assert found == [(e, pytest.approx(r["score"])) for e, r in sorted(rows.items())]


def test_mlflow_has_each_score_once(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    search = interrupted_and_resumed(tmp_path, "mlflow")
    client = tracking.MlflowClient((tmp_path / "logs" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name(tmp_path.name)
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.run_name for r in runs} == set(search.rows)
    for run in runs:
        trial = run.info.run_name
        history = client.get_metric_history(run.info.run_id, "score")
        expected = {epoch: there["score"] for epoch, there in search.rows[trial].items()}
        assert len(history) == len(expected)
        assert {metric.step: metric.value for metric in history} == pytest.approx(expected)
        failed = search.results[trial].status == "failed"
        assert run.info.status == ("FAILED" if failed else "FINISHED")


def wandb_records(path):
    """The records of a .wandb file: LevelDB's log format, of which a small file is one block."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    assert len(data) < 32768
    data = data[7:]
    while data:
        _, length, kind = struct.unpack("<IHB", data[:7])
        assert kind == 1  # a whole record
        yield wandb_internal_pb2.Record.FromString(data[7 : 7 + length])
        data = data[7 + length :]


def test_wandb_has_each_score_once(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    search = interrupted_and_resumed(tmp_path, "wandb")
    found = Counter()
    for path in sorted((tmp_path / "logs" / "wandb" / "wandb").glob("offline-run-*/*.wandb")):
        trial = path.stem.rpartition("-")[2]
        for record in wandb_records(path):
            values = {item.key or item.nested_key[0]: json.loads(item.value_json)
                      for item in record.history.item}  # fmt: skip
            if "score" in values:
                found[trial, values["_step"], values["score"]] += 1
    assert found == whole(search)[0]
