"""What of a trial is stored after an epoch, and how it goes on from there."""

from typing import TYPE_CHECKING, Any

from safetensors.torch import save as safetensors_bytes

from trainables import state
from trainables.looking import look
from trainables.store import Row, TrialResult, TrialStore

if TYPE_CHECKING:
    from trainables.trial import Training


def save(training: "Training", store: TrialStore, row: Row) -> None:
    """Store the epoch: predictions, state, and last of all the row that says it is there."""
    test, views = None, dict[str, bytes]()
    if row["done"]:
        test, test_logits = training.predict(training.bundle.test)
        views = look(training, {"val": training.val_logits, "test": test_logits})
    if not training.ranks.is_first:
        return
    store.save_predictions("val", training.val)
    if test is not None:
        store.save_predictions("test", test)
        for name, data in views.items():
            store.write(name, data)
        weights = training.average.model.state_dict()
        tensors = {name: value.cpu().contiguous() for name, value in weights.items()}
        store.write("weights.safetensors", safetensors_bytes(tensors))
    store.save_state(state.pack(_snapshot(training, row)))
    store.append(row)
    _close(training, store, row)


def resume(training: "Training", store: TrialStore) -> Row | None:
    """Go back to the last state that is whole, if there is one; the row of its epoch."""
    found = state.whole(store) if training.ranks.is_first else None
    data = training.ranks.broadcast(found[0] if found else None)  # one reader decides for all
    if data is None:
        return None
    saved = found[1] if found else state.unpack(data)
    _restore(training, saved)
    row: Row = saved["row"]
    if training.ranks.is_first:
        if training.epoch not in {r["epoch"] for r in store.history()}:
            store.append(row)  # killed between the two writes
        _close(training, store, row)
    return row


def _snapshot(training: "Training", row: Row) -> dict[str, Any]:
    return {
        "model": training.model.state_dict(),
        "average": training.average.model.state_dict(),
        "averaged": training.average.state(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.stepper.scaler.state_dict(),
        "balance": training.stepper.balance.state(),
        "parts": training.stepper.parts,
        "seconds": training.seconds,
        "row": row,
    }


def _restore(training: "Training", saved: dict[str, Any]) -> None:
    training.model.load_state_dict(saved["model"])
    training.average.model.load_state_dict(saved["average"])
    training.average.restore(saved["averaged"])
    training.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:  # empty where the precision needed none
        training.stepper.scaler.load_state_dict(saved["scaler"])
    training.stepper.balance.restore(saved["balance"])
    training.stepper.parts, training.seconds = saved["parts"], saved["seconds"]
    training.epoch = saved["row"]["epoch"]


def _close(training: "Training", store: TrialStore, row: Row) -> None:
    if row["done"]:
        gib = row["peak_gib"]
        store.finish(TrialResult("completed", row, training.epoch, training.seconds, gib))
