"""What Tune asks for trials, and tells of their ends: the core's next, on_end and on_lost."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.search import Searcher

from search.core import Search
from search.nodes import Nodes, node_of
from search.protocols import Handout
from search.vacancy import Occupied
from search.visibility import Blind

GRACE_SECONDS = 30.0  # for the epoch in hand, once nothing more may be spent
DOUBT_SECONDS = 60.0  # a worker's death is not held against its trial if its node dies this soon


class TuneSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Tune asks it for trials. State: which of Tune's trials is which of ours, and who was lost."""

    def __init__(
        self, search: Search, address: Mapping[str, Any], nodes: Nodes, is_asked: Callable[[], bool]
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.search, self.address, self.nodes, self.is_asked = search, address, nodes, is_asked
        self.handouts: dict[str, Handout] = {}  # Tune's id -> ours
        self.places: dict[str, str] = {}  # Tune's id -> the node that answered
        self.doubts: list[tuple[float, str, str]] = []  # when a trial lost its worker, and where
        self.failure: Exception | None = None  # of ours: the search cannot go on
        self._spent_at: float | None = None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """A failure of ours ends the search as it is; Tune would file it as one of the trial's."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    @property
    def must_end(self) -> bool:
        """Whether what the workers have in hand is not waited for any more."""
        if self.search.is_spent() and self._spent_at is None:
            self._spent_at = time.monotonic()
        late = self._spent_at is not None and time.monotonic() - self._spent_at > GRACE_SECONDS
        return late or self.failure is not None or self.is_asked()

    def suggest(self, trial_id: str) -> Any:
        if self.must_end:
            return Searcher.FINISHED
        if len(self.search.live) >= self.nodes.allowed:
            return None
        with self.guarded():
            handout = self.search.next()
            if handout is not None:
                self.handouts[trial_id] = handout
                return {"tid": handout.id, "attempt": handout.attempt, **self.address}
        # a live trial may still be lost and come back
        return Searcher.FINISHED if self.failure or self.search.is_over else None

    def on_row(self, trial_id: str, result: Mapping[str, Any]) -> str:
        """The core's verdict on a result, `continue` where it brings no row."""
        self.places[trial_id] = result.get("node", "")
        if result["rows"]:
            self.nodes.welcome(result.get("node", ""))
        handout, verdict = self.handouts[trial_id], "continue"
        if not self.search.is_current(handout):
            return "stop"
        if result.get("halt"):
            self.failure = self.failure or OSError(result["halt"])
            return "stop"
        with self.guarded():
            for row in result["rows"]:  # one, or none
                verdict = self.search.on_row(handout.id, row)
        return verdict

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        handout = self.handouts[trial_id]
        if error:
            self.on_error(trial_id, None)
        if not self.search.is_current(handout):
            return
        if result:
            self.on_row(trial_id, result)  # Tune shows a last row to nobody else
        if self.failure is None:
            with self.guarded():
                self.search.on_end(handout.id, (result or {}).get("problem", ""))

    def on_error(self, trial_id: str, error: Exception | None) -> None:
        """The worker of a trial is gone: by its own death, with its node, or for want of a file."""
        handout = self.handouts[trial_id]
        if not self.search.is_current(handout):
            return
        cause = getattr(error, "cause", None) or error  # Tune's pickling may have bared it
        excuse = cause if isinstance(cause, Blind | Occupied) else None
        node = (excuse.node if excuse else "") or self.places.get(trial_id) or node_of(error)
        with self.guarded():
            is_unfit = isinstance(cause, Blind) or getattr(error, "actor_init_failed", False)
            if isinstance(cause, Occupied):
                is_unfit = self.nodes.refuse(node, str(cause))
            if is_unfit and not self.nodes.avoid(node, str(cause)):
                raise OSError(f"no node is left that could run a trial: {cause}")
            is_gone = excuse is not None or is_unfit or getattr(error, "preempted", False)
            is_gone = is_gone or self.nodes.is_gone(node)
            if not is_gone:
                self.doubts.append((time.monotonic(), handout.id, node))
            self.search.on_lost(handout.id, is_preempted=is_gone)

    def look(self) -> bool:
        """Whether more or fewer trials fit than before. Takes back losses that a node explains."""
        if not self.nodes.look():
            return False
        alive = {node["NodeID"] for node in self.nodes.alive}
        for doubt in list(self.doubts):
            since, trial, node = doubt
            if node not in alive:
                self.search.losses[trial] -= 1
            if node not in alive or time.monotonic() - since > DOUBT_SECONDS:
                self.doubts.remove(doubt)
        return True

    def reconcile(self, ended: Iterable[str]) -> None:
        """Take back trials that Tune has dropped without a word."""
        for trial_id in ended:
            self.on_error(trial_id, None)

    def save(self, checkpoint_path: str) -> None: ...  # the store is the record

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("start a new search on the same store instead of restoring")

    def __getstate__(self) -> dict[str, Any]:
        return {}
