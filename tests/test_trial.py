"""One trial: it learns, resumes exactly, fails with its reason, and does what its settings say."""

import errno
import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, nn

from trainables import loop, metrics, state
from trainables.augment import Batch
from trainables.averages import Average
from trainables.balance import Losses
from trainables.config import Flat, TrialConfig
from trainables.data import cache
from trainables.data.bundle import DataBundle, Split
from trainables.optim import Stepper, micro_batches
from trainables.ranks import ALONE
from trainables.store import DiskFull, Row, RunStore, TrialStore
from trainables.trial import Training, run_trial

QUICK: Flat = {"backbone": "test_resnet", "image_size": 48, "epochs": 3, "lr": 3e-3}
AU_GUIDED: Flat = {
    "attention": "au_spatial", "attention_stage": "middle", "region_weight": 0.1,
    "au_loss": "bce", "au_weight": 0.5, "mix": "cutmix", "dropout": 0.2, "au_balance": "gradnorm",
}  # fmt: skip


def new_trial(folder: Path, flat: Flat) -> TrialStore:
    run = RunStore.create(folder, {})
    trial = run.create_trial(TrialConfig.from_flat({**QUICK, **flat}), 0)
    return run.trial(trial, run.hand_out(trial))


def timeless(row: Row) -> Row:
    return {k: v for k, v in row.items() if k not in ("seconds", "peak_gib", "latency_ms")}


def few(split: Split, rows: np.ndarray, labels: np.ndarray | None = None) -> Split:
    return Split(
        np.array(split.images[rows]),
        split.labels[rows] if labels is None else labels,
        split.aus[rows],
        tuple(split.ids[i] for i in rows),
    )


def test_stop_and_resume_equals_an_uninterrupted_run(faces, tmp_path) -> None:
    straight = new_trial(tmp_path / "a", AU_GUIDED)
    wanted = [timeless(row) for row in run_trial(straight, faces)]
    broken = new_trial(tmp_path / "b", AU_GUIDED)
    first = next(run_trial(broken, faces))
    resumed = list(run_trial(broken, faces))
    assert timeless(resumed[0]) == timeless(first)  # the last stored row comes again
    assert [timeless(row) for row in resumed] == wanted
    assert [timeless(row) for row in broken.history()] == wanted
    one, other = straight.predictions("test"), broken.predictions("test")
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.probs, other.probs)


def test_a_finished_trial_stores_all_it_owes(faces, tmp_path) -> None:
    trial = new_trial(tmp_path, {"epochs": 1, "au_loss": "bce", "au_weight": 0.3})
    (row,) = run_trial(trial, faces)
    bundle, result, val = cache.load(faces), trial.result(), trial.predictions("val")
    assert row["done"]
    assert row["parameters"] == sum(
        p.numel() for p in Training(trial.config(), bundle).model.parameters()
    )
    assert 0 < row["latency_ms"] < 1000
    assert result is not None
    assert result.status == "completed"
    assert result.metrics["score"] == row["score"]
    assert val is not None
    assert val.ids == bundle.val.ids
    assert val.au_probs.shape == (len(bundle.val), len(bundle.au_names))
    assert metrics.scores(val.labels, val.probs)["score"] == pytest.approx(row["score"], abs=0.02)
    test = trial.predictions("test")
    assert test is not None
    assert set(test.labels) == {-1}  # sealed
    assert set(test.aus.ravel()) == {-1}


def test_a_torn_state_is_passed_over_for_the_one_before(faces, tmp_path) -> None:
    wanted = [timeless(row) for row in run_trial(new_trial(tmp_path / "a", {}), faces)]
    trial = new_trial(tmp_path / "b", {})
    rows = run_trial(trial, faces)
    next(rows), next(rows)
    rows.close()
    whole = (trial.path / "last.pt").read_bytes()
    (trial.path / "last.pt").write_bytes(whole[: len(whole) // 2])  # a power cut
    again = [timeless(row) for row in run_trial(trial, faces)]
    assert again == wanted  # from the first epoch's state on
    assert [timeless(row) for row in trial.history()] == wanted


def test_a_crash_between_row_and_state_is_healed(faces, tmp_path) -> None:
    trial = new_trial(tmp_path, {})
    rows = run_trial(trial, faces)
    wanted = [next(rows), next(rows)]
    rows.close()
    (trial.path / "previous.pt").replace(trial.path / "last.pt")
    again = run_trial(trial, faces)
    assert next(again) == wanted[0]
    assert timeless(next(again)) == timeless(wanted[1])
    assert (trial.path / "history.jsonl").read_bytes().count(b"\n") == 2
    again.close()
    assert trial.history() == wanted


def test_a_state_whose_row_is_lost_is_passed_over(faces, tmp_path, caplog) -> None:
    """As after a loss of power: neither file is forced to the disk."""
    trial = new_trial(tmp_path, {})
    rows = run_trial(trial, faces)
    wanted = [next(rows), next(rows)]
    rows.close()
    history = (trial.path / "history.jsonl").read_bytes().splitlines(keepends=True)
    (trial.path / "history.jsonl").write_bytes(history[0])
    again = run_trial(trial, faces)
    assert next(again) == wanted[0]
    assert "epoch 2 of last.pt is not on record" in caplog.text
    assert timeless(next(again)) == timeless(wanted[1])


def test_a_state_is_written_while_images_are_scored_and_then_put(faces, tmp_path, monkeypatch):
    trial = new_trial(tmp_path, {"epochs": 3})
    seen, predict = list[tuple[int, bool, bool]](), Training.predict

    def watched(training, split):
        deadline = time.monotonic() + 60
        while training.epoch < 3 and not list(trial.path.glob(".last.pt.*")):
            assert time.monotonic() < deadline
        drafts, last = list(trial.path.glob(".last.pt.*")), trial.path / "last.pt"
        seen.append((training.epoch, bool(drafts), last.exists()))
        return predict(training, split)

    monkeypatch.setattr(Training, "predict", watched)
    rows = run_trial(trial, faces)
    next(rows)
    assert not list(trial.path.glob(".last.pt.*"))
    list(rows)
    # At its end, which is timed, nothing is written beside; the test images are looked at last.
    assert seen == [(1, True, False), (2, True, True), (3, False, True), (3, False, True)]


def test_a_trial_that_fails_while_its_state_is_written_leaves_no_draft(
    faces, tmp_path, monkeypatch
) -> None:
    trial = new_trial(tmp_path, {})

    def fail(*_: object) -> None:
        raise FloatingPointError("predictions are not finite")

    monkeypatch.setattr(Training, "predict", fail)
    with pytest.raises(FloatingPointError):
        next(run_trial(trial, faces))
    assert list(trial.path.glob("*last.pt*")) == []


def test_the_draft_of_a_worker_that_was_killed_goes(faces, tmp_path) -> None:
    trial = new_trial(tmp_path, {})
    (trial.path / ".last.pt.0123").write_bytes(b"half a state")
    next(run_trial(trial, faces))
    assert [path.name for path in trial.path.glob("*last.pt*")] == ["last.pt"]


def test_a_crash_before_the_verdict_is_healed(faces, tmp_path) -> None:
    trial = new_trial(tmp_path, {"epochs": 1})
    list(run_trial(trial, faces))
    (trial.path / "result.json").unlink()
    (row,) = run_trial(trial, faces)
    result = trial.result()
    assert row["done"]
    assert result is not None
    assert result.status == "completed"


def tiny(bundle: DataBundle, rows: np.ndarray) -> DataBundle:
    return replace(bundle, train=few(bundle.train, rows), val=few(bundle.train, rows))


def test_it_overfits_eight_images(faces) -> None:
    bundle = tiny(cache.load(faces), np.arange(8))
    config = TrialConfig.from_flat({**QUICK, "epochs": 100, "ema": 0.5, "augment": "none",
                                    "batch_size": 8, "weight_decay": 0.0})  # fmt: skip
    training = Training(config, bundle)
    rows = [training.run_epoch() for _ in range(config.epochs)]
    assert rows[-1]["train_loss"] < 0.1 < rows[0]["train_loss"]
    assert rows[-1]["accuracy"] == 1.0


def test_shuffled_labels_score_at_chance(faces) -> None:
    bundle = cache.load(faces)
    train = few(bundle.train, np.arange(len(bundle.train)),
                np.random.default_rng(0).permutation(bundle.train.labels))  # fmt: skip
    training = Training(TrialConfig.from_flat(QUICK), replace(bundle, train=train))
    rows = [training.run_epoch() for _ in range(3)]
    assert rows[-1]["uar"] < 2.5 / len(bundle.class_names)


def test_a_loss_that_is_not_finite_fails_with_its_reason(faces, tmp_path) -> None:
    trial = new_trial(tmp_path, {"lr": 1e18, "clip": 1e30, "warmup_epochs": 0.0})
    with pytest.raises(FloatingPointError, match="loss is|not finite"):
        list(run_trial(trial, faces))
    assert trial.result() is None  # filed by the caller


def test_a_loss_that_is_not_finite_is_told_in_its_parts_without_waiting_for_the_epoch(
    faces, monkeypatch
) -> None:
    sums = {"train_loss": torch.tensor(float("inf")), "emotion_loss": torch.tensor(6.0),
            "au_loss": torch.tensor(float("inf"))}  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"is inf \(emotion_loss 2, au_loss inf\)"):
        loop.means_of(sums, 3, ALONE)
    monkeypatch.setattr(loop, "LOOK", 2)
    training = Training(TrialConfig.from_flat({**QUICK, "batch_size": 8}), cache.load(faces))
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the training loss is nan"):
        training.train_on(64)
    assert training.average.updates == 2


def test_two_corrections_are_refused(faces, tmp_path) -> None:
    trial = new_trial(tmp_path, {"loss": "balanced_softmax", "rebalance": "sampler"})
    with pytest.raises(ValueError, match="two corrections"):
        next(run_trial(trial, faces))


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.4, 0.9])
def test_a_curriculum_withholds_exactly_what_it_says(faces, progress) -> None:
    flat = {**QUICK, "curriculum": "linear", "curriculum.start": 0.3, "curriculum.full_at": 0.8}
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    order = training.plan.order(progress, np.random.default_rng(0))
    share = min(1.0, 0.3 + 0.7 * progress / 0.8)
    assert len(order) == round(share * len(training.bundle.train))
    assert set(order) == set(training.plan.easy_to_hard[: len(order)])
    counts = training.bundle.class_counts()
    withheld = np.setdiff1d(np.arange(len(training.bundle.train)), order)
    if len(withheld):  # majority classes come first
        labels = training.bundle.train.labels
        assert counts[labels[order]].min() >= counts[labels[withheld]].max()


def test_sampled_class_frequencies_follow_the_exponent(faces) -> None:
    flat = {**QUICK, "rebalance": "sampler", "rebalance.exponent": 0.5}
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    labels, counts = training.bundle.train.labels, training.bundle.class_counts()
    rng = np.random.default_rng(0)
    drawn = np.concatenate([training.plan.order(0.5, rng) for _ in range(200)])
    seen = np.bincount(labels[drawn], minlength=len(counts)) / len(drawn)
    wanted = counts**0.5 / (counts**0.5).sum()
    np.testing.assert_allclose(seen, wanted, atol=0.01)


def test_regions_are_supervised_only_when_asked(faces) -> None:
    bundle = cache.load(faces)
    for weight, expected in ((0.0, False), (0.3, True)):
        flat = {**QUICK, **AU_GUIDED, "mix": "none", "region_weight": weight}
        row = Training(TrialConfig.from_flat(flat), bundle).run_epoch()
        assert ("region_loss" in row) == expected


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))


def images(n: int) -> Batch:
    values = torch.linspace(0, 1, n)[:, None, None, None].expand(n, 3, 2, 2)
    return Batch(values, torch.ones(n, 1), torch.zeros(n, 0))


def test_short_memory_halves_the_batch_and_keeps_the_gradient(caplog) -> None:
    whole, cut = OneWeight(), OneWeight()
    steppers = [Stepper(torch.optim.SGD(m.parameters(), 0.1), 1e9, torch.device("cpu"))
                for m in (whole, cut)]  # fmt: skip

    def loss(model: OneWeight, limit: int):
        def of(batch: Batch, _: Batch) -> Losses:
            if len(batch.images) > limit:
                raise torch.OutOfMemoryError("too much")
            value = (model.weight * batch.images.mean((1, 2, 3))).square().mean()
            return Losses(value, parts={"part": value.detach()})

        return of

    values = [
        s.step(images(10), loss(m, n))
        for s, m, n in zip(steppers, (whole, cut), (10, 3), strict=True)
    ]
    assert steppers[1].parts == 4
    assert "cut into 4" in caplog.text
    torch.testing.assert_close(values[0], values[1])
    assert values[0]["part"] == pytest.approx(values[0]["train_loss"])
    torch.testing.assert_close(whole.weight, cut.weight)
    with pytest.raises(torch.OutOfMemoryError):
        steppers[1].step(images(4), loss(cut, 0))


def test_micro_batches_share_the_images() -> None:
    pieces = list(micro_batches(images(10), 4))
    assert sum(share for _, share in pieces) == pytest.approx(1.0)
    assert torch.equal(torch.cat([p.images for p, _ in pieces]), images(10).images)


def test_average_follows_the_formula() -> None:
    model = OneWeight()
    average = Average(model, decay=0.5)
    expected = 1.0
    for update in range(1, 30):
        with torch.no_grad():
            model.weight.fill_(float(update))
        average.update(model)
        decay = min(0.5, update / (10 + update))
        expected = decay * expected + (1 - decay) * update
    assert float(average.model.weight) == pytest.approx(expected, rel=1e-5)


def test_same_seed_same_rows_other_seed_other_rows(faces) -> None:
    bundle = cache.load(faces)
    one, two, other = (
        timeless(Training(TrialConfig.from_flat({**QUICK, "seed": s}), bundle).run_epoch())
        for s in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_mixing_batches_never_change_the_images_in_the_cache(faces) -> None:
    training = Training(TrialConfig.from_flat({**QUICK, **AU_GUIDED}), cache.load(faces))
    before = np.array(training.bundle.train.images)
    list(training.plan.feed.batches(np.arange(20), Generator().manual_seed(0)))
    np.testing.assert_array_equal(before, training.bundle.train.images)


def test_unlabelled_images_do_not_dilute_the_au_loss(faces) -> None:
    bundle = cache.load(faces)
    flat = {**QUICK, "au_loss": "bce", "au_weight": 1.0, "augment": "none"}
    training = Training(TrialConfig.from_flat(flat), bundle)
    training.model.eval()
    (batch,) = list(training.plan.feed.batches(np.arange(16), Generator()))[:1]
    labelled = batch.aus[(batch.aus >= 0).all(1)][:1].expand(16, -1)
    some = labelled.clone()
    some[4:] = -1
    images = batch.images[:1].expand(16, -1, -1, -1)
    objective = training.plan.objective(0.0)
    batches = [Batch(images, batch.targets[:16], aus) for aus in (labelled, some)]
    losses = [float(objective(training.model, b, b).parts["au_loss"]) for b in batches]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_fold_that_there_is_not_is_refused(faces) -> None:
    with pytest.raises(ValueError, match="not among 1 folds"):
        Training(TrialConfig.from_flat({**QUICK, "fold": 1}), cache.load(faces))


class Disk(io.RawIOBase):
    """A file on a disk that is full after so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.room -= len(memoryview(data).cast("B"))
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(memoryview(data).cast("B"))


@pytest.mark.parametrize("room", [0, 1 << 20, (16 << 20) - 1, (32 << 20) + 100])
def test_a_disk_that_is_full_is_told_as_such(room) -> None:
    """In the middle of a tensor torch tells of a broken archive in its place."""
    write = state.writing({"weights": [torch.zeros(1 << 22) for _ in range(2)]})
    with pytest.raises(OSError, match="No space left") as told:
        write(io.BufferedWriter(Disk(room)))
    assert told.value.errno == errno.ENOSPC


def test_a_trial_whose_state_finds_no_room_says_so(faces, tmp_path, monkeypatch) -> None:
    trial = new_trial(tmp_path, {})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFull):
        next(run_trial(trial, faces))
    assert list(trial.path.glob("*last.pt*")) == []
    assert trial.history() == []
