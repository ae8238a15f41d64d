"""What synthetic images are worth, judged by real validation images. N images, K classes, D looks.

None of it chooses anything: a judgement is read, not optimised. That a classifier of simple
features gains is the least that a claim needs; whether networks do is what trials tell
(`synthetic: generated` against `repeated`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from trainables import metrics
from trainables.data.bundle import DataBundle, Split
from trainables.features import judges
from trainables.generation.agreement import can_be_learned, classifier
from trainables.generation.looks import Floats, Looks, fit_looks
from trainables.generation.synthetic_set import SyntheticSet
from trainables.pretraining.exclusion import Fingerprints, alike, fingerprints
from trainables.synthetic import additional, draw_rows

Ints = NDArray[np.int64]
Judgement = dict[str, Any]
MIRRORED = 1024  # images at a time
SEEDS = 5  # draws of the images that are added
SCORES = ("accuracy", "macro_f1", "macro_f1_all", "uar")


@dataclass(frozen=True)
class Seen:
    """What the judges look at: features, labels and AUs of the three kinds of images."""

    train: Floats
    val: Floats
    fake: Floats
    of_train: Split
    of_val: Split
    made: SyntheticSet


def judge(
    bundle: DataBundle, made: SyntheticSet, progress: Callable[[str], None] = lambda stage: None
) -> Judgement:
    """Everything that is said of a set, as JSON. NaN is None."""
    progress("looks")
    train, looks = fit_looks(bundle.train.images)
    val, fake = looks(bundle.val.images), looks(made.images)
    seen = Seen(train, val, fake, bundle.train, bundle.val, made)
    stages: dict[str, Callable[[], Judgement]] = {
        "likeness": lambda: likeness(seen),
        "memorisation": lambda: memorised(seen, mirrored_looks(bundle.train.images, looks)),
        "probe": lambda: probes(seen, bundle.class_names),
        "action_units": lambda: au_agreement(seen, bundle.au_names),
        "classification": lambda: classification(seen, bundle),
    }
    found: Judgement = {}
    for stage, say in stages.items():
        progress(stage)
        found[stage] = plain(say())
    return found


def likeness(seen: Seen) -> Judgement:
    """KID and coverage against validation images; beside it those of training images, which are
    what a perfect generator would reach."""
    density, coverage = judges.density_coverage(seen.val, seen.fake)
    usual = judges.density_coverage(seen.val, seen.train)
    return {
        "kid": judges.kid(seen.val, seen.fake),
        "kid_of_training_images": judges.kid(seen.val, seen.train),
        "density": density,
        "coverage": coverage,
        "density_of_training_images": usual[0],
        "coverage_of_training_images": usual[1],
    }


def mirrored_looks(images: NDArray[np.uint8], looks: Looks) -> Floats:
    """Those of the mirror images, made a few at a time: all may not fit into memory."""
    starts = range(0, len(images), MIRRORED)
    return np.concatenate([looks(images[k : k + MIRRORED][..., ::-1]) for k in starts])


def memorised(seen: Seen, mirrored: Floats) -> Judgement:
    """Whether images repeat training images, mirrored or not, more than unseen real ones do."""
    found = judges.memorisation(seen.train, seen.fake, seen.val, mirrored)
    known = fingerprints(seen.of_train.images)
    return {
        "distance_ratio": found.ratio,  # to that of validation images: 1 if like new, 0 if copies
        "copied_share": found.copied,  # 0.05 if like new
        "alike_share": alike_share(known, seen.made.images),
        "alike_share_of_validation": alike_share(known, seen.of_val.images),
    }


def alike_share(train: Fingerprints, images: NDArray[np.uint8]) -> float:
    """Share of the images that perceptual hashes take for a training image, mirrored or not."""
    return float(alike(fingerprints(images), train).mean())


def probes(seen: Seen, class_names: tuple[str, ...]) -> Judgement:
    """How well a probe tells synthetic from validation images: AUC, .5 is not at all."""
    by_class = judges.probe_by_class(seen.val, seen.of_val.labels, seen.fake, seen.made.labels)
    return {
        "auc": judges.probe_auc(seen.val, seen.fake),
        "auc_of_training_images": judges.probe_auc(seen.val, seen.train),
        "by_class": {class_names[k]: auc for k, auc in by_class.items()},
    }


def au_agreement(seen: Seen, au_names: tuple[str, ...]) -> Judgement:
    """Mean AUC of AU classifiers of real training images: on validation images, and of synthetic
    ones on the AUs these were asked to show. An AU needs ten images of both kinds everywhere."""
    real: dict[str, float] = {}
    fake: dict[str, float] = {}
    for k, name in enumerate(au_names):
        columns = [aus[:, k] for aus in (seen.of_train.aus, seen.of_val.aus, seen.made.aus)]
        if not all(map(can_be_learned, columns)):
            continue
        known = columns[0] >= 0
        model = classifier(seen.train[known], columns[0][known])
        for out, inputs, truth in ((real, seen.val, columns[1]), (fake, seen.fake, columns[2])):
            rows = truth >= 0
            out[name] = float(roc_auc_score(truth[rows], model.decision_function(inputs[rows])))
    return {
        "auc_on_validation": float(np.mean([*real.values()])) if real else math.nan,
        "auc_on_synthetic": float(np.mean([*fake.values()])) if fake else math.nan,
        "by_unit": fake,
    }


def classification(seen: Seen, bundle: DataBundle) -> Judgement:
    """Scores on validation images of a classifier of real images, and of one that has as many more:
    synthetic ones, or real ones again. Mean and standard deviation over SEEDS draws.

    The classification accuracy score of Ravuri & Vinyals 2019 (1905.10887) is `synthetic_alone`.
    """
    counts = additional(bundle.class_counts(), 1.0, "all", 0.5)
    own = seen.of_train.labels
    kinds = {"generated": (seen.fake, seen.made.labels), "repeated": (seen.train, own)}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for seed in range(SEEDS):
        for name, (inputs, labels) in kinds.items():
            more = draw_rows(labels, counts, np.random.default_rng(seed))
            both = np.concatenate([seen.train, inputs[more]])
            rows[name].append(scored(seen, both, np.concatenate([own, labels[more]])))
    pairs = zip(rows["generated"], rows["repeated"], strict=True)
    return {
        "real_alone": scored(seen, seen.train, own),
        "synthetic_alone": scored(seen, seen.fake, seen.made.labels),
        **{name: summary(each) for name, each in rows.items()},
        "generated_minus_repeated": summary([{n: a[n] - b[n] for n in SCORES} for a, b in pairs]),
    }


def scored(seen: Seen, inputs: Floats, labels: Ints) -> dict[str, float]:
    """Scores on the validation images of a classifier of these images."""
    model = classifier(inputs, labels)
    classes = int(max(seen.of_val.labels.max(), labels.max())) + 1
    probs = np.zeros((len(seen.val), classes), np.float64)
    probs[:, model.classes_] = model.predict_proba(seen.val)
    found = metrics.decisions(seen.of_val.labels, probs.argmax(1), classes)
    return {name: found[name] for name in SCORES}


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each score."""
    return {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)),
        }
        for name in SCORES
    }


def plain(value: Any) -> Any:
    """The value as JSON takes it: NaN is None."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(found: Mapping[str, Any]) -> list[str]:
    """What was found, a sentence each, for a reader in a hurry; bad as it may be."""
    like, copies, units = found["likeness"], found["memorisation"], found["action_units"]
    gain = found["classification"]["generated_minus_repeated"]["macro_f1_all"]
    helps = "helps" if gain["mean"] > 2 * gain["sd"] else "does not help beyond chance"
    shows = (
        f"AUC {number(units['auc_on_synthetic'])} of what was asked for "
        f"({number(units['auc_on_validation'])} on validation images)"
    )
    if units["auc_on_validation"] is None:
        shows = "not judged, as none is labelled on ten images with it and ten without"
    helps = "harms" if gain["mean"] < -2 * gain["sd"] else helps
    return [
        f"likeness: KID {like['kid']:.3f} (training images {like['kid_of_training_images']:.3f}), "
        f"coverage {like['coverage']:.2f} ({like['coverage_of_training_images']:.2f})",
        f"memorisation: {copies['copied_share']:.1%} nearer to a training image than all but 5 % "
        f"of validation images are; alike by hash {copies['alike_share']:.1%} "
        f"({copies['alike_share_of_validation']:.1%})",
        f"is it synthetic? AUC {number(found['probe']['auc'])} (0.5: cannot be told; "
        f"training images {number(found['probe']['auc_of_training_images'])})",
        f"action units: {shows}",
        f"as training images: macro-F1 {gain['mean']:+.3f} ± {gain['sd']:.3f} over repeated real "
        f"ones: {helps}, in a classifier of simple features",
    ]


def number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
