"""What of a trial is stored after an epoch, and how it goes on from there."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from safetensors.torch import save as safetensors_bytes

from trainables import state
from trainables.looking import look
from trainables.store import Draft, Row, TrialResult, TrialStore

if TYPE_CHECKING:
    from trainables.trial import Training


class Keeper:
    """Stores the epochs of a trial, and goes on from them. Its state, which is the most by far, is
    written by a thread while the images are scored: weights and moments no longer change then."""

    def __init__(self, training: "Training", store: TrialStore) -> None:
        self.training, self.store = training, store
        self._pool = ThreadPoolExecutor(1, "state")
        self._draft: Future[Draft] | None = None
        rows = list[Row]()
        if training.ranks.is_first:
            store.drop_drafts()
            rows = store.history()
        told = training.ranks.broadcast(json.dumps(rows).encode()) or b"[]"  # one reader for all
        self._known: dict[int, Row] = {row["epoch"]: row for row in json.loads(told)}

    def resume(self) -> Row | None:
        """Go back to the last state that is whole, if there is one; the row of its epoch."""
        training, ranks = self.training, self.training.ranks
        found = state.whole(self.store, self._known) if ranks.is_first else None
        data = ranks.broadcast(found[0] if found else None)
        if data is None:
            return None
        _restore(training, found[1] if found else state.unpack(data))
        rows = [row for epoch, row in self._known.items() if epoch <= training.epoch]
        training.seconds = sum(row["seconds"] for row in rows)
        row = self._known[training.epoch]
        if ranks.is_first:
            _close(training, self.store, row)
        return row

    def begin(self) -> None:
        """Write the state of the epoch that is trained; it is put in its place by `save`."""
        if self.training.ranks.is_first:
            write = state.writing(_snapshot(self.training))
            self._draft = self._pool.submit(self.store.draft_state, write)

    def save(self, row: Row) -> Row:
        """Store the epoch: predictions, then the row, and last of all the state. The row that is on
        record, which is an earlier one where a trial was killed before its state was in its place.

        Raises DiskFull, and Fenced.
        """
        training, store = self.training, self.store
        test, views = None, dict[str, bytes]()
        if row["done"]:
            test, test_logits = training.predict(training.bundle.test)
            views = look(training, {"val": training.val_logits, "test": test_logits})
        known = self._known.get(row["epoch"])
        if known is not None:
            training.seconds += known["seconds"] - row["seconds"]
            row = known
        if not training.ranks.is_first:
            return row
        if self._draft is None:
            self.begin()
        assert self._draft is not None
        draft = self._draft.result()
        store.save_predictions("val", training.val)
        if test is not None:
            store.save_predictions("test", test)
            for name, data in views.items():
                store.write(name, data)
            weights = training.average.model.state_dict()
            tensors = {name: value.cpu().contiguous() for name, value in weights.items()}
            store.write("weights.safetensors", safetensors_bytes(tensors))
        if known is None:
            store.append(row)
        store.put_state(draft)
        self._draft = None
        _close(training, store, row)
        return row

    def close(self) -> None:
        """Remove what has not been put in its place."""
        self._pool.shutdown()
        draft, self._draft = self._draft, None  # whose error would hold all that it holds
        if draft is not None:
            with suppress(Exception):  # it could not be written
                draft.result().drop()


def _snapshot(training: "Training") -> dict[str, Any]:
    return {
        "model": training.model.state_dict(),
        "average": training.average.model.state_dict(),
        "averaged": training.average.state(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.stepper.scaler.state_dict(),
        "balance": training.stepper.balance.state(),
        "parts": training.stepper.parts,
        "epoch": training.epoch,
    }


def _restore(training: "Training", saved: dict[str, Any]) -> None:
    training.model.load_state_dict(saved["model"])
    training.average.model.load_state_dict(saved["average"])
    training.average.restore(saved["averaged"])
    training.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:  # empty where the precision needed none
        training.stepper.scaler.load_state_dict(saved["scaler"])
    training.stepper.balance.restore(saved["balance"])
    training.stepper.parts, training.epoch = saved["parts"], saved["epoch"]


def _close(training: "Training", store: TrialStore, row: Row) -> None:
    if row["done"]:
        gib = row["peak_gib"]
        store.finish(TrialResult("completed", row, training.epoch, training.seconds, gib))
