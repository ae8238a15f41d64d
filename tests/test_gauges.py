"""The search as Prometheus metrics, and the board over them."""

import json
import os
import re
import time
import urllib.request
import warnings
from pathlib import Path

import pytest
from from_scratch import best
from test_core import begin, row
from toy import flat, run_toy, start

from search import gauges
from search.gauges import GAUGES, TAGS, Gauges
from search.outlook import Outlook

BOARD = json.loads((Path(gauges.__file__).parent / "grafana.json").read_text())
SECONDS = 60  # at most until Ray has exported


class Remembered:
    """Stands in for Ray's gauge."""

    def __init__(self, name, description, tag_keys):
        self.tag_keys, self.values = tag_keys, {}

    def set(self, value, tags):
        assert set(tags) == set(self.tag_keys)
        self.values[tuple(tags[key] for key in self.tag_keys)] = value


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A search, its gauges, and a clock to set."""
    monkeypatch.setattr(gauges, "Gauge", Remembered)
    search, now = start(tmp_path, anchors=[("baseline", flat(lr=1e-3))]), [100.0]
    return search, Gauges(search, "r", "toy", 0.5, Outlook(search, 2, lambda: now[0])), now


def shown(there, name):
    """Value by the gauge's own tags; run and space come first."""
    return {tags[2:]: value for tags, value in there.gauges[f"fer_search_{name}"].values.items()}


def test_values_follow_the_search(watched):
    search, there, now = watched
    there.start()
    assert shown(there, "best_score") == {}
    first = begin(search, row(1, 0.4, seconds=1800.0))
    second = begin(search, row(1, 0.6, seconds=1800.0), row(2, 0.7, seconds=3600.0))
    search.on_end(first, "a bug")
    now[0] += 6.0
    there.update()
    assert shown(there, "trials")[("failed",)] == 1
    assert shown(there, "failures") == {(): 1}
    assert shown(there, "best_score") == {(): 0.7}
    assert shown(there, "baseline_score") == {}  # it has failed
    assert shown(there, "epochs") == {(): 3}
    assert shown(there, "epochs_per_second") == {(): 3 / 6.0}
    assert shown(there, "worker_hours") == {(): 2.0}
    assert shown(there, "gpu_hours") == {(): 1.0}
    assert shown(there, "rung_trials")[("1", "came")] == 2
    assert shown(there, "rung_trials")[("1", "went on")] == 1
    assert second in search.live


def test_gauges_are_set_every_two_seconds_and_at_the_end(watched):
    search, there, now = watched
    there.start()
    begin(search, row(1, 0.4))
    now[0] += 1.0
    there.update()
    assert shown(there, "epochs") == {(): 0}
    there.stop()
    assert shown(there, "epochs") == {(): 1}


# --- the board -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rays():
    """The board that Ray itself gives to Grafana."""
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves its template open
        return json.loads(factory.generate_default_grafana_dashboard()[0])


def panels(board):
    inner = (panel for row in board["panels"] for panel in row.get("panels", []))
    return [panel for panel in (*board["panels"], *inner) if panel["type"] != "row"]


def test_the_board_has_the_form_of_rays_own(rays):
    assert set(BOARD) == set(rays)
    assert BOARD["schemaVersion"] == rays["schemaVersion"]
    fields = {frozenset(panel) for panel in panels(rays)}
    targets = {frozenset(target) for panel in panels(rays) for target in panel["targets"]}
    for panel in panels(BOARD):
        assert frozenset(panel) in fields
        assert {frozenset(target) for target in panel["targets"]} <= targets
    forms = {v["type"]: set(v) for v in rays["templating"]["list"]}
    assert all(forms[v["type"]] <= set(v) for v in BOARD["templating"]["list"])
    assert len({panel["id"] for panel in panels(BOARD)}) == len(panels(BOARD))


def test_every_query_asks_for_a_gauge_by_its_tags_and_every_gauge_is_shown():
    queries = [target["expr"] for panel in panels(BOARD) for target in panel["targets"]]
    asked = set()
    for query in queries:
        (name,) = re.findall(r"ray_(\w+)\{", query)
        known = {*TAGS, *GAUGES[name][1]}
        (grouped,) = re.findall(r"by \(([\w, ]+)\)", query)
        assert set(grouped.split(", ")) <= known
        assert set(re.findall(r"(\w+)=~", query)) <= known
        asked.add(name)
    assert asked == set(GAUGES)
    text = json.dumps(BOARD["templating"])
    assert set(re.findall(r"label_values\(ray_(\w+)\{", text)) <= set(GAUGES)
    variables = {v["name"] for v in BOARD["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", " ".join(queries))) <= variables


# --- on Ray --------------------------------------------------------------------------------------


def exported(address):
    """What the node's Prometheus endpoint says of us: (name, tags) -> value."""
    with urllib.request.urlopen(address, timeout=10) as page:
        text = page.read().decode()
    return {
        (name, frozenset(re.findall(r'(\w+)="([^"]*)"', tags))): float(value)
        for name, tags, value in re.findall(r"^ray_(fer_search_\w+)\{(.*)\} (\S+)$", text, re.M)
    }


@pytest.mark.slow
def test_a_search_on_ray_is_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    import ray

    from search.cluster import start_ray, stop_ray
    from search.driver import run_ray

    start_ray(cpus=2, gpus=0, dashboard=False)
    try:
        (node,) = ray.nodes()
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        anchors = [("baseline", flat(lr=1e-3)), ("default", flat(weights="raise", fold=1))]
        search = start(tmp_path, budget=8, anchors=anchors)
        there = Gauges(search, "mine", "toy", 0.5, Outlook(search, 2))
        assert run_ray(search, tmp_path, run_toy, observer=there)
        expected = {(name, frozenset(tags.items())): value for name, tags, value in there.values()
                    if name != "fer_search_epochs_per_second"}  # fmt: skip
        ends, found = time.monotonic() + SECONDS, {}
        while time.monotonic() < ends and not matches(found, expected):
            time.sleep(0.5)
            found = exported(address)
        assert matches(found, expected), (found, expected)
        score = search.results[best(search)].metrics["score"]
        assert expected["fer_search_best_score", frozenset()] == score
    finally:
        stop_ray()


def matches(found, expected):
    """Whether each value stands there, with the tags of the run and its own."""
    own = {("run", "mine"), ("space", "toy")}
    return all(
        any(
            name == known and tags | own <= labels and value == pytest.approx(shown)
            for (known, labels), shown in found.items()
        )
        for (name, tags), value in expected.items()
    )
