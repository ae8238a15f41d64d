"""Targets: one-hot labels, and what a crowd voted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables.config import TrialConfig
from trainables.data import cache
from trainables.data.bundle import DataBundle
from trainables.feed import make_feed
from trainables.targets import pair_chances, training_targets
from trainables.trial import Training

PAIRS = ((0, 1), (0, 2), (1, 2))


@pytest.fixture(scope="module")
def bundle(faces) -> DataBundle:
    return cache.load(faces)


def with_votes(bundle: DataBundle, votes: np.ndarray) -> DataBundle:
    """The data with these votes for its first images, and none for the rest."""
    table = np.zeros((len(bundle.train), votes.shape[1]), np.float32)
    table[: len(votes)] = votes
    return replace(bundle, train=replace(bundle.train, distributions=table))


def voted(bundle: DataBundle) -> DataBundle:
    """The data with two thirds of the votes for the emotions of the image's class."""
    votes = np.full((len(bundle.train), 6), 1 / 18, np.float32)
    for row, label in enumerate(bundle.train.labels):
        votes[row, list(bundle.components[label])] += 1 / 3
    return with_votes(bundle, votes)


def test_chance_of_a_pair_by_hand() -> None:
    votes = torch.tensor([[0.5, 0.4, 0.1], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[0.2, 0.05, 0.04], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pair_chances(votes, PAIRS), expected)


def test_targets_are_a_blend_by_hand(bundle) -> None:
    three = replace(bundle, class_names=("a", "b", "c"), components=PAIRS)
    labels = np.array([2, 1, *(len(bundle.train) - 2) * [0]])
    three = replace(three, train=replace(three.train, labels=labels))
    three = with_votes(three, np.array([[0.5, 0.4, 0.1], [1.0, 0.0, 0.0]], np.float32))
    targets = training_targets(three, 0.25)
    chances = torch.tensor([0.2, 0.05, 0.04]) / 0.29
    torch.testing.assert_close(targets[0], 0.75 * torch.eye(3)[2] + 0.25 * chances)
    assert torch.equal(targets[1], torch.eye(3)[1])  # all named one emotion: no pair
    assert torch.equal(targets[2:], torch.eye(3)[labels[2:]])  # nobody voted


def test_votes_over_the_classes_themselves_are_taken_as_they_are(bundle) -> None:
    votes = np.random.default_rng(0).dirichlet(np.ones(14), len(bundle.train)).astype(np.float32)
    plain = replace(with_votes(bundle, votes), components=None)
    torch.testing.assert_close(training_targets(plain, 1.0), torch.from_numpy(votes))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_sum_to_one(bundle, share: float) -> None:
    targets = training_targets(voted(bundle), share)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    assert (targets >= 0).all()
    assert (targets.argmax(1).numpy() == bundle.train.labels).all()  # the class is the top pair


def test_control_is_one_hot_with_votes_or_without(bundle) -> None:
    one_hot = torch.eye(14)[torch.from_numpy(bundle.train.labels.copy())]
    assert torch.equal(training_targets(bundle, 0.0), one_hot)
    assert torch.equal(training_targets(voted(bundle), 0.0), one_hot)


def test_data_without_votes_is_refused(bundle) -> None:
    with pytest.raises(ValueError, match="soft_labels is 0.5, but this data set has no crowd vot"):
        training_targets(bundle, 0.5)


def test_a_trial_learns_from_the_votes(bundle) -> None:
    settings = {"backbone": "test_resnet", "batch_size": 8, "image_size": 48}
    losses = []
    for share in (0.0, 1.0):
        config = TrialConfig.from_flat({**settings, "soft_labels": share})
        feed = make_feed(config, voted(bundle), torch.device("cpu"))
        assert torch.equal(feed.targets, training_targets(voted(bundle), share))
        training = Training(config, voted(bundle))
        training.train_on(16)
        losses.append(torch.cat([p.detach().flatten() for p in training.model.parameters()]))
    assert not torch.equal(*losses)
