"""What is decided before the first trial, and the folder of the run that records it."""

import argparse
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from search.asha import milestones
from search.plan import Sizes
from spaces.space import Space
from trainables.data.bundle import DataBundle
from trainables.store import RunStore

ETA = 3  # a rung keeps the best third
PACKAGES = ("torch", "timm", "ray", "optuna", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """All that has been decided before the first trial."""

    args: argparse.Namespace
    root: Path
    space: Space
    sizes: Sizes
    data: Path
    bundle: DataBundle


def run_folder(args: argparse.Namespace, space: str) -> Path:
    """Where the run is or will be. Raises FileExistsError or FileNotFoundError if that is wrong."""
    runs: Path = args.runs
    if args.resume:
        return _existing_run(runs, args.name, space)
    name = args.name or f"{space}-{datetime.now():%Y%m%d-%H%M%S}"
    if not name or Path(name).name != name or name in (".", ".."):
        raise ValueError(f"--name '{name}' is not a folder name; use --runs to say where it lies")
    root = runs / name
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"'{root}' exists; give another --name, or --resume to go on with it")
    return root


def _existing_run(runs: Path, name: str | None, space: str) -> Path:
    if name:
        return RunStore.open(runs / name).root
    found = [p.parent for p in runs.glob("*/run.json")]
    mine = [p for p in found if RunStore(p).meta()["space"]["name"] == space]
    if not mine:
        raise FileNotFoundError(f"nothing to resume: no run of space '{space}' in '{runs}'")
    return max(mine, key=lambda p: RunStore(p).meta()["started"])


def open_store(job: Job) -> RunStore:
    """The record of a new run, or of the one to go on with."""
    if not job.args.resume:
        return RunStore.create(job.root, _meta(job))
    store = RunStore.open(job.root)
    meta = store.meta()
    for what, then, now in (
        ("space", meta["space"]["digest"], job.space.digest()),
        ("data", meta["data"]["fingerprint"], job.bundle.fingerprint),
    ):
        if then != now:
            raise ValueError(
                f"'{job.root}' was started with another {what} ({then}, now {now}); "
                f"repeat its command exactly: {' '.join(meta['command'])} --resume"
            )
    store.update_meta(trials=job.sizes.trials, finished=None)
    return store


def _meta(job: Job) -> dict[str, Any]:
    """What run.json records: everything needed to rerun and to read the results."""
    bundle, sizes = job.bundle, job.sizes
    counts = {
        name: [int((split.labels == k).sum()) for k in range(len(bundle.class_names))]
        for name, split in (("train_counts", bundle.train), ("val_counts", bundle.val))
    }
    return {
        "name": job.root.name,
        "space": {
            "name": job.space.name,
            "digest": job.space.digest(),
            "settings": job.space.as_dict(),
        },
        "data": {
            "source": job.args.data,
            "name": bundle.name,
            "fingerprint": bundle.fingerprint,
            "cache": str(job.data.resolve()),
            "image_size": bundle.image_size,
            "class_names": bundle.class_names,
            "au_names": bundle.au_names,
            "is_synthetic": bundle.is_synthetic,
            "notes": bundle.notes,
            "ceiling": dict(bundle.ceiling),
            **counts,
            "sizes": {"train": len(bundle.train), "val": len(bundle.val), "test": len(bundle.test)},
        },
        "tier": sizes.tier.name,
        "epochs": sizes.epochs,
        "trials": sizes.trials,
        "rungs": rungs(sizes),
        "metric": job.args.metric,
        "sampler": job.args.sampler,
        "seed": job.args.seed,
        "command": ["python", "-m", "search.run", *sys.argv[1:]],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "finished": None,
        "versions": {p: metadata.version(p) for p in PACKAGES},
        "commit": _commit(),
        "host": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
    }


def _commit() -> str:
    """The git commit of this program, with a + when files differ from it; "" outside git."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return commit + "+" if commit and git("status", "--porcelain", "-uno") else commit


def rungs(sizes: Sizes) -> list[int]:
    return list(milestones(sizes.epochs, sizes.first_rung, ETA))


def again(job: Job) -> str:
    words = [w for w in sys.argv[1:] if w != "--resume"]
    name = [] if job.args.name else ["--name", job.root.name]
    return shlex.join(["python", "-m", "search.run", *words, *name, "--resume"])
