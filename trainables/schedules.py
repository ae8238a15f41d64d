"""Schedules over the progress of training, from 0 at the start to 1 at the end.

SCHEDULES: builder(*, hyper-parameters) -> progress -> fraction in [0, 1], never falling.
What the fraction is of, a curriculum says by `curriculum_drives` (pacing.py).
"""

import math
from collections.abc import Callable

from trainables.config import CURRICULUM_FULL_AT
from trainables.registry import Registry

LEAST = 1e-6  # where what grows by factors may start

Schedule = Callable[[float], float]
ScheduleBuilder = Callable[..., Schedule]

SCHEDULES: Registry[ScheduleBuilder] = Registry("curriculum")


@SCHEDULES.register
def none_() -> Schedule:
    """The whole from the start."""
    return lambda progress: 1.0


@SCHEDULES.register
def linear(*, start: float = 0.3, full_at: float = CURRICULUM_FULL_AT) -> Schedule:
    """From `start` to 1 at `full_at` in a straight line (Wu et al. 2021, 2012.03107)."""
    _check(start, full_at, least=0)
    return lambda progress: start + (1 - start) * _share(progress, full_at)


@SCHEDULES.register
def root(
    *, start: float = 0.3, full_at: float = CURRICULUM_FULL_AT, power: float = 2.0
) -> Schedule:
    """Fast first, then slower: the power-th root of a line (Platanios et al. 2019, 1903.09848)."""
    _check(start, full_at, least=0)
    first = start**power
    return lambda progress: float((first + (1 - first) * _share(progress, full_at)) ** (1 / power))


@SCHEDULES.register
def geometric(*, start: float = 0.3, full_at: float = CURRICULUM_FULL_AT) -> Schedule:
    """Slow first, then faster: growth by equal factors (Wu et al. 2021, 2012.03107)."""
    _check(start, full_at)
    return lambda progress: float(start ** (1 - _share(progress, full_at)))


@SCHEDULES.register
def step(
    *,
    start: float = 0.3,
    full_at: float = CURRICULUM_FULL_AT,
    factor: float = 1.8,
    step_length: float = 0.15,
) -> Schedule:
    """Times `factor` after each `step_length`, all from `full_at` on (Hacohen & Weinshall 2019,
    1904.03626)."""
    _check(start, full_at)

    def fraction(progress: float) -> float:
        if progress >= full_at:
            return 1.0
        steps = math.floor(_clip(progress) / step_length + 1e-9)  # 0.3 / 0.1 is 2.9999999999999996
        return float(min(1.0, start * factor**steps))

    return fraction


def warmup_cosine(step: float, total: float, warmup: float, rest: float = 0.0) -> float:
    """Factor on the learning rate: a line up from 0.01 over `warmup`, then half a cosine down to
    `rest` at `total`, where it stays (Loshchilov & Hutter 2017, 1608.03983). The first three in one
    unit, epochs or steps."""
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    share = _share(step - warmup, total - warmup) if total > warmup else 1.0
    return rest + (1 - rest) * 0.5 * (1 + math.cos(math.pi * share))


def _check(start: float, full_at: float, least: float = LEAST) -> None:
    if not (least <= start <= 1 and 0 <= full_at <= 1):
        raise ValueError(
            f"a curriculum cannot go from {start:g} to the whole at {full_at:g} of the training: "
            f"start must be within {least:g} and 1, as must full_at within 0 and 1"
            + (", and what grows by factors never leaves 0: take 'linear'" if not start else "")
        )


def _share(progress: float, full_at: float) -> float:
    return 1.0 if full_at <= 0 else min(1.0, max(0.0, progress) / full_at)


def _clip(progress: float) -> float:
    return min(1.0, max(0.0, progress))
