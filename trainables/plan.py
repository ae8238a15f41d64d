"""What each epoch of a trial is made of, by the progress of its training from 0 to 1.

Which images, in which order, how they are changed, and by what objective: as the curriculum, the
stage of basic emotions and deferred re-weighting have it. N images, K classes, B basic emotions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from trainables.au_task import AuTask, make_au_task
from trainables.augment import Batch
from trainables.basics import Lessons, make_lessons
from trainables.config import TrialConfig, drives_data, drives_size, has_au_task
from trainables.data.bundle import DataBundle
from trainables.device import bring
from trainables.feed import Feed, make_feed
from trainables.loop import Objective
from trainables.losses import LOSSES, REBALANCE, Loss
from trainables.mixing import mixing
from trainables.orders import easy_to_hard
from trainables.pacing import Pace, Strides, pace
from trainables.ranks import Ranks
from trainables.rebalance import Rebalance
from trainables.store import Row

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """The epochs of a trial."""

    config: TrialConfig
    bundle: DataBundle
    strides: Strides  # of the backbone's maps
    feed: Feed  # as without a curriculum
    au: AuTask
    lessons: Lessons
    easy_to_hard: Order
    ranks: Ranks

    def pace(self, progress: float) -> Pace:
        """What of the settings is in force."""
        return pace(self.config, progress, self.strides)

    def order(self, progress: float, rng: np.random.Generator) -> Order:
        """Which images this epoch sees, and in which order: curriculum, then sampler or shuffle."""
        now = self.pace(progress)
        allowed = self._allowed(now)
        weights = self._rebalance(now).sample_weights(self.bundle.train.labels)
        if weights is None:
            return rng.permutation(allowed)
        chances = weights[allowed] / weights[allowed].sum()
        return rng.choice(allowed, len(allowed), p=chances)

    def objective(self, progress: float) -> Objective:
        """What is minimised."""
        now, is_first = self.pace(progress), self.lessons.stage(progress) == 1
        settings, device = now.settings, self.feed.device
        is_last = progress >= 1 - 1 / self.config.epochs - 1e-9
        at = 1.0 if is_last else progress  # re-weighting that is deferred into it acts in it
        weights = torch.as_tensor(self._rebalance(now).class_weights(at), dtype=torch.float32)
        members = self.lessons.members if is_first else None
        return Objective(
            self._emotion_loss(now),
            self.au.loss,
            settings.au_weight if has_au_task(settings) else 0.0,
            settings.region_weight,
            bring(weights, device),
            self.au.prior,
            self.ranks,
            None if members is None else bring(members, device),
        )

    def batches(self, progress: float, order: Order, generator: Generator) -> Iterator[Batch]:
        """These images, made smaller, augmented and mixed as is in force."""
        settings, counts = self.pace(progress).settings, self.bundle.class_counts()
        mix = mixing(settings.mix, counts, settings.mix_off, settings.epochs)
        if (virtual := self.lessons.virtual) and self.lessons.stage(progress) == 2:
            mix = lambda _: virtual  # noqa: E731
        size = settings.image_size if drives_size(self.config) else 0
        return replace(self.feed, mixing=mix, size=size).batches(order, generator, progress)

    def watched(self, progress: float) -> Row:
        """What shows that the curriculum and the stages are at work."""
        found: Row = {}
        if (value := self.pace(progress).value) is not None:
            found["curriculum_value"] = value
        if self.config.basics.name != "none":
            found["basics_stage"] = self.lessons.stage(progress)
        return found

    def _allowed(self, now: Pace) -> Order:
        """The images that are not withheld."""
        return self.easy_to_hard[: max(2, round(now.data * len(self.easy_to_hard)))]

    def _emotion_loss(self, now: Pace) -> Loss:
        """The loss; while all images of some classes are withheld, it is among the others alone,
        or all that these would teach of those is that nothing is one of them."""
        part, counts = now.settings.loss, self.bundle.class_counts()
        kept = np.ones(len(counts), bool)
        if now.data < 1 and not self.lessons.virtual:  # which blend classes that are withheld
            rows = torch.from_numpy(self._allowed(now).copy())  # other ranks may only read it
            shown = (self.feed.targets[rows].amax(0) > 0).cpu().numpy()
            if shown.sum() > 1:  # of one class alone there is nothing to learn
                kept = shown | (counts == 0)  # what no image shows, no curriculum withholds
        loss = LOSSES[part.name](counts[kept], **part.args)
        if kept.all():
            return loss
        return among(loss, bring(torch.from_numpy(np.flatnonzero(kept)), self.feed.device))

    def _rebalance(self, now: Pace) -> Rebalance:
        part = now.settings.rebalance
        return REBALANCE[part.name](self.bundle.class_counts(), **part.args)


def among(loss: Loss, classes: Tensor) -> Loss:
    """A loss of these classes (k,) alone, which neither raises nor lowers the logits of others."""
    return lambda logits, targets: loss(logits[:, classes], targets[:, classes])


def agreed(plan: Plan) -> Plan:
    """The plan with the first rank's order from easy to hard, the same on all ranks.

    Machines may differ in the last digits of a difficulty, and then in how a near tie falls. Each
    computes it nevertheless: none may keep the others waiting as long as that can take.
    """
    if plan.ranks.size == 1:
        return plan
    order = plan.ranks.broadcast(plan.easy_to_hard.tobytes())
    assert order is not None
    return replace(plan, easy_to_hard=np.frombuffer(order, np.int64))


def make_plan(
    config: TrialConfig, bundle: DataBundle, strides: Strides, ranks: Ranks, device: torch.device
) -> Plan:
    """The plan of a configuration. Raises ValueError or LookupError for what cannot be built."""
    rng = np.random.default_rng([config.seed, 1])
    order, is_reversed = TrialConfig.curriculum_order, False  # nothing is withheld in this order
    if drives_data(config):
        order, is_reversed = config.curriculum_order, config.curriculum_reversed
    plan = Plan(
        config,
        bundle,
        strides,
        make_feed(config, bundle, device),
        make_au_task(config, bundle),
        make_lessons(config, bundle.components, len(bundle.basic_names)),
        easy_to_hard(bundle, order, is_reversed, rng),
        ranks,
    )
    plan.objective(0.0)
    return plan
