"""What a network is taught of each image. N images, K classes, B basic emotions.

Labels (N,) and crowd votes over the basic emotions (N, B) -> targets (N, K), rows sum to 1.
"""

import torch
from torch import Tensor

from trainables.data.bundle import DataBundle


def training_targets(bundle: DataBundle, soft_labels: float) -> Tensor:
    """One-hot labels with a share `soft_labels` of them replaced by what the crowd voted.

    Label distribution learning (Geng 2016, 1408.6027; for faces Zhou et al. 2015,
    10.1145/2733373.2806328). A share of 0 is the control. Images without votes stay one-hot.
    Raises ValueError for a share above 0 on data without votes.
    """
    train, classes = bundle.train, len(bundle.class_names)
    one_hot = torch.eye(classes)[torch.from_numpy(train.labels.copy())]
    if not soft_labels:
        return one_hot
    if train.distributions is None:
        raise ValueError(
            f"soft_labels is {soft_labels:g}, but this data set has no crowd votes; set it to 0"
        )
    votes = torch.from_numpy(train.distributions.copy())
    chances = votes if bundle.components is None else pair_chances(votes, bundle.components)
    total = chances.sum(1, keepdim=True)
    voted = torch.where(total > 0, chances / total.clamp_min(1e-12), one_hot)
    return torch.lerp(one_hot, voted, soft_labels)


def pair_chances(votes: Tensor, components: tuple[tuple[int, int], ...]) -> Tensor:
    """(N, K): the chance that two voters name the two emotions of a class, one each.

    Not their sum, by which a class of one likely and one impossible emotion would be likely.
    """
    first, second = torch.tensor(components).T
    return votes[:, first] * votes[:, second]
