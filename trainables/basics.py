"""Basic emotions before their compounds: what is taught in which part of the training.

N batch, K classes, B basic emotions. Stage 1 teaches the basic emotions of each face as so many
yes-or-no questions, stage 2 virtual compounds, made of two faces each, stage 3 the real compounds.
This was the way of the winner of ABAW-7's compound expressions (methods 1.1), whose first faces
show one emotion; ours show two, as the data may have no others.
BASICS: builder(components, basics, rng, *, hyper-parameters) -> Lessons. The control is `permuted`:
each class has the basic emotions of another, so that they group nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainables.augment import MIXERS, Batch, Transform
from trainables.config import BASICS_SHARE, TrialConfig, basics_ends
from trainables.device import constant
from trainables.prototypes import mixed
from trainables.registry import Registry

RULES = ("mixup", "cutmix")
EVEN = 8.0  # of Beta(a, a): both faces have about half of the picture

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Lessons:
    """When which stage is, and what it needs."""

    ends: tuple[float, float] = (0.0, 0.0)  # progress at the end of stages 1 and 2
    members: Tensor | None = None  # (K, B) 1 where a basic emotion takes part in a class
    virtual: Transform | None = None

    def stage(self, progress: float) -> int:
        """1 basics, 2 virtual compounds, 3 the classes themselves."""
        return 1 + sum(progress >= end - 1e-9 for end in self.ends)


BASICS: Registry[Callable[..., Lessons]] = Registry("basics")


@BASICS.register
def none_(components: Pairs | None, basics: int, rng: np.random.Generator) -> Lessons:
    """The classes from the start."""
    return Lessons()


@BASICS.register
def two_stage(
    components: Pairs | None,
    basics: int,
    rng: np.random.Generator,
    *,
    first: float = BASICS_SHARE,
    permuted: bool = False,
) -> Lessons:
    """Basic emotions for a share `first` of the training, then the classes."""
    pairs = _pairs(components, permuted, rng)
    return Lessons(_ends(first, 0.0), membership(pairs, basics))


@BASICS.register
def three_stage(
    components: Pairs | None,
    basics: int,
    rng: np.random.Generator,
    *,
    first: float = BASICS_SHARE,
    second: float = BASICS_SHARE,
    mixing: str = "mixup",
    permuted: bool = False,
) -> Lessons:
    """Virtual compounds for a share `second` in between, their faces joined by `mixing`."""
    pairs = _pairs(components, permuted, rng)
    virtual = virtual_compounds(pairs, mixing)
    return Lessons(_ends(first, second), membership(pairs, basics), virtual)


def make_lessons(config: TrialConfig, components: Pairs | None, basics: int) -> Lessons:
    """Those of a configuration. Raises ValueError for classes that are no compounds."""
    rng = np.random.default_rng([config.seed, 2])
    lessons = BASICS[config.basics.name](components, basics, rng, **config.basics.args)
    first, second = basics_ends(config.basics, config.epochs)
    return replace(lessons, ends=(first / config.epochs, second / config.epochs))


def membership(components: Pairs, basics: int) -> Tensor:
    """(K, B): 1 where the basic emotion takes part in the class."""
    found = torch.zeros(len(components), basics)
    for row, pair in enumerate(components):
        found[row, list(pair)] = 1
    return found


def basic_loss(basic_logits: Tensor, targets: Tensor, members: Tensor) -> Tensor:
    """(N, B) logits, (N, K) soft targets -> (N,): binary cross-entropy, summed over the basics."""
    x, present = basic_logits.float(), mixed(targets, members).clamp(0, 1)
    return functional.binary_cross_entropy_with_logits(x, present, reduction="none").sum(1)


def virtual_compounds(components: Pairs, mixing: str) -> Transform:
    """A batch of faces each made of two, by a mixing rule that always acts and halves them.

    A face of {a, b} and one of {c, d} make the classes of one basic emotion of each, all equally;
    where no class has such a pair, what the rule would say.
    """
    if mixing not in RULES:
        raise ValueError(
            f"basics.mixing cannot be '{mixing}': two faces make a virtual compound by "
            f"{' or '.join(repr(rule) for rule in RULES)}"
        )
    table = compositions(components)
    mixer = MIXERS[mixing](np.ones(len(components), int), alpha=EVEN, probability=1.0)

    def apply(batch: Batch, generator: Generator) -> Batch:
        own = torch.eye(len(batch.images), device=batch.images.device)
        mixed = mixer(replace(batch, targets=own), generator)  # whose parts a face is made of
        share = mixed.targets.diagonal()[:, None]
        others = mixed.targets - torch.diag(share[:, 0])
        itself = torch.arange(len(own), device=own.device)
        partner = torch.where(others.amax(1) > 0, others.argmax(1), itself)
        first, second = batch.targets, batch.targets[partner]
        made = torch.einsum("nk,nl,klm->nm", first, second, constant(table, first))
        total = made.sum(1, keepdim=True)
        plain = share * first + (1 - share) * second
        targets = torch.where(total > 0, made / total.clamp_min(1e-12), plain)
        return replace(mixed, targets=targets)

    return apply


def compositions(components: Pairs) -> Tensor:
    """(K, K, K): of two classes, the classes that have one basic emotion of each, equally likely.

    Zeros where there is none.
    """
    count, named = len(components), dict[tuple[int, ...], list[int]]()
    for k, pair in enumerate(components):
        named.setdefault(tuple(sorted(pair)), []).append(k)
    table = torch.zeros(count, count, count)
    for k, one in enumerate(components):
        for m, other in enumerate(components):
            made = {c for a in one for b in other for c in named.get(tuple(sorted((a, b))), ())}
            if made:
                table[k, m, sorted(made)] = 1 / len(made)
    return table


def _ends(first: float, second: float) -> tuple[float, float]:
    if min(first, second) < 0 or first + second >= 1:
        raise ValueError(
            f"basics cannot take the shares {first:g} and {second:g} of the training: each must be "
            "0 or more, and together they must leave some of it for the classes"
        )
    return first, first + second


def _pairs(components: Pairs | None, permuted: bool, rng: np.random.Generator) -> Pairs:
    if components is None:
        raise ValueError(
            "basics come before compounds, and the classes of this data set are not compounds of "
            "basic emotions; set basics to 'none'"
        )
    if not permuted:
        return components
    ring = rng.permutation(len(components))  # each gets the next one's: none keeps its own
    given = dict(zip(ring.tolist(), np.roll(ring, 1).tolist(), strict=True))
    return tuple(components[given[k]] for k in range(len(components)))
