"""What is decided before the first trial, and the record of it that a run begins with."""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from search import given
from search.folder import ONE_FOR_A_RUN, is_empty, read_meta, unwritable
from search.plan import Anchors, Sizes
from search.pruners import ETA, PRUNERS, Pruner
from search.transfer import Earlier, save
from spaces.space import Space
from trainables.data.bundle import DataBundle
from trainables.store import RunStore

PACKAGES = ("torch", "timm", "ray", "optuna", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """All that has been decided before the first trial."""

    args: argparse.Namespace
    words: Sequence[str]  # the command line as it was given
    root: Path
    space: Space
    sizes: Sizes
    data: Path
    bundle: DataBundle
    anchors: Anchors
    earlier: Sequence[Earlier] = ()  # trials of other runs to learn from


def open_store(job: Job) -> RunStore:
    """The record of a new run, or of the one to go on with."""
    return _reopen(job) if job.args.resume else _create(job)


def _create(job: Job) -> RunStore:
    try:
        if job.earlier:  # before run.json, with which a run begins
            save(job.earlier, job.root)
        return RunStore.create(job.root, _meta(job))
    except FileExistsError:
        raise
    except OSError as error:
        (job.root / "run.json").unlink(missing_ok=True)
        if is_empty(job.root):
            shutil.rmtree(job.root, ignore_errors=True)
        raise unwritable(job.root, error) from error


def _reopen(job: Job) -> RunStore:
    """The run to go on with. Raises ValueError if other trials would come of it."""
    store = RunStore.open(job.root)
    meta = read_meta(store)
    check_same(job, meta)
    data = {**meta["data"], "cache": str(job.data.resolve())}  # it may have been built anew
    try:
        store.update_meta(trials=job.sizes.trials, finished=None, data=data)
    except OSError as error:
        raise unwritable(job.root, error) from error
    return store


def check_same(job: Job, meta: dict[str, Any]) -> None:
    """Raise ValueError, saying what differs, unless the run was started with the same settings."""
    if changed := changes(job, meta):
        command = shlex.join([*meta["command"], "--resume"])
        raise ValueError(
            f"'{job.root}' cannot be resumed, for its trials would not compare: "
            f"{'; '.join(changed)}. Repeat its command, or give another --name:\n  {command}"
        )


def changes(job: Job, meta: dict[str, Any]) -> list[str]:
    """What of the job is not as it was when the run began, a phrase each."""
    args, then = job.args, meta["data"]
    found = {
        name: f"{name} was {meta[name]}, is {getattr(args, name)}"
        for name in ONE_FOR_A_RUN
        if meta[name] != getattr(args, name)
    }
    if job.bundle.fingerprint != then.get("fingerprint"):
        found["data"] = (
            f"data was {then.get('source')} at {then.get('image_size')} px, is {args.data} at "
            f"{job.bundle.image_size} px (or its content has changed)"
        )
    if told := given.change(args, job.anchors, meta):
        found = {"configs": told}  # not from what was settled for the other kind
    elif job.space.digest() != meta["space"]["digest"]:
        for name, phrase in _space_changes(job.space, meta["space"]).items():
            found.setdefault(name, phrase)
    if not found and rungs(job) != meta["rungs"]:
        found["rungs"] = f"trials were judged after epochs {meta['rungs']}, now {rungs(job)}"
    return list(found.values())


def _space_changes(space: Space, meta: dict[str, Any]) -> dict[str, str]:
    now, then = json.loads(json.dumps(space.as_dict())), meta.get("settings", {})
    if space.name != meta["name"]:
        return {"space": f"space was '{meta['name']}', is '{space.name}'"}
    differ = [n for n in {**then, **now} if then.get(n) != now.get(n)]
    plain = {
        n: f"{n} was {then[n]}, is {now[n]}"
        for n in differ
        if not isinstance(then.get(n, {}), dict) and not isinstance(now.get(n, {}), dict)
    }
    others = [n for n in differ if n not in plain]
    if others or not plain:
        plain["space"] = f"space '{space.name}' has changed ({', '.join(others) or 'its order'})"
    return plain


def _meta(job: Job) -> dict[str, Any]:
    """What run.json records: everything needed to rerun and to read the results."""
    sizes, space = job.sizes, job.space
    return {
        "name": job.root.name,
        "space": {"name": space.name, "digest": space.digest(), "settings": space.as_dict()},
        "data": _data_meta(job),
        "tier": sizes.tier.name,
        "epochs": sizes.epochs,
        "trials": sizes.trials,
        "rungs": rungs(job),
        **{name: getattr(job.args, name) for name in ONE_FOR_A_RUN},
        **given.as_record(job.args, job.anchors),
        "command": command(job),
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


def _data_meta(job: Job) -> dict[str, Any]:
    bundle = job.bundle
    counts = {
        name: [int((split.labels == k).sum()) for k in range(len(bundle.class_names))]
        for name, split in (("train_counts", bundle.train), ("val_counts", bundle.val))
    }
    return {
        "source": job.args.data,
        "name": bundle.name,
        "fingerprint": bundle.fingerprint,
        "cache": str(job.data.resolve()),
        "image_size": bundle.image_size,
        "class_names": bundle.class_names,
        "au_names": bundle.au_names,
        "basic_names": bundle.basic_names,
        "components": bundle.components,
        "is_synthetic": bundle.is_synthetic,
        "notes": bundle.notes,
        "ceiling": dict(bundle.ceiling),
        **counts,
        "sizes": {"train": len(bundle.train), "val": len(bundle.val), "test": len(bundle.test)},
    }


def _commit() -> str:
    """The git commit of this program, with a + when files differ from it; "" outside git."""
    here = Path(__file__).resolve().parent
    if shutil.which("git") is None:
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return commit + "+" if commit and git("status", "--porcelain", "-uno") else commit


def make_pruner(job: Job) -> Pruner:
    return PRUNERS[job.args.pruner](job.sizes.epochs, job.sizes.first_rung, ETA)


def rungs(job: Job) -> list[int]:
    return list(make_pruner(job).milestones)


def command(job: Job) -> list[str]:
    """The command that begins this run, under the name that it has."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    words = [word for word in job.words if word != "--resume"]
    name = [] if job.args.name is not None else ["--name", job.root.name]
    return [python, "-m", "search.run", *words, *name]


def again(job: Job) -> str:
    """The command that goes on with this run, for a shell."""
    return shlex.join([*command(job), "--resume"])
