"""The main job by stock Ray Tune: Tuner, OptunaSearch and ASHAScheduler with their defaults.

    python tests/benchmarks/main_job_stock.py --folder F --seed 0 --trials 20 [--reuse]

Started by main_job.py, which leaves in F what is the same for all: `space.pickle`, fitted to data
and tier, and `data`, a link to the decoded images. The trainable is ours, in a function as in
Tune's tutorials; its trials are on record in F as those of any run.
"""

import argparse
import pickle
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from search.study import suggest
from spaces.space import Space


def train(flat: dict[str, Any], folder: str) -> None:
    """One trial of Tune's: the rows of ours, reported as they come."""
    from trainables.config import TrialConfig
    from trainables.store import RunStore
    from trainables.trial import run_trial

    store = RunStore(Path(folder))
    trial = store.create_trial(TrialConfig.from_flat(flat), 0)
    for row in run_trial(store.trial(trial), Path(folder) / "data"):
        tune.report({"score": row["score"]})


def draw(space: Space, trial: Any) -> dict[str, Any]:
    """A configuration, defined as it is drawn."""
    flat: dict[str, Any] = space.settled(lambda name, dim: suggest(trial, name, dim))
    return flat


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--folder", type=Path, required=True)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--trials", type=int, required=True)
    p.add_argument("--reuse", action="store_true", help="workers, from trial to trial")
    args = p.parse_args()
    space = pickle.loads((args.folder / "space.pickle").read_bytes())
    goal = {"metric": "score", "mode": "max"}
    tune.Tuner(
        tune.with_resources(
            tune.with_parameters(train, folder=str(args.folder.resolve())), {"CPU": 1}
        ),
        tune_config=tune.TuneConfig(
            num_samples=args.trials,
            search_alg=OptunaSearch(partial(draw, space), seed=args.seed, **goal),
            scheduler=ASHAScheduler(**goal),
            reuse_actors=args.reuse,
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(args.folder.resolve() / "tune")),
    ).fit()


if __name__ == "__main__":
    main()
