"""What every extractor, classifier and synthesis promises, over all that are registered."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables.config import Part, TrialConfig
from trainables.data import cache
from trainables.features.cache import hidden
from trainables.features.examples import Examples, Lesson, joined
from trainables.features.plugins import CLASSIFIERS, EXTRACTORS, SYNTHESES

CONFIG = TrialConfig.from_flat(
    {"backbone": "test_resnet", "image_size": 48, "lr": 0.01, "batch_size": 32}
)
PAIRS = ((0, 1), (0, 2), (1, 2), (2, 3))
SHORT = {"episodes": 3, "passes": 3, "rescaling": 2}  # for arguments of these names
FILES = ("landmarks", "file")  # extractors with such an argument read a file: own tests
OF_SEQUENCES = ("optical_flow",)  # refuse stills: own tests


def images_alone() -> list[str]:
    alone = [n for n in EXTRACTORS if n not in ("none", *OF_SEQUENCES)]
    return [n for n in alone if not set(FILES) & set(EXTRACTORS.arguments(n))]


def examples(counts=(40, 20, 12, 10), dim: int = 6) -> Examples:
    """Classes around places of their own, told apart with ease."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    places = 4 * np.eye(len(counts), dim)
    features = (places[labels] + rng.normal(size=(len(labels), dim))).astype(np.float32)
    features = (features - features.mean(0)) / features.std(0)
    return Examples(features, np.eye(len(counts), dtype=np.float32)[labels], labels, PAIRS, 4)


def lesson_of(seen: Examples, config: TrialConfig = CONFIG) -> Lesson:
    counts = seen.counts()
    return Lesson(seen, counts, counts, np.ones(seen.features.shape[1], np.float32), config)


def quick(name: str):
    known = CLASSIFIERS.arguments(name)
    return CLASSIFIERS[name](**{k: v for k, v in SHORT.items() if k in known})


fitted_ones = pytest.mark.parametrize("name", [n for n in CLASSIFIERS if n != "none"])


@fitted_ones
def test_a_classifier_gives_chances_and_tells_what_it_has_learned(name) -> None:
    seen = examples()
    fitted = quick(name)(lesson_of(seen), np.random.default_rng(0))
    probs = fitted.probs(seen.features)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs >= 0).all()
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in fitted.tensors.values())
    assert fitted.tensors
    np.testing.assert_allclose(fitted.probs(seen.features[:1]), probs[:1], atol=1e-5)


@fitted_ones
def test_a_classifier_learns_what_is_easy(name) -> None:
    seen = examples()
    fitted = CLASSIFIERS[name]()(lesson_of(seen), np.random.default_rng(0))
    assert (fitted.probs(seen.features).argmax(1) == seen.labels).mean() > 0.85


@fitted_ones
def test_a_classifier_is_a_function_of_its_generator(name) -> None:
    seen = examples()
    before = torch.get_rng_state()
    one, other = (quick(name)(lesson_of(seen), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.probs(seen.features), other.probs(seen.features))
    assert torch.equal(before, torch.get_rng_state())  # nobody else's chance is touched


@fitted_ones
def test_a_classifier_leaves_the_features_as_they_are(name) -> None:
    seen = examples()
    before = seen.features.copy()
    quick(name)(lesson_of(seen), np.random.default_rng(0)).probs(seen.features)
    np.testing.assert_array_equal(seen.features, before)


@fitted_ones
def test_shuffled_labels_teach_a_classifier_nothing(name) -> None:
    seen = examples((60, 60, 60, 60))
    labels = np.random.default_rng(1).permutation(seen.labels)
    wrong = replace(seen, labels=labels, targets=np.eye(4, dtype=np.float32)[labels])
    fitted = quick(name)(lesson_of(wrong), np.random.default_rng(0))
    assert (fitted.probs(seen.features).argmax(1) == seen.labels).mean() < 0.55


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_synthesis_gives_new_rows_alone(name) -> None:
    real = examples()
    made = SYNTHESES[name]()(real, np.random.default_rng(0))
    assert made.features.dtype == np.float32
    assert made.targets.dtype == np.float32
    assert made.labels.dtype == np.int64
    assert made.features.shape == (len(made), real.features.shape[1])
    assert made.targets.shape == (len(made), real.classes)
    assert np.isfinite(made.features).all()
    np.testing.assert_allclose(made.targets.sum(1), 1, atol=1e-5)
    assert len(joined([real, made])) == len(real) + len(made)


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_synthesis_is_a_function_of_its_generator(name) -> None:
    real = examples()
    one, other = (SYNTHESES[name]()(real, np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.targets, other.targets)
    np.testing.assert_array_equal(real.features, examples().features)


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_synthesis_copes_with_classes_of_one_image_and_of_none(name) -> None:
    real = examples((40, 20, 1, 0))
    made = SYNTHESES[name]()(real, np.random.default_rng(0))
    assert np.isfinite(made.features).all()


@pytest.mark.parametrize("name", images_alone())
def test_an_extractor_looks_at_each_image_by_itself(name, faces) -> None:
    bundle = cache.load(faces)
    extractor = EXTRACTORS[name](CONFIG, bundle)
    part = hidden(bundle.train, slice(0, 6))
    seen = extractor.see(part)
    assert seen.dtype == np.float32
    assert seen.ndim == 2
    assert len(seen) == 6
    assert np.isfinite(seen).all()
    assert seen.std(0).max() > 0
    alone = extractor.see(hidden(bundle.train, slice(2, 3)))
    np.testing.assert_allclose(alone, seen[2:3], rtol=1e-3, atol=1e-4)
    assert extractor.parameters() >= 0


@pytest.mark.parametrize("name", images_alone())
def test_an_extractor_learns_from_training_images_alone(name, faces) -> None:
    bundle = cache.load(faces)
    blank = replace(bundle.val, images=np.zeros_like(bundle.val.images))
    other = replace(bundle, val=blank, test=replace(bundle.test, images=bundle.test.images[::-1]))
    part = hidden(bundle.train, slice(0, 3))
    one, two = (EXTRACTORS[name](CONFIG, b) for b in (bundle, other))
    np.testing.assert_array_equal(one.see(part), two.see(part))
    assert one.content == two.content


def test_parts_of_features_are_off_by_default() -> None:
    assert TrialConfig().features == TrialConfig().classifier == TrialConfig().synthesis == Part()
