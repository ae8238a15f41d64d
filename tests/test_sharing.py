"""How many trials share a GPU where the command does not say."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.cluster import count_workers
from search.folder import NEEDED
from search.options import parser
from search.prepare import choose_resources
from search.sharing import usual_share
from spaces.sprint2 import SPACE
from spaces.tiers import TIERS, at_tier
from trainables.store import RunStore


def job(tier: str, *words: str, **sizes: Any) -> Any:
    """As much of one as is asked for."""
    known = {"image_size": TIERS[tier].image_size, **sizes}
    return SimpleNamespace(
        args=parser().parse(list(words)),
        sizes=SimpleNamespace(tier=TIERS[tier], **known),
        space=at_tier(SPACE, TIERS[tier]),
        root=Path("run"),
        anchors=[],
    )


def workers(of: Any, cpus: float, gpus: float) -> tuple[float, int]:
    resources = choose_resources(of.args, cpus, gpus, usual_share(of, cpus, gpus))
    return resources.gpus_per_trial, count_workers(resources, cpus, gpus)


@pytest.mark.parametrize(
    ("tier", "words", "cpus", "gpus", "share", "at_once"),
    [
        ("tiny", [], 12, 2, 0.25, 8),  # alone, one keeps a GPU busy for a tenth of a step
        ("mid", [], 12, 2, 1, 2),
        ("tiny", ["--gpus-per-trial", "1"], 12, 2, 1, 2),
        ("tiny", [], 12, 0, 0, 12),
        ("tiny", [], 4, 2, 0.5, 4),  # not four on one GPU and none on the other
        ("tiny", [], 2, 4, 1, 2),
        ("tiny", ["--max-concurrent", "3"], 16, 1, 1 / 3, 3),
        ("tiny", ["--cpus-per-trial", "8"], 16, 1, 0.5, 2),
    ],
)
def test_small_networks_share_a_gpu(tier, words, cpus, gpus, share, at_once) -> None:
    assert workers(job(tier, *words), cpus, gpus) == (share, at_once)


def test_larger_images_and_other_networks_have_a_gpu_each() -> None:
    large = job("tiny", image_size=224)
    assert usual_share(large, 16, 1) == 1
    other = job("tiny")
    settings = {**other.space.settings, "backbone": "resnet50"}
    other.space = replace(other.space, settings=settings, anchors={})
    assert usual_share(other, 16, 1) == 1
    given = job("tiny", "--configs", "some.json")
    given.anchors = [("small", {"backbone": "test_vit"})]
    assert usual_share(given, 16, 1) == 0.25
    given.anchors += [("large", {"backbone": "resnet50"})]
    assert usual_share(given, 16, 1) == 1


def test_a_run_that_goes_on_keeps_its_share(tmp_path) -> None:
    """Its GPU-hours are what all its trials took at that share."""
    begun = job("tiny", "--resume", "--name", "x")
    begun.root = tmp_path / "x"
    store = RunStore.create(begun.root, {**dict.fromkeys(NEEDED, ""), "gpus_per_trial": 1.0})
    assert usual_share(begun, 16, 1) == 1.0
    store.update_meta(gpus_per_trial=0.0)  # there was no GPU then
    assert usual_share(begun, 16, 1) == 0.25
