"""Searches on 8 to 1,024 GPUs, simulated: where the GPUs' time goes, and the time to a target.

python tests/benchmarks/scale.py [--gpus 8 32 128 512 1024] [--methods mfgp+thaw ...] [--seeds 1]
python tests/benchmarks/scale.py --ray    what Ray's loop costs the driver, measured first

The searches are real, and so is the processor time that they take; GPUs, epochs and failures are
those of `scale_world.World`. Each run stands beside the same search where nothing costs anything.
Writes results/scale.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
from scale_world import Cluster, Course, World  # noqa: E402

from search import mfgp  # noqa: E402
from search.core import Search  # noqa: E402
from search.curves import problem  # noqa: E402
from search.proposer import SpaceProposer  # noqa: E402
from search.pruners import PRUNERS  # noqa: E402
from search.samplers import SAMPLERS  # noqa: E402
from trainables.store import RunStore  # noqa: E402

METHODS = ("mfgp+thaw", "random+asha", "random+none")
TARGETS = (20.0, 10.0, 5.0)  # regret, in percent
MOST = 10**6  # trials: the clock ends a run
FILE = HERE / "results" / "scale.json"
COLUMNS = (
    *("GPUs", "method", "decisions", "ms each", "driver busy"),
    *("utilisation", "start, store", "failures", "waiting"),
    *(f"to {t:g} %" for t in TARGETS),
    *(f"ideal to {t:g} %" for t in TARGETS),
)


def simulated(world: World, where: str, method: str, seed: int, lengths: float) -> Course:
    """One run for as long as so many full trainings of a median trial take."""
    sampler, pruner = method.split("+")
    given = problem(where)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        store = RunStore.create(Path(folder), {"name": "scale"})
        model = SAMPLERS[sampler](given.space, MOST, ("score",))
        rule = PRUNERS[pruner](given.max_epochs, max(1, round(given.max_epochs / 9)), 3)
        search = Search(store, SpaceProposer(given.space, model, seed), rule, MOST)
        horizon = lengths * given.max_epochs * world.epoch / world.gang
        return Cluster(world, given, search, TARGETS, seed).run(horizon)


def row(world: World, where: str, method: str, seeds: int, lengths: float) -> dict[str, Any]:
    """Means over seeds, beside an ideal world."""
    real = [simulated(world, where, method, seed, lengths) for seed in range(seeds)]
    ideal = [simulated(world.ideal, where, method, seed, lengths) for seed in range(seeds)]
    total = fmean(c.spent["all"] for c in real)
    use = fmean(c.spent["training"] for c in real) / total
    epochs = fmean(c.spent["training"] for c in real) / (world.epoch / world.gang)
    own = (world.store * epochs + world.worker_start * sum(world.slots())) / total
    own += fmean(c.decisions for c in real) * world.trial_start / total
    down = fmean(c.failures for c in real) * (world.repair + world.worker_start) / total
    down *= fmean(world.slots())
    driver, decisions = (fmean(c.spent["driver"] for c in real), fmean(c.decisions for c in real))
    horizon = total / sum(world.slots())
    found = {
        "GPUs": world.gpus, "method": method, "decisions": decisions,
        "ms each": 1000 * driver / decisions, "driver busy": driver / horizon,
        "utilisation": use, "start, store": own, "failures": down,
        "waiting": max(0.0, 1 - use - own - down),
    }  # fmt: skip
    for name, courses in (("to", real), ("ideal to", ideal)):
        for target in TARGETS:
            times = [c.reached.get(target) for c in courses]
            known = [t for t in times if t is not None]
            found[f"{name} {target:g} %"] = fmean(known) if len(known) == seeds else None
    return found


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return "–" if value is None else str(value)


def measured_ray(trials: int) -> dict[str, float]:
    """Processor seconds of a driver on Ray for a hand-out and for a row, with two workers."""
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent)))
    import turnaround
    from toy import EPOCHS, run_toy, start

    from search.driver import Resources, run_ray, start_ray

    start_ray(cpus=2, gpus=0, dashboard=False)
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        for what in (turnaround.no_work, turnaround.no_work, run_toy):  # the first warms up
            folder = Path(name) / str(len(seconds))
            search = start(folder, trials, "none", sampler="random")
            began = time.process_time()
            assert run_ray(search, Path(name), what, Resources())
            seconds.append((time.process_time() - began) / trials)
    a_row = (seconds[2] - seconds[1]) / (EPOCHS - 1)
    return {"ray_row": a_row, "ray_start": max(0.0, seconds[1] - a_row)}


def keep(**parts: Any) -> None:
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    about = {"date": str(date.today()), "load": os.getloadavg()[0]}
    FILE.write_text(json.dumps({**known, **about, **parts}, indent=1) + "\n")


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--gpus", nargs="+", type=int, default=[8, 32, 128, 512, 1024])
    p.add_argument("--methods", nargs="+", default=METHODS)
    p.add_argument("--problem", default="branches")
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--lengths", type=float, default=4.0, help="full trainings that a run lasts")
    p.add_argument("--epoch", type=float, default=World.epoch, help="seconds of a median epoch")
    p.add_argument("--gang", type=int, default=1, help="GPUs of a trial")
    p.add_argument("--days-to-failure", type=float, default=World.days_to_failure)
    p.add_argument("--one-by-one", action="store_true", help="mfgp without batches of decisions")
    p.add_argument("--ray", action="store_true", help="measure what Ray costs, and end")
    p.add_argument("--keep", default="", help="under which name the rows are kept")
    args = p.parse_args()
    if args.ray:
        found = measured_ray(trials=40)
        print(json.dumps(found))
        keep(ray=found)
        return
    if args.one_by_one:
        mfgp.CROWD = MOST
    ray = json.loads(FILE.read_text()).get("ray", {}) if FILE.exists() else {}
    world = World(8, args.gang, epoch=args.epoch, days_to_failure=args.days_to_failure, **ray)
    print(asdict(world))
    print("| " + " | ".join(COLUMNS) + " |\n|" + "--|" * len(COLUMNS), flush=True)
    rows = []
    for gpus in args.gpus:
        for method in args.methods:
            here = replace(world, gpus=gpus)
            rows.append(row(here, args.problem, method, args.seeds, args.lengths))
            print("| " + " | ".join(cell(rows[-1][c]) for c in COLUMNS) + " |", flush=True)
    name = args.keep or ("one by one" if args.one_by_one else "rows")
    keep(**{name: {"world": asdict(world), "problem": args.problem, "rows": rows}})


if __name__ == "__main__":
    main()
