"""Every part of every space, at both ends of every range, builds and takes a training step."""

import numpy as np
import pytest

from spaces.catalog import NAMES, find
from spaces.tiers import TIERS, at_tier, baseline
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.features.trial import run
from trainables.trial import Training


def corners() -> dict[str, TrialConfig]:
    found: dict[str, TrialConfig] = {}
    tier = TIERS["tiny"]
    for name in NAMES:
        space = at_tier(find(name), tier).fixed({"image_size": 48})
        if "soft_labels" in space.settings:  # the embedded faces have no votes (test_targets.py)
            space = space.fixed({"soft_labels": 0.0})
        space = space.without("curriculum_order", ("crowd_entropy",))  # likewise (test_orders.py)
        space = space.without("synthetic", ("generated",))  # wants a set (test_synthetic.py)
        for flat in (baseline(space, tier), space.defaults(), *space.corners()):
            config = TrialConfig.from_flat({**flat, "batch_size": 8})
            found.setdefault(config.trial_id, config)
    return found


CORNERS = corners()


@pytest.mark.parametrize("config", CORNERS.values(), ids=CORNERS)
def test_corner_builds_and_steps(config: TrialConfig, faces) -> None:
    if config.features.name != "none":  # a trial of its own kind, whole
        row, outcome = run(config, faces)
        assert row["score"] >= 0
        assert all(np.isfinite(value).all() for value in outcome.tensors.values())
        return
    training = Training(config, cache.load(faces))
    before = [p.detach().clone() for p in training.model.parameters()]
    assert training.train_on(16) == 16
    assert any(not (a == b).all() for a, b in zip(before, training.model.parameters(), strict=True))
    assert all(p.isfinite().all() for p in training.model.parameters())
