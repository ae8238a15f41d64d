"""What runs in a worker process of Ray: one trial after another, a row a step."""

import importlib
import os
import sys
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

from ray import tune

from search.core import RunTrial, score
from search.inline import close, save_error
from trainables.store import Fenced, Row, TrialStore


class TrialActor(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """A worker process: a step is the next row. It lives on from trial to trial."""

    def setup(self, config: dict[str, Any]) -> None:
        self.rows: Iterator[Row] | None = None
        self._open(config)

    def _open(self, config: dict[str, Any]) -> None:
        """Only remember what to do: a failure here would be held against Tune, not the trial."""
        self.trial, self.cpus, self.gpus = config["trial"], config["cpus"], config["gpus"]
        self.data = Path(config["data"])
        self.store = TrialStore(Path(config["store"]) / "trials" / config["tid"], config["attempt"])
        self.last: Row | None = None

    def step(self) -> dict[str, Any]:
        problem = ""
        try:
            if self.rows is None:
                use_threads(self.cpus)
                if not self.gpus:
                    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: Ray leaves it
                module, _, name = self.trial.partition(":")
                run_trial: RunTrial = getattr(importlib.import_module(module), name)
                self.rows = run_trial(self.store, self.data)
            self.last = next(self.rows)
            is_done = bool(self.last.get("done"))
        except (StopIteration, Fenced):
            is_done = True
        except Exception as error:
            problem, is_done = save_error(self.store, error), True
            if "CUDA error" in problem:
                raise  # this process is spoilt: Tune ends it, the core retries
        if is_done:
            self._close()
        rows = [self.last] if self.last else []  # in a list: Tune would flatten a dict
        value = score(self.last) if self.last else nan
        return {"rows": rows, "score": value, "done": is_done, "problem": problem}

    def _close(self) -> None:
        """Let go of the model: a cached worker would hold it until its next trial."""
        if self.rows is not None:
            close(self.rows)
        self.rows = None
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
            sys.modules["torch"].cuda.empty_cache()  # the neighbour on this GPU may want it

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        self._open(new_config)
        return True

    def cleanup(self) -> None:
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None: ...


def use_threads(cpus: float) -> None:
    """As many threads as the trial has CPUs, whether or not torch is imported yet."""
    threads = max(1, int(cpus))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
