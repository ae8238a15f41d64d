"""The GAN: its parts by hand, what a condition does, what it sees, and that a resumed fit is exact.

N batch, K classes, A action units.
"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator as Chance

from trainables.averages import average_in
from trainables.data import cache
from trainables.generation import fit as fitting_module
from trainables.generation.conditions import cycle, sampling_weights, spread_evenly, wanted
from trainables.generation.diffaugment import PARTS, diffaugment, read_policy
from trainables.generation.fit import CHECKPOINT, Fitting, Settings, draw_images, fit
from trainables.generation.game import (
    GAMES,
    au_loss,
    average_share,
    r1_penalty,
)
from trainables.generation.gan import Discriminator, Generator, Shape, halvings, spread
from trainables.generation.provenance import Seen, content, evidence, only_training, take

SHAPE = Shape(24, 3, 4, ((0, 1), (0, 2), (1, 2)), 3)
SMALL = Settings(steps=4, batch=8, width=4)
POLICY = ("color", "translation", "cutout")


@pytest.fixture(scope="module")
def bundle(faces):
    return cache.load(faces)


@pytest.fixture(scope="module")
def seen(bundle):
    return only_training(bundle)


def chance(seed=0):
    return Chance().manual_seed(seed)


def fitting_of(bundle, train, **changes):
    shape = Shape(48, 14, len(bundle.au_names), bundle.components, 6)
    return Fitting(train, shape, replace(SMALL, **changes), torch.device("cpu"))


def condition(count=4, units=4):
    return torch.arange(count) % 3, torch.ones(count, units)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "times"), [(48, 3), (64, 4), (80, 4), (96, 4), (112, 4), (20, 2)])
def test_the_side_is_halved_down_to_four_to_seven_pixels(size, times):
    assert halvings(size) == times
    shape = replace(SHAPE, size=size)
    noise, (labels, aus) = torch.randn(4, 64), condition()
    images = Generator(shape, 4)(noise, labels, aus)
    assert images.shape == (4, 3, size, size)
    assert images.abs().max() <= 1
    scores, units = Discriminator(shape, 4)(images, labels, aus)
    assert scores.shape == (4,)
    assert units.shape == (4, 4)


@pytest.mark.parametrize("size", [50, 33, 7, 72 + 2])
def test_a_side_that_cannot_be_generated_is_refused(size):
    with pytest.raises(ValueError, match=f"cannot generate images of {size} px"):
        halvings(size)


@pytest.mark.parametrize("net", [Generator, Discriminator])
def test_aus_change_what_comes_out_and_get_gradients(net):
    torch.manual_seed(0)
    model = net(SHAPE, 4)
    first = torch.randn(4, 64) if net is Generator else torch.randn(4, 3, 24, 24)
    labels, aus = condition()

    def out(units):
        found = model(first, labels, units)
        return found[0] if isinstance(found, tuple) else found

    other = aus.clone()
    other[:, 2] = 0
    assert not torch.allclose(out(aus), out(other), atol=1e-4)
    out(aus).square().mean().backward()
    assert model.condition.units.weight.grad.abs().sum() > 0
    assert model.condition.basics.weight.grad.abs().sum() > 0


def test_an_unknown_au_is_neither_shown_nor_absent():
    torch.manual_seed(0)
    model, noise, (labels, aus) = Generator(SHAPE, 4), torch.randn(4, 64), condition()
    rows = [torch.where(torch.arange(4) == 1, value, aus) for value in (1.0, 0.0, -1.0)]
    shown, absent, unknown = (model(noise, labels, row) for row in rows)
    assert not torch.allclose(unknown, shown, atol=1e-5)
    assert not torch.allclose(unknown, absent, atol=1e-5)


def test_the_class_matters_beside_its_emotions_and_data_without_aus_will_do():
    torch.manual_seed(0)
    plain = Shape(24, 3, 0)
    model, noise, nothing = Generator(plain, 4), torch.randn(1, 64), torch.zeros(1, 0)
    images = [model(noise, torch.tensor([k]), nothing) for k in range(2)]
    assert not torch.allclose(*images, atol=1e-5)
    scores, units = Discriminator(plain, 4)(images[0], torch.tensor([0]), nothing)
    assert units.shape == (1, 0)
    assert au_loss(units, nothing) == 0
    assert scores.isfinite()


def test_spread_by_hand():
    same = torch.ones(4, 2, 1, 1)
    assert spread(same).flatten().tolist() == pytest.approx([1e-4] * 4, abs=1e-6)
    mixed = torch.tensor([0.0, 0.0, 2.0, 2.0]).view(4, 1, 1, 1)  # standard deviation 1
    assert spread(mixed).flatten().tolist() == pytest.approx([1.0] * 4)
    two = torch.cat([same[:, :1], mixed])  # two groups of four
    assert spread(two).flatten().tolist() == pytest.approx([1e-4] * 4 + [1.0] * 4, abs=1e-4)


# --- losses --------------------------------------------------------------------------------------


def test_non_saturating_by_hand():
    game = GAMES["non_saturating"]()
    real, fake = torch.tensor([0.0, math.log(3)]), torch.tensor([0.0])
    # log(1 + e^0) = log 2, log(1 + 1/3) = log 4/3
    wanted_loss = (math.log(2) + math.log(4 / 3)) / 2 + math.log(2)
    assert game.discriminator(real, fake).item() == pytest.approx(wanted_loss)
    assert game.generator(torch.tensor([math.log(3)])).item() == pytest.approx(math.log(4 / 3))


def test_hinge_by_hand():
    game = GAMES["hinge"]()
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert game.discriminator(real, fake).item() == pytest.approx(0.5 / 2 + 1.5 / 2)
    assert game.generator(fake).item() == pytest.approx(1.25)


@pytest.mark.parametrize("name", GAMES)
def test_both_players_gain_from_what_their_game_is_about(name):
    game = GAMES[name]()
    good, bad = torch.tensor([0.9]), torch.tensor([-0.9])
    assert game.discriminator(good, bad) < game.discriminator(bad, good)
    assert game.generator(good) < game.generator(bad)


def test_r1_by_hand_on_a_linear_discriminator():
    weight = torch.tensor([1.0, -2.0, 2.0]).view(1, 3, 1, 1)  # squared length 9
    images = torch.randn(5, 3, 1, 1, requires_grad=True)
    scores = (images * weight).sum((1, 2, 3))
    assert r1_penalty(scores, images, gamma=4.0).item() == pytest.approx(4 / 2 * 9)


def test_r1_teaches_the_discriminator():
    weight = torch.ones(1, 3, 1, 1, requires_grad=True)
    images = torch.randn(5, 3, 1, 1, requires_grad=True)
    r1_penalty((images * weight).sum((1, 2, 3)), images, 1.0).backward()
    assert weight.grad.flatten().tolist() == pytest.approx([1.0] * 3)


def test_half_of_an_average_is_gone_after_its_half_life():
    average, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(model.weight)
    for _ in range(25):  # 25 steps of 40 images
        share = average_share(40, 1000.0, seen=10**6)
        average_in(average.parameters(), model.parameters(), share)
    assert average.weight.item() == pytest.approx(0.5, abs=1e-5)


def test_early_on_the_average_forgets_by_a_twentieth_of_what_was_seen():
    assert average_share(100, 10_000.0, seen=2000) == pytest.approx(0.5)
    assert average_share(100, 100.0, seen=10**6) == pytest.approx(0.5)


def test_unknown_aus_teach_neither_network():
    logits = torch.zeros(1, 3, requires_grad=True)
    loss = au_loss(logits, torch.tensor([[1.0, -1.0, 0.0]]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert logits.grad.tolist() == [[-0.25, 0.0, 0.25]]
    assert au_loss(logits, torch.full((1, 3), -1.0)) == 0


# --- DiffAugment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_each_part_changes_images_and_lets_gradients_through(name):
    images = torch.rand(6, 3, 16, 16, requires_grad=True)
    changed = diffaugment(images, (name,), chance())
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    changed.sum().backward()
    assert images.grad.abs().sum((1, 2, 3)).min() > 0


def test_each_part_draws_for_each_image_and_from_its_generator_alone():
    images = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    for name in PARTS:
        once, again = (diffaugment(images, (name,), chance(3)) for _ in range(2))
        torch.testing.assert_close(once, again)
        assert len({image.sum().item() for image in once}) > 1


def test_translation_moves_by_whole_pixels_up_to_an_eighth():
    image = torch.zeros(64, 3, 16, 16)
    image[:, :, 8, 8] = 1.0
    moved = PARTS["translation"](image, chance())
    at = moved[:, 0].flatten(1).argmax(1)
    offsets = torch.stack([at // 16, at % 16], 1) - 8
    assert offsets.abs().max() == 2
    assert set(offsets.flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert moved.sum() == image.sum()


def test_cutout_takes_a_square_of_half_the_side_where_it_fits():
    left = PARTS["cutout"](torch.ones(64, 3, 16, 16), chance()).sum((1, 2, 3)) / 3
    assert left.min() == 16 * 16 - 8 * 8
    assert left.max() < 16 * 16


def test_color_by_hand(monkeypatch):
    draws = iter([1.0, 0.0, 0.5])  # brightness + 0.5, no saturation, contrast as it is
    monkeypatch.setattr(
        "trainables.generation.diffaugment._draw",
        lambda images, generator: torch.full((len(images), 1, 1, 1), next(draws)),
    )
    image = torch.tensor([0.0, 0.3, 0.6]).view(1, 3, 1, 1)
    assert PARTS["color"](image, chance()).flatten().tolist() == pytest.approx([0.8] * 3)


def test_a_policy_is_read_and_unknown_parts_are_refused():
    assert read_policy("color,cutout") == ("color", "cutout")
    assert read_policy("none") == ()
    with pytest.raises(LookupError, match="'cutuot'.*Did you mean 'cutout'"):
        read_policy("color,cutuot")


def test_real_and_generated_images_are_augmented_by_one_policy_before_they_are_judged(
    bundle, seen, monkeypatch
):
    made = fitting_of(bundle, seen.train)
    calls, judged = [], []

    def mark(images, policy, generator):
        calls.append((policy, images.requires_grad))
        return images * 0 + len(calls)  # each call leaves its number

    def watch(net, inputs, output):
        judged.append(inputs[0].mean().item())

    monkeypatch.setattr(fitting_module, "diffaugment", mark)
    made.discriminator.register_forward_hook(watch)
    made.step()
    assert [policy for policy, _ in calls] == [POLICY] * 3  # real, generated, generated
    assert [is_learnt for _, is_learnt in calls] == [False, False, True]
    assert judged == pytest.approx([1, 2, 3])  # nothing is judged that was not augmented


# --- which faces are asked for -------------------------------------------------------------------


def test_shares_are_whole_and_sum_to_the_total():
    assert spread_evenly(10, np.array([1.0, 1.0, 1.0])).tolist() == [4, 3, 3]
    assert spread_evenly(7, np.array([0.0, 3.0, 1.0])).tolist() == [0, 5, 2]


def test_no_row_comes_again_before_all_have_come():
    drawn = cycle(np.array([3, 5, 8]), 7, np.random.default_rng(0))
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [3, 5, 8]
    assert len(drawn) == 7


def test_the_gan_sees_a_class_by_the_root_of_its_count():
    labels = np.repeat([0, 1], [16, 4])
    weights = sampling_weights(labels, 0.5)
    assert weights[labels == 0].sum() == pytest.approx(2 * weights[labels == 1].sum())


def test_what_is_asked_for_are_aus_that_the_class_shows(bundle):
    counts = np.full(14, 6)
    labels, units = wanted(bundle.train, counts, np.random.default_rng(0))
    assert np.bincount(labels).tolist() == counts.tolist()
    for k in range(14):
        own, asked = (
            a == 1 for a in (bundle.train.aus[bundle.train.labels == k], units[labels == k])
        )
        assert not (asked.any(0) & ~own.any(0)).any()
    exact, _ = wanted(bundle.train, counts, np.random.default_rng(0), novelty=0.0)
    assert (exact == labels).all()


# --- what the GAN sees ---------------------------------------------------------------------------


class Untouchable:
    """Images that must not be read."""

    def touched(self, *key):
        raise AssertionError("a held-out image was touched")

    __getattr__ = __getitem__ = __iter__ = __len__ = __array__ = touched


def test_a_fit_never_reads_an_image_that_is_held_out(bundle, seen, tmp_path):
    # a split that raises when it is touched stands in for both: the fit is not given them at all
    sealed = replace(bundle.val, images=Untouchable())
    blind = replace(bundle, val=sealed, test=sealed)
    with pytest.raises(AssertionError, match="was touched"):
        only_training(blind)  # the twin: looking for copies does touch them
    made = fitting_of(blind, seen.train)
    assert len(list(fit(made, tmp_path, "seen"))) == SMALL.steps
    lowest, highest = int(seen.train.images.min()), int(seen.train.images.max())
    assert (made.images.min(), made.images.max()) == (lowest, highest)
    assert len(made.images) == len(seen.train)


def test_poisoned_held_out_images_change_nothing(bundle, seen, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, bundle.val.images.shape, np.uint8)
    poisoned = replace(bundle, val=replace(bundle.val, images=noise))
    other = only_training(poisoned)
    kept = [k for k, name in enumerate(other.train.ids) if name in set(seen.train.ids)]
    assert other.proof.held_out == seen.proof.held_out
    one, two = (
        fitting_of(bundle, part) for part in (seen.train, take(other.train, np.array(kept)))
    )
    one.step(), two.step()
    for a, b in zip(one.average.parameters(), two.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_training_image_that_is_held_out_too_is_left_out_and_the_proof_says_so(bundle):
    images = np.array(bundle.train.images)
    images[3] = bundle.val.images[0]  # the same
    images[7] = bundle.test.images[1][:, :, ::-1]  # its mirror image
    images[9] = np.clip(bundle.val.images[2].astype(int) + 2, 0, 255)  # nearly the same
    leaky = replace(bundle, train=replace(bundle.train, images=images))
    found = only_training(leaky)
    assert {bundle.train.ids[k] for k in (3, 7, 9)} <= set(found.proof.excluded)
    assert len(found.train) == len(images) - len(found.proof.excluded)
    told = evidence(found, leaky)
    assert told["seen"] == len(found.train)
    assert told["held_out"] == len(bundle.val) + len(bundle.test)
    assert told["sha256"] == content(found.train) != content(leaky.train)
    with pytest.raises(ValueError, match="are validation or test images"):  # it can fail
        evidence(Seen(leaky.train, found.proof), leaky)


# --- a fit ---------------------------------------------------------------------------------------


def test_stop_and_resume_equals_an_unbroken_fit(bundle, seen, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    straight, broken, resumed = (fitting_of(bundle, seen.train) for _ in range(3))
    wanted_rows = list(fit(straight, tmp_path / "a", "seen", every=2))
    steps = fit(broken, tmp_path / "b", "seen", every=2)
    for _ in range(3):  # the third is lost with the process
        next(steps)
    assert list(fit(resumed, tmp_path / "b", "seen", every=2)) == wanted_rows[2:]
    for name in ("generator", "discriminator", "average"):
        pairs = zip(
            getattr(straight, name).parameters(), getattr(resumed, name).parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    lines = [(tmp_path / name / "losses.jsonl").read_text() for name in ("a", "b")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == [1, 2, 3, 4]


def test_a_fit_goes_on_only_with_its_own_settings_and_images(bundle, seen, tmp_path):
    list(fit(fitting_of(bundle, seen.train, steps=1), tmp_path, "seen"))
    longer = fitting_of(bundle, seen.train, steps=2)
    assert len(list(fit(longer, tmp_path, "seen"))) == 1
    with pytest.raises(ValueError, match=r"holds a GAN of gamma 1.0, now 2.0"):
        next(fit(fitting_of(bundle, seen.train, gamma=2.0), tmp_path, "seen"))
    with pytest.raises(ValueError, match="other training images"):
        next(fit(fitting_of(bundle, seen.train), tmp_path, "others"))
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read: remove it"):
        next(fit(fitting_of(bundle, seen.train), tmp_path, "seen"))


@pytest.mark.parametrize("loss", GAMES)
def test_a_step_moves_both_networks_and_its_average(bundle, seen, loss):
    made = fitting_of(bundle, seen.train, loss=loss)
    nets = (made.generator, made.discriminator, made.average)
    before = [[p.clone() for p in net.parameters()] for net in nets]
    losses = made.step()
    assert {"discriminator", "generator", "r1", "au_real", "au_fake"} <= set(losses)
    for net, old in zip(nets, before, strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(net.parameters(), old, strict=True)]
        assert sum(moved) > 0.9 * len(moved)


def test_a_mirrored_image_swaps_the_aus_of_the_two_sides(bundle, seen):
    shape = Shape(48, 14, 2)
    train = replace(seen.train, aus=np.tile(np.array([[1, 0]], np.int8), (len(seen.train), 1)))
    made = Fitting(train, shape, SMALL, torch.device("cpu"), mirror=[1, 0])
    _, _, units = made._draw(chance())
    assert {tuple(row) for row in units.tolist()} == {(1.0, 0.0), (0.0, 1.0)}


def test_images_follow_from_conditions_and_seed(bundle, seen):
    made = fitting_of(bundle, seen.train)
    labels, units = seen.train.labels[:5], seen.train.aus[:5]
    one, again, other = (draw_images(made.average, labels, units, seed) for seed in (0, 0, 1))
    assert one.shape == (5, 3, 48, 48)
    assert one.dtype == np.uint8
    assert (one == again).all()
    assert (one != other).any()
