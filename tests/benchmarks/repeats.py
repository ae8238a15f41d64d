"""How many proposals repeat a configuration, in the spaces of the sprints, eight open at once.

python tests/benchmarks/repeats.py [--trials 200] [--seeds 1]

Trials are told made-up scores that favour some settings, so that a model has something to repeat;
two in three are stopped at the first rung. A proposal seen before becomes a further seed of it.
"""

import argparse
import json
import random
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from search.check import check_settings  # noqa: E402
from search.proposer import SpaceProposer  # noqa: E402
from search.samplers import SAMPLERS  # noqa: E402
from spaces.catalog import find  # noqa: E402
from spaces.tiers import TIERS, at_tier  # noqa: E402
from trainables.config import TrialConfig  # noqa: E402

OPEN = 8


@dataclass(frozen=True)
class Repeats:
    """What a run of proposals came to."""

    trials: int
    groups: int  # different configurations, seeds apart
    most: int  # seeds of one configuration
    seconds: float  # of a proposal, on average

    @property
    def share(self) -> float:
        """Of trials that repeat a configuration."""
        return 1 - self.groups / self.trials


def propose(space_name: str, sampler: str, trials: int, seed: int = 0) -> Repeats:
    """So many proposals of a space at the tiny tier, the oldest told when eight are open."""
    space = at_tier(find(space_name), TIERS["tiny"])
    model = SAMPLERS[sampler](space, trials, ("score",))
    proposer = SpaceProposer(space, model, seed, validate=check_settings)
    groups, waiting = Counter[str](), list[TrialConfig]()
    spent = 0.0
    for index in range(trials):
        began = time.perf_counter()
        proposal = proposer.ask()
        spent += time.perf_counter() - began
        assert proposal is not None
        groups[proposal.config.group_id] += 1
        waiting.append(proposal.config)
        if len(waiting) == OPEN:
            _tell(proposer, waiting.pop(0), index)
    return Repeats(trials, len(groups), max(groups.values()), spent / trials)


def _tell(proposer: SpaceProposer, config: TrialConfig, index: int) -> None:
    is_stopped = index % 3 != 0
    rows = [
        {"epoch": epoch, "score": epoch / 9 * _score(config)}
        for epoch in ([3] if is_stopped else [3, 9])
    ]
    for row in rows:
        proposer.observe(config.trial_id, int(row["epoch"]), float(row["score"]))
    proposer.tell(config.trial_id, rows, "stopped" if is_stopped else "completed")


def _score(config: TrialConfig) -> float:
    """In (0, 1): each value of each setting has a worth of its own; a little noise by trial."""
    flat = {n: v for n, v in config.flat().items() if n != "seed"}
    worth = [random.Random(f"{n}={v}").random() for n, v in flat.items() if isinstance(v, str)]
    noise = zlib.crc32(config.trial_id.encode()) / 2**32
    return 0.9 * sum(worth) / len(worth) + 0.1 * noise


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--trials", type=int, default=200)
    p.add_argument("--seeds", type=int, default=1)
    args = p.parse_args()
    found = []
    for space in ("sprint1", "sprint2"):
        for sampler in ("tpe", "mfgp", "random"):
            for seed in range(args.seeds):
                told = propose(space, sampler, args.trials, seed)
                print(
                    f"{space:8} {sampler:7} seed {seed}: {told.share:6.1%} repeats, at most "
                    f"{told.most} seeds, {told.seconds:.3f} s a proposal",
                    flush=True,
                )
                found.append({"space": space, "sampler": sampler, "seed": seed, **vars(told)})
    told = {"date": date.today().isoformat(), "open": OPEN, "runs": found}
    (HERE / "results" / "repeats.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
