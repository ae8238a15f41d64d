"""How the emotion task and the AU task share a step. P entries of the parameters that they share.

A balance says how much the loss of each task weighs and joins the gradients (P,) of the weighted
losses; one that learns is told after each step what the losses and the norms of those gradients
were. BALANCES: builder(*, hyper-parameters) -> Balance. The control of all is `fixed`, which
matches the others when all are regularised alike (Kurin et al. 2022, 2201.04122).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.registry import Registry

Pair = tuple[float, float]  # of the emotion task and of the AU task
TASKS = ("emotion task", "AU task")


class Losses(NamedTuple):
    """The mean losses of a batch by task, and what they are made of."""

    emotion: Tensor  # with the penalty of the head
    au: Tensor | None = None  # lambda L_AU and all else that supervises AUs
    parts: Mapping[str, Tensor] = {}  # detached

    def numbers(self) -> dict[str, Tensor]:
        """Of both tasks together, of each task, and of the parts: float64 scalars on the device,
        as reading one makes a GPU wait."""
        au = torch.zeros_like(self.emotion) if self.au is None else self.au
        of_tasks, of_parts = (self.emotion, au), self.parts.values()
        values = torch.stack([*of_tasks, *of_parts]).detach().double()
        names = ("train_loss", *TASKS, *self.parts)
        return dict(zip(names, (values[0] + values[1], *values), strict=True))


class Lesson(NamedTuple):
    """What a step shows a balance that learns; (2,) each, emotion first."""

    weights: Tensor
    losses: Tensor  # before weighting
    norms: Tensor  # of the gradients of the weighted losses on the shared parameters
    first: Tensor  # the losses of the first lesson


Join = Callable[[Tensor, Tensor], Tensor]
Slope = Callable[[Lesson], Tensor]


@dataclass(frozen=True)
class Rule:
    """In what balances differ; the two numbers of a balance stand in a tensor (2,)."""

    start: float = 1.0  # of both numbers
    weigh: Callable[[Tensor], Tensor] = torch.clone  # the weights of the tasks by the numbers
    slope: Slope | None = None  # what the numbers move against; None: they stay
    settle: Callable[[Tensor], Tensor] = torch.clone  # what a step leaves of the numbers
    join: Join = torch.add
    by_task: bool = False  # whether every step needs the gradient of each task by itself


class Balance:
    """Two numbers that make the weights of the tasks, and the Adam that moves them, if any does."""

    def __init__(self, rule: Rule | None = None, rate: float = 0.0) -> None:
        self.rule = rule or Rule()
        self.values = torch.full((2,), self.rule.start, dtype=torch.float64)
        self.first: Tensor | None = None
        self.adam = torch.optim.Adam([self.values], rate)

    @property
    def weights(self) -> Pair:
        """What the losses are multiplied by in the next step."""
        emotion, au = self.rule.weigh(self.values).tolist()
        return emotion, au

    @property
    def learns(self) -> bool:
        return self.rule.slope is not None

    def learn(self, losses: Pair, norms: Pair = (0.0, 0.0)) -> None:
        """Move the weights by what a step has shown; nothing is learned of a loss of 0."""
        shown = torch.tensor([losses, norms], dtype=torch.float64)
        if self.rule.slope is None or not all(0 < loss < math.inf for loss in losses):
            return
        if not shown.isfinite().all():  # a step that the scaler of mixed precision skips
            return
        self.first = shown[0] if self.first is None else self.first
        weights = self.rule.weigh(self.values)
        self.values.grad = self.rule.slope(Lesson(weights, shown[0], shown[1], self.first))
        self.adam.step()
        self.values.copy_(self.rule.settle(self.values))

    def state(self) -> dict[str, Any]:
        """All that a resumed trial needs."""
        return {"values": self.values, "first": self.first, "adam": self.adam.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.values.copy_(state["values"])
        self.first = state["first"]
        self.adam.load_state_dict(state["adam"])


BALANCES: Registry[Callable[..., Balance]] = Registry("balance")


@BALANCES.register
def fixed() -> Balance:
    """L_emotion + lambda L_AU, lambda as given: the control."""
    return Balance()


@BALANCES.register
def uncertainty(*, start: float = 0.0, rate: float = 0.01) -> Balance:
    """sum_i exp(-s_i) L_i + s_i / 2, s learned (Kendall et al. 2018, 1705.07115, for class losses).

    s_i goes to log(2 L_i), so lambda is only where the weights begin. The gradient on s needs no
    more than the losses, hence no graph; Adam's `rate` stands for the paper's shared optimiser.
    """

    def slope(seen: Lesson) -> Tensor:
        return 0.5 - seen.weights * seen.losses

    return Balance(Rule(start, lambda s: torch.exp(-s), slope), rate)


@BALANCES.register
def gradnorm(*, alpha: float = 1.0, rate: float = 0.01) -> Balance:
    """Gradient norms G_i drawn to their mean times r_i^alpha (Chen et al. 2018, 1711.02257).

    r_i is L_i / L_i(0) over its mean: a task that learns slower gets more. The slope of
    sum_i |G_i - mean(G) r_i^alpha|, the target held constant, is n_i sign(G_i - target), n_i being
    the norm before weighting. Weights sum to 2. Which layer is the paper's "last shared" depends on
    the attention here, so norms are over all shared parameters.
    """

    def slope(seen: Lesson) -> Tensor:
        speed = seen.losses / seen.first
        target = seen.norms.mean() * (speed / speed.mean()) ** alpha
        return seen.norms / seen.weights * (seen.norms - target).sign()

    def settle(weights: Tensor) -> Tensor:
        kept = weights.clamp_min(0.01)  # a step of Adam may go below zero
        return 2 * kept / kept.sum()

    return Balance(Rule(slope=slope, settle=settle, by_task=True), rate)


@BALANCES.register
def pcgrad() -> Balance:
    """Of gradients that conflict each loses what opposes the other (Yu et al. 2020, 2001.06782)."""
    return Balance(Rule(join=without_conflict, by_task=True))


def without_conflict(emotion: Tensor, au: Tensor) -> Tensor:
    """g_e + g_a, where g_e . g_a < 0 each first projected onto the plane normal to the other."""
    opposed = torch.dot(emotion, au).clamp_max(0)
    tiny = torch.finfo(emotion.dtype).tiny
    of_emotion = opposed / torch.dot(emotion, emotion).clamp_min(tiny)
    of_au = opposed / torch.dot(au, au).clamp_min(tiny)
    return (1 - of_emotion) * emotion + (1 - of_au) * au
