"""`--log tensorboard|wandb|mlflow`: every trial as a run of those tools, by their own libraries.

All three get the same: the configuration, each row as it comes, how the trial ended. They are
written to from a thread of their own, so that a slow network holds nobody up. The run folder notes
how far they have come; a run that is resumed goes on there and repeats nothing.
"""

import json
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from search.core import Search
from search.tally import Tally
from trainables.config import Flat
from trainables.registry import unknown
from trainables.store import Row, TrialResult, write_json

STOP_SECONDS = 30.0  # what is left then is not waited for; a resume sends it
FOLDER = "logs"
PROJECT = "fer-search"


@dataclass(frozen=True)
class News:
    """What is new of a trial: rows after the last told, and its end if it has ended."""

    trial: str
    role: str
    config: Flat
    rows: Sequence[Row]  # all that there are
    result: TrialResult | None
    is_live: bool


class Sink(Protocol):
    """One of the tools. All calls come from one thread."""

    def open(self, news: News, after: int) -> int:
        """Begin a trial, or go on with it; the last epoch that is there already."""

    def write(self, trial: str, epoch: int, values: Mapping[str, float]) -> None: ...

    def close(self, trial: str, result: TrialResult | None) -> None:
        """Nothing more for now; with a result, for good."""


class Tracker:
    """An observer that feeds one tool. State: the thread, and how far each trial has come there."""

    def __init__(self, search: Search, name: str, space: str) -> None:
        self.search, self.name = search, name
        self.tally = Tally()
        self.folder = search.store.root / FOLDER / name
        self.notes_path = search.store.root / FOLDER / f"{name}.json"
        self.make: Callable[[], Sink] = lambda: SINKS[name](self.folder, search.store.root, space)
        self.failure: Exception | None = None
        self.news: queue.SimpleQueue[News | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"log-{name}", daemon=True)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.notes = _read_notes(self.notes_path)  # trial -> [last epoch, whether it has ended]
        self._look()
        self.thread.start()

    def update(self) -> None:
        """Hand on what is new. Raises what the tool has raised."""
        if self.failure is not None:
            raise self.failure
        self._look()

    def stop(self) -> None:
        if self.thread.is_alive():
            self._look()
            self.news.put(None)
            self.thread.join(STOP_SECONDS)
        if self.failure is not None:
            raise self.failure
        if self.thread.is_alive():
            raise TimeoutError(f"{self.name} took longer than {STOP_SECONDS:g} s; resuming goes on")

    def _look(self) -> None:
        for trial in self.tally.follow(self.search):
            search, rows = self.search, self.search.rows[trial]
            told = [rows[epoch] for epoch in sorted(rows)]
            result, is_live = search.results.get(trial), trial in search.live
            role, config = search.roles[trial], search.configs[trial]
            self.news.put(News(trial, role, config, told, result, is_live))

    def _work(self) -> None:
        """The thread: a failure ends it and is raised by the next update."""
        try:
            sink, opened = self.make(), set[str]()
            while (news := self.news.get()) is not None:
                self._tell(sink, opened, news)
                if self.news.empty():
                    write_json(self.notes_path, self.notes)
            for trial in sorted(opened):
                sink.close(trial, None)
            write_json(self.notes_path, self.notes)
        except Exception as error:
            self.failure = error

    def _tell(self, sink: Sink, opened: set[str], news: News) -> None:
        trial = news.trial
        last, has_ended = self.notes.get(trial, (0, False))
        fresh = [row for row in news.rows if row["epoch"] > last]
        if has_ended or not (fresh or news.result or trial not in self.notes):
            return
        if trial not in opened:
            last = sink.open(news, last)
            opened.add(trial)
        for row in (row for row in news.rows if row["epoch"] > last):
            sink.write(trial, row["epoch"], numbers(row))
        last = max((row["epoch"] for row in news.rows), default=0)
        self.notes[trial] = (last, news.result is not None)
        if news.result is not None or not news.is_live:  # paused ones may be many
            sink.close(trial, news.result)
            opened.remove(trial)


def _read_notes(path: Path) -> dict[str, tuple[int, bool]]:
    """How far each trial has come; nothing where that was never noted or cannot be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        notes = json.loads(path.read_text())
        return {trial: (int(epoch), bool(ended)) for trial, (epoch, ended) in notes.items()}
    return {}


def numbers(row: Row) -> dict[str, float]:
    """What of a row can be drawn."""
    drawn = {n: float(v) for n, v in row.items() if isinstance(v, int | float) and n != "epoch"}
    return {name: value for name, value in drawn.items() if isfinite(value)}


class TensorBoard:
    """Event files under RUN/logs/tensorboard, a folder a trial: `tensorboard --logdir` opens it."""

    def __init__(self, folder: Path, run: Path, space: str) -> None:
        from tensorboardX import SummaryWriter

        self.make, self.folder = SummaryWriter, folder
        self.writers: dict[str, Any] = {}

    def open(self, news: News, after: int) -> int:
        # what a crash left beyond the notes is taken back by the step it purges from
        purge = after + 1 if (self.folder / news.trial).exists() else None
        own = f".{time.time_ns()}"  # the library names files by the second and would write over
        folder = str(self.folder / news.trial)
        writer = self.make(folder, purge_step=purge, filename_suffix=own)
        if purge is None:
            writer.add_text("config", f"    {json.dumps(dict(news.config))}", 0)
            writer.add_text("role", news.role, 0)
        self.writers[news.trial] = writer
        return after

    def write(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writers[trial].add_scalar(name, value, epoch)
        self.writers[trial].flush()

    def close(self, trial: str, result: TrialResult | None) -> None:
        writer = self.writers.pop(trial)
        if result is not None:
            writer.add_text("ended", f"{result.status} {result.error}".strip(), result.epoch)
        writer.close()


class Wandb:
    """A group of Weights & Biases for the run; WANDB_PROJECT, WANDB_MODE and the rest hold."""

    def __init__(self, folder: Path, run: Path, space: str) -> None:
        import wandb

        self.library, self.folder, self.space = wandb, folder, space
        self.group = re.sub(r"[^\w.-]", "-", run.resolve().name)
        self.runs: dict[str, Any] = {}

    def open(self, news: News, after: int) -> int:
        run = self.library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self.group,
            name=news.trial,
            id=f"{self.group}-{news.trial}"[-128:],
            config=dict(news.config),
            tags=[news.role, self.space[:64]],
            dir=str(self.folder),
            resume="allow",
            reinit="create_new",  # several trials at once
            settings=self.library.Settings(silent=True, console="off"),
        )
        self.runs[news.trial] = run
        return max(after, int(run.step) - 1)

    def write(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        self.runs[trial].log(dict(values), step=epoch)

    def close(self, trial: str, result: TrialResult | None) -> None:
        run = self.runs.pop(trial)
        if result is not None:
            run.summary.update({"status": result.status, "error": result.error})
        run.finish(exit_code=int(result is not None and result.status == "failed"))


class Mlflow:
    """An experiment of MLflow for the run; MLFLOW_TRACKING_URI holds, else RUN/logs/mlflow."""

    def __init__(self, folder: Path, run: Path, space: str) -> None:
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or folder.resolve().as_uri()
        if uri.startswith("file:"):  # MLflow is moving to data bases, and asks for consent
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.client = MlflowClient(uri)
            name = run.resolve().name
            known = self.client.get_experiment_by_name(name)
            self.experiment = known.experiment_id if known else self.client.create_experiment(name)
        self.space = space
        self.runs: dict[str, str] = {}

    def open(self, news: News, after: int) -> int:
        client = self.client
        found = client.search_runs([self.experiment], f"tags.`fer.trial` = '{news.trial}'")
        if found:
            self.runs[news.trial] = found[0].info.run_id
            history = client.get_metric_history(self.runs[news.trial], "score")
            return max((metric.step for metric in history), default=0)
        tags = {"fer.trial": news.trial, "fer.role": news.role, "fer.space": self.space}
        run = client.create_run(self.experiment, tags=tags, run_name=news.trial)
        self.runs[news.trial] = run.info.run_id
        for name, value in news.config.items():
            client.log_param(run.info.run_id, name, value)
        return 0

    def write(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        ordered = sorted(values.items(), key=lambda item: item[0] == "score")
        for name, value in ordered:  # the score last: it tells that the row is whole
            self.client.log_metric(self.runs[trial], name, value, step=epoch)

    def close(self, trial: str, result: TrialResult | None) -> None:
        run = self.runs.pop(trial)
        if result is not None:
            self.client.set_tag(run, "fer.status", result.status)
            status = "FAILED" if result.status == "failed" else "FINISHED"
            self.client.set_terminated(run, status)


SINKS: dict[str, Callable[[Path, Path, str], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}
PACKAGES = {  # what is imported, and what to install
    "tensorboard": ("tensorboardX", "tensorboardX tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow-skinny"),
}


def check_log(names: Sequence[str]) -> None:
    """Raise LookupError for a tool that is not known, ValueError for one that is not installed."""
    for name in names:
        if name not in SINKS:
            raise LookupError(f"--log: {unknown('tool', name, SINKS)}")
        module, packages = PACKAGES[name]
        if find_spec(module) is None:
            raise ValueError(f"--log {name} is not installed here: pip install {packages}")
