"""The number of cores, also where the system does not tell which a process may use."""

import os

import numpy as np
import pytest

from trainables.data import faces, parallel
from trainables.data.cores import usable_cores


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_without_affinity_all_cores_count(monkeypatch, count, cores):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores() == cores


def test_images_are_read_and_drawn_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert parallel.in_threads(abs, [-1, 2], "read", None) == [1, 2]
    assert faces.render_all(faces.FacesSpec(200, 16)).dtype == np.uint8
