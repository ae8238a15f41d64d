"""From one trial to the next on a worker that lives on: seconds without a step.

Driven by startup.py. A real search (mfgp and thaw on Ray, one worker) of trials that note when they
were asked for, when each epoch began, and when its row was handed over.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from search.core import Search  # noqa: E402
from search.driver import Resources, run_ray  # noqa: E402
from search.proposer import SpaceProposer  # noqa: E402
from search.pruners import ETA, PRUNERS  # noqa: E402
from search.samplers import SAMPLERS  # noqa: E402
from trainables.store import Row, RunStore, TrialStore  # noqa: E402

Note = dict[str, Any]


def noted(store: TrialStore, data: Path) -> Iterator[Row]:
    """A trial as it is, and when what of it happened."""
    from trainables import trial

    note: Note = {"asked": time.time(), "backbone": store.config().backbone.name}
    plain = trial.Training.run_epoch

    def stamped(training: trial.Training) -> Row:
        note.setdefault("first_step", time.time())
        return plain(training)

    with mock.patch.object(trial.Training, "run_epoch", stamped):
        for row in trial.run_trial(store, data):
            note["ended"] = time.time()  # unless another row follows
            (store.path / f"note-{store.attempt}").write_text(json.dumps(note))
            yield row


def measure(space: Any, data: Path, root: Path, trials: int, epochs: int) -> Note:
    """Gaps between trials, by whether the next one has another backbone."""
    import startup_reuse  # this module, under the name by which workers find it

    sized = space.fixed({"epochs": epochs})
    anchors = [("default", sized.defaults()), ("draw", sized.sample(random.Random(0)))]
    model = SAMPLERS["mfgp"](sized, trials, ("score",))
    proposer = SpaceProposer(sized, model, 0, anchors)
    search = Search(RunStore.create(root, {}), proposer, PRUNERS["thaw"](epochs, 1, ETA), trials)
    assert run_ray(search, data, startup_reuse.noted, Resources(max_concurrent=1))
    notes = [json.loads(path.read_text()) for path in root.glob("trials/*/note-*")]
    return gaps(sorted(notes, key=lambda note: note["asked"]))


def gaps(notes: Sequence[Note]) -> Note:
    """Seconds from the end of a trial to the first step of the next: all, and what of it is whose.

    A trial that is resumed at its end has no step.
    """
    kinds: dict[str, list[tuple[float, float]]] = {"same backbone": [], "another backbone": []}
    for before, after in zip(notes, notes[1:], strict=False):
        if "first_step" in after:
            kind = "same" if before["backbone"] == after["backbone"] else "another"
            gap = after["first_step"] - before["ended"], after["asked"] - before["ended"]
            kinds[f"{kind} backbone"].append(gap)
    return {
        kind: {
            "gaps": len(found),
            "min": min(whole for whole, _ in found),
            "median": statistics.median(whole for whole, _ in found),
            "largest": max(whole for whole, _ in found),
            "median until the trial is asked for": statistics.median(part for _, part in found),
        }
        for kind, found in kinds.items()
        if found
    }
