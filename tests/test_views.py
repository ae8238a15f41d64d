"""Views of images, and what a finished trial keeps of them."""

import numpy as np
import pytest
import torch

from trainables import looking, views
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.looking import class_norms, view
from trainables.model import build_model
from trainables.store import RunStore
from trainables.trial import Training, run_trial
from trainables.views import FLIP, PLAIN, SCALED, Views, affordable, pack, unpack

QUICK = {"backbone": "small_resnet", "image_size": 48, "epochs": 1, "lr": 3e-3}


def test_a_flip_is_the_mirror_image_and_plain_the_image_itself():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(view(images, PLAIN), images)
    assert torch.equal(view(images, FLIP), torch.from_numpy(images.numpy()[:, :, :, ::-1].copy()))


@pytest.mark.parametrize("name", [n for n in SCALED if "flip" not in n])
def test_a_scale_makes_the_face_so_much_larger_and_mirrors_where_it_says_so(name):
    size = 80
    axis = (torch.arange(size) + 0.5) / size - 0.5  # a square of half the side, in the middle
    square = ((axis.abs() < 0.25)[:, None] & (axis.abs() < 0.25)[None]).float()
    seen = view(square.expand(1, 3, size, size), name)
    assert seen.mean().sqrt().item() == pytest.approx(0.5 * float(name), rel=0.03)
    left = torch.rand(1, 3, 16, 16)
    assert torch.allclose(view(left, f"{name} flip"), view(left, name).flip(3))


def test_what_a_smaller_face_leaves_free_repeats_the_edge():
    assert torch.allclose(view(torch.full((1, 3, 9, 9), 0.7), "0.9"), torch.full((1, 3, 9, 9), 0.7))


def test_scaled_views_are_taken_where_they_cost_at_most_a_twentieth_of_the_training():
    # 6 views of 200 images = 1200 looks; an epoch = 3 * 1000 + 100 = 3100; 0.05 * 3100 = 155
    assert affordable(7, 1000, 100, 100) == (PLAIN, FLIP)
    assert affordable(8, 1000, 100, 100) == (PLAIN, FLIP, *SCALED)


def test_a_file_of_views_is_read_as_it_was_written(tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    there = Views(tuple("abcde"), (PLAIN, FLIP), logits, np.ones(3, np.float32))
    back = unpack(pack(there), tmp_path)
    assert (back.ids, back.names) == (there.ids, there.names)
    np.testing.assert_allclose(back.logits, logits, rtol=1e-3)
    np.testing.assert_array_equal(back.of(FLIP)[0], back.logits[1])
    with pytest.raises(LookupError, match=r"no view 0.9; there are: plain, flip"):
        back.of("0.9")


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((1, 5, 3)), "do not go together"),
        (np.full((2, 5, 3), np.inf), "logits are not finite"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path, logits, message):
    bad = Views(tuple("abcde"), (PLAIN, FLIP), logits.astype(np.float32), np.zeros(0, np.float32))
    with pytest.raises(ValueError, match=message):
        unpack(pack(bad), tmp_path)
    with pytest.raises(ValueError, match="not a file of views"):
        unpack(b"torn", tmp_path)


def test_a_finished_trial_keeps_the_logits_of_its_views_and_no_labels(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(views, "SHARE", 10.0)  # all views
    run = RunStore.create(tmp_path / "run", {})
    trial = run.trial(run.create_trial(TrialConfig.from_flat(QUICK), 0))
    list(run_trial(trial, faces))
    bundle = cache.load(faces)
    for which, split in (("val", bundle.val), ("test", bundle.test)):
        data = trial.read(f"views_{which}.npz")
        assert data is not None
        found = unpack(data, tmp_path)
        assert found.names == (PLAIN, FLIP, *SCALED)
        assert found.ids == split.ids
        said = trial.predictions(which)
        assert said is not None
        np.testing.assert_allclose(softmax(found.of(PLAIN)[0]), said.probs, atol=4e-3)
        assert b"labels" not in data
    # and the flip is what the model says of mirrored images
    training = Training(trial.config(), bundle)
    from safetensors.torch import load

    training.model.load_state_dict(load(trial.read("weights.safetensors")))
    training.model.eval()
    images = torch.from_numpy(np.array(bundle.val.images[:, :, :, ::-1])).float() / 255
    with torch.inference_mode():
        wanted = training.model(images).logits.numpy()
    found = unpack(trial.read("views_val.npz"), tmp_path)
    np.testing.assert_allclose(found.of(FLIP)[0], wanted, atol=5e-3)
    assert np.abs(found.of(FLIP)[0] - found.of(PLAIN)[0]).max() > 1e-3
    head = training.model.heads.emotion.weight.detach().norm(dim=1)
    np.testing.assert_allclose(found.norms, head.numpy(), rtol=1e-5)


def softmax(logits):
    top = np.exp(logits - logits.max(1, keepdims=True))
    return top / top.sum(1, keepdims=True)


@pytest.mark.parametrize("head", ["flat", "additive", "additive_residual"])
def test_dividing_by_the_norms_of_a_linear_head_is_normalising_its_weights(faces, head):
    bundle = cache.load(faces)
    config = TrialConfig.from_flat({**QUICK, "head": head})
    counts = (len(bundle.class_names), len(bundle.au_names), bundle.components)
    model = build_model(config, *counts, len(bundle.basic_names)).eval()
    norms = class_norms(model, config)
    embedding = torch.randn(4, model.heads.norm.normalized_shape[0])
    logits = model.heads.emotion(embedding)
    unit = [logits[:, k] / norms[k] for k in range(len(norms))]
    basis = torch.eye(embedding.shape[1])
    zero = model.heads.emotion(torch.zeros_like(basis[:1]))
    weight = (model.heads.emotion(basis) - zero).T  # (K, D), whatever the head is made of
    torch.testing.assert_close(torch.from_numpy(norms), weight.detach().norm(dim=1))
    torch.testing.assert_close(
        torch.stack(unit, 1),
        embedding @ (weight / weight.norm(dim=1, keepdim=True)).T + zero / torch.from_numpy(norms),
    )


@pytest.mark.parametrize("flat", [{"head": "cosine"}, {"loss": "ldam"}])
def test_a_head_that_is_not_linear_has_no_norms(faces, flat):
    config = TrialConfig.from_flat({**QUICK, **flat})
    bundle = cache.load(faces)
    counts = (len(bundle.class_names), 0, bundle.components, len(bundle.basic_names))
    model = build_model(config, *counts)
    assert len(class_norms(model, config)) == 0


def test_logits_that_read_aus_have_no_norms(faces):
    flat = {**QUICK, "au_loss": "bce", "au_weight": 0.3, "au_reading": "linear"}
    config, bundle = TrialConfig.from_flat(flat), cache.load(faces)
    counts = (len(bundle.class_names), len(bundle.au_names), bundle.components)
    assert len(class_norms(build_model(config, *counts), config)) == 0


def test_what_16_bits_do_not_hold_is_cut(faces, monkeypatch):
    training = Training(TrialConfig.from_flat(QUICK), cache.load(faces))
    huge = np.full((len(training.bundle.val), 14), 1e6, np.float32)
    monkeypatch.setattr(looking, "logits_of", lambda model, split, *_: huge[: len(split)])
    plain = {"val": np.zeros_like(huge), "test": np.zeros((len(training.bundle.test), 14))}
    files = looking.look(training, plain)
    assert unpack(files["views_val.npz"], "x").logits.max() <= 65504
