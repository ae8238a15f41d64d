"""The decision core against learning-curve tables, under a simulated clock with W workers.

    python -m search.simulate --problem lcbench:189906 --sampler mfgp --pruner promotion --seeds 5

Nothing is bypassed: the same `Search`, proposer, pruner and run folder as on a cluster.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev

from search.core import Search
from search.curves import problem
from search.outcome import score
from search.problems import PROBLEMS, Problem
from search.proposer import SpaceProposer
from search.pruners import PRUNERS, best_so_far
from search.samplers import SAMPLERS
from trainables.cli import Parser, number, run_command, whole
from trainables.store import Row, RunStore

MARKS = (5, 10, 20, 50, 100)  # full trainings at which the regret is noted
TRIALS = 100_000  # more than any budget here starts


@dataclass(frozen=True)
class Costs:
    """Seconds beside the training itself."""

    start: float = 0.0  # of a trial on a worker
    store: float = 0.0  # of an epoch


@dataclass
class Outcome:
    """What one simulated run came to."""

    problem: str
    sampler: str
    pruner: str
    seed: int
    workers: int
    regret: dict[int, float] = field(default_factory=dict)  # full trainings -> percent
    trials: int = 0
    epochs: int = 0
    seconds: float = 0.0  # on the simulated clock
    best: float = float("-inf")


def simulate(
    problem: Problem, search: Search, outcome: Outcome, budget: float, costs: Costs
) -> Outcome:
    """Run to the budget (in full trainings) or the end of the search; fills the outcome."""
    limit = round(budget * problem.max_epochs)
    search.limit = lambda: "the budget is spent" if outcome.epochs >= limit else ""
    queue: list[tuple[float, int, str]] = []  # (when, tie, trial): a worker's next epoch is done
    free, now, ties = outcome.workers, 0.0, 0
    while not search.is_over:
        while free and (handout := search.next()) is not None:
            free, ties = free - 1, ties + 1
            heappush(
                queue, (now + costs.start + _step(problem, search, handout.id), ties, handout.id)
            )
        if not queue:
            break
        now, _, trial = heappop(queue)
        row = _row(problem, search, trial)
        outcome.epochs += 1
        outcome.best = best_so_far((outcome.best, score(row)))
        for mark in MARKS:
            if outcome.epochs >= mark * problem.max_epochs and mark <= budget:
                outcome.regret.setdefault(mark, problem.regret(outcome.best))
        search.store.trial(trial, search.live[trial]).append(row)
        verdict = search.on_row(trial, row)
        if verdict == "continue" and row["epoch"] < problem.max_epochs:
            ties += 1
            heappush(queue, (now + costs.store + _step(problem, search, trial), ties, trial))
        else:
            if verdict != "pause":
                search.on_end(trial)
            free += 1
    outcome.trials, outcome.seconds = len(search.rows), now
    return outcome


def _step(problem: Problem, search: Search, trial: str) -> float:
    """Seconds of the trial's next epoch."""
    elapsed, done = problem.curve(search.configs[trial])[1], len(search.rows[trial])
    return float(elapsed[done] - (elapsed[done - 1] if done else 0.0))


def _row(problem: Problem, search: Search, trial: str) -> Row:
    epoch = len(search.rows[trial]) + 1
    value = float(problem.curve(search.configs[trial])[0][epoch - 1])
    finite = value if isfinite(value) else None  # as a trial that diverges stores it
    return {"epoch": epoch, "score": finite, "seconds": _step(problem, search, trial)}


def run(
    problem: Problem, sampler: str, pruner: str, seed: int, workers: int, budget: float,
    grace: int = 0, costs: Costs = Costs(),
) -> Outcome:  # fmt: skip  # eight: one a flag
    """One simulated run, its record in a temporary folder in memory where there is one."""
    first = grace or max(1, round(problem.max_epochs / 9))
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        store = RunStore.create(Path(folder), {"name": problem.name})
        model = SAMPLERS[sampler](problem.space, TRIALS, ("score",))
        rule = PRUNERS[pruner](problem.max_epochs, first, 3)
        search = Search(store, SpaceProposer(problem.space, model, seed), rule, TRIALS)
        outcome = Outcome(problem.name, sampler, pruner, seed, workers)
        return simulate(problem, search, outcome, budget, costs)


def main() -> int:
    args = _parser().parse(sys.argv[1:])
    where = problem(args.problem)
    costs = Costs(args.start_seconds, args.store_seconds)
    outcomes = [
        run(where, args.sampler, args.pruner, s, args.workers, args.budget, args.first_rung, costs)
        for s in range(args.seeds)
    ]
    print("full trainings  regret %  standard error")
    for mark in outcomes[0].regret:
        values = [o.regret[mark] for o in outcomes if mark in o.regret]
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        print(f"{mark:14d}  {fmean(values):8.1f}  {error:14.1f}")
    for outcome in outcomes:
        print(json.dumps(asdict(outcome)))
    return 0


def _parser() -> Parser:
    p = Parser(prog="python -m search.simulate", description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument(
        "--problem", default="cliffs", help=f"{', '.join(PROBLEMS)}, lcbench:TASK, nb301"
    )
    p.add_argument("--sampler", default="mfgp", help=", ".join(SAMPLERS))
    p.add_argument("--pruner", default="thaw", help=", ".join(PRUNERS))
    p.add_argument("--workers", type=whole(1, 10_000), default=1)
    p.add_argument("--budget", type=number(0, is_open=True), default=20, help="in full trainings")
    p.add_argument("--seeds", type=whole(1, 1000), default=3)
    p.add_argument(
        "--first-rung", type=whole(0, 10_000), default=0, help="0: a ninth of the epochs"
    )
    p.add_argument("--start-seconds", type=number(0), default=0.0)
    p.add_argument("--store-seconds", type=number(0), default=0.0)
    return p


if __name__ == "__main__":
    run_command(main)
