"""A run as a search leaves it, with made-up predictions, written through the real store.

K classes, A action units. Images differ in difficulty, trials in skill and in how they treat rare
classes, so that scores, disagreement and rare classes look as they do in earnest.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables import metrics
from trainables.config import Part, TrialConfig
from trainables.store import Predictions, RunStore, Status, TrialResult, TrialStore

RAF_CE = {
    "Happily surprised": 394, "Happily disgusted": 171, "Sadly fearful": 109, "Sadly angry": 136,
    "Sadly surprised": 71, "Sadly disgusted": 495, "Fearfully angry": 120,
    "Fearfully surprised": 352, "Fearfully disgusted": 24, "Angrily surprised": 124,
    "Angrily disgusted": 582, "Disgustedly surprised": 108, "Happily fearful": 6, "Happily sad": 17,
}  # fmt: skip
UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 20, 23, 25, 26, 27))
RUNGS = (3, 9)
EPOCHS = 27


@dataclass(frozen=True)
class FakeData:
    """The validation images of a fake run."""

    class_names: tuple[str, ...] = tuple(RAF_CE)
    train_counts: tuple[int, ...] = tuple(RAF_CE.values())
    au_names: tuple[str, ...] = UNITS
    val_share: float = 0.34  # of the training counts
    meta: dict[str, Any] = field(default_factory=dict)

    def labels(self) -> NDArray[np.int64]:
        counts = [max(2, round(self.val_share * count)) for count in self.train_counts]
        return np.repeat(np.arange(len(counts)), counts)


def predictions(
    data: FakeData, skill: float, fairness: float, rng: np.random.Generator, split: str = "val"
) -> Predictions:
    """Predictions of a model: logits of the truth, of the image's difficulty and of the prior."""
    labels, classes = data.labels(), len(data.class_names)
    world = np.random.default_rng(7 if split == "val" else 8)  # the same for all trials
    hard = world.normal(0, 1.2, len(labels))
    confusing = world.normal(0, 1.0, (len(labels), classes))
    prior = np.log(np.array(data.train_counts) / sum(data.train_counts))
    logits = (1 - fairness) * prior + confusing + rng.normal(0, 0.8, confusing.shape)
    logits[np.arange(len(labels)), labels] += skill + hard
    probs = np.exp(logits - logits.max(1, keepdims=True))
    units = len(data.au_names)
    aus = (world.random((len(labels), units)) < world.uniform(0.03, 0.5, units)).astype(np.int8)
    aus[world.random(len(labels)) < 0.08] = -1
    noise = world.normal(0, 1.2, aus.shape) + rng.normal(0, 0.6, aus.shape)
    au_probs = 1 / (1 + np.exp(-(2.2 * skill / 2.5 * (aus == 1) - 1.2 + noise)))
    shown = labels if split == "val" else np.full_like(labels, -1)
    return Predictions(
        tuple(f"{split}_{number:04}.jpg" for number in range(len(labels))),
        shown,
        (probs / probs.sum(1, keepdims=True)).astype(np.float32),
        aus if split == "val" else np.full_like(aus, -1),
        au_probs.astype(np.float32),
    )


def config(number: int, rng: np.random.Generator) -> TrialConfig:
    """The baseline, the default, or a draw from a small space."""
    base = TrialConfig(backbone=Part("resnet"), epochs=EPOCHS, seed=number)
    if number == 0:
        return base
    plain = replace(base, au_loss=Part("bce", {"clip": 5.0}), au_weight=0.3)
    if number == 1:
        return plain
    loss = [
        Part("cross_entropy", {"smoothing": float(rng.choice([0.0, 0.1]))}),
        Part("focal", {"gamma": round(float(rng.uniform(0.5, 3)), 3)}),
        Part("balanced_softmax", {"tau": round(float(rng.uniform(0, 2)), 3)}),
    ][rng.integers(3)]
    backbone = str(rng.choice(["resnet", "efficientnet", "convnext", "mobilenet"]))
    lr = float(np.exp(rng.uniform(np.log(5e-4), np.log(1e-2))))
    attention = Part(str(rng.choice(["none", "se", "cbam", "au_spatial"])))
    return replace(plain, backbone=Part(backbone), loss=loss, lr=lr, attention=attention)


def skill_of(settings: TrialConfig) -> tuple[float, float]:
    """The skill and the fairness that the settings give: a known truth for the importances."""
    skill = 2.3 - 0.25 * abs(np.log(settings.lr / 2e-3))
    skill += {"resnet": 0.0, "efficientnet": 0.35, "convnext": 0.5}.get(settings.backbone.name, 0.1)
    skill += 0.15 if settings.attention.name == "au_spatial" else 0.0
    return float(skill), 0.9 if settings.loss.name == "balanced_softmax" else 0.3


def add_trial(
    run: RunStore, number: int, data: FakeData, rng: np.random.Generator, epochs: int = EPOCHS
) -> TrialStore:
    """A trial that has run for some epochs and has no result yet."""
    settings = config(number, rng)
    role = {0: "baseline", 1: "default"}.get(number, "proposed")
    trial = run.trial(run.create_trial(settings, number, role))
    skill, fairness = skill_of(settings)
    final = predictions(data, skill * min(1, 0.6 + 0.4 * epochs / EPOCHS), fairness, rng)
    if settings.au_loss.name == "none":
        final = replace(final, au_probs=np.zeros((len(final.ids), 0), np.float32))
    trial.save_predictions("val", final)
    stored = trial.predictions("val")
    assert stored is not None
    last = metrics.scores(stored.labels, stored.probs)
    known = [epoch for epoch in RUNGS if epoch < epochs]
    own = np.random.default_rng(number)
    early = [predictions(data, skill * (0.6 + 0.4 * e / EPOCHS), fairness, own) for e in known]
    scores = [*(metrics.scores(p.labels, p.probs) for p in early), last]
    for epoch in range(1, epochs + 1):
        row = {
            name: float(np.interp(epoch, [0, *known, epochs], [0, *(s[name] for s in scores)]))
            for name in last
            if name not in ("nll", "ece")
        }
        trial.append(
            {"epoch": epoch, **row, "nll": last["nll"], "ece": last["ece"], "au_f1": None,
             "train_loss": 2.6 * float(np.exp(-epoch / 12)), "lr": settings.lr, "seconds": 4.0}
        )  # fmt: skip
    return trial


def make_meta(data: FakeData, trials: int, cache: str = "") -> dict[str, Any]:
    counts = np.bincount(data.labels(), minlength=len(data.class_names)).tolist()
    return {
        "name": "fake",
        "space": {"name": "sprint2", "digest": "0badc0ffee", "settings": {"lr": "5e-4 to 1e-2"}},
        "data": {
            "source": "faces:4000", "name": "faces:4000:medium", "fingerprint": "f00d" * 8,
            "cache": cache, "image_size": 64, "class_names": list(data.class_names),
            "au_names": list(data.au_names), "is_synthetic": True, "notes": ["Rendered faces."],
            "ceiling": {"accuracy": 0.81, "uar": 0.74, "macro_f1": 0.75},
            "train_counts": list(data.train_counts), "val_counts": counts,
            "sizes": {"train": sum(data.train_counts), "val": sum(counts), "test": sum(counts)},
            **data.meta,
        },
        "tier": {"name": "laptop"}, "seed": 3, "sampler": "tpe", "trials": trials,
        "rungs": list(RUNGS), "epochs": EPOCHS,
        "command": ["python", "-m", "search.run", "--space", "sprint2", "--data", "faces:4000"],
        "started": "2025-11-22T09:00:00+00:00", "finished": "2025-11-22T09:31:07+00:00",
        "versions": {"python": "3.11.7", "torch": "2.9.1", "numpy": "2.3.5"},
        "commit": "6aa8c7a", "host": {"name": "node1", "cpus": 2, "gpus": 0},
    }  # fmt: skip


def make_run(
    root: Path, trials: int = 20, data: FakeData | None = None, has_test: bool = False
) -> RunStore:
    """A finished run: a third of the trials stopped at a rung, every ninth failed."""
    data = data or FakeData()
    run = RunStore.create(root, make_meta(data, trials))
    rng = np.random.default_rng(0)
    for number in range(trials):
        stops = RUNGS[number % 2] if number > 1 and number % 3 == 0 else EPOCHS
        trial = add_trial(run, number, data, rng, stops)
        last = trial.history()[-1]
        if number % 9 == 8:
            error = "Traceback (most recent call last):\nRuntimeError: loss is nan at epoch 5"
            trial.finish(TrialResult("failed", last, 5, 20.0, 0.4, error))
            continue
        if has_test:
            skill, fairness = skill_of(trial.config())
            trial.save_predictions("test", predictions(data, skill, fairness, rng, "test"))
        status: Status = "completed" if stops == EPOCHS else "stopped"
        trial.finish(TrialResult(status, last, stops, 4.0 * stops + number, 0.5))
    return run


def other_run(root: Path, seed: int = 5, trials: int = 4) -> RunStore:
    """A run on the images of `small()` whose trials are others, and tell their latency."""
    data = small()
    run = RunStore.create(root, make_meta(data, trials))
    rng = np.random.default_rng(seed)
    for number in range(2, 2 + trials):
        trial = add_trial(run, number, data, rng)
        row = trial.history()[-1]
        trial.finish(TrialResult("completed", {**row, "latency_ms": 1.0 + number}, 27, 9.0, 0.1))
    return run


def small(
    names: tuple[str, ...] = ("happy", "sad", "calm"), units: tuple[str, ...] = ("AU1",)
) -> FakeData:
    """Few images, for quick tests."""
    counts = tuple(60 - 20 * k for k in range(len(names)))
    return FakeData(names, counts, units, val_share=0.8)


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
