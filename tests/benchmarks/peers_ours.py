"""Our own methods: any `SAMPLER+PRUNER` and `auto`, through `search.simulate`."""

from pathlib import Path

from peers import closure, digest
from peers_course import Course

from search import study
from search.options import parser
from search.problems import Problem
from search.pruners import PRUNERS
from search.samplers import SAMPLERS
from search.simulate import TRIALS
from search.simulate import run as simulated
from search.strategy import AUTO, settle

NAMES = [AUTO, *(f"{sampler}+{pruner}" for sampler in SAMPLERS for pruner in PRUNERS)]
MOST_WORKERS = 10_000


def pair(name: str, problem: Problem) -> tuple[str, str]:
    """Sampler and pruner; for `auto`, those that the main command would choose."""
    if name != AUTO:
        sampler, _, pruner = name.partition("+")
        return sampler, pruner
    args = parser().parse([])
    args.metric = "macro_f1"
    args.epochs, args.trials = problem.max_epochs, TRIALS
    args = settle(args, Path())
    return args.sampler, args.pruner


def version(name: str, problem: Problem) -> str:
    """Of a sampler of Optuna's, modules that only other samplers import do not count."""
    sampler, pruner = pair(name, problem)
    files = closure("simulate", is_deep=not hasattr(study, sampler))
    return f"{sampler}+{pruner} {digest(files)}"


def run(name: str, course: Course, seed: int, workers: int, first_rung: int) -> None:
    sampler, pruner = pair(name, course.problem)
    found = simulated(course.problem, sampler, pruner, seed, workers, course.budget, first_rung)
    course.trials, course.epochs, course.best = found.trials, found.epochs, found.best
    course.seconds, course.regret = found.seconds, found.regret
