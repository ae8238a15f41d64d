"""The embedded faces as the cache serves them."""

from pathlib import Path

import numpy as np
import pytest

from trainables import metrics
from trainables.data import aus, cache, faces

SIZE = 16


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    return cache.prepare("faces:200:easy", SIZE, cache_root=tmp_path_factory.mktemp("faces"))


def test_embedded_faces_are_those_of_the_generator(embedded):
    bundle = cache.load(embedded)
    spec = faces.FacesSpec(200, SIZE, 0, "easy")
    people = {person.id: person for person in faces.draw_people(spec)}
    who = people[bundle.val.ids[3]]
    picture = faces.render_face(who, spec).transpose(2, 0, 1)
    assert (bundle.val.images[3] == picture).all()
    assert bundle.val.labels[3] == who.label
    assert (
        bundle.val.aus[3].tolist() == aus.encode([aus.parse(who.text)], bundle.au_names)[0].tolist()
    )
    assert bundle.is_synthetic
    assert (bundle.test.labels == -1).all()
    assert len(cache.unseal(embedded)[0]) == len(bundle.test) == 40


def test_ceiling_is_over_the_classes_that_are_optimised(embedded):
    bundle = cache.load(embedded)
    kept = np.flatnonzero(metrics.supported(bundle.val.labels, 14))
    prior = np.bincount(np.concatenate([bundle.train.labels, bundle.val.labels,
                                        cache.unseal(embedded)[0]]))  # fmt: skip
    expected = faces.bayes_ceiling("easy", prior, classes=kept.tolist())
    assert dict(bundle.ceiling) == pytest.approx(expected)
    assert set(bundle.ceiling) == {"accuracy", "uar", "macro_f1"}


def test_key_of_the_faces_follows_generator_and_spec(monkeypatch):
    def key(source="faces:200", size=SIZE):
        return cache._faces_plan(source, size, aus.Policy(), None).key

    keys = {key(), key("faces:201"), key("faces:200:hard"), key(size=24)}
    monkeypatch.setattr(cache, "_generator", lambda: "a change in render.py")
    assert len(keys | {key()}) == 5
    assert key("faces") == key("faces:2000:medium")
