"""Which trials to average, and what that is worth. M models, N images, K classes.

probs (M, N, K), labels (N,), weights (M,) that sum to 1. A method is ("average", k), the plain mean
of the k best, or ("greedy", k), bagged greedy selection cut to its k heaviest members.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import statistics
from analysis.statistics import Estimate, Goal
from analysis.votes import Votes
from trainables.cli import Parser, run_command
from trainables.metrics import Floats, Ints, supported
from trainables.store import replace_file, write_json

Metric = Callable[[Ints, Floats], Floats]  # labels (N,), probs (M, N, K) -> (M,), higher is better
Method = tuple[str, int]
Weights = NDArray[np.float64]

LIBRARY = 50  # greedy sees the best so many (methods.md 2.15): a larger library over-fits
LADDER = (1, 2, 3, 5, 10, 20, 50)  # numbers of members that are tried
PLAIN = 10  # members of the plain average that everything else has to beat
ROUNDS = 25
BAGS = 20
SHARE = 0.5  # of the library, in a bag
METRIC = "log-likelihood, each class of the score weighing the same"


@dataclass(frozen=True)
class Answers:
    """All that selection reads of the predictions."""

    predicted: NDArray[np.int64]  # (M, N)
    likely: NDArray[np.float32]  # (M, N), the probability of the true class
    labels: NDArray[np.int64]  # (N,)

    def at(self, images: NDArray[np.bool_]) -> "Answers":
        return Answers(self.predicted[:, images], self.likely[:, images], self.labels[images])


@dataclass(frozen=True)
class Judged:
    """One method: its score on images that did not choose it, and on those that did."""

    method: str
    members: int
    crossfit: float
    behind: float  # how far behind the best method, and the standard error of that
    behind_se: float
    optimistic: float
    is_chosen: bool = False


@dataclass(frozen=True)
class Ensemble:
    """The members and what they score together; every score is what the search maximises."""

    method: str
    members: Mapping[str, float]  # trial id -> weight, heaviest first
    top: tuple[str, ...]  # the members of the plain average
    honest: Mapping[str, Estimate]  # ensemble, single, top, baseline; the lead over the others
    optimistic: Mapping[str, float]  # ensemble, single, top: on the images that chose them
    table: tuple[Judged, ...]
    metric: str = METRIC
    note: str = ""


def log_likelihood(labels: Ints, probs: Floats, weights: Floats | None = None) -> Floats:
    """Mean log-likelihood (M,), each image weighing `weights` (N,), if given."""
    likely = np.log(np.maximum(probs[:, np.arange(len(labels)), labels], 1e-4))
    mean: Floats = likely.mean(1) if weights is None else likely @ (weights / weights.sum())
    return mean


def balanced(labels: Ints, goal: Goal) -> NDArray[np.float32]:
    """Image weights (N,): each class of the goal the same sum; all alike if it is accuracy."""
    counts = np.bincount(labels, minlength=goal.classes)
    keep = goal.keep if goal.name == "macro_f1" else counts > 0
    weights = (keep / np.maximum(counts, 1))[labels].astype(np.float32)
    is_even = goal.name == "accuracy" or not weights.any()
    return np.ones(len(labels), np.float32) if is_even else weights


def select(probs: Floats, labels: Ints, metric: Metric, rounds: int = ROUNDS) -> Weights:
    """Weights, summing to 1, that raise `metric(labels, mean_probs)` the most, one pick a round.

    Greedy selection with replacement (Caruana et al. 2004): starts from the best model; the best
    round stands, so the result is never below the best model on these images.
    """
    counts, kept = np.zeros(len(probs)), np.zeros(len(probs))
    total, best = np.zeros_like(probs[0]), -np.inf
    for size in range(1, rounds + 1):
        values = metric(labels, (total + probs) / size)
        pick = int(values.argmax())
        total, counts[pick] = total + probs[pick], counts[pick] + 1
        if values[pick] > best:
            best, kept = values[pick], counts.copy()
    weights: Weights = kept / kept.sum()
    return weights


def bagged(probs: Floats, labels: Ints, metric: Metric, rng: np.random.Generator) -> Weights:
    """The mean of `select` over random halves of the models; that over all, where it is better."""
    whole = select(probs, labels, metric)
    size = max(2, round(SHARE * len(probs)))
    if size >= len(probs):
        return whole
    weights = np.zeros(len(probs))
    for _ in range(BAGS):
        part = np.sort(rng.choice(len(probs), size, replace=False))
        weights[part] += select(probs[part], labels, metric) / BAGS
    alone = metric(labels, probs).max()
    return weights if metric(labels, mix(weights, probs)[None])[0] >= alone else whole


def mix(weights: Weights, probs: Floats) -> Floats:
    """The weighted mean of the models' probabilities (N, K)."""
    used = np.flatnonzero(weights)
    mean: Floats = np.tensordot(weights[used].astype(np.float32), probs[used], 1)
    return mean


def ranking(answers: Answers, goal: Goal) -> NDArray[np.int64]:
    """The models from best to worst: by score, then by balanced log-likelihood."""
    counts = statistics.tally(answers.labels, answers.predicted, goal.classes)
    zeros = np.zeros(len(answers.labels), np.int64)
    weights = balanced(answers.labels, goal)
    likely = log_likelihood(zeros, answers.likely[:, :, None], weights)
    return np.lexsort((-likely, -goal.scores(counts)))


def methods(models: int) -> list[Method]:
    """What is compared, in the order of trust: plain averages first, those of about ten before."""
    sizes = sorted({k for k in LADDER if k <= models} | {min(models, PLAIN)})
    sizes.sort(key=lambda k: (abs(np.log(k / PLAIN)), k))
    return [("average", k) for k in sizes] + [("greedy", k) for k in sizes if k > 1]


def fit(answers: Answers, goal: Goal, rng: np.random.Generator) -> Weights:
    """The weights of each method on these images (methods, M)."""
    models = len(answers.predicted)
    order = ranking(answers, goal)
    library = order[:LIBRARY]
    weight = balanced(answers.labels, goal)
    zeros = np.zeros(len(answers.labels), np.int64)  # one column: the true class
    greedy = bagged(
        answers.likely[library][:, :, None], zeros, lambda at, p: log_likelihood(at, p, weight), rng
    )
    rows = np.zeros((len(methods(models)), models))
    for row, (name, k) in zip(rows, methods(models), strict=True):
        if name == "average":
            row[order[:k]] = 1 / k
        else:
            heaviest = np.argsort(-greedy, kind="stable")[:k]
            row[library[heaviest]] = greedy[heaviest] / greedy[heaviest].sum()
    return rows


def build(
    votes: Votes, goal: Goal | None = None, seed: int = 0, baseline: Ints | None = None
) -> Ensemble:
    """The ensemble of these trials, chosen on all their images, and honest scores of the choice.

    The goal is macro-F1 over the classes with enough images, if none is given. `baseline` (N,) are
    the calls of the trial that the ensemble is compared with.

    Raises ValueError where there is no trial.
    """
    from analysis import crossfit

    if not votes.trials:
        raise ValueError("no trial has predictions that could be averaged")
    rng = np.random.default_rng(seed)
    goal = goal or Goal("macro_f1", supported(votes.labels, votes.probs.shape[2]))
    everything = answers_of(votes)
    names = methods(len(votes.trials))
    rows = fit(everything, goal, rng)
    inside = scores(rows, votes.probs, votes.labels, goal)
    table, chosen, note = crossfit.compare(votes.probs, everything, goal, inside, rng)
    honest = crossfit.nested(votes.probs, everything, goal, rng, baseline)
    order = ranking(everything, goal)
    plain, single = names.index(("average", min(PLAIN, len(order)))), names.index(("average", 1))
    weights = rows[chosen]
    heaviest = order[np.argsort(-weights[order], kind="stable")]
    return Ensemble(
        method=title(names[chosen], rows[chosen]),
        members={votes.trials[m]: float(weights[m]) for m in heaviest if weights[m]},
        top=tuple(votes.trials[m] for m in order[:PLAIN]),
        honest=honest,
        optimistic={
            "ensemble": float(inside[chosen]),
            "single": float(inside[single]),
            "top": float(inside[plain]),
        },
        table=tuple(replace(row, is_chosen=i == chosen) for i, row in enumerate(table)),
        note=note,
    )


def answers_of(votes: Votes) -> Answers:
    """What selection reads of the votes."""
    likely = votes.probs[:, np.arange(len(votes.labels)), votes.labels]
    return Answers(votes.predicted, likely, votes.labels)


def scores(rows: Weights, probs: Floats, labels: Ints, goal: Goal) -> Floats:
    """The score of each row of weights on all images."""
    calls = np.stack([mix(row, probs).argmax(1) for row in rows])
    return goal.scores(statistics.tally(labels, calls, goal.classes))


def title(method: Method, weights: Weights) -> str:
    """The method in words."""
    count = int((weights > 0).sum())
    if count == 1:
        return "best single trial"
    return f"average of best {count}" if method[0] == "average" else f"greedy, {count} members"


def average(votes: Votes, weights: Mapping[str, float]) -> tuple[Floats, Floats]:
    """The weighted mean of the members' class (N, K) and AU probabilities (N, A; NaN if none)."""
    row = np.array([weights.get(trial, 0.0) for trial in votes.trials])
    row /= row.sum()
    known = (row > 0) & ~np.isnan(votes.au_probs).any((1, 2))
    if not known.any():
        return mix(row, votes.probs), np.full(votes.aus.shape, np.nan, np.float32)
    heads = np.where(known, row, 0.0)
    return mix(row, votes.probs), mix(heads / heads.sum(), votes.au_probs)


def as_json(ensemble: Ensemble) -> dict[str, Any]:
    """The form of ensemble.json; a score that is not known is null."""
    out = asdict(ensemble)
    for row in out["table"]:
        row |= {k: None for k, v in row.items() if isinstance(v, float) and np.isnan(v)}
    return out


def save(ensemble: Ensemble, votes: Votes, folder: Path) -> None:
    """Write ensemble.json and the averaged predictions, ensemble_val.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ensemble.json", as_json(ensemble))
    probs, au_probs = average(votes, ensemble.members)
    data = io.BytesIO()
    np.savez(
        data,
        ids=np.array(votes.ids, dtype=np.str_),
        labels=votes.labels,
        probs=probs.astype(np.float16),
        aus=votes.aus,
        au_probs=au_probs.astype(np.float16),
    )
    replace_file(folder / "ensemble_val.npz", data.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Write RUN/report/ensemble.json and say what is in it."""
    from analysis.leaderboard import baseline, candidates, read_board
    from trainables.store import RunStore

    parser = Parser(prog="python -m analysis.ensemble", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the folder of a run, such as runs/smoke")
    args = parser.parse(argv)
    board = read_board(RunStore.open(args.run))
    votes = board.votes.pick(candidates(board)[0])
    ensemble = build(votes, board.goal, baseline=board.votes.calls(baseline(board)[0]))
    save(ensemble, votes, args.run / "report")
    print(ensemble.method, f"({ensemble.note})" if ensemble.note else "")
    for name, estimate in ensemble.honest.items():
        print(f"  {name}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
    for trial, weight in ensemble.members.items():
        print(f"  {trial}  {weight:.3f}")
    return 0


if __name__ == "__main__":
    run_command(main)
