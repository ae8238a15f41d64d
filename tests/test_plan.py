"""What is decided and refused before the first trial: sizes, the space on the data, settings."""

import argparse
import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from search import check, plan
from spaces import show
from spaces.anchors import on_each_network
from spaces.catalog import NAMES, find
from spaces.space import Choice, IntRange, LogUniform, Space, Uniform
from spaces.tiers import TIERS
from trainables.data import cache

LR = LogUniform(1e-3, 1e-2, 2e-3)
PLAIN = {"backbone": "small_resnet", "lr": LR}
NO_VOTES = "the data has no crowd votes: soft labels are off"
FLAGS = dict.fromkeys((*plan.DEFAULTS, "image_size", "epochs"))


@pytest.fixture(scope="module")
def bundle(faces):
    return cache.load(faces)


@pytest.fixture(scope="module")
def plain_bundle(bundle):
    """The same images as a data set of single emotions without AU labels."""
    splits = {
        name: replace(split, aus=np.zeros((len(split), 0), np.int8))
        for name, split in (("train", bundle.train), ("val", bundle.val), ("test", bundle.test))
    }
    return replace(bundle, **splits, au_names=(), components=None, basic_names=())


def space_of(**settings):
    return Space("mine", {**PLAIN, **settings})


def flags(**given):
    return argparse.Namespace(**{**FLAGS, **given})


def sized(space, tier="tiny", **given):
    args, _ = plan.settle(flags(**given), space)
    sizes = plan.choose_sizes(tier, "faces", 0, args.image_size, args.epochs, None)
    return plan.fit_to_tier(space, sizes, args)


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "source", "gpus", "name"),
    [
        (None, "faces", 0, "tiny"),
        (None, "faces:500:hard", 8, "tiny"),
        (None, "data/rafce", 0, "tiny"),
        (None, "data/rafce", 1, "mid"),
        (None, "faces_of_mine", 1, "mid"),  # a folder, whatever its name begins with
        ("large", "faces", 0, "large"),
    ],
)
def test_the_tier_follows_from_data_and_gpus_unless_it_is_given(tier, source, gpus, name):
    sizes = plan.choose_sizes(tier, source, gpus, None, None, None)
    chosen = TIERS[name]
    assert sizes == plan.Sizes(
        chosen, chosen.image_size, chosen.epochs, chosen.trials, chosen.first_rung
    )


def test_the_first_rung_shrinks_with_the_epochs(monkeypatch):
    tier = replace(TIERS["tiny"], epochs=12, first_rung=4)
    monkeypatch.setitem(TIERS, "tiny", tier)
    half = plan.choose_sizes("tiny", "faces", 0, 48, 6, 3)
    assert half == plan.Sizes(tier, image_size=48, epochs=6, trials=3, first_rung=2)
    assert plan.choose_sizes("tiny", "faces", 0, None, 1, None).first_rung == 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("tinny", None, None, None), "unknown tier 'tinny'.*Did you mean 'tiny'"),
        (("tiny", 8, None, None), "image_size 8 is not within 32 to 1024"),
        (("tiny", None, 0, None), "epochs 0 is too small"),
        (("tiny", None, None, -1), "trials -1 is too small"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    tier, *rest = sizes
    with pytest.raises((LookupError, ValueError), match=message):
        plan.choose_sizes(tier, "faces", 0, *rest)


# --- flags and the constants of a space ----------------------------------------------------------


def test_a_space_may_set_what_flags_set_and_flags_overrule_it_aloud():
    space = space_of(seed=7, metric="uar", epochs=3)
    args, notes = plan.settle(flags(), space)
    assert (args.seed, args.metric, args.epochs, args.weights) == (7, "uar", 3, "none")
    assert args.image_size is None  # the tier's
    assert notes == []
    args, notes = plan.settle(flags(seed=1, epochs=3), space)
    assert (args.seed, args.epochs) == (1, 3)
    assert notes == ["--seed 1 overrules the 7 of space 'mine'"]


def test_what_is_one_for_the_whole_run_cannot_vary_in_a_space():
    with pytest.raises(ValueError, match="varies epochs, which is one for the whole run"):
        plan.settle(flags(), space_of(epochs=IntRange(1, 9, 3)))
    with pytest.raises(TypeError, match="'seed' wants int"):
        plan.settle(flags(), space_of(seed="three"))


def test_constants_of_the_run_are_in_the_space_and_its_digest():
    space, _ = sized(space_of())
    assert space.settings["seed"] == 0
    assert space.settings["weights"] == "none"
    assert space.digest() != sized(space_of(), seed=1)[0].digest()
    assert space.digest() != sized(space_of(), metric="uar")[0].digest()


def test_a_condition_that_cannot_hold_is_told():
    space = space_of(
        attention=Choice(("none", "se"), "none"),
        region_weight=LogUniform(0.01, 1, 0.1, {"attention": ("au_spatial",)}),
    )
    fitted, notes = sized(space)
    assert "region_weight" not in fitted.settings
    assert notes == ["'region_weight' never applies at tier tiny: its condition cannot hold"]


def test_a_tier_that_overrules_a_space_says_so():
    _, notes = sized(space_of(), tier="mid")
    assert notes == ["tier mid overrules lr of space 'mine'"]


# --- the space on the data -----------------------------------------------------------------------


def test_the_embedded_data_can_feed_every_space_but_for_votes(bundle):
    for name in NAMES:
        space, _ = sized(find(name))
        fitted, notes = plan.fit_to_data(space, bundle)
        expected = []
        if "crowd_entropy" in check.constants_of(space, "curriculum_order"):
            space = space.without("curriculum_order", ("crowd_entropy",))
            expected.append("the data has no crowd votes: the order by their entropy is off")
        if "soft_labels" in space.settings:
            space = space.fixed({"soft_labels": 0.0})
            expected.append(NO_VOTES)
        assert fitted == space
        assert notes == expected


def test_data_with_votes_keeps_soft_labels(bundle):
    votes = np.ones((len(bundle.train), 6), np.float32)
    voted = replace(bundle, train=replace(bundle.train, distributions=votes))
    space, _ = sized(find("sprint2"))
    assert plan.fit_to_data(space, voted) == (space, [])


def test_au_and_compound_parts_switch_themselves_off_and_say_so(plain_bundle):
    space, _ = sized(find("sprint2"))
    fitted, notes = plan.fit_to_data(space, plain_bundle)
    assert fitted.settings["au_loss"] == "none"
    assert not [n for n in fitted.settings if n.startswith(("au_loss.", "au_weight", "region_"))]
    assert not set(fitted.settings["attention"].options) & set(plan.AU_ATTENTION)
    assert fitted.settings["head"].options == ("flat", "cosine")
    assert notes == [
        "the data has no AU labels: AU loss and AU-guided attention are off",
        "the classes are not compounds of basic emotions: additive heads are off",
        NO_VOTES,
    ]
    check.check_space(fitted)


def test_an_au_loss_without_conditions_is_switched_off_with_its_arguments(plain_bundle):
    space = space_of(**{"au_loss": "bce", "au_weight": 0.3, "au_loss.clip": Uniform(1, 9, 5)})
    fitted, notes = plan.fit_to_data(space, plain_bundle)
    assert fitted.settings == {**PLAIN, "au_loss": "none"}
    assert len(notes) == 1


def test_a_space_without_such_parts_gets_no_notes(plain_bundle):
    assert plan.fit_to_data(space_of(), plain_bundle) == (space_of(), [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "au_cross"}, "asks for attention au_cross, but the data has no AU labels"),
        (
            {"attention": Choice(("au_cross", "au_spatial"), "au_cross")},
            "asks for attention au_cross or au_spatial, but",
        ),
        ({"head": "additive"}, "asks for head additive, but the classes are not compounds"),
        ({"augment": "au_safe"}, "asks for augment au_safe, but the data has no AU labels"),
        ({"soft_labels": 0.5}, "asks for soft_labels, but the data has no crowd votes"),
        ({"soft_labels": Choice((0.5, 1.0), 0.5)}, "or a space with soft_labels 0"),
    ],
)
def test_a_space_that_insists_on_what_the_data_lacks_is_refused(settings, message, plain_bundle):
    with pytest.raises(ValueError, match=message):
        plan.fit_to_data(space_of(**settings), plain_bundle)


def test_data_without_action_units_drops_augmentation_that_spares_them(bundle, plain_bundle):
    space = space_of(augment=Choice(("light", "au_safe", "erase_crop"), "au_safe"))
    fitted, notes = plan.fit_to_data(space, plain_bundle)
    assert fitted.settings["augment"] == Choice(("light", "erase_crop"), "light")
    assert notes == ["the data has no AU labels: augmentation that spares active AUs is off"]
    assert plan.fit_to_data(space, bundle) == (space, [])


@pytest.mark.parametrize("augment", ["minority_only", Choice(("light", "minority_only"), "light")])
def test_a_part_that_gives_the_label_away_is_announced(augment, bundle):
    _, notes = plan.fit_to_data(space_of(augment=augment), bundle)
    assert len(notes) == 1
    assert notes[0].startswith("augment 'minority_only' is a shortcut risk: only pictures of rare")


# --- what a dry run prints -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("linear", "root", "step"), "curriculum is set"),
        (("root",), "curriculum is root"),
        (("linear", "root"), "curriculum is linear or root"),
        (("none", "linear", "root"), "curriculum is not step"),
        (("root", "geometric"), "curriculum is root"),  # what the space does not hold
    ],
)
def test_conditions_are_told_in_few_words(wanted, words):
    space = space_of(curriculum=Choice(("none", "linear", "root", "step"), "none"))
    assert show.condition(space, "curriculum", wanted) == words


def test_the_space_fits_80_columns_and_no_name_is_broken():
    for name in NAMES:
        space, _ = sized(find(name))
        console = Console(file=io.StringIO(), width=80)
        console.print(show.space_table(space))
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        first = {line.split(" ")[0] for line in lines}
        assert set(space.settings) <= first
        words = set(" ".join(lines).replace(",", " ").split())
        assert {str(o) for o in check_options(space)} <= words


def check_options(space):
    return [o for d in space.dimensions.values() if isinstance(d, Choice) for o in d.options
            if isinstance(o, str)]  # fmt: skip


def test_the_size_of_a_space_counts_the_choices_that_always_apply():
    space = space_of(
        attention=Choice(("none", "se", "eca"), "se"),
        attention_stage=Choice(("middle", "last"), "last", {"attention": ("se", "eca")}),
        mix=Choice(("none", "mixup"), "none"),
    )
    assert plan.combinations(space) == 6


# --- the first trials ----------------------------------------------------------------------------


def anchors_of(bundle, trials, **settings):
    anchors = {"flat": {"lr": 5e-3}, "focal": {"loss": "focal"}}
    space, _ = sized(replace(space_of(**settings), anchors=anchors))
    found, notes = plan.choose_anchors(space, TIERS["tiny"], bundle, trials)
    return [role for role, _ in found], notes


def test_anchors_of_a_space_follow_baseline_and_defaults(bundle):
    loss = Choice(("cross_entropy", "focal"), "cross_entropy")
    assert anchors_of(bundle, 20, loss=loss) == (["baseline", "default", "flat", "focal"], [])


def test_anchors_take_a_quarter_of_the_trials_at_most(bundle):
    loss = Choice(("cross_entropy", "focal"), "cross_entropy")
    assert anchors_of(bundle, 7, loss=loss)[0] == ["baseline", "default", "flat"]
    assert anchors_of(bundle, 3, loss=loss)[0] == ["baseline", "default"]


def test_the_defaults_on_every_other_network_come_before_the_anchors(bundle):
    backbone = Choice(("vit", "resnet", "convnext"), "resnet")
    on_others = ["default on test_vit", "default on test_convnext", "default on small_resnet"]
    loss = Choice(("cross_entropy", "focal"), "cross_entropy")
    roles, _ = anchors_of(bundle, 28, backbone=backbone, loss=loss)
    assert roles == ["baseline", "default", *on_others, "flat", "focal"]
    roles, notes = anchors_of(bundle, 8, backbone=backbone, loss=loss)
    assert roles[2:] == on_others[:2]
    told = "no room, in a quarter of the trials, to begin with default on small_resnet, flat, focal"
    assert notes == [told]


def test_a_network_is_tried_with_all_else_at_its_default(bundle):
    space = space_of(backbone=Choice(("resnet", "vit"), "resnet"), dropout=Uniform(0.0, 0.5, 0.1))
    tries = on_each_network(space)
    assert tries == {"default on vit": {**space.defaults(), "backbone": "vit"}}
    assert on_each_network(space.fixed({"backbone": "vit"})) == {}


def test_a_network_that_does_not_go_with_the_defaults_is_not_tried_with_them():
    networks = Choice(("resnet", "vit"), "resnet", {"features": ("frozen",)})
    features = Choice(("hog", "frozen"), "hog")
    space = Space("mine", {"features": features, "backbone": networks})
    assert on_each_network(space) == {}
    assert show.anchor_table(space).row_count == 0
    vit = Choice(("resnet", "vit"), "resnet", needs={"vit": {"features": ("frozen",)}})
    assert on_each_network(Space("mine", {"features": features, "backbone": vit})) == {}


def test_an_anchor_that_the_space_cannot_hold_is_named(bundle):
    roles, notes = anchors_of(bundle, 20, loss="cross_entropy")
    assert roles == ["baseline", "default", "flat"]
    assert notes == ["anchor 'focal' is left out, for its loss"]


def test_data_without_action_units_drops_the_anchors_that_need_them(plain_bundle):
    space, _ = sized(find("sprint2"))
    fitted, _ = plan.fit_to_data(space, plain_bundle)
    found, notes = plan.choose_anchors(fitted, TIERS["tiny"], plain_bundle, 100)
    own = [role for role, _ in found if not role.startswith("default")]
    assert own[1:] == ["cross-entropy", "balanced softmax", "deferred"]
    assert len(notes) == 2
