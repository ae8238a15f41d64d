"""Which trials to combine, how, and what that is worth. M models, N images, K classes.

`methods.py` says what is compared, `crossfit.py` which of it is taken and how it is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from analysis import crossfit, front
from analysis import methods as me
from analysis.corrections import log_prior
from analysis.diversity import Diversity, diversity
from analysis.front import Point
from analysis.library import TEMPERATURES, Library, temper
from analysis.methods import Limits, Method, Pool, Recipe
from analysis.statistics import Estimate, Goal, tally
from analysis.votes import Votes
from trainables.blas import one_thread
from trainables.cli import Parser, number, run_command, whole
from trainables.metrics import Floats, Ints, supported

METRIC = "log-likelihood, each class of the score weighing the same"
NOTHING = "no trial has predictions that could be averaged"


@dataclass(frozen=True)
class Known:
    """What the records say of trials, by name; a trial may be missing."""

    latency_ms: Mapping[str, float] = field(default_factory=dict)
    group: Mapping[str, str] = field(default_factory=dict)  # the same for all seeds of one setting
    counts: tuple[int, ...] = ()  # training images per class; those of validation stand in


@dataclass(frozen=True)
class Mixture:
    """What an ensemble needs to predict."""

    members: Mapping[str, float]  # trial -> weight, heaviest first
    temperatures: Mapping[str, float]  # of each member, before the mean
    coefficients: tuple[tuple[float, ...], ...]  # (m K + 1, K) of stacking, in its place; or ()
    shift: tuple[float, ...]  # (K,) tau x log prior, taken from the log-probabilities; or ()


@dataclass(frozen=True)
class Judged:
    """One method: its score on images that did not choose it, and on those that did."""

    method: str
    members: int
    crossfit: float
    behind: float  # how far behind the best method, and the standard error of that
    behind_se: float
    optimistic: float
    latency_ms: float = float("nan")
    is_chosen: bool = False


@dataclass(frozen=True)
class Ensemble(Mixture):
    """The members and what they score together; every score is what the search maximises."""

    method: str
    tau: float  # of the logit adjustment, after
    top: tuple[str, ...]  # the members of the plain average
    honest: Mapping[str, Estimate]  # ensemble, single, top, baseline; the lead over the others
    optimistic: Mapping[str, float]  # ensemble, single, top: on the images that chose them
    table: tuple[Judged, ...]
    front: tuple[Point, ...]  # by latency; () where it is not on record
    diversity: Diversity
    latency_ms: float  # of all members, one after the other; NaN where it is not on record
    metric: str = METRIC
    note: str = ""


@one_thread()
def build(
    votes: Votes,
    goal: Goal | None = None,
    seed: int = 0,
    baseline: Ints | None = None,
    known: Known | None = None,
    limits: Limits | None = None,
) -> Ensemble:
    """The ensemble of these trials, chosen on all their images, and honest scores of the choice.

    The goal is macro-F1 over the classes with enough images, if none is given. `baseline` (N,) are
    the calls of the trial that the ensemble is compared with.

    Raises ValueError where there is no trial, or none within the limits.
    """
    if not votes.trials:
        raise ValueError(NOTHING)
    goal = goal or Goal("macro_f1", supported(votes.labels, votes.probs.shape[2]))
    known, limits, rng = known or Known(), limits or Limits(), np.random.default_rng(seed)
    votes, note = within(votes, known, limits)
    pool = pool_of(votes, goal, known, limits)
    library, every = pool.library, np.arange(len(votes.labels))
    counted = library.parts(np.zeros(len(every), np.int64), 1).without()
    recipes = me.fit(pool, *counted, every, rng)
    inside = scores(recipes, library)
    table, chosen, found = _compare(pool, recipes, inside, rng)
    if found is None:
        few = f"{len(every)} images are too few to compare methods on"
        note = f"{note}; {few}" if note else few
    names = me.methods(pool)
    top = recipes[0].members
    single = names.index(("average", 1))
    return replace(
        _described(recipes[chosen], names[chosen], votes, pool),
        top=tuple(votes.trials[m] for m in top),
        honest={} if found is None else crossfit.nested(pool, found, rng, baseline),
        optimistic={
            "ensemble": float(inside[chosen]),
            "single": float(inside[single]),
            "top": float(inside[0]),
        },
        table=table,
        front=() if found is None else _front(pool, found, table),
        note=note,
    )


def within(votes: Votes, known: Known, limits: Limits) -> tuple[Votes, str]:
    """The trials that could be members by themselves, and who is left out.

    Raises ValueError where none is left.
    """
    most = limits.latency_ms
    if most is None:
        return votes, ""
    fits = [t for t in votes.trials if known.latency_ms.get(t, np.inf) <= most]
    if not fits:
        times = [known.latency_ms[t] for t in votes.trials if t in known.latency_ms]
        fastest = f"the fastest trial takes {min(times):.3g} ms" if times else "none is on record"
        raise ValueError(f"no ensemble within {most:g} ms: {fastest}")
    left = len(votes.trials) - len(fits)
    note = f"{left} trials are slower than {most:g} ms or have no latency on record" if left else ""
    return votes.pick(fits), note


def pool_of(votes: Votes, goal: Goal, known: Known, limits: Limits) -> Pool:
    """The trials as selection sees them."""
    latency = np.array([known.latency_ms.get(t, np.nan) for t in votes.trials])
    names = [known.group.get(t, t) for t in votes.trials]
    groups = np.unique(names, return_inverse=True)[1]
    counts = known.counts or np.bincount(votes.labels, minlength=goal.classes)
    library = Library(votes.probs, votes.labels, goal)
    return Pool(library, latency, groups, limits, log_prior(counts))


def scores(recipes: Sequence[Recipe], library: Library) -> Floats:
    """The score of each recipe on all images."""
    calls = me.calls_of(recipes, library, np.arange(library.images))
    return library.goal.scores(tally(library.labels, calls, library.classes))


def _compare(
    pool: Pool, recipes: Sequence[Recipe], inside: Floats, rng: np.random.Generator
) -> tuple[tuple[Judged, ...], int, crossfit.Crossfit | None]:
    """A row per method, the number of the one to take, what it is judged by (None: too few)."""
    names, library, found = me.methods(pool), pool.library, None
    means = errors = np.full(len(names), np.nan)
    chosen = 0
    if library.images >= crossfit.FEW_IMAGES:
        found = crossfit.run(pool, rng)
        means, errors = crossfit.judge(found.calls, library.labels, library.goal)
        chosen = crossfit.take(means, errors)
    rows = [
        Judged(
            name,
            len(recipe.members),
            float(mean),
            float(means.max() - mean),
            float(error),
            float(score),
            float(pool.latency_ms[recipe.members].sum()),
            number == chosen,
        )
        for number, ((name, _), recipe, mean, error, score) in enumerate(
            zip(names, recipes, means, errors, inside, strict=True)
        )
    ]
    return tuple(rows), chosen, found


def _front(pool: Pool, found: crossfit.Crossfit, table: Sequence[Judged]) -> tuple[Point, ...]:
    own = [
        Point(row.method, row.members, row.latency_ms, row.crossfit)
        for row in table
        if np.isfinite(row.latency_ms)
    ]
    more = front.points(pool, found)
    return tuple(front.marked([*own, *more])) if more else ()


def _described(recipe: Recipe, method: Method, votes: Votes, pool: Pool) -> Ensemble:
    """The recipe by the names of its members, heaviest first; no score yet."""
    order = np.argsort(-recipe.weights, kind="stable")
    names = [votes.trials[m] for m in recipe.members[order]]
    pairs = list(zip(recipe.members[order], recipe.grades[order], strict=True))
    tempered = np.stack([pool.library.tempered(int(m), int(g)) for m, g in pairs])
    weights = recipe.weights[order]
    rows = () if recipe.coefficients is None else tuple(map(tuple, recipe.coefficients.tolist()))
    return Ensemble(
        method=title(method, recipe),
        members=dict(zip(names, weights.tolist(), strict=True)),
        temperatures=dict(zip(names, TEMPERATURES[recipe.grades[order]].tolist(), strict=True)),
        coefficients=rows,
        tau=recipe.tau,
        shift=() if recipe.shift is None else tuple(recipe.shift.tolist()),
        top=(),
        honest={},
        optimistic={},
        table=(),
        front=(),
        diversity=diversity(tempered, votes.labels, weights),
        latency_ms=float(pool.latency_ms[recipe.members].sum()),
    )


def title(method: Method, recipe: Recipe) -> str:
    """The method in words."""
    name, count = method[0], len(recipe.members)
    if count == 1 and recipe.coefficients is None and not recipe.tau:
        return "best single trial" if name == "average" else f"one trial by {name} selection"
    if name == "average":
        return f"average of best {count}"
    return f"{name}, {count} members"


def predict(ensemble: Mixture, votes: Votes) -> tuple[Floats, Floats]:
    """The ensemble's class (N, K) and AU probabilities (N, A; NaN if none) of the votes' images."""
    names = list(ensemble.members)
    rows = [votes.row(name) for name in names]
    at = np.array([ensemble.temperatures[name] for name in names])
    own = temper(votes.probs[rows], at[:, None, None])
    weights = np.array(list(ensemble.members.values()))
    coefficients = np.array(ensemble.coefficients) if ensemble.coefficients else None
    shift = np.array(ensemble.shift) if ensemble.shift else None
    said = me.combine(own, weights, coefficients, shift)
    return said, average(votes, ensemble.members)[1]


def average(votes: Votes, weights: Mapping[str, float]) -> tuple[Floats, Floats]:
    """The weighted mean of the trials' class (N, K) and AU probabilities (N, A; NaN if none)."""
    row = np.array([weights.get(trial, 0.0) for trial in votes.trials])
    row /= row.sum()
    used = np.flatnonzero(row > 0)
    known = np.zeros(len(row), bool)
    known[used] = ~np.isnan(votes.au_probs[used]).any((1, 2))
    if not known.any():
        return mix(row, votes.probs), np.full(votes.aus.shape, np.nan, np.float32)
    heads = np.where(known, row, 0.0)
    return mix(row, votes.probs), mix(heads / heads.sum(), votes.au_probs)


def mix(weights: Floats, probs: Floats) -> Floats:
    """The weighted mean of the models' probabilities (N, K)."""
    used = np.flatnonzero(weights)
    mean: Floats = np.tensordot(weights[used].astype(np.float32), probs[used], 1)
    return mean


def main(argv: Sequence[str] | None = None) -> int:
    """Choose the ensemble of one run or several on the same data, and write ensemble.json."""
    from analysis import pool, record

    parser = Parser(prog="python -m analysis.ensemble", description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="a folder: runs/smoke")
    parser.add_argument("--members", type=whole(1, 1000), help="at most so many")
    parser.add_argument(
        "--latency-ms", type=number(0, is_open=True), help="of all members, one after the other"
    )
    parser.add_argument("--out", type=Path, help="folder to write to, instead of RUN/report")
    args = parser.parse(argv)
    runs = pool.read_runs(args.runs)
    limits = Limits(args.members, args.latency_ms)
    ensemble = build(runs.votes, runs.goal, 0, runs.baseline, runs.known, limits)
    folder = args.out or args.runs[0] / "report"
    record.save(ensemble, runs.votes, folder, runs.origin)
    for line in [*runs.notes, *record.told(ensemble), f"written: {folder / 'ensemble.json'}"]:
        print(line)
    return 0


if __name__ == "__main__":
    run_command(main)
