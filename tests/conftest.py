"""Shared data: a small set of embedded faces, rendered once for the whole session."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared cache entry: 300 easy faces of 48 pixels."""
    from trainables.data import cache

    return cache.prepare("faces:300:easy", 48, cache_root=tmp_path_factory.mktemp("cache"))
