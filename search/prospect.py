"""What a search will take, told before it starts and kept in run.json; afterwards what it took."""

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import speed
from search.folds import further
from search.forecast import Estimate, Forecast, Position, forecast
from search.given import once
from search.monitor import span
from search.speed import Speed
from spaces.space import Space, Value
from trainables.store import RunStore

if TYPE_CHECKING:
    from search.core import Search
    from search.job import Job

MEASURE_SECONDS = 20.0  # for a dry run; a search itself measures one configuration
BUSY = 1.5  # times as long as the processor worked for us, from where it is told


@dataclass(frozen=True)
class Prospect:
    """A forecast with what it is made from."""

    forecast: Forecast
    speeds: list[Speed]
    workers: int | None  # trials at once; None where nobody can tell, and times are of one
    gpus_per_trial: float
    disk_bytes: int  # of the run folder at its end
    state_bytes: int  # on top, while it runs

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        there = self.forecast
        return {
            "seconds": asdict(there.seconds) if self.workers else None,
            "worker_hours": asdict(hours_of(there.worker_seconds)),
            "gpu_hours": asdict(there.gpu_hours(self.gpus_per_trial)),
            "epochs": asdict(there.epochs),
            "survivors": {str(m): asdict(many) for m, many in there.survivors.items()},
            "bytes": self.disk_bytes,
        }


def threads_of(args: argparse.Namespace) -> int | None:
    """What a worker computes with; None: as many as torch takes."""
    return None if args.inline else max(1, int(args.cpus_per_trial or 1))


def look_ahead(
    job: "Job", workers: int | None, gpus_per_trial: float, seconds: float = 0.0
) -> Prospect | None:
    """The forecast of a search that has not begun, from steps measured here.

    Without `seconds` one configuration is measured, and what is remembered of others is used. None
    where no configuration could be measured.
    """
    from search.job import make_pruner

    args = job.args
    what = [flat for _, flat in once(args, job.anchors)] if args.configs else job.space
    speeds = _measured(what, job.data, threads_of(job.args), seconds)
    if not speeds:
        return None
    trials, start = job.sizes.trials, 0.0 if job.args.inline else speed.START_SECONDS
    pruner = make_pruner(job)
    whole = 0 if args.configs else further(args.folds, trials, bool(pruner.milestones))
    position = Position(pruner, trials, protected=1 + whole)
    there = forecast(position, speed.pace(speeds, start), workers or 1, random.Random(0))
    completed = min([trials, *(many.middle for many in there.survivors.values())])
    return Prospect(
        there,
        speeds,
        workers,
        gpus_per_trial,
        speed.disk_bytes(speeds, job.bundle, trials, completed),
        speed.state_bytes(speeds, workers or 1),
    )


def _measured(
    what: Space | Sequence[Mapping[str, Value]], data: Path, threads: int | None, seconds: float
) -> list[Speed]:
    import torch

    given = (what, data, threads, seconds, seconds > 0)
    if not torch.cuda.is_available():
        return speed.sample(*given)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # gives the GPU back whole
        return pool.submit(speed.sample, *given).result()


def sentences(prospect: Prospect) -> Iterator[tuple[str, str]]:
    """Label and text of each line that tells the forecast."""
    there, workers = prospect.forecast, prospect.workers
    paces = [known.epoch_seconds for known in prospect.speeds]
    many = f"{len(paces)} configurations" if len(paces) > 1 else "one configuration"
    took = f"{min(paces):.2g} s" + (f" to {max(paces):.2g} s" if len(paces) > 1 else "")
    took += " on one worker"
    if max(known.busy for known in prospect.speeds) > BUSY:
        took += ", while other work was using the machine too"
    if workers is None:
        how = "of one worker, divided by how many the cluster runs"
    else:
        how = f"in all, trials {workers} at once" if workers > 1 else "in all, one after another"
    yield (
        "time",
        f"about {there.seconds.told(span)} {how}, the report apart. An epoch of {many} takes "
        f"{took} (measured here)",
    )
    hours = f"{hours_of(there.worker_seconds).told(figure)} worker-hours"
    if prospect.gpus_per_trial:
        hours += f", {there.gpu_hours(prospect.gpus_per_trial).told(figure)} GPU-hours"
    yield "cost", f"{hours}; {there.epochs.told(whole)} epochs"
    if there.survivors:
        on = (f"{n.told(whole)} beyond epoch {m}" for m, n in there.survivors.items())
        yield "rungs", f"trials that go on: {'; '.join(on)}"
    yield (
        "disk",
        f"about {size(prospect.disk_bytes)} at the end, up to {size(prospect.state_bytes)} more "
        "while it runs",
    )


def hours_of(seconds: Estimate) -> Estimate:
    return Estimate(seconds.low / 3600, seconds.middle / 3600, seconds.high / 3600)


def figure(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, count / 2**20):.0f} MiB"


def spent(search: "Search", store: RunStore, seconds: float, gpus_per_trial: float) -> None:
    """Keep what the run has taken so far; seconds add up over resumes."""
    before = (store.meta().get("spent") or {}).get("seconds", 0.0)
    hours = search.seconds / 3600
    files = [path for path in store.root.rglob("*") if path.is_file()]
    store.update_meta(
        spent={
            "seconds": round(before + seconds, 3),
            "worker_hours": hours,
            "gpu_hours": hours * gpus_per_trial,
            "epochs": sum(map(len, search.rows.values())),
            "bytes": sum(path.stat().st_size for path in files),
        }
    )
