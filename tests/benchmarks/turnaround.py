"""Seconds of wall clock per no-op trial: ours and stock Tune in one session of Ray.

python tests/benchmarks/turnaround.py [--trials 60]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
import turnaround  # noqa: E402  # this module under the name by which workers find it

from search.driver import Resources, run_ray, start_ray  # noqa: E402
from trainables.store import Row, TrialResult, TrialStore  # noqa: E402

CPUS = 2
LOGGERS = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"


def no_work(store: TrialStore, data: Path) -> Iterator[Row]:
    """One row, on record like any other."""
    row: Row = {"epoch": 1, "score": store.config().lr, "seconds": 0.0, "done": True}
    store.append(row)
    store.finish(TrialResult("completed", {"score": row["score"]}, 1))
    yield row


def ours(trials: int, folder: Path) -> None:
    from toy import start

    search = start(folder / "ours", budget=trials)
    assert run_ray(search, folder, turnaround.no_work, Resources())
    assert len(search.results) == trials


def stock(trials: int, folder: Path, reuse: bool) -> None:
    """As Tune's tutorials have it: a function, OptunaSearch and ASHA, on 2 CPUs."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(config: dict[str, Any]) -> None:
        tune.report({"score": config["lr"]})

    grid = tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        param_space={"lr": tune.loguniform(1e-5, 1e-1)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=trials,
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(),
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(name=f"stock-{reuse}", storage_path=str(folder), verbose=0),
    ).fit()
    assert len(grid) == trials
    assert not grid.errors


def timed(run: Callable[[], None]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--trials", type=int, default=60)
    trials = p.parse_args().trials
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent)))
    found = {"date": str(date.today()), "cores": os.cpu_count(), "trials": trials, "cpus": CPUS}
    start_ray(cpus=CPUS, gpus=0, dashboard=False)  # sets our environment for Tune
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours(4, folder / "warm")
        found["ours"] = timed(lambda: ours(trials, folder)) / trials
        found["stock, reused, no loggers"] = timed(lambda: stock(trials, folder, True)) / trials
        os.environ[LOGGERS] = "0"  # stock means its defaults
        for key in ("TUNE_GLOBAL_CHECKPOINT_S", "RAY_AIR_NEW_OUTPUT"):
            os.environ.pop(key, None)
        found["stock"] = timed(lambda: stock(trials, folder, False)) / trials
    found["times faster than stock"] = found["stock"] / found["ours"]
    for key, value in found.items():
        print(f"| {key} | {value:.3f} |" if isinstance(value, float) else f"| {key} | {value} |")
    (HERE / "results" / "turnaround.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
