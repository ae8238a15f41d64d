"""AU prototypes of classes and the priors drawn from them, by hand. K = 2 classes, A = 2 AUs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from search import plan
from spaces.catalog import find
from trainables.au_task import make_prior
from trainables.config import Flat, Part, TrialConfig
from trainables.data import cache
from trainables.data.bundle import DataBundle
from trainables.prototypes import PRIORS, prototypes
from trainables.trial import Training

POSITIVES, KNOWN = np.array([[8, 1], [0, 3]]), np.array([[10, 10], [4, 4]])
LOGITS = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
AU_LOGITS = torch.tensor([[0.5, -2.0], [1.0, 0.0]])
TARGETS = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
AUS = torch.tensor([[1.0, 0.0], [1.0, -1.0]])
OFF = 1e6  # imagined images: one prototype for all


@pytest.fixture(scope="module")
def bundle(faces) -> DataBundle:
    return cache.load(faces)


def without_labels(bundle: DataBundle, label: int) -> DataBundle:
    aus = bundle.train.aus.copy()
    aus[bundle.train.labels == label] = -1
    return replace(bundle, train=replace(bundle.train, aus=aus))


def test_prototypes_by_hand() -> None:
    # overall 8/14 and 4/14; 7 imagined images add 4 and 2 to each class
    wanted = [[12 / 17, 3 / 17], [4 / 11, 5 / 11]]
    np.testing.assert_allclose(prototypes(POSITIVES, KNOWN, 7.0), wanted)


def test_prototypes_become_one_with_many_imagined_images() -> None:
    np.testing.assert_allclose(prototypes(POSITIVES, KNOWN, OFF), [[4 / 7, 2 / 7]] * 2, atol=1e-4)


def test_prototypes_are_never_certain() -> None:
    table = prototypes(np.array([[0, 9]]), np.array([[9, 9]]), 0.0)
    assert ((table > 0) & (table < 1)).all()


def test_co_annotation_by_hand() -> None:
    # only the second AU of the second image is unlabelled: its target is 0.25 * 0.1 + 0.75 * 0.75
    value = PRIORS["co_annotation"](POSITIVES, KNOWN, weight=0.2, shrink=0.0)
    found = value(LOGITS, AU_LOGITS, TARGETS, AUS)
    assert found.tolist() == pytest.approx([0, 0.2 * math.log(2)])  # its logit is 0
    moved = AU_LOGITS + torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    expected = 0.25 * 0.1 + 0.75 * 0.75
    p = 1 / (1 + math.exp(-1))
    cross = -expected * math.log(p) - (1 - expected) * math.log(1 - p)
    assert value(LOGITS, moved, TARGETS, AUS)[1].item() == pytest.approx(0.2 * cross)


def test_distribution_matching_by_hand() -> None:
    table = torch.tensor(prototypes(POSITIVES, KNOWN, 7.0)).float()
    expected, said = LOGITS.softmax(1) @ table, AU_LOGITS.sigmoid()
    divergence = expected * (expected / said).log()
    divergence += (1 - expected) * ((1 - expected) / (1 - said)).log()
    prior = PRIORS["distribution_matching"](POSITIVES, KNOWN, weight=0.3, shrink=7.0)
    found = prior(LOGITS, AU_LOGITS, TARGETS, AUS)
    torch.testing.assert_close(found, 0.3 * divergence.mean(1))


def test_distribution_matching_is_least_where_both_agree() -> None:
    table = torch.tensor(prototypes(POSITIVES, KNOWN, 7.0)).float()
    matched = torch.logit(LOGITS.softmax(1) @ table).requires_grad_()
    value = PRIORS["distribution_matching"](POSITIVES, KNOWN, shrink=7.0)(
        LOGITS, matched, TARGETS, AUS
    )
    value.sum().backward()
    assert value.detach().abs().max() < 1e-6
    assert matched.grad is not None
    assert matched.grad.abs().max() < 1e-6


def emotion_gradient(shrink: float) -> Tensor:
    logits = LOGITS.clone().requires_grad_()
    prior = PRIORS["distribution_matching"](POSITIVES, KNOWN, shrink=shrink)
    prior(logits, AU_LOGITS, TARGETS, AUS).sum().backward()
    assert logits.grad is not None
    return logits.grad


def test_the_emotion_head_learns_of_the_classes_and_in_the_control_of_nothing() -> None:
    assert emotion_gradient(7.0).abs().max() > 1e-3
    assert emotion_gradient(OFF).abs().max() < 1e-5


TAUGHT: Flat = {
    "backbone": "test_resnet", "image_size": 48, "batch_size": 8, "au_loss": "bce",
    "au_weight": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in PRIORS if n != "none"])
def test_a_prior_changes_the_training(bundle, name) -> None:
    gaps = bundle.train.aus.copy()
    gaps[np.flatnonzero(bundle.train.labels == 10)[1:]] = -1
    data = replace(bundle, train=replace(bundle.train, aus=gaps))
    heads = []
    for prior in ("none", name):
        training = Training(TrialConfig.from_flat({**TAUGHT, "au_prior": prior}), data)
        training.train_on(24)
        heads.append(training.model.heads.au.weight.detach())
    assert not torch.equal(*heads)


def test_a_class_without_au_labels_has_no_prototype(bundle) -> None:
    blind = without_labels(bundle, 10)
    with pytest.raises(ValueError, match="no training image of angrily disgusted has them"):
        make_prior(Part("co_annotation"), blind)
    with pytest.raises(ValueError, match="has no prototype"):
        prototypes(np.array([[1], [0]]), np.array([[3], [0]]), 5.0)
    assert make_prior(Part(), blind) is None


def test_a_space_on_data_with_such_a_class_does_without_priors(bundle) -> None:
    fitted, notes = plan.fit_to_data(find("sprint1"), without_labels(bundle, 10))
    assert fitted.settings["au_prior"] == "none"
    assert "au_prior.weight" not in fitted.settings
    assert notes == [
        "no training image of angrily disgusted has AU labels: AU priors are off",
    ]


def test_priors_are_computed_in_float32() -> None:
    half = AU_LOGITS.bfloat16()
    for name in PRIORS:
        found = PRIORS[name](POSITIVES, KNOWN)(LOGITS.bfloat16(), half, TARGETS, AUS)
        assert name == "none" or found.dtype == torch.float32


def test_co_annotation_is_a_loss_on_soft_targets() -> None:
    unknown = torch.full_like(AUS, -1)
    prior = PRIORS["co_annotation"](POSITIVES, KNOWN, weight=1.0, shrink=7.0)
    table = torch.tensor(prototypes(POSITIVES, KNOWN, 7.0)).float()
    reference = functional.binary_cross_entropy_with_logits(
        AU_LOGITS, TARGETS @ table, reduction="none"
    )
    found = prior(LOGITS, AU_LOGITS, TARGETS, unknown)
    torch.testing.assert_close(found, reference.mean(1))


@pytest.mark.parametrize("name", ["co_annotation", "distribution_matching"])
def test_a_prior_is_in_single_precision_under_autocast(name: str) -> None:
    """An AU that every image shows: in half precision its prototype would round to 1."""
    always = np.array([[9990, 1], [9990, 3]]), np.array([[9991, 10], [9991, 4]])
    prior = PRIORS[name](*always)
    slopes = []
    for is_half in (False, True):
        logits, au_logits = (t.clone().requires_grad_() for t in (LOGITS, AU_LOGITS))
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = prior(logits, au_logits, TARGETS, torch.full_like(AUS, -1)).sum()
        loss.backward()
        slopes.append((au_logits.grad, logits.grad))
    for whole, half in zip(*slopes, strict=True):
        assert (whole is None) == (half is None)
        if whole is not None:
            assert torch.equal(whole, half)
            assert whole.isfinite().all()
