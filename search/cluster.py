"""Ray itself: started on this machine or joined, and what of it a trial gets."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

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
OBJECT_STORE_BYTES = 100 * 2**20  # data travels as a path; 78 MiB is the least that Ray takes


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many may run at once (None: as many as fit)."""

    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Cluster:
    """The Ray started or joined; `note`: how to log in, or why there is no dashboard."""

    cpus: float
    gpus: float
    dashboard: str
    note: str
    seconds: float


def count_workers(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials run at once. Raises ValueError when not even one fits."""
    asked = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}
    if asked["CPU"] <= 0 or asked["GPU"] < 0:
        raise ValueError(f"a trial needs more than 0 CPUs and no fewer than 0 GPUs, not {asked}")
    if asked["GPU"] > 1 and asked["GPU"] % 1:
        raise ValueError(f"{asked['GPU']} GPUs a trial: above one, only whole GPUs can be given")
    for kind, existing in {"CPU": cpus, "GPU": gpus}.items():
        if asked[kind] > existing:
            raise ValueError(
                f"a trial asks for {asked[kind]:g} {kind}s, but there are {existing:g}; "
                f"lower --{kind.lower()}s-per-trial"
            )
    fit = int(cpus / asked["CPU"] + 1e-9)
    if asked["GPU"]:
        shares = 1 / asked["GPU"]
        fit = min(fit, int(gpus * int(shares + 1e-9) if shares >= 1 else gpus // asked["GPU"]))
    return max(1, min(fit, resources.max_concurrent or fit))


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
    context = ray.init(**options)
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
    ray.shutdown()


def quiet() -> None:
    """Set Ray's environment and keep its own log lines from the terminal."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are told from the store
