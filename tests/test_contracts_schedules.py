"""Contracts of what drives a training: drivers, orders, averages, stages of basic emotions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables.averages import AVERAGES, Tail
from trainables.basics import BASICS
from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.data.bundle import DataBundle
from trainables.orders import ORDERS, easy_to_hard
from trainables.pacing import DRIVERS, pace
from trainables.registry import Registry

REGISTRIES: tuple[Registry, ...] = (AVERAGES, BASICS, DRIVERS, ORDERS)
PAIRS = ((0, 1), (0, 2), (1, 2), (2, 3), (1, 3))
STRIDES = (8, 16, 32)
WHOLE = TrialConfig(
    curriculum=Part("linear", {"start": 0.1, "full_at": 0.8}),
    loss=Part("balanced_softmax"),
    rebalance=Part("sampler"),
    mix=Part("mixup"),
    au_weight=0.5,
    image_size=224,
)


@pytest.fixture(scope="module")
def bundle(faces) -> DataBundle:
    """The faces, with votes of an imagined crowd."""
    found = cache.load(faces)
    votes = np.random.default_rng(0).dirichlet(np.ones(len(found.basic_names)), len(found.train))
    return replace(found, train=replace(found.train, distributions=votes.astype(np.float32)))


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_every_plug_in_is_documented_with_plain_defaults_and_near_names_are_told(registry) -> None:
    for name in registry:
        assert registry[name].__doc__
        assert all(type(d) in (int, float, bool, str) for d in registry.arguments(name).values())
    name = list(registry)[-1]
    with pytest.raises(LookupError, match=f"Did you mean '{name}'"):
        registry[name + "x"]


@pytest.mark.parametrize("name", DRIVERS)
def test_what_a_driver_grows_never_falls_and_ends_at_its_full_value(name: str) -> None:
    config = replace(WHOLE, curriculum_drives=name)
    paces = [pace(config, p, STRIDES) for p in np.linspace(0, 1, 41)]
    values = [found.value for found in paces]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1]
    others = [replace(p.settings, **as_configured(config, name)) for p in paces]
    assert set(map(repr, others)) == {repr(config)}  # it moves nothing else
    full = {"data": 1.0, "sampler": 0.5, "tau": 1.0, "au_weight": 0.5, "mix": 0.5, "size": 224}
    assert values[-1] == pytest.approx(full[name])
    assert paces[-1].data == 1
    assert (paces[0].data < 1) == (name == "data")


def as_configured(config: TrialConfig, driver: str) -> dict[str, object]:
    moved = {
        "sampler": "rebalance", "tau": "loss", "mix": "mix", "au_weight": "au_weight",
        "size": "image_size",
    }  # fmt: skip
    return {moved[driver]: getattr(config, moved[driver])} if driver in moved else {}


@pytest.mark.parametrize("name", DRIVERS)
def test_without_a_curriculum_nothing_is_driven(name: str) -> None:
    config = replace(WHOLE, curriculum=Part(), curriculum_drives=name)
    assert pace(config, 0.0, STRIDES) == (config, None, 1.0)


@pytest.mark.parametrize("name", ORDERS)
def test_order_is_a_permutation_by_difficulty_that_the_seed_decides(name: str, bundle) -> None:
    difficulty = ORDERS[name](bundle)
    assert difficulty.shape == (len(bundle.train),)
    assert np.isfinite(difficulty).all()
    np.testing.assert_array_equal(difficulty, ORDERS[name](bundle))
    orders = [easy_to_hard(bundle, name, False, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(len(bundle.train)))
    assert np.array_equal(orders[0], orders[1])
    assert (np.diff(difficulty[orders[0]]) >= 0).all()
    turned = easy_to_hard(bundle, name, True, np.random.default_rng(0))
    assert (np.diff(difficulty[turned]) <= 0).all()
    if len(np.unique(difficulty)) < len(difficulty):  # ties fall at random
        assert not np.array_equal(orders[0], orders[2])


@pytest.mark.parametrize("name", AVERAGES)
def test_the_tail_of_an_average_lies_in_the_training(name: str) -> None:
    tail = AVERAGES[name]()
    assert isinstance(tail, Tail)
    assert 0 <= tail.start <= 1
    assert 0 <= tail.rate <= 1


@pytest.mark.parametrize("name", BASICS)
def test_stages_follow_each_other_and_the_last_is_the_classes(name: str) -> None:
    lessons = BASICS[name](PAIRS, 4, np.random.default_rng(0))
    stages = [lessons.stage(p) for p in np.linspace(0, 1, 101)]
    assert stages == sorted(stages)
    assert stages[-1] == 3
    if 1 in stages:
        assert lessons.members is not None
        assert torch.equal(lessons.members.sum(1), torch.full((5,), 2.0))
    assert (2 in stages) == (lessons.virtual is not None)


@pytest.mark.parametrize("name", [n for n in BASICS if n != "none"])
def test_classes_that_are_no_compounds_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="are not compounds of basic emotions; set basics"):
        BASICS[name](None, 4, np.random.default_rng(0))
