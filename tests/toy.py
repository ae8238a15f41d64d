"""A trial without a model, for tests of the search: a curve, and faults on request.

The score depends on every epoch before it, so an epoch skipped or done twice shows.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.core import Search
from search.proposer import SpaceProposer
from search.pruners import PRUNERS
from search.samplers import SAMPLERS
from spaces.space import Choice, IntRange, LogUniform, Space, Uniform
from trainables.config import TrialConfig
from trainables.store import Row, RunStore, TrialResult, TrialStore

EPOCHS = 9
SPACE = Space(
    "toy",
    {
        "epochs": EPOCHS,
        "loss": Choice(("cross_entropy", "focal"), "cross_entropy"),
        "loss.gamma": Uniform(0.5, 4.0, 2.0, when={"loss": ("focal",)}),
        "au_weight": Choice((0.0, 1.0), 0.0),
        "au_loss": Choice(("bce", "asl"), "bce", when={"au_weight": (1.0,)}),
        "lr": LogUniform(1e-5, 1e-1, 1e-3),
        "batch_size": IntRange(8, 12, 8),
    },
)


def quality(config: TrialConfig) -> float:
    """The final score of a configuration, in (0, 1)."""
    bonus = 0.1 if config.loss.name == "focal" else 0.0
    return 0.7 - 0.1 * abs(math.log10(config.lr) + 2) + bonus + 0.01 * (config.seed % 3)


def run_toy(store: TrialStore, data: Path) -> Iterator[Row]:
    """Honest unless `weights` names a fault and `fold` the epoch of it."""
    config = store.config()
    total, epoch = 0.0, 0
    known = {row["epoch"]: row for row in store.history()}  # as a real trial: row, then state
    if (saved := store.read("last.pt")) is not None:
        total, epoch = json.loads(saved)
        yield known[epoch]
    while epoch < config.epochs:
        epoch += 1
        if epoch == config.fold:
            fault(config.weights, store)
        total += quality(config)
        row = {"epoch": epoch, "score": total / config.epochs, "seconds": 2.0, "pid": os.getpid()}
        row["done"] = epoch == config.epochs
        if epoch in known:
            row = known[epoch]
        else:
            store.append(row)
        store.write("last.pt", json.dumps([total, epoch]).encode())
        if row["done"]:
            store.finish(TrialResult("completed", {"score": row["score"]}, epoch, 2.0 * epoch))
        yield (
            {**row, "score": math.nan} if config.weights == "nan" and epoch == config.fold else row
        )


def fault(kind: str, store: TrialStore) -> None:
    """Raise or kill the process, always or the first time this trial comes here."""
    if kind == "raise":
        raise RuntimeError("a bug at this epoch")
    if kind == "die" and store.read("died") is None:
        store.write("died", b"")
        os._exit(7)
    if kind == "die_always":
        os._exit(7)
    if kind == "interrupt" and store.read("died") is None:
        store.write("died", b"")
        raise KeyboardInterrupt


def flat(**settings: str | int | float) -> dict[str, str | int | float | bool]:
    """A configuration outside the toy space, for anchors with a fault."""
    return {"epochs": EPOCHS, **settings}


def proposer_of(
    space: Space = SPACE, sampler: str = "tpe", budget: int = 100, **options: Any
) -> SpaceProposer:
    """Proposals of a sampler by its name."""
    return SpaceProposer(space, SAMPLERS[sampler](space, budget, ("score",)), **options)


def start(root: Path, budget: int = 12, pruner: str = "asha", **options: Any) -> Search:
    """A search on the run folder, new or resumed."""
    fresh = not (root / "run.json").exists()
    store = RunStore.create(root, {"name": "toy"}) if fresh else RunStore.open(root)
    if pruner == "thaw":  # asks the model who goes on
        options.setdefault("sampler", "mfgp")
    proposer = proposer_of(budget=budget, **options)
    return Search(store, proposer, PRUNERS[pruner](EPOCHS, 1, 3), budget)
