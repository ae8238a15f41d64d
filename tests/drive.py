"""A real driver in a process of its own, for tests and benchmarks that kill it: toy trials on Ray.

python -m drive FOLDER --trials 12 [--address HOST:PORT | --cpus 2] [--pace SECONDS] [--hours N]

Trials note the node of each epoch in `places` and where our code came from in `code`. They last
`--pace` seconds an epoch by a real timer.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import ray
from toy import run_toy, start

import search
from search.cluster import Resources, ray_in_background
from search.driver import run_ray
from trainables.store import Row, TrialStore


def run_paced(store: TrialStore, data: Path) -> Iterator[Row]:
    """A toy trial whose epochs last as long as the file `pace` beside the data says."""
    pace = float((data / "pace").read_text())
    (store.path / "code").write_text(str(search.__file__))
    for row in run_toy(store, data):
        with (store.path / "places").open("a") as file:
            file.write(ray.get_runtime_context().get_node_id() + "\n")
        time.sleep(pace)
        yield row


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("root", type=Path)
    p.add_argument("--trials", type=int, default=12)
    p.add_argument("--address")
    p.add_argument("--cpus", type=int)
    p.add_argument("--pace", type=float, default=0.0)
    p.add_argument("--losses", type=int, default=2, help="of workers that a trial may cost")
    p.add_argument("--hours", type=float)
    p.add_argument("--sampler", default="tpe")
    p.add_argument("--pruner", default="asha")
    args = p.parse_args()
    logging.basicConfig(format="%(message)s")
    import drive  # this module under the name by which workers find it

    data = args.root / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "pace").write_text(str(args.pace))
    where = {"address": args.address} if args.address else {"cpus": args.cpus, "gpus": 0}
    core = start(args.root, args.trials, args.pruner, sampler=args.sampler)
    core.max_losses = args.losses
    if args.hours is not None:
        until = time.monotonic() + 3600 * args.hours
        core.limit = lambda: "time is up" if time.monotonic() > until else ""
    with ray_in_background(dashboard=False, **where) as join:  # type: ignore[arg-type]
        join()
        resources = Resources(may_grow=args.address is not None)
        is_over = run_ray(core, data, drive.run_paced, resources)
    return 0 if is_over else 130


if __name__ == "__main__":
    raise SystemExit(main())
