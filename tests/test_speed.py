"""Measured steps: what is remembered and scaled, and what other work on the machine does to it."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from search import speed
from search.speed import FILE, Speed, pace
from spaces.space import Choice, Space

BACKBONES = ("test_resnet", "test_vit", "test_convnext")
SPACE = Space(
    "three",
    {"backbone": Choice(BACKBONES, "test_resnet"), "image_size": 48, "dropout": 0.0,
     "au_loss": "none", "batch_size": 16, "warmup_epochs": 0.0, "epochs": 2},
)  # fmt: skip
ONE = Speed("a", 2.0, 0.1, 1000, 1)


@pytest.fixture
def data(faces, tmp_path):
    """The faces beside an empty memory of speeds."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / faces.name).symlink_to(faces)
    return folder / faces.name


@pytest.fixture
def measured(monkeypatch):
    """What is measured, each configuration at its own speed times a factor to set."""
    there = SimpleNamespace(factor=1.0, asked=[])

    def measure(flat, bundle, threads):
        there.asked.append(flat["backbone"])
        seconds = 1.0 + BACKBONES.index(flat["backbone"])
        return Speed(flat["backbone"], seconds * there.factor, 0.1, 1000, 0)

    monkeypatch.setattr(speed, "measure", measure)
    return there


def seconds_of(speeds):
    return {known.backbone: known.epoch_seconds for known in speeds}


def test_a_search_measures_the_default_alone(data, measured):
    found = speed.sample(SPACE, data, 1, 0.0, is_new=False)
    assert [known.backbone for known in found] == ["test_resnet"]
    assert len(json.loads((data.parent / FILE).read_text())) == 1


def test_a_dry_run_measures_a_configuration_of_every_backbone(data, measured):
    found = speed.sample(SPACE, data, 1, 60.0)
    assert seconds_of(found) == {"test_resnet": 1.0, "test_vit": 2.0, "test_convnext": 3.0}


def test_what_is_remembered_is_scaled_as_the_default_has_changed(data, measured):
    speed.sample(SPACE, data, 1, 60.0)
    measured.factor, measured.asked = 3.0, []
    found = speed.sample(SPACE, data, 1, 60.0)
    assert measured.asked == ["test_resnet"]
    assert seconds_of(found) == {"test_resnet": 3.0, "test_vit": 6.0, "test_convnext": 9.0}
    again = speed.sample(SPACE, data, 1, 0.0, is_new=False)  # scaled once, not once a time
    assert seconds_of(again) == seconds_of(found)


def test_a_memory_that_cannot_be_read_is_done_without(data, measured):
    (data.parent / FILE).write_text('{"key": {"no": "speed"}}')
    assert len(speed.sample(SPACE, data, 1, 60.0)) == 3


def test_an_epoch_is_counted_from_whole_batches_and_the_validation(faces):
    from trainables.data import cache

    bundle = cache.load(faces)
    found = speed.measure(SPACE.defaults(), bundle, 1)
    assert found.backbone == "test_resnet"
    assert found.busy >= 1
    assert 0 < found.epoch_seconds < 60


def test_the_tail_of_swa_is_counted_where_the_network_has_batch_norms(faces, monkeypatch):
    from trainables.data import cache

    bundle = cache.load(faces)
    monkeypatch.setattr(speed, "_timed", lambda *_: (3.0, 1.0))  # seconds an image
    looks = {}
    for backbone in BACKBONES[:2]:
        flat = {**SPACE.defaults(), "backbone": backbone}
        ema, swa = (
            speed.measure({**flat, "average": name}, bundle, 1).epoch_seconds
            for name in ("ema", "swa")
        )
        looks[backbone] = swa - ema
    assert looks["test_resnet"] == pytest.approx(round(len(bundle.train) / 2))  # of two epochs one
    assert looks["test_vit"] == 0


@pytest.fixture
def clock(monkeypatch):
    """A clock that runs `busy` times as fast as the processor works for us."""
    there = SimpleNamespace(now=0.0, busy=1.0)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: there.now * there.busy)
    monkeypatch.setattr(speed.time, "process_time", lambda: there.now)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    return there


def train(clock, seconds, batch=16):
    def step():
        clock.now += seconds
        return batch

    return step


def test_short_steps_are_measured_for_a_second_and_long_ones_a_few_times(clock):
    assert speed._timed(train(clock, 0.01), 16, 10**6) == pytest.approx((0.01 / 16, 1.0))
    assert clock.now == pytest.approx(1.0, abs=0.02)
    clock.now = 0.0
    speed._timed(train(clock, 5.0), 16, 10**6)
    assert clock.now == 5.0 * speed.STEPS


def test_no_more_than_an_epoch_is_measured(clock):
    speed._timed(train(clock, 0.01), 16, 48)
    assert clock.now == pytest.approx(0.03)


def test_time_that_others_have_used_is_told(clock):
    clock.busy = 3.0
    per_image, busy = speed._timed(train(clock, 0.5), 16, 10**6)
    assert (per_image, busy) == pytest.approx((1.5 / 16, 3.0))


def test_a_busy_machine_widens_the_interval():
    calm, busy = pace([ONE]), pace([replace(ONE, busy=4.0)])
    assert calm.error == pytest.approx(math.hypot(speed.ERROR, 0.3))
    assert busy.error == pytest.approx(math.hypot(calm.error, math.log(4) / 4))
