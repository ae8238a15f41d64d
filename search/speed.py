"""How fast configurations train here: a few measured steps each, remembered for the next time."""

import json
import math
import os
import platform
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from search.check import PROBLEMS
from search.forecast import Pace
from spaces.space import Space, Value
from trainables.config import TrialConfig, pacing_horizon
from trainables.data.bundle import DataBundle
from trainables.store import replace_file
from trainables.views import SCALED

STEPS = 4  # measured at the least, after one to warm up
PLAYED = 16  # at a time, where a graph is recorded from an early one and then played
LEAST_SECONDS = 1.0  # measured at the least, unless an epoch is shorter
FORWARD_SHARE = 1 / 3  # what a forward pass costs of a step
MOST = 8  # configurations
TRIES = 200  # draws that may bring no new backbone
ERROR = 0.25  # of log(epoch / measured steps): augmentation, curricula, validation, storing
START_SECONDS = 6.0  # until a Ray worker has imported torch
STATE_COPIES = 4  # weights, their average, and Adam's two moments
FILE = "speeds.json"


@dataclass(frozen=True)
class Speed:
    """What one configuration costs on one worker."""

    backbone: str
    epoch_seconds: float
    setup_seconds: float
    parameters: int
    horizon: int  # the epoch before which it is not judged
    busy: float = 1.0  # times longer than the processor's own time: others were using it too


def sample(
    what: Space | Sequence[Mapping[str, Value]],
    data: Path,
    threads: int | None,
    seconds: float,
    is_new: bool = True,
) -> list[Speed]:
    """Speeds of the default and of random configurations with other backbones, or of those given.

    The first is measured in any case. Those of the others that are known from earlier are scaled
    as it has changed since; new ones are measured while there are seconds left, if `is_new`.
    """
    from trainables.data import cache

    file, bundle = data.parent / FILE, cache.load(data)
    known, found = _remembered(file), list[Speed]()
    ends, dearest = time.monotonic() + seconds, 0.0
    for flat in configurations(what) if isinstance(what, Space) else what[:MOST]:
        key, began = _key(flat, bundle, threads), time.monotonic()
        if not found or (key not in known and is_new and began + dearest < ends):
            with suppress(*PROBLEMS):  # a corner of the space that does not train here
                on_features = flat.get("features", "none") != "none"
                new = (
                    measure_fit(flat, data, threads)
                    if on_features
                    else measure(flat, bundle, threads)
                )
                if not found and key in known:
                    change = new.epoch_seconds / known[key].epoch_seconds
                    known = _scaled(known, change, _machine(threads))
                known[key] = new
                dearest = max(dearest, time.monotonic() - began)
        if key in known:
            found.append(known[key])
    _remember(file, known)
    return found


def configurations(space: Space) -> list[dict[str, Value]]:
    """The default, then random draws, each with a backbone that is not among those before it."""
    rng = random.Random(0)
    found = [space.defaults()]
    for _ in range(TRIES):
        flat = space.sample(rng)
        names = {_looks(other) for other in found}
        if len(found) < MOST and _looks(flat) not in names:
            found.append(flat)
    return found


def _looks(flat: Mapping[str, Value]) -> tuple[Value | None, ...]:
    """What looks at the images in a configuration."""
    return flat.get("features"), flat.get("backbone")


def measure(flat: Mapping[str, Value], bundle: DataBundle, threads: int | None) -> Speed:
    """What the configuration costs, from a few steps of it."""
    from trainables import cost
    from trainables.averages import norms_of
    from trainables.trial import Training

    with _threads(threads):
        began = time.perf_counter()
        training = Training(TrialConfig.from_flat(flat), bundle)
        images, batch = len(training.bundle.train), training.config.batch_size
        setup = time.perf_counter() - began
        some = min(images, batch * (1 if training.stepper.recorder is None else PLAYED))
        training.train_on(some)  # warm up: allocators, kernels
        step, busy = _timed(lambda: training.train_on(some), batch, images)
    looked_at = len(training.bundle.val)  # and, in the tail of SWA, all images for its batch norms
    if norms_of(training.average.model):
        looked_at += round((1 - training.average.tail.start) * images)
    return Speed(
        training.config.backbone.name,
        step * (images + looked_at * FORWARD_SHARE),
        setup,
        cost.parameters(training.model),
        pacing_horizon(training.config),
        busy if training.device.type == "cpu" else 1.0,
    )


def measure_fit(flat: Mapping[str, Value], data: Path, threads: int | None) -> Speed:
    """What a configuration on features costs, from doing it; its features are then in the cache."""
    from trainables.features.trial import run

    config = TrialConfig.from_flat(flat)
    with _threads(threads):
        run(config, data)  # the features, and what is imported
        began, worked = time.perf_counter(), time.process_time()
        _, outcome = run(config, data)
        seconds, own = time.perf_counter() - began, time.process_time() - worked
    return Speed(
        config.features.name,
        seconds / config.epochs,  # its one row stands for all of them
        0.0,
        sum(v.size for v in outcome.tensors.values()),
        pacing_horizon(config),
        max(1.0, seconds / max(own, 1e-9)),
    )


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """So many threads of torch within the block; its own number for None."""
    import torch

    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(train: Callable[[], int], batch: int, images: int) -> tuple[float, float]:
    """Seconds an image, and how many times as long as one processor alone would have worked."""
    import torch

    began, worked, trained = time.perf_counter(), time.process_time(), 0
    least = began + LEAST_SECONDS
    while trained < images and (trained < STEPS * batch or time.perf_counter() < least):
        trained += train()
    took = time.perf_counter() - began
    own = (time.process_time() - worked) / torch.get_num_threads()
    return took / trained, max(1.0, took / max(own, 1e-9))


def pace(speeds: Iterable[Speed], start_seconds: float = 0.0) -> Pace:
    """The speeds as the sample that a forecast is made from."""
    found = list(speeds)
    others = math.log(max(speed.busy for speed in found)) / 4  # they may leave, or more may come
    return Pace(
        tuple(speed.epoch_seconds for speed in found),
        tuple(speed.horizon for speed in found),
        sum(speed.setup_seconds for speed in found) / len(found),
        start_seconds,
        math.hypot(ERROR, 0.3 / math.sqrt(len(found)), others),
    )


def disk_bytes(speeds: Iterable[Speed], bundle: DataBundle, trials: int, completed: float) -> int:
    """What the run folder will hold at its end: predictions of all, weights of the completed."""
    found = list(speeds)
    weights = 4 * sum(speed.parameters for speed in found) / len(found)
    return round(trials * predictions_bytes(bundle) + completed * (weights + views_bytes(bundle)))


def state_bytes(speeds: Iterable[Speed], at_once: int) -> int:
    """What the states of unfinished trials take on top while the search runs: of each the last, the
    one before and the one that is being written."""
    largest = max(speed.parameters for speed in speeds)
    return 3 * STATE_COPIES * 4 * largest * at_once


def predictions_bytes(bundle: DataBundle) -> int:
    """Of one trial: 16-bit probabilities, labels, action units and ids of both splits."""
    classes, units = len(bundle.class_names), len(bundle.au_names)
    width = max(map(len, (*bundle.val.ids, *bundle.test.ids)), default=0)
    images = len(bundle.val) + len(bundle.test)
    return images * (2 * classes + 3 * units + 8 + 4 * width)


def views_bytes(bundle: DataBundle) -> int:
    """At most, of one completed trial: 16-bit logits of all views, and ids, of both splits."""
    width = max(map(len, (*bundle.val.ids, *bundle.test.ids)), default=0)
    of_image = 2 * len(bundle.class_names) * (2 + len(SCALED)) + 4 * width
    return (len(bundle.val) + len(bundle.test)) * of_image


def _key(flat: Mapping[str, Value], bundle: DataBundle, threads: int | None) -> str:
    return f"{_machine(threads)}{bundle.fingerprint}, {TrialConfig.from_flat(flat).group_id}"


def _machine(threads: int | None) -> str:
    """With what a key begins."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPUs"
    return f"{platform.node()}, {gpu}, {threads} threads, "


def _scaled(known: Mapping[str, Speed], change: float, machine: str) -> dict[str, Speed]:
    """The speeds as they are now that one of this machine has changed so much."""
    return {
        key: replace(speed, epoch_seconds=speed.epoch_seconds * change)
        if key.startswith(machine)
        else speed
        for key, speed in known.items()
    }


def _remembered(file: Path) -> dict[str, Speed]:
    try:
        return {key: Speed(**values) for key, values in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(file: Path, known: Mapping[str, Speed]) -> None:
    """A cache that cannot be written is done without."""
    with suppress(OSError):
        text = json.dumps({key: asdict(speed) for key, speed in known.items()}, indent=1)
        replace_file(file, text.encode())
