"""How a run searches: sampler, pruner and objectives, with `auto` made definite, and its limits."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from search.folder import read_meta
from trainables.registry import unknown
from trainables.store import RunStore

if TYPE_CHECKING:
    from search.core import Search

AUTO = "auto"
COSTS = {"latency": "latency_ms", "parameters": "parameters"}  # minimised -> where rows have it
SINGLE = ("cmaes", "mfgp")  # samplers that cannot weigh several objectives
LEADERS = ("mfgp",)  # samplers that can say which trial goes on


def settle(args: argparse.Namespace, root: Path) -> argparse.Namespace:
    """The flags with sampler, pruner, objectives and metric made definite.

    A run that is resumed keeps those it began with. Raises LookupError for an unknown name and
    ValueError for a combination that cannot be.
    """
    args = argparse.Namespace(**vars(args))
    args.objectives = _objectives(args)
    if args.configs is not None:
        return args  # nothing is chosen: search/given.py
    then = read_meta(RunStore(root)) if args.resume else {}
    if "configs" in then:
        raise ValueError(f"'{root}' is a run of given configurations: --resume it with --configs")
    if args.sampler in (None, AUTO):
        args.sampler = then.get("sampler") or ("nsga2" if len(args.objectives) > 1 else "mfgp")
    if args.pruner in (None, AUTO):
        own = "thaw" if args.sampler in LEADERS else "asha"
        is_same = then.get("sampler") == args.sampler  # else the resume is refused, and told why
        args.pruner = then["pruner"] if is_same else own
    _check(args)
    return args


def _objectives(args: argparse.Namespace) -> list[str]:
    """What is maximised, then what is minimised. Without the flag: the metric alone."""
    from trainables.metrics import OBJECTIVES

    if args.objectives is None:
        return [args.metric]
    first, *costs = [name.strip() for name in args.objectives.split(",")]
    if first not in OBJECTIVES:
        raise LookupError(f"--objectives: {unknown('metric', first, OBJECTIVES)}")
    for name in costs:
        if name not in COSTS:
            raise LookupError(f"--objectives: {unknown('cost', name, COSTS)}")
    if len(set(costs)) < len(costs):
        raise ValueError(f"--objectives {args.objectives}: each may stand there once")
    if first != args.metric:
        raise ValueError(
            f"--objectives {args.objectives} maximises {first}, but the metric is {args.metric}: "
            f"give --metric {first}"
        )
    return [first, *costs]


def _check(args: argparse.Namespace) -> None:
    from search.pruners import PRUNERS
    from search.samplers import SAMPLERS

    for kind, name, known in (
        ("sampler", args.sampler, SAMPLERS),
        ("pruner", args.pruner, PRUNERS),
    ):
        if name not in known:
            raise LookupError(unknown(kind, name, [AUTO, *known]))
    if args.pruner == "thaw" and args.sampler not in LEADERS:
        raise ValueError(
            f"pruner 'thaw' asks the sampler who goes on, and '{args.sampler}' cannot tell: take "
            f"--sampler {' or '.join(LEADERS)}, or another pruner"
        )
    if len(args.objectives) > 1 and args.sampler in SINGLE:
        raise ValueError(
            f"sampler '{args.sampler}' has one objective, not {len(args.objectives)}: "
            "take nsga2 or tpe"
        )
    if len(args.objectives) > 1 and args.warm_start:
        raise ValueError("--warm-start carries scores alone: leave out --objectives")


def columns(objectives: list[str]) -> list[str]:
    """Where the rows of a trial have its objectives."""
    return ["score", *(COSTS[name] for name in objectives[1:])]


def limit(
    args: argparse.Namespace,
    search: "Search",
    gpus_per_trial: float,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[], str]:
    """Says when the wall clock since now, or the GPU-hours of the whole run, are used up."""
    began = clock()

    def say() -> str:
        if args.hours is not None and clock() - began >= 3600 * args.hours:
            return f"{args.hours:g} hours have passed"
        if args.gpu_hours is not None:
            used = search.seconds * gpus_per_trial / 3600
            if used >= args.gpu_hours:
                return f"{used:.3g} of {args.gpu_hours:g} GPU-hours are used"
        return ""

    return say
