"""Steps that a GPU would replay: here a fake graph does the recorded work anew, and puts what comes
of it where a graph would."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search.inline import save_error
from trainables import device
from trainables.balance import Losses
from trainables.batch import Batch
from trainables.config import Flat, TrialConfig
from trainables.cuda_graphs import (
    SWITCH,
    NotRecorded,
    Record,
    Recorder,
    Watch,
    are_wanted,
    record_on_gpu,
)
from trainables.data import cache
from trainables.device import bring, constant, default_device
from trainables.optim import Stepper
from trainables.store import RunStore
from trainables.trial import Training, run_trial

CPU, META = torch.device("cpu"), torch.device("meta")
SMALL: Flat = {"backbone": "test_resnet", "image_size": 48, "batch_size": 8, "epochs": 3,
               "dropout": 0.2}  # fmt: skip
TAUGHT: Flat = {"au_loss": "bce", "au_weight": 0.3}
GUIDED: Flat = {**TAUGHT, "attention": "au_spatial", "attention_stage": "middle",
                "region_weight": 0.1, "local": "face", "loss": "balanced_softmax"}  # fmt: skip


class FakeGraph:
    """Recording changes nothing, and a replay writes where the results of recording were."""

    def __init__(self, training: Training) -> None:
        self.model, self.parameters = training.model, training.stepper.parameters
        self.recorded = self.replayed = 0

    def record(self, work: Callable[[], dict[str, Tensor]]):
        self.recorded += 1
        before, random = copy.deepcopy(self.model.state_dict()), torch.get_rng_state()
        numbers = work()
        self.model.load_state_dict(before)
        torch.set_rng_state(random)
        gradients = [p.grad for p in self.parameters]

        def replay() -> None:
            self.replayed += 1
            for name, value in work().items():
                numbers[name].copy_(value)
            for kept, parameter in zip(gradients, self.parameters, strict=True):
                kept.copy_(parameter.grad)
                parameter.grad = torch.full_like(kept, torch.nan)  # is not where it was

        return numbers, replay


def recorded(flat: Flat, faces, images: int = 60) -> tuple[Training, FakeGraph]:
    """A trial after two epochs of so many images, with graphs."""
    training = Training(TrialConfig.from_flat({**SMALL, **flat}), cache.load(faces))
    graph = FakeGraph(training)
    with_recorder(training, graph.record)
    return trained(training, images), graph


def trained(training: Training, images: int) -> Training:
    for _ in range(2):
        torch.manual_seed(training.epoch)
        training.train_on(images)
    return training


@pytest.mark.parametrize("flat", [{}, TAUGHT, GUIDED, {**TAUGHT, "mix": "cutmix"}])
def test_replayed_steps_are_the_steps(faces, flat) -> None:
    training, graph = recorded(flat, faces)
    assert graph.recorded == 2  # once an epoch, each with its own objective
    # Of eight batches the last is smaller, one or two are watched or taken task by task.
    assert graph.replayed == (12 if "au_loss" not in flat else 10)
    plain = Training(TrialConfig.from_flat({**SMALL, **flat}), cache.load(faces))
    for name, value in trained(plain, 60).model.state_dict().items():
        assert torch.equal(value, training.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "flat", [{"sam": 0.05}, *({**TAUGHT, "au_balance": name} for name in ("gradnorm", "pcgrad"))]
)
def test_a_step_in_which_numbers_are_read_is_not_recorded(faces, flat) -> None:
    _, graph = recorded(flat, faces)
    assert graph.recorded == 0


def with_recorder(training: Training, record: Record) -> Recorder:
    recorder = training.stepper.recorder = Recorder(training.stepper.parameters, record)
    recorder.pays = True
    return recorder


def test_what_memory_is_too_short_for_trains_as_without(faces, caplog) -> None:
    training = Training(TrialConfig.from_flat(SMALL), cache.load(faces))
    tried = list[int]()

    def refuse(_: object) -> Any:
        tried.append(1)
        raise torch.OutOfMemoryError("no room for a pool")

    with_recorder(training, refuse)
    trained(training, 60)
    assert len(tried) == 1
    assert "not recorded as a CUDA graph: no room for a pool" in caplog.text
    plain = trained(Training(TrialConfig.from_flat(SMALL), cache.load(faces)), 60)
    for one, other in zip(training.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_recording_that_breaks_off_ends_the_process(monkeypatch) -> None:
    """The generator of the GPU would still think that it is recorded."""

    class Broken:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None:
            raise RuntimeError("operation failed\nlong explanation")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: Broken())
    with pytest.raises(NotRecorded, match=r"CUDA error while .* \(operation failed\); .*GRAPHS=0"):
        record_on_gpu(dict)


def test_the_next_attempt_at_a_trial_that_failed_records_nothing(faces, tmp_path, monkeypatch):
    asked = list[bool]()

    def note(*_: object) -> bool:
        asked.append(True)
        return False

    monkeypatch.setattr("trainables.cuda_graphs.are_wanted", note)
    store = RunStore.create(tmp_path / "run", {})
    name = store.create_trial(TrialConfig.from_flat({**SMALL, "epochs": 1}), 0)
    list(run_trial(store.trial(name, store.hand_out(name)), faces))
    assert asked == [True]
    name = store.create_trial(TrialConfig.from_flat({**SMALL, "epochs": 1, "dropout": 0.3}), 1)
    again = store.trial(name, store.hand_out(name))
    save_error(again, NotRecorded("x"))
    list(run_trial(again, faces))
    assert asked == [True]


def test_a_device_that_is_busy_gains_nothing(faces, monkeypatch) -> None:
    """A CPU has done its work when the call is back, as a GPU that waits for launches."""
    training = Training(TrialConfig.from_flat(SMALL), cache.load(faces))
    graph = FakeGraph(training)
    recorder = with_recorder(training, graph.record)
    recorder.pays = None
    training.train_on(60)
    assert recorder.pays
    assert graph.recorded == 1
    recorder.pays = None
    monkeypatch.setattr("trainables.cuda_graphs.LAUNCHING", 2.0)
    training.train_on(60)
    assert recorder.pays is False
    assert graph.recorded == 1


def test_the_memory_of_a_graph_is_free_after_its_epoch(faces) -> None:
    training, graph = recorded({}, faces)
    recorder = training.stepper.recorder
    assert recorder is not None
    assert recorder._tape is None
    left = weakref.ref(recorder)
    gc.disable()
    try:
        del training, graph, recorder
        assert left() is None  # nothing goes in a circle
    finally:
        gc.enable()


def test_short_memory_first_ends_recording(caplog) -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    stepper = Stepper(torch.optim.SGD([weight], 0.1), 1.0, CPU)
    stepper.recorder = Recorder([weight])
    batch = Batch(torch.ones(4, 3, 1, 1), torch.ones(4, 1), torch.zeros(4, 0))
    calls = list[int]()

    def loss(piece: Batch, _: Batch) -> Losses:
        calls.append(len(piece.images))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("too much")
        return Losses((weight * piece.images).mean())

    stepper.step(batch, loss, by_task=True)  # which is never recorded
    assert calls == [4, 4]
    assert (stepper.recorder, stepper.parts) == (None, 1)
    assert "no longer recorded" in caplog.text


def test_graphs_are_of_trials_of_one_process_on_a_gpu(monkeypatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.delenv(SWITCH, raising=False)
    assert are_wanted(gpu, 1)
    assert not are_wanted(gpu, 2)
    assert not are_wanted(CPU, 1)
    monkeypatch.setenv(SWITCH, "0")
    assert not are_wanted(gpu, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU records, and there is none")
@pytest.mark.parametrize("flat", [{}, {**TAUGHT, "loss": "balanced_softmax"}])
def test_a_gpu_trains_the_same_with_graphs(faces, flat) -> None:
    found = []
    for records in (False, True):
        config = TrialConfig.from_flat({**SMALL, **flat})
        training = Training(config, cache.load(faces), may_record=records)
        trained(training, 60)
        if records:
            recorder = training.stepper.recorder
            assert recorder is not None
            assert recorder.plays > 0 or recorder.pays is False
        found.append(training.model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-5, atol=1e-6, msg=name)


# --- what is watched for -------------------------------------------------------------------------


OF_CLASSES = ("cross_entropy", "class_balanced", "ldam", "focal", "balanced_softmax")


@pytest.mark.parametrize("loss", OF_CLASSES)
def test_nothing_crosses_from_the_second_step_on(faces, elsewhere, loss) -> None:
    """In the first, constants are sent."""
    flat: Flat = {**SMALL, **GUIDED, "loss": loss}
    training = Training(TrialConfig.from_flat(flat), cache.load(faces))
    (batch,) = training.plan.feed.batches(np.arange(8), torch.Generator())
    objective = training.plan.objective(0.0)
    noticed = []
    for _ in range(2):
        with Watch() as watch:
            training.stepper._differentiate(
                batch, lambda piece, whole: objective(training.model, piece, whole), False
            )
        noticed.append(watch.noticed)
    assert noticed[0]  # of the boxes' sizes, if of nothing else
    assert noticed[1] == []


@pytest.mark.parametrize(
    "act",
    [
        lambda x: bring(torch.ones(3), META),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x[torch.arange(2)],
        lambda x: constant([1.0, 2.0, 3.0], x),
    ],
)
def test_what_crosses_is_noticed(act) -> None:
    device._constant.cache_clear()
    with Watch() as watch:
        act(torch.ones(3, device=META))
    assert watch.noticed


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x[x > 0],
        lambda x: float(x.sum()),
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: bool((x > 0).all()),
    ],
)
def test_what_is_waited_for_is_noticed(act) -> None:
    with Watch() as watch:
        act(torch.arange(3.0, device=default_device()))
    assert watch.noticed


def test_what_stays_is_not_noticed() -> None:
    with Watch() as watch:
        x = torch.arange(6.0, device=META).view(2, 3)
        (x @ x.T * torch.tensor(2.0)).softmax(1).sum(0)[torch.zeros(2, dtype=int, device=META)]
    assert watch.noticed == []


def test_a_constant_of_inference_serves_training() -> None:
    """On another device it is made once, maybe while a model is only looked at."""
    device._constant.cache_clear()
    like = torch.ones(2, device=META)
    with torch.inference_mode():
        first = constant([1.0, 2.0], like)
    assert not first.is_inference()
    assert constant([1.0, 2.0], like) is first
    assert constant([1.0, 3.0], like) is not first
