"""Ray itself: started on this machine or joined, and what of it a trial gets."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from trainables.registry import unknown

ENVIRONMENT = {  # a user's own value stands
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no csv, json and tensorboard a trial
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # no snapshots: the store is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours says what happens
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "5",
}
CALM_SECONDS = 5.0  # waited for at the most before Ray is stopped, see `stop_ray`
OBJECT_STORE_BYTES = 100 * 2**20  # data travels as a path; 78 MiB is the least that Ray takes

PLACEMENTS = {"pack": "PACK", "strict-pack": "STRICT_PACK", "spread": "SPREAD"}  # ours -> Ray's

ASKS_FOR_TOKEN = (  # Ray sends none to an address that is given, unless told to
    ". If it asks for a token, as `ray start` says when it does, set RAY_AUTH_MODE=token here; the "
    "token is in ~/.ray/auth_token or RAY_AUTH_TOKEN"
)


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many may run at once (None: as many as fit).

    A trial of several ranks is a gang of processes, each with `cpus_per_trial` CPUs. More than one
    GPU a trial makes as many ranks, with one GPU each.
    """

    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    max_concurrent: int | None = None
    ranks: int = 1
    placement: str = "pack"  # where the ranks of a gang go, see PLACEMENTS
    may_grow: bool = False  # wait for room where there is none: nodes may join
    paths: tuple[Path, ...] = ()  # what a trial reads besides the run folder and its data

    @property
    def size(self) -> int:
        """How many processes train a trial together."""
        return int(self.gpus_per_trial) if self.gpus_per_trial > 1 else self.ranks

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray is to reserve for one rank."""
        gpus = min(self.gpus_per_trial, 1)
        return {"CPU": self.cpus_per_trial, **({"GPU": gpus} if gpus else {})}


@dataclass(frozen=True)
class Cluster:
    """The Ray started or joined; `note`: how to log in, or why there is no dashboard."""

    cpus: float
    gpus: float
    dashboard: str
    note: str
    seconds: float


def count_workers(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials run at once. Raises ValueError when not even one fits and none will."""
    check_ranks(resources)
    size, bundle = resources.size, {"GPU": 0.0, **resources.bundle}
    for kind, existing in {"GPU": gpus, "CPU": cpus}.items():
        if not resources.may_grow and size * bundle[kind] > existing:
            raise ValueError(
                f"a trial asks for {size * bundle[kind]:g} {kind}s, but there are {existing:g}; "
                f"lower --{kind.lower()}s-per-trial" + " or --cpu-ranks" * (resources.ranks > 1)
            )
    fit = count_ranks(resources, cpus, gpus) // size
    return max(1, min(fit, resources.max_concurrent or fit))


def count_ranks(resources: Resources, cpus: float, gpus: float) -> int:
    """How many ranks fit there; a share of a GPU does not span two."""
    bundle = resources.bundle
    fit = int(cpus / bundle["CPU"] + 1e-9)
    if "GPU" in bundle:
        fit = min(fit, int(gpus * int(1 / bundle["GPU"] + 1e-9)))
    return fit


def check_ranks(resources: Resources) -> None:
    """Raise ValueError for a trial that cannot be divided among ranks as asked."""
    cpus, gpus, ranks = resources.cpus_per_trial, resources.gpus_per_trial, resources.ranks
    if cpus <= 0 or gpus < 0 or ranks < 1:
        raise ValueError(
            f"a trial needs more than 0 CPUs, no fewer than 0 GPUs and at least 1 rank, not "
            f"{cpus:g}, {gpus:g} and {ranks}"
        )
    if gpus > 1 and gpus % 1:
        raise ValueError(f"{gpus:g} GPUs a trial: above one, only whole GPUs can be given")
    if gpus and ranks not in (1, resources.size if gpus > 1 else 1):
        raise ValueError(
            f"{ranks} ranks with {gpus:g} GPUs a trial: a gang on GPUs has one rank on each whole "
            "GPU; give --gpus-per-trial alone"
        )
    if resources.placement not in PLACEMENTS:
        raise LookupError(unknown("placement", resources.placement, PLACEMENTS))


def start_ray(
    address: str | None = None,
    cpus: int | None = None,
    gpus: int | None = None,
    dashboard: bool = True,
) -> Cluster:
    """Start Ray on this machine for this process only, or join the cluster at `address`.

    Call it in a thread that lives on: the kernel ends Ray with the thread that started it.
    """
    quiet()
    began = time.monotonic()
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "configure_logging": False,
    }
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": cpus,
            "num_gpus": gpus,
            "include_dashboard": None if dashboard else False,  # None: go on if it cannot start
            "dashboard_host": "127.0.0.1",
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = address
        if not _brings_code():
            options["runtime_env"] = {"py_modules": [str(path) for path in our_code()]}
    context = _init(options)
    there = ray.cluster_resources()
    host = (context.dashboard_url or "").removeprefix("http://")
    url = f"http://{host}" if host else ""
    return Cluster(
        there.get("CPU", 0),
        there.get("GPU", 0),
        url,
        _login(url, dashboard),
        time.monotonic() - began,
    )


def _init(options: dict[str, Any]) -> Any:
    """`ray.init`, whose bare exceptions become OSError."""
    try:
        return ray.init(**options)
    except ConnectionError as error:
        if options["address"] == "local" or "RAY_AUTH_MODE" in os.environ:
            raise
        raise OSError(f"{error}{ASKS_FOR_TOKEN}") from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # for instance when a busy machine starts it too slowly
        is_own = options["address"] == "local"
        what = "started here" if is_own else f"joined at '{options['address']}'"
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(". ")
        more = " (or without Ray: --inline)" * is_own
        raise OSError(f"Ray could not be {what} ({reason}): try again{more}") from error


def our_code() -> list[Path]:
    """The folders of our packages. Workers import these, whatever is installed on their nodes."""
    import analysis
    import search
    import spaces
    import trainables

    packages = (search, spaces, trainables, analysis)
    return [Path(str(package.__file__)).parent for package in packages]


def _brings_code() -> bool:
    """Whether `ray job submit` gave this driver a working directory, which workers get too."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    environment = config.get("runtime_env") or {}
    return bool({"working_dir", "py_modules"} & set(environment))


def _login(url: str, is_wanted: bool) -> str:
    if not url:
        return "the Ray dashboard could not start; the search goes on without it" * is_wanted
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return ""
    return "log in with the token that `ray get-auth-token` prints (file ~/.ray/auth_token)"


@contextmanager
def ray_in_background(**options: Any) -> Iterator[Callable[[], Cluster]]:
    """Start Ray beside other work; calling what this gives waits for it. Ends with the block."""
    with ThreadPoolExecutor(1, "start-ray") as thread:
        started = thread.submit(start_ray, **options)
        try:
            yield started.result
        finally:
            started.exception()  # wait: Ray cannot be stopped half-way
            stop_ray()


def stop_ray() -> None:
    """End Ray, or leave the cluster that was joined.

    Ray 2.60 makes a thread at its first shutdown that locks, 0.1 seconds later, what its maker may
    not have made by then (opencensus' DeltaProducer): a segmentation fault where the maker waits so
    long for a core. So the rush of ending workers is waited out.
    """
    until = time.monotonic() + CALM_SECONDS
    while time.monotonic() < until and not all(has_core() for _ in range(4)):
        time.sleep(0.1)
    ray.shutdown()


def has_core(seconds: float = 0.05) -> bool:
    """Whether this thread has had a core to itself for that long."""
    began, spent = time.monotonic(), time.thread_time()
    while time.monotonic() - began < seconds:
        pass
    return time.thread_time() - spent > 0.8 * seconds


def quiet() -> None:
    """Set Ray's environment and keep its own log lines from the terminal."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are told from the store
