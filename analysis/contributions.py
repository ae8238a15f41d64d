"""What each technique goes with: score with and without it, plainly and other settings held fixed.

T trials, P columns. An option of a setting is compared with what the baseline has. Association, not
proof: a sampler proposes again what did well, and techniques that always came together cannot be
told apart (`analysis.ablate` changes one at a time under fresh seeds).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.importance import NOT_A_CHOICE, Target, is_number, numbers, texts
from analysis.statistics import Estimate
from analysis.techniques import PARTS
from trainables.metrics import Floats

FEWEST = 5  # trials with an option, and as many with the other
SPARE = 10  # trials beyond the columns of the regression, else the plain difference alone
ESTIMABLE = 1e-6


@dataclass(frozen=True)
class Contribution:
    """One option against what the baseline has."""

    setting: str
    option: str
    against: str
    trials: int  # with the option
    others: int  # with what it is against
    plain: Estimate  # difference of the means, Welch's interval
    adjusted: Estimate | None  # the other settings held fixed; None where that cannot be told


def contributions(
    table: pd.DataFrame, settings: Sequence[str], target: Target, baseline: Mapping[str, Any]
) -> list[Contribution]:
    """Of every option that enough trials have; the largest adjusted difference first."""
    ended = table[table["trial"].isin(list(target.scores))]
    scores = ended["trial"].map(target.scores).to_numpy(np.float64)
    names = [n for n in settings if n not in NOT_A_CHOICE and "." not in n]
    pairs = list(_pairs(ended, names, baseline)) if len(ended) else []
    if not pairs:
        return []
    columns = _columns(ended, names, [(s, o) for s, o, _ in pairs], baseline)
    effects = regressed(np.stack(list(columns.values()), 1), scores)
    order = list(columns)
    found = []
    for setting, option, against in pairs:
        text = texts(ended[f"setting {setting}"])
        mine, rest = scores[text == option], scores[text == against]
        adjusted = effects.get(order.index(f"{setting}={option}")) if effects else None
        plain = welch(mine, rest)
        found.append(Contribution(setting, option, against, len(mine), len(rest), plain, adjusted))
    return sorted(found, key=lambda c: (-(c.adjusted or c.plain).value, c.setting, c.option))


def _pairs(
    table: pd.DataFrame, names: Sequence[str], baseline: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """(setting, option, what it is against) of those with enough trials on both sides."""
    for name in names:
        values = table[f"setting {name}"]
        if name not in PARTS and is_number(values):
            continue
        counts = texts(values)
        options, sizes = np.unique(counts, return_counts=True)
        known = dict(zip(options.tolist(), sizes.tolist(), strict=True))
        against = str(baseline.get(name, ""))
        if against not in known:
            against = max(known, key=lambda option: known[option])
        if known[against] >= FEWEST:
            enough = [o for o in sorted(known) if o != against and known[o] >= FEWEST]
            yield from ((name, option, against) for option in enough)


def _columns(
    table: pd.DataFrame,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    baseline: Mapping[str, Any],
) -> dict[str, Floats]:
    """The regression's columns: 1, an indicator per option, numbers and their squares."""
    out: dict[str, Floats] = {"1": np.ones(len(table))}
    for name in names:
        values = table[f"setting {name}"]
        if name not in PARTS and is_number(values):
            number = numbers(values)
            spread = number.std()
            if spread > 0:
                standard = (number - number.mean()) / spread
                out |= {name: standard, f"{name}²": standard**2}
            continue
        text = texts(values)
        options = set(text) - {str(baseline.get(name, ""))}
        if str(baseline.get(name, "")) not in set(text):
            compared = {o for s, o in pairs if s == name}
            options = compared or set(sorted(options)[1:])
        out |= {f"{name}={o}": (text == o).astype(np.float64) for o in sorted(options)}
    return out


def regressed(columns: Floats, scores: Floats) -> dict[int, Estimate]:
    """Least squares with intervals that allow unequal noise (HC3; MacKinnon and White 1985).

    Column -> its coefficient, for those that the others do not determine. {} where trials are few.
    """
    trials, width = columns.shape
    if trials < width + SPARE:
        return {}
    inverse = np.linalg.pinv(columns)  # (P, T)
    beta = inverse @ scores
    leverage = np.einsum("tp,pt->t", columns, inverse)
    residual = (scores - columns @ beta) / np.maximum(1 - leverage, 1e-3)
    errors = np.sqrt(((inverse * residual) ** 2).sum(1))
    lost = np.abs(np.eye(width) - inverse @ columns).max(1)
    rank = round(float(leverage.sum()))
    wide = float(stdtrit(trials - rank, 0.975))
    return {
        p: Estimate(float(beta[p]), float(beta[p] - wide * e), float(beta[p] + wide * e))
        for p, e in enumerate(errors)
        if lost[p] < ESTIMABLE
    }


def welch(mine: Floats, rest: Floats) -> Estimate:
    """The difference of two means with Welch's 95 % interval."""
    parts = np.array([x.var(ddof=1) / len(x) for x in (mine, rest)])
    sizes = np.array([len(mine), len(rest)])
    gap, error = float(mine.mean() - rest.mean()), float(np.sqrt(parts.sum()))
    if error == 0:
        return Estimate(gap, gap, gap)
    freedom = parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum()
    half = float(stdtrit(freedom, 0.975)) * error
    return Estimate(gap, gap - half, gap + half)
