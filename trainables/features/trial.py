"""One trial on features: fit a classifier on what an extractor has seen of the training images.

V views, N images, D features, K classes. A trial has one row, that of its last epoch: it is done at
once, so nothing of it is worth stopping early.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from trainables import metrics
from trainables.au_task import mean_f1, supported
from trainables.config import TrialConfig
from trainables.contradictions import check_config
from trainables.cost import median_ms
from trainables.data import entry
from trainables.data.bundle import DataBundle, Split
from trainables.data.folds import fold_of, rows_of
from trainables.features.aus import fit_aus
from trainables.features.cache import Features, Progress, features_of
from trainables.features.examples import Examples, Floats, Lesson, joined
from trainables.features.judges import Sample, verdict
from trainables.features.plugins import CLASSIFIERS, EXTRACTORS, SYNTHESES
from trainables.ranks import here
from trainables.store import Predictions, Row, TrialResult, TrialStore, finite
from trainables.targets import training_targets

Say = Callable[[Floats], Floats]  # features (M, D) -> chances (M, K) or (M, A)
REPEATS = 9  # of one image, to see what the classifier costs


def run_features_trial(store: TrialStore, data: Path) -> Iterator[Row]:
    """Fit the stored configuration on the features of a prepared data set; its one row.

    A trial that has a row yields it again. Ranks that have joined agree on what the first one did.
    Raises FloatingPointError for predictions that are not finite, ValueError for a contradictory
    configuration or for data that the classifier cannot serve; the caller files the failure.
    """
    ranks = here()
    row = ranks.together(lambda: _row(store, data) if ranks.is_first else {})
    yield ranks.tell(row)[0]


def _row(store: TrialStore, data: Path) -> Row:
    """Do what is left to do of the trial, and close it."""
    history = store.history()
    if history:
        row = history[-1]
    else:
        row, trial = run(store.config(), data)
        store.save_predictions("val", trial.val)
        store.save_predictions("test", trial.test)
        store.write("weights.safetensors", safetensors_bytes(dict(trial.tensors)))
        store.append(row)  # last: it makes the trial exist
    store.finish(TrialResult("completed", row, row["epoch"], row["seconds"], row["peak_gib"]))
    return row


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves besides its row."""

    val: Predictions
    test: Predictions
    tensors: dict[str, Floats]  # what was learned


def run(config: TrialConfig, data: Path) -> tuple[Row, Outcome]:
    """Fit and score the configuration."""
    check_config(config)
    began, whole = time.monotonic(), entry.load(data)
    bundle = fold_of(whole, config)
    features = of_fold(features_for(config, data, whole), whole, config)
    scale = Scale.of(features.train)
    views, rng = scale(features.train), np.random.default_rng([config.seed, 2])
    lesson = make_lesson(config, bundle, views, scale, rng)
    fitted = CLASSIFIERS[config.classifier.name](**config.classifier.args)(lesson, rng)
    au_probs, au_tensors = fit_aus(config, bundle, views, rng)
    val, test = (  # by the plain view, as every trial is scored
        _predictions(split, scale(seen[0]), fitted.probs, au_probs)
        for split, seen in ((bundle.val, features.val), (bundle.test, features.test))
    )
    one = scale(features.val[0, :1])
    tensors = {**scale.tensors(), **fitted.tensors, **au_tensors}
    row: Row = {
        "epoch": config.epochs,
        **metrics.scores(val.labels, val.probs, config.metric),
        "au_f1": mean_f1(val),
        **({"au_supported": int(supported(val).sum())} if au_tensors else {}),
        "images": len(bundle.train),
        "synthetic": len(lesson.seen) - views.shape[0] * views.shape[1],
        **judged(lesson, views, (scale(features.val[0]), bundle.val.labels), config.seed),
        "features": views.shape[2],
        "parameters": features.parameters + sum(v.size for v in tensors.values()),
        "latency_ms": features.latency_ms + median_ms(lambda: fitted.probs(one), REPEATS),
        "seconds": time.monotonic() - began,
        "peak_gib": 0.0,  # of a GPU: none is used but by the extractor, once for all trials
        "done": True,
    }
    if not finite(row):
        raise FloatingPointError(f"a score is not finite: {row}")
    return row, Outcome(val, test, tensors)


def _predictions(split: Split, features: Floats, emotion: Say, au: Say) -> Predictions:
    probs = emotion(features)
    if not np.isfinite(probs).all():
        raise FloatingPointError("predictions are not finite")
    return Predictions(split.ids, split.labels, probs, split.aus, au(features))


def features_for(
    config: TrialConfig, data: Path, bundle: DataBundle, progress: Progress | None = None
) -> Features:
    """The features of the configuration, from the cache or into it."""
    extractor = EXTRACTORS[config.features.name](config, bundle, **config.features.args)
    return features_of(config, data, bundle, extractor, progress)


def of_fold(features: Features, bundle: DataBundle, config: TrialConfig) -> Features:
    """The features, computed once for all folds, as the trial's fold divides the images."""
    if config.folds == 1:
        return features
    both = np.concatenate([features.train, features.val], 1)
    train, val = rows_of(bundle, config)
    return replace(features, train=both[:, train], val=both[:, val])


@dataclass(frozen=True)
class Scale:
    """Brings each feature to mean 0 and deviation 1 over the training images and their mirrors."""

    mean: Floats  # (D,)
    factor: Floats  # (D,)

    @classmethod
    def of(cls, train: Floats) -> "Scale":
        """A feature that never changes becomes 0."""
        mean, deviation = train.mean((0, 1), np.float64), train.std((0, 1), np.float64)
        varies = deviation > 1e-6 * np.abs(mean)
        factor = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
        return cls(mean.astype(np.float32), factor.astype(np.float32))

    def __call__(self, features: Floats) -> Floats:
        scaled: Floats = (features - self.mean) * self.factor
        return scaled

    @property
    def center(self) -> Floats:
        """(D,) what was subtracted, in units of the result."""
        return self.mean * self.factor

    def tensors(self) -> dict[str, Floats]:
        return {"features.mean": self.mean, "features.factor": self.factor}


def make_lesson(
    config: TrialConfig, bundle: DataBundle, views: Floats, scale: Scale, rng: np.random.Generator
) -> Lesson:
    """All views of the training images, and what is made from the plain one."""
    targets = training_targets(bundle, config.soft_labels).numpy()
    basics = len(bundle.basic_names)
    plain = Examples(views[0], targets, bundle.train.labels, bundle.components, basics)
    made = SYNTHESES[config.synthesis.name](**config.synthesis.args)(plain, rng)
    if not np.isfinite(made.features).all():
        raise FloatingPointError(f"synthesis '{config.synthesis.name}' is not finite")
    seen = joined([*(replace(plain, features=view) for view in views), made])
    return Lesson(seen, plain.counts() + made.counts(), plain.counts(), scale.center, config)


def judged(lesson: Lesson, views: Floats, held_out: Sample, seed: int) -> dict[str, float]:
    """What the judges say of the synthetic rows, if there are any."""
    at = views.shape[0] * views.shape[1]  # they are the last
    made = lesson.seen.features[at:], lesson.seen.labels[at:]
    return verdict(views[0], made, held_out, seed) if len(made[1]) else {}
