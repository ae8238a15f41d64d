"""The ways of combining models that are compared, and what each makes of some images.

M models, m members, N images, K classes. A method is a name and a number of members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from analysis import blend
from analysis.library import AS_IS, Library, class_weights
from analysis.selection import Weights, bagged
from analysis.statistics import Tally, tally
from trainables.metrics import Floats, Ints

Method = tuple[str, int]

LIBRARY = 50  # selection sees the best so many (methods.md 2.15): a larger library over-fits
LADDER = (1, 2, 3, 5, 10, 20, 50)  # numbers of members that are tried
PLAIN = 10  # members of the plain average that everything else has to beat
STACK = 5  # members that stacking reads: it has m K² coefficients
# With more, stacking has more coefficients than there are images, and CMA-ES took most of a report.
FEW_CLASSES = 50
SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # strengths of the logit adjustment


@dataclass(frozen=True)
class Limits:
    """What an ensemble may cost; None for no limit."""

    members: int | None = None
    latency_ms: float | None = None  # of all members, one after the other


@dataclass(frozen=True)
class Pool:
    """The models that may be members, and what they cost."""

    library: Library
    latency_ms: Floats  # (M,); NaN where it is not on record
    groups: Ints  # (M,); models of one number differ in the seed alone
    limits: Limits = field(default_factory=Limits)
    prior: Floats | None = None  # (K,), log frequencies for the adjustment; even if None

    def first(self, order: Ints, k: int) -> NDArray[np.int64]:
        """The first k models of an order that fit the limits together."""
        if self.limits.members is not None:
            k = min(k, self.limits.members)
        most = self.limits.latency_ms
        if most is None:
            return np.asarray(order[:k], np.int64)
        out: list[int] = []
        spent = 0.0
        for model in order:
            if len(out) < k and spent + self.latency_ms[model] <= most:
                out.append(int(model))
                spent += float(self.latency_ms[model])
        return np.array(out, np.int64)


@dataclass(frozen=True)
class Recipe:
    """How the members' probabilities become one: temperatures, then the mean, then the shift."""

    members: NDArray[np.int64]  # (m,) rows of the library
    weights: Weights  # (m,), summing to 1
    grades: Ints  # (m,), each member's number among TEMPERATURES
    coefficients: Floats | None = None  # (m K + 1, K) of stacking, in the place of the mean
    tau: float = 0.0
    shift: Floats | None = None  # (K,), tau x log prior, taken from the log-probabilities after

    def apply(self, library: Library, images: Ints) -> NDArray[np.float32]:
        """The probabilities of these images (n, K)."""
        pairs = zip(self.members, self.grades, strict=True)
        own = np.stack([library.tempered(int(m), int(g))[images] for m, g in pairs])
        return combine(own, self.weights, self.coefficients, self.shift)


def combine(
    probs: NDArray[np.float32], weights: Weights, coefficients: Floats | None, shift: Floats | None
) -> NDArray[np.float32]:
    """Probabilities (n, K) from those of the members at their temperatures (m, n, K)."""
    if coefficients is not None:
        return shifted(blend.applied(coefficients, probs), shift)
    return shifted(np.tensordot(weights.astype(np.float32), probs, 1), shift)


def shifted(probs: NDArray[np.float32], shift: Floats | None) -> NDArray[np.float32]:
    """Probabilities after logit adjustment (Menon et al. 2021, 2007.07314)."""
    if shift is None:
        return probs
    powers = probs * np.exp(-shift).astype(np.float32)
    out: NDArray[np.float32] = powers / powers.sum(-1, keepdims=True)
    return out


def methods(pool: Pool) -> list[Method]:
    """What is compared, in the order of trust: plain averages first, those of about ten before."""
    most = min(pool.library.models, pool.limits.members or pool.library.models)
    sizes = sorted({k for k in LADDER if k <= most} | {min(most, PLAIN)})
    sizes.sort(key=lambda k: (abs(np.log(k / PLAIN)), k))
    names = [("average", k) for k in sizes]
    if most == 1:
        return names
    names += [("greedy", k) for k in sizes if k > 1]
    if (np.bincount(pool.groups) > 1).any():
        names.append(("average of seeds", most))
    ten = min(most, PLAIN)
    if pool.library.classes <= FEW_CLASSES:
        names += [("CMA-ES", ten), ("stacking", min(most, STACK))]
    if pool.library.goal.name != "accuracy":
        names += [("average, adjusted", ten), ("greedy, adjusted", ten)]
    return names


def fit(
    pool: Pool, counts: Tally, logs: Floats, images: Ints, rng: np.random.Generator
) -> list[Recipe]:
    """The recipe of each method for what was counted on these images, which are (n,) numbers."""
    library = pool.library
    order = library.ranking(counts, logs)
    best = order[:LIBRARY]
    importance = class_weights(counts.support[0], library.goal)[library.labels[images]]
    grades = np.full(library.models, AS_IS)
    grades[best] = library.temperatures(best, images)
    likely = np.stack([library.graded(int(m))[grades[m]][images] for m in best])
    greedy = np.zeros(library.models)
    greedy[best] = bagged(likely, importance, rng)
    heaviest = best[np.argsort(-greedy[best], kind="stable")]
    heaviest = heaviest[greedy[heaviest] > 0]
    seed = int(rng.integers(2**31))
    out: dict[Method, Recipe] = {}
    for name, k in methods(pool):
        ten = pool.first(order[:LIBRARY], k)
        if name == "average":
            out[name, k] = plain(ten)
        elif name == "greedy":
            out[name, k] = _weighted(pool.first(heaviest, k), greedy, grades)
        elif name == "average of seeds":
            scores = library.goal.scores(counts)
            out[name, k] = plain(pool.first(_seeds(pool.groups, order, scores), k))
        elif name == "CMA-ES":
            part = _members(library, ten, grades, images)
            weights = blend.evolved(part, library.labels[images], library.goal, importance, seed)
            out[name, k] = Recipe(ten, weights, grades[ten])
        elif name == "stacking":
            part = _members(library, ten, grades, images)
            rows = blend.stacked(part, library.labels[images])
            out[name, k] = Recipe(ten, np.full(len(ten), 1 / len(ten)), grades[ten], rows)
        else:
            out[name, k] = _adjusted(pool, out[name.partition(",")[0], k], images)
    return list(out.values())


def plain(members: NDArray[np.int64]) -> Recipe:
    """The mean of these models as they are."""
    count = len(members)
    return Recipe(members, np.full(count, 1 / count), np.full(count, AS_IS))


def _weighted(members: NDArray[np.int64], weights: Weights, grades: Ints) -> Recipe:
    own = weights[members]
    return Recipe(members, own / own.sum(), grades[members])


def _members(
    library: Library, members: NDArray[np.int64], grades: Ints, images: Ints
) -> NDArray[np.float32]:
    return np.stack([library.tempered(int(m), int(grades[m]))[images] for m in members])


def _seeds(groups: Ints, order: Ints, scores: Floats) -> NDArray[np.int64]:
    """The models of the best group, best first: that of the highest mean of at least two seeds."""
    size, total = np.bincount(groups), np.bincount(groups, scores)
    means = np.where(size > 1, total / np.maximum(size, 1), -1.0)
    found: NDArray[np.int64] = order[groups[order] == means.argmax()]
    return found


def _adjusted(pool: Pool, recipe: Recipe, images: Ints) -> Recipe:
    """The recipe with the shift by class frequencies under which it scores best; the least of
    those, since the score jumps."""
    library = pool.library
    probs, labels = recipe.apply(library, images), library.labels[images]
    prior = np.zeros(library.classes) if pool.prior is None else pool.prior
    calls = np.stack([shifted(probs, tau * prior).argmax(1) for tau in SHIFTS])
    tau = SHIFTS[int(library.goal.scores(tally(labels, calls, library.classes)).argmax())]
    return replace(recipe, tau=tau, shift=tau * prior if tau else None)


def calls_of(recipes: Sequence[Recipe], library: Library, images: Ints) -> NDArray[np.int64]:
    """The class that each recipe calls each of these images (recipes, n)."""
    used = [list(zip(r.members.tolist(), r.grades.tolist(), strict=True)) for r in recipes]
    pairs = sorted({pair for own in used for pair in own})
    place = {pair: row for row, pair in enumerate(pairs)}
    rows = [[place[pair] for pair in own] for own in used]
    probs = np.stack([library.tempered(m, g)[images] for m, g in pairs])
    weights = np.zeros((len(recipes), len(pairs)), np.float32)
    for number, recipe in enumerate(recipes):
        weights[number, rows[number]] = recipe.weights
    means = (weights @ probs.reshape(len(pairs), -1)).reshape(len(recipes), *probs.shape[1:])
    for number, recipe in enumerate(recipes):
        if recipe.coefficients is not None:
            means[number] = blend.applied(recipe.coefficients, probs[rows[number]])
        means[number] = shifted(means[number], recipe.shift)
    calls: NDArray[np.int64] = means.argmax(2)
    return calls
