"""What every method of pretraining must do, asked of every registered one."""

import copy

import pytest
import torch

from trainables.backbones import build_backbone
from trainables.pretraining.methods import METHODS
from trainables.pretraining.picture import draw
from trainables.pretraining.pretext import Pretext

SIZE = 32
BACKBONES = {"mae": "test_vit"}  # the others: any, here a network of convolutions


def make(name: str) -> Pretext:
    torch.manual_seed(0)
    size = 48 if name == "mae" else SIZE
    backbone = build_backbone(BACKBONES.get(name, "small_resnet"), size)
    return METHODS[name](backbone, size)


def images(name: str, count: int = 8) -> torch.Tensor:
    """Smooth pictures, of which a part tells of the rest."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    size = 48 if name == "mae" else SIZE
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def loss_of(task: Pretext, name: str, seed: int = 0) -> torch.Tensor:
    return task.loss(images(name), torch.Generator().manual_seed(seed))["loss"]


def test_unknown_method_says_which_is_near():
    with pytest.raises(LookupError, match="Did you mean 'simclr'"):
        METHODS["simclrr"]


@pytest.mark.parametrize("name", METHODS)
def test_method_says_what_it_is_and_its_defaults_are_plain(name):
    assert METHODS[name].__doc__
    assert all(type(d) in (int, float, bool, str) for d in METHODS.arguments(name).values())


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_a_finite_number_and_follows_the_generator(name):
    task = make(name)
    copied = copy.deepcopy(task.module.state_dict())
    first = loss_of(task, name)
    assert first.shape == ()
    assert torch.isfinite(first)
    task.module.load_state_dict(copied)
    assert torch.equal(loss_of(task, name), first)
    task.module.load_state_dict(copied)
    assert not torch.equal(loss_of(task, name, seed=1), first)


@pytest.mark.parametrize("name", METHODS)
def test_every_layer_of_the_backbone_learns(name):
    task = make(name)
    loss_of(task, name).backward()
    learning = {n: p for n, p in task.module.named_parameters() if p.requires_grad}
    assert learning
    still = [n for n, p in learning.items() if p.grad is None or not p.grad.any()]
    assert [n for n in still if not n.endswith("bias")] == []  # those before batch norm do nothing


@pytest.mark.parametrize("name", METHODS)
def test_loss_falls(name):
    task = make(name)
    optimizer = torch.optim.AdamW(task.module.parameters(), 2e-3)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        loss = loss_of(task, name, seed=step % 3)
        loss.backward()
        optimizer.step()
        task.after_step(step / 30)
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("name", METHODS)
def test_picture_of_masked_methods_shows_what_was_seen(name):
    task = make(name)
    if task.picture is None:
        assert draw(task, images(name), torch.Generator()) is None
        return
    task.module.eval()
    with torch.no_grad():
        whole, masked, made = task.picture(images(name), torch.Generator().manual_seed(0))
    assert whole.shape == masked.shape == made.shape
    seen = (masked != 0.5).all(1, keepdim=True)
    assert 0.2 < 1 - seen.float().mean() < 0.8
    assert torch.allclose(torch.where(seen, made, 0), torch.where(seen, whole, 0), atol=1e-5)
    assert not torch.allclose(made, whole, atol=1e-2)
    data = draw(task, images(name), torch.Generator().manual_seed(0))
    assert data is not None
    assert data.startswith(b"\x89PNG")
