"""What runs in a worker process of Ray: one trial after another, a row a step."""

import os
import sys
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.gang import Gang, load, use_threads
from search.inline import close, is_spoilt, save_error
from search.outcome import score
from search.vacancy import Occupied, check_gpu
from search.visibility import Blind, check_worker
from trainables.store import DiskFull, Fenced, Row, TrialStore


class TrialActor(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """A worker process: a step is the next row. It lives on from trial to trial."""

    def setup(self, config: dict[str, Any]) -> None:
        self.rows: Iterator[Row] | None = None
        self.gang: Gang | None = None
        self.is_seeing = False
        self.node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        self._open(config)

    def __repr__(self) -> str:  # its name in Ray's dashboard and logs; trials come and go
        return f"trials of {Path(self.config['store']).name}"

    def _open(self, config: dict[str, Any]) -> None:
        """Only remember what to do: a failure here would be held against Tune, not the trial."""
        self.config = config
        self.cpus, self.gpus, self.ranks = config["cpus"], config["gpus"], config.get("ranks", 1)
        self.data = Path(config["data"])
        self.store = TrialStore(Path(config["store"]) / "trials" / config["tid"], config["attempt"])
        self.needs = config.get("needs", ())
        self.last: Row | None = None

    def step(self) -> dict[str, Any]:
        problem = halt = ""
        try:
            if self.rows is None:
                self._look()
                use_threads(self.cpus)
                if not self.gpus:
                    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: Ray leaves it
                check_gpu(self.gpus, self.node)
                if self.ranks > 1 and self.gang is None:
                    self.gang = Gang(self.ranks, self.cpus, self.gpus, self.store)
                self.rows = load(self.config["trial"])(self.store, self.data)
            self.last = self._next(self.rows)
            is_done = bool(self.last.get("done"))
        except (StopIteration, Fenced):
            is_done = True
        except (Blind, Occupied):
            raise  # nothing can run here: Tune ends this process, the trial goes elsewhere
        except DiskFull as error:
            halt, is_done = str(error), True  # of the run, not of this trial
        except Exception as error:
            problem, is_done = save_error(self.store, error), True
            self._disband()  # its ranks may have parted at different places
            if is_spoilt(problem):
                raise  # Tune ends this process, the core retries
        if is_done:
            self._close()
        rows = [self.last] if self.last else []  # in a list: Tune would flatten a dict
        value = score(self.last) if self.last else nan
        told = {"problem": problem, "halt": halt, "node": self.node}
        return {"rows": rows, "score": value, "done": is_done, **told}

    def _next(self, rows: Iterator[Row]) -> Row:
        """The next row, with the help of the other ranks where there are some."""
        return self.gang.step(self.config, self.store, rows) if self.gang else next(rows)

    def _disband(self) -> None:
        if self.gang is not None:
            self.gang.end()
        self.gang = None

    def _look(self) -> None:
        """Raise Blind where this node does not see what trials need; once a process."""
        if not self.is_seeing:
            check_worker(self.needs)
        self.is_seeing = True

    def _close(self) -> None:
        """Let go of the model: a cached worker would hold it until its next trial."""
        if self.rows is not None:
            close(self.rows)
            if self.gang is not None:
                self.gang.close()
        self.rows = None
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
            sys.modules["torch"].cuda.empty_cache()  # the neighbour on this GPU may want it

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        self._open(new_config)
        return True

    def cleanup(self) -> None:
        self._close()
        self._disband()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None: ...
