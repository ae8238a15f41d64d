"""Searches to try a sampler and a pruner on: a space, and a learning curve for each configuration.

The families here are formulas, and cover what real curves are feared for; measured curves are read
by `curves.py`. Scores are maximised, as everywhere; a diverged training scores NaN or very low.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.space import Choice, Dimension, IntRange, LogUniform, Space, Uniform, Value
from trainables.registry import Registry

Array = NDArray[np.float64]
Curve = Callable[[Mapping[str, Value]], tuple[Array, Array]]  # -> score, seconds (max_epochs,)
PART = "backbone"  # settings of a problem travel as arguments of this part


@dataclass(frozen=True)
class Problem:
    """What is searched, and what is known of it."""

    name: str
    space: Space
    max_epochs: int
    curve: Curve
    best: float  # the best score known
    typical: float  # the median last score of random configurations that do not diverge

    def regret(self, score: float) -> float:
        """In percent: 0 for the best known, 100 for a typical random configuration."""
        return 100 * max(0.0, (self.best - score) / (self.best - self.typical))


Builder = Callable[[], Problem]
PROBLEMS: Registry[Builder] = Registry("problem")


def space_of(name: str, dims: Mapping[str, Dimension], epochs: int) -> Space:
    """The dimensions as a space whose configurations a trial's settings can hold."""
    own = {f"{PART}.{n}": d for n, d in dims.items()}
    return Space(name, {"epochs": epochs, PART: "table", **own})


def own_settings(flat: Mapping[str, Value]) -> dict[str, Value]:
    """The problem's settings in a configuration."""
    start = f"{PART}."
    return {n.removeprefix(start): v for n, v in flat.items() if n.startswith(start)}


def steady(epochs: int, seconds: float = 1.0) -> Array:
    """Every epoch takes as long."""
    return np.asarray(seconds * np.arange(1, epochs + 1), dtype=np.float64)


def noise(settings: Mapping[str, Value], epochs: int, seed: Value = 0) -> Array:
    """Standard normal (epochs,), always the same for the same settings and seed."""
    text = repr((sorted(settings.items()), seed))
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=epochs)


def _approach(start: float, end: float, rate: float, epochs: int) -> Array:
    """Exponential from start to end, whose last epoch is nearly the end when rate is 3 or more."""
    return np.asarray(end + (start - end) * np.exp(-rate * np.arange(1, epochs + 1) / epochs))


@PROBLEMS.register
def cliffs() -> Problem:
    """Eight wide logarithmic dimensions; three in four configurations diverge."""
    names = [f"x{i}" for i in range(8)]
    dims = {n: LogUniform(1e-6, 1.0, 1e-3) for n in names}
    weights = np.array([3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.2, 0.1])
    centre = np.array([-0.9, -0.4, 0.3, -0.3, 0.5, 0.0, 0.2, -0.6])  # in [-1, 1]

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        settings = own_settings(flat)
        z = np.array([math.log10(float(settings[n])) / 3 + 1 for n in names])
        away = weights * (z - centre) ** 2
        loss = 0.05 + away.sum() * 0.12 + 0.15 * abs(z[0] - z[1] - centre[0] + centre[1])
        if z[0] + 0.5 * z[1] > centre[0] + 0.5 * centre[1] + 0.45 or z[2] > 0.75:
            when = 1 + int(6 * abs(noise(settings, 1)[0]))
            bad = 2.3 + 10 * np.maximum(0.0, np.arange(1, 52) - when)
            return -bad, steady(51)
        speed = 1.5 + 4 * (z[0] + 1) + 1.0 * z[4]  # small steps learn slowly
        wobble = 0.01 * noise(settings, 51, flat.get("seed", 0))
        return -(_approach(2.3, min(2.3, loss), speed, 51) + wobble), steady(51)

    return Problem("cliffs", space_of("cliffs", dims, 51), 51, curve, -0.1286, -0.5601)


@PROBLEMS.register
def crossing() -> Problem:
    """Curves that cross: what ends best starts slowest, as under a decaying learning rate."""
    dims: dict[str, Dimension] = {
        "lr": LogUniform(1e-4, 1.0, 1e-2),
        "decay": Uniform(0.0, 1.0, 0.5),
        "width": IntRange(8, 512, 64, log=True),
        "dropout": Uniform(0.0, 0.8, 0.2),
        "mix": Choice(("none", "a", "b"), "none"),
    }

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        s = own_settings(flat)
        lr, width = math.log10(float(s["lr"])) + 4, math.log2(float(s["width"])) - 3
        decay, dropout = float(s["decay"]), float(s["dropout"])
        bonus = {"none": 0.0, "a": 0.03, "b": 0.06}[str(s["mix"])]
        end = 0.9 - 0.05 * (lr - 1.6) ** 2 - 0.02 * (width - 4.5) ** 2 - 0.3 * (dropout - 0.45) ** 2
        end += bonus + 0.1 * decay
        rate = 2.0 + 1.5 * lr - 2.2 * dropout - 20 * bonus - 1.8 * decay
        wobble = 0.01 * noise(s, 27, flat.get("seed", 0))
        return _approach(0.1, max(0.1, end), max(0.8, rate), 27) + wobble, steady(27)

    return Problem("crossing", space_of("crossing", dims, 27), 27, curve, 0.9522, 0.6807)


@PROBLEMS.register
def noisy() -> Problem:
    """A smooth basin under noise of an epoch as large as the gap between good and best."""
    names = [f"x{i}" for i in range(6)]
    dims = {n: Uniform(0.0, 1.0, 0.5) for n in names}
    centre = np.array([0.2, 0.7, 0.4, 0.85, 0.3, 0.6])

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        s = own_settings(flat)
        z = np.array([float(s[n]) for n in names])
        end = 0.8 - 1.2 * float((np.array([1, 1, 0.5, 0.5, 0.2, 0.1]) * (z - centre) ** 2).sum())
        end += 0.03 * math.cos(9 * float(z[0] + z[2]))
        wobble = 0.03 * noise(s, 30, flat.get("seed", 0))
        return _approach(0.15, end, 4.0 + 2 * float(z[3]), 30) + wobble, steady(30)

    return Problem("noisy", space_of("noisy", dims, 30), 30, curve, 0.931, 0.2525)


@PROBLEMS.register
def branches() -> Problem:
    """Four kinds of model, each with settings of its own; the best kind is not the easiest."""
    kinds = ("linear", "forest", "net", "kernel")
    tops = {"linear": 0.72, "forest": 0.83, "net": 0.92, "kernel": 0.87}
    ease = {"linear": 0.05, "forest": 0.15, "net": 0.75, "kernel": 0.5}
    dims: dict[str, Dimension] = {"kind": Choice(kinds, "linear")}
    for i, kind in enumerate(kinds):
        dims |= {
            f"{kind}_a": LogUniform(1e-4, 1.0, 1e-2, {f"{PART}.kind": (kind,)}),
            f"{kind}_b": IntRange(1, 20, 5, when={f"{PART}.kind": (kind,)}),
            f"{kind}_c": Choice(("p", "q", "r")[: 2 + i % 2], "p", {f"{PART}.kind": (kind,)}),
        }
    dims["shared"] = Uniform(0.0, 1.0, 0.5)

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        s = own_settings(flat)
        kind = str(s["kind"])
        a, b = math.log10(float(s[f"{kind}_a"])) / 2 + 1, float(s[f"{kind}_b"]) / 10 - 1
        away = (a - 0.4) ** 2 + 0.5 * (b + 0.3) ** 2 + 0.3 * (float(s["shared"]) - 0.7) ** 2
        away += 0.1 * (s[f"{kind}_c"] != "q")
        end = tops[kind] - ease[kind] * away
        rate = {"linear": 12.0, "forest": 8.0, "net": 3.0, "kernel": 5.0}[kind]
        wobble = 0.005 * noise(s, 27, flat.get("seed", 0))
        return _approach(0.2, max(0.2, end), rate, 27) + wobble, steady(27)

    return Problem("branches", space_of("branches", dims, 27), 27, curve, 0.8935, 0.6691)


@PROBLEMS.register
def choices() -> Problem:
    """Twenty choices of five that act in pairs; early scores say little of the last."""
    rng = np.random.default_rng(7)
    single, early = rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    pairs = 0.6 * rng.normal(size=(19, 5, 5))
    dims = {f"x{i}": Choice(tuple("abcde"), "c") for i in range(20)}

    def curve(flat: Mapping[str, Value]) -> tuple[Array, Array]:
        s = own_settings(flat)
        codes = ["abcde".index(str(s[f"x{i}"])) for i in range(20)]
        last = sum(single[i, c] for i, c in enumerate(codes))
        last += sum(pairs[i, codes[i], codes[i + 1]] for i in range(19))
        first = 0.5 * last + sum(early[i, c] for i, c in enumerate(codes))
        part = np.arange(1, 51) / 50
        level = 0.5 + 0.4 * np.sqrt(part)
        spread = (1 - part) * first + part * last
        return level + 0.01 * spread + 0.003 * noise(s, 50, flat.get("seed", 0)), steady(50)

    return Problem("choices", space_of("choices", dims, 50), 50, curve, 1.0783, 0.8542)
