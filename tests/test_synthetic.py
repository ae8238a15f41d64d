"""Generated images in trials: what is added, what is refused, and that the rest stays as it was.

N training images, K classes.
"""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_trial import QUICK, new_trial, timeless

from search import check, plan
from search.generated import check_set, name_set
from spaces.space import Choice, Space, Uniform
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.data.bundle import DataBundle, Split
from trainables.data.folds import fold_of
from trainables.data.pixels import view
from trainables.feed import CARRIED, make_feed, on_device
from trainables.generation.provenance import identity
from trainables.generation.synthetic_set import (
    IMAGES,
    META,
    SyntheticSet,
    read_set,
    set_for,
    write_set,
)
from trainables.synthetic import SYNTHETIC, additional, best, extended
from trainables.trial import Training, run_trial

KINDS = ("generated", "repeated")


@pytest.fixture(scope="module")
def bundle(faces):
    return cache.load(faces)


@pytest.fixture(scope="module")
def made(bundle):
    """Forty images of each class, each of one colour, and its class told by its AUs."""
    labels = np.repeat(np.arange(14), 40)
    images = np.zeros((len(labels), 3, 48, 48), np.uint8)
    images[:, :] = (np.arange(len(labels)) % 251)[:, None, None, None]
    aus = np.tile(np.arange(len(bundle.au_names)) < 3, (len(labels), 1)).astype(np.int8)
    return SyntheticSet(images, labels, aus, np.linspace(-2, 0, len(labels), dtype=np.float32))


@pytest.fixture(scope="module")
def folder(bundle, made, tmp_path_factory):
    path = tmp_path_factory.mktemp("set")
    write_set(path, made, {"data": identity(bundle)})
    return path


def config(kind, folder="none", **arguments):
    flat = {f"synthetic.{name}": value for name, value in arguments.items()}
    return TrialConfig.from_flat({**QUICK, "synthetic": kind, "synthetic_set": str(folder), **flat})


# --- the set -------------------------------------------------------------------------------------


def test_a_set_is_read_as_it_was_written(folder, made):
    found, meta = read_set(folder)
    for name in ("images", "labels", "aus", "agreement"):
        assert (getattr(found, name) == getattr(made, name)).all()
    assert meta["synthetic_images"] == 560


def test_the_images_of_a_set_stay_on_disk_also_when_it_is_written_anew(made, bundle, tmp_path):
    write_set(tmp_path, made, {"data": identity(bundle)})
    tracemalloc.start()
    found, _ = read_set(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < made.images.nbytes / 4
    other = replace(made, images=255 - made.images)
    write_set(tmp_path, other, {"data": identity(bundle)})
    assert (found.images == made.images).all()
    assert (read_set(tmp_path)[0].images == other.images).all()


def test_a_set_that_is_absent_torn_or_changed_is_told(folder, made, bundle, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"it has no {META}.*trainables.generation DATA"):
        read_set(tmp_path)
    write_set(tmp_path, made, {"data": identity(bundle)})
    whole = (tmp_path / IMAGES).read_bytes()
    (tmp_path / IMAGES).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"cannot be read: synthetic.npz is not the file"):
        read_set(tmp_path)
    (tmp_path / IMAGES).write_bytes(whole)
    (tmp_path / META).write_text("[1")
    with pytest.raises(ValueError, match="cannot be read"):
        read_set(tmp_path)


def test_a_set_of_other_training_images_size_or_aus_is_refused(bundle, folder):
    assert len(set_for(folder, bundle)) == 560
    train = bundle.train
    images = np.array(train.images)
    images[0, 0, 0, 0] ^= 1
    small = replace(train, images=train.images[..., ::2, ::2])
    fewer = replace(train, ids=train.ids[1:], images=train.images[1:])
    for other, said in (
        (replace(bundle, train=replace(train, images=images)), "train_sha256 is"),
        (replace(bundle, train=replace(train, labels=train.labels[::-1])), "train_sha256 is"),
        (replace(bundle, train=small), "image_size is 48, here it is 24"),
        (replace(bundle, train=fewer), "train_images is"),
        (replace(bundle, au_names=("AU1",)), "au_names is"),
        (replace(bundle, name="other"), "name is faces:300:easy, here it is other"),
    ):
        with pytest.raises(ValueError, match=f"made from other training images: its {said}"):
            set_for(folder, other)


# --- what is added -------------------------------------------------------------------------------


def test_what_is_added_by_hand():
    counts = np.array([64, 16, 0, 4])
    assert additional(counts, 1.0, "all", 0.0).tolist() == [64, 16, 0, 4]
    assert additional(counts, 0.25, "all", 1.0).tolist() == [7, 7, 0, 7]
    assert additional(counts, 0.5, "all", 0.5).tolist() == [24, 12, 0, 6]  # as 8 : 4 : 2
    assert additional(counts, 0.25, "tail", 1.0).tolist() == [0, 11, 0, 10]  # the mean is 21
    with pytest.raises(ValueError, match="no class is rarer than the mean"):
        additional(np.array([5, 5]), 1.0, "tail", 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.0])
def test_the_training_set_grows_by_exactly_ratio_times_n_with_right_labels(
    bundle, folder, kind, ratio
):
    more = extended(config(kind, folder, ratio=ratio), bundle)
    n = len(bundle.train)
    assert len(more.train) == n + round(ratio * n)
    assert (more.train.images[:n] == bundle.train.images).all()
    assert more.train.ids[:n] == bundle.train.ids
    source = bundle.train if kind == "repeated" else set_for(folder, bundle)
    number = {name: k for k, name in enumerate(bundle.train.ids)}
    names = [name.removeprefix(f"{kind}/") for name in more.train.ids[n:]]
    rows = np.array([number[name] if kind == "repeated" else int(name) for name in names])
    assert (more.train.images[n:] == source.images[rows]).all()
    assert (more.train.labels[n:] == source.labels[rows]).all()
    assert (more.train.aus[n:] == source.aus[rows]).all()


def test_the_control_has_the_class_balance_of_the_generated_images(bundle, folder):
    one, other = (extended(config(kind, folder), bundle) for kind in KINDS)
    assert one.class_counts().tolist() == other.class_counts().tolist()
    assert one.fingerprint != other.fingerprint != bundle.fingerprint
    assert one.val is bundle.val
    assert one.test is bundle.test


@pytest.mark.parametrize("kind", KINDS)
def test_tail_only_adds_to_the_tail_only(bundle, folder, kind):
    before = bundle.class_counts()
    added = extended(config(kind, folder, classes="tail"), bundle).class_counts() - before
    is_tail = before < before.mean()
    assert (added[is_tail] > 0).all()
    assert not added[~is_tail].any()
    everywhere = extended(config(kind, folder), bundle).class_counts() - before
    assert (everywhere > 0).all()


def test_only_the_images_that_agree_most_with_their_aus_are_kept(bundle, folder, made):
    assert best(made, 1.0).tolist() == list(range(560))
    kept = best(made, 0.1)  # 4 of the 40 of each class, the last, as agreement rises
    assert kept.tolist() == [40 * k + n for k in range(14) for n in range(36, 40)]
    assert len(best(made, 1e-9)) == 14  # one of each class at least
    ids = extended(config("generated", folder, keep=0.1), bundle).train.ids[len(bundle.train) :]
    assert {int(name.removeprefix("generated/")) for name in ids} == set(kept.tolist())
    with pytest.raises(ValueError, match=r"synthetic.keep 0 must be above 0"):
        SYNTHETIC["generated"](keep=0.0)


def test_generated_images_of_the_tail_only_come_with_a_warning(bundle, caplog):
    SYNTHETIC["generated"]()
    SYNTHETIC["repeated"](classes="tail")
    assert not caplog.records
    SYNTHETIC["generated"](classes="tail")
    assert "whatever gives these away tells the class" in caplog.text
    _, notes = plan.fit_to_data(space(), bundle)
    assert any("synthetic.classes 'tail' is a shortcut risk" in note for note in notes)


def test_other_seeds_add_other_images_and_one_seed_the_same(bundle, folder):
    drawn = [extended(replace(config("generated", folder), seed=k), bundle) for k in (0, 0, 1)]
    ids = [part.train.ids for part in drawn]
    assert ids[0] == ids[1] != ids[2]


def test_crowd_votes_of_generated_images_are_unknown_and_of_repeated_ones_known(bundle, folder):
    votes = np.full((len(bundle.train), 6), 1 / 6, np.float32)
    voted = replace(bundle, train=replace(bundle.train, distributions=votes))
    n = len(votes)
    for kind, total in (("generated", 0.0), ("repeated", 1.0)):
        found = extended(config(kind, folder), voted).train.distributions
        assert len(found) == 2 * n
        assert found[n:].sum(1) == pytest.approx(total)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_every_rule_says_what_it_does_and_has_plain_defaults(name):
    assert SYNTHETIC[name].__doc__
    assert all(type(d) in (int, float, str) for d in SYNTHETIC.arguments(name).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0.0}, "synthetic.ratio 0 must be above 0"),
        ({"ratio": float("nan")}, "synthetic.ratio nan"),
        ({"balance": 1.5}, "synthetic.balance 1.5 must be within 0 and 1"),
        ({"classes": "tial"}, "unknown synthetic.classes 'tial'.*Did you mean 'tail'"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_arguments_out_of_range_are_refused(kind, arguments, message):
    with pytest.raises((ValueError, LookupError), match=message):
        SYNTHETIC[kind](**arguments)


def test_a_set_without_an_image_of_a_class_is_refused(bundle, made, tmp_path):
    few = SyntheticSet(*(array[40:] for array in vars(made).values()))
    write_set(tmp_path, few, {"data": identity(bundle)})
    with pytest.raises(ValueError, match="has no image of happily surprised: make a larger one"):
        extended(config("generated", tmp_path), bundle)


# --- in a trial ----------------------------------------------------------------------------------


def test_without_it_nothing_is_copied(bundle):
    assert extended(TrialConfig(), bundle) is bundle


def large(count, side=32):
    """A data set, and a set of generated images, of many faces: noise, and no votes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * count, 3, side, side), np.uint8)
    labels, aus = np.arange(count) % 14, np.zeros((count, 2), np.int8)
    none = Split(images[:0], labels[:0], aus[:0], ())
    train = Split(images[:count], labels, aus, tuple(map(str, range(count))))
    names = tuple(f"class {k}" for k in range(14))
    made = SyntheticSet(images[count:], labels, aus, np.zeros(count, np.float32))
    return DataBundle("large", train, none, none, names, ("AU1", "AU2"), "x"), made


@pytest.mark.parametrize(("kind", "folds"), [("generated", 1), ("repeated", 1), ("repeated", 3)])
def test_no_array_of_pixels_of_the_size_of_the_training_set_is_made(
    kind, folds, tmp_path, monkeypatch
):
    data, made = large(3000)
    trained = config(kind, tmp_path, ratio=1.5)
    data = fold_of(data, replace(trained, folds=folds))
    monkeypatch.setattr("trainables.synthetic.set_for", lambda folder, bundle: made)
    tracemalloc.start()
    more = extended(trained, data)
    some = more.train.images[np.arange(0, len(more.train), 500)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < data.train.images.nbytes / 3
    assert more.train.images.nbytes == pytest.approx(2.5 * data.train.images.nbytes, rel=1e-3)
    assert np.array_equal(some, np.array(more.train.images)[::500])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_trains_on_what_is_added_and_counts_it(bundle, folder, kind):
    training = Training(config(kind, folder, ratio=0.5), bundle)
    n = len(bundle.train)
    assert len(training.plan.feed.images) == len(training.plan.feed.targets) == n + round(n / 2)
    assert len(training.plan.easy_to_hard) == n + round(n / 2)
    counts = training.bundle.class_counts()
    assert counts.sum() == n + round(n / 2)
    assert training.run_epoch()["images"] == n + round(n / 2)


def test_balanced_softmax_corrects_what_is_sampled(bundle, folder):
    flat = {"loss": "balanced_softmax", **config("generated", folder, balance=1.0).flat()}
    training = Training(TrialConfig.from_flat({**flat, "loss": "balanced_softmax"}), bundle)
    plain = Training(TrialConfig.from_flat({**QUICK, "loss": "balanced_softmax"}), bundle)
    logits, targets = torch.zeros(1, 14), torch.eye(14)[[12]]  # the rarest
    assert training.plan.objective(0.0).emotion(logits, targets) < plain.plan.objective(
        0.0
    ).emotion(logits, targets)


def test_a_trial_with_generated_images_resumes_exactly(faces, folder, tmp_path):
    flat = {"epochs": 2, **{n: v for n, v in config("generated", folder, ratio=0.25).flat().items()
                            if n.startswith("synthetic")}}  # fmt: skip
    wanted = [timeless(row) for row in run_trial(new_trial(tmp_path / "a", flat), faces)]
    broken = new_trial(tmp_path / "b", flat)
    next(run_trial(broken, faces))
    assert [timeless(row) for row in run_trial(broken, faces)] == wanted


def test_generated_images_need_a_set(bundle):
    with pytest.raises(ValueError, match="needs a set of generated images.*--synthetic FOLDER"):
        Training(config("generated"), bundle)
    Training(config("repeated"), bundle)


def test_what_is_added_reaches_the_batches(bundle, folder):
    more = extended(config("generated", folder, ratio=0.25), bundle)
    plain = replace(config("generated", folder), augment=TrialConfig().mix)
    feed = make_feed(plain, more, torch.device("cpu"))
    last = np.array([len(bundle.train), len(more.train) - 1])
    (batch,) = feed.batches(last, torch.Generator())
    assert (batch.images * 255).round().byte().numpy().tolist() == more.train.images[last].tolist()
    assert batch.targets.argmax(1).tolist() == more.train.labels[last].tolist()


def test_images_are_brought_to_the_device_piece_by_piece_and_all_arrive():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * CARRIED + 3, 3, 2, 2), np.uint8)
    rows = rng.permutation(len(images))
    assert np.array_equal(on_device(view(images, rows), torch.device("cpu")), images[rows])


# --- in a search ---------------------------------------------------------------------------------


def space(options=("none", "generated", "repeated")):
    choice = Choice(options, options[0]) if len(options) > 1 else options[0]
    when = {"synthetic": KINDS}
    return Space(
        "mine",
        {
            "backbone": "small_resnet",
            "synthetic": choice,
            "synthetic.ratio": Uniform(0.25, 2.0, 1.0, when),
            "synthetic.classes": Choice(("all", "tail"), "all", when),
        },
    )


def test_without_a_set_generated_images_are_left_out_with_a_note():
    fitted, (note,) = name_set(space(), None)
    assert fitted.settings["synthetic"].options == ("none", "repeated")
    assert note.startswith("generated images are left out, for want of a set")
    check.check_space(fitted)
    with pytest.raises(ValueError, match="trains on generated images: give --synthetic"):
        name_set(space(("generated",)), None)


def test_with_a_set_every_corner_of_the_space_can_be_tried(bundle, folder):
    fitted, notes = name_set(space(), str(folder))
    assert notes == []
    check.check_space(fitted)
    check.check_on_data(fitted, bundle)
    (note,) = check_set(fitted, bundle)
    assert note == f"generated images: 560 from {folder}, made from these training images alone"
    with pytest.raises(ValueError, match="made from other training images"):
        check_set(fitted, replace(bundle, name="other"))


def test_a_set_without_a_class_is_refused_before_the_search(bundle, folder, tmp_path):
    made, meta = read_set(folder)
    rows = made.labels != 2
    write_set(tmp_path, SyntheticSet(*(v[rows] for v in vars(made).values())), meta)
    fitted, _ = name_set(space(), str(tmp_path))
    with pytest.raises(ValueError, match=f"has no image of {bundle.class_names[2]}"):
        check_set(fitted, bundle)


def test_a_given_configuration_is_tried_with_its_set(bundle, folder):
    flat = config("generated", folder).flat()
    check.build(flat, bundle)
    with pytest.raises(ValueError, match="made from other training images"):
        check.build(flat, replace(bundle, name="other"))


def test_a_space_without_generated_images_says_that_a_set_is_not_used(bundle):
    plain = space(("none", "repeated"))
    assert name_set(plain, None) == (plain, [])
    fitted, (note,) = name_set(plain, "here")
    assert fitted == plain
    assert note == "--synthetic here is not used: space 'mine' generates no images"
    assert check_set(plain, bundle) == []


def test_a_set_that_is_not_there_is_a_mistake_told_in_a_line(refused):
    message = refused("--space", "smoke", "--inline", "--synthetic", "nowhere")
    assert "no synthetic set at 'nowhere': it has no meta.json" in message
