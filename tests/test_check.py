"""What is refused before the first trial: settings and parts that cannot be built."""

from dataclasses import replace

import pytest
from test_plan import sized, space_of

from search import check, plan
from spaces.catalog import NAMES, find
from spaces.space import Choice, Uniform
from spaces.tiers import TIERS
from trainables.data import cache


@pytest.fixture(scope="module")
def bundle(faces):
    return cache.load(faces)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"los": "focal"}, "unknown setting 'los'.*Did you mean 'loss'"),
        ({"loss": "focl"}, "unknown loss 'focl'.*Did you mean 'focal'"),
        ({"loss": "focal", "loss.gama": 1.0}, "unknown argument of loss 'focal' 'gama'.*'gamma'"),
        ({"loss.gamma": 1.0}, "'loss.gamma' is an argument of 'loss', which is not set"),
        ({"backbone": "resnt50"}, "unknown backbone 'resnt50'.*'resnet50'"),
        ({"backbone": "resnet50.imagnet"}, "unknown weights 'imagnet' of resnet50"),
        ({"curriculum_order": "class"}, "unknown curriculum order 'class'.*'class_count'"),
        ({"metric": "f1"}, "unknown metric 'f1'"),
        ({"loss": "ldam", "rebalance": "sampler"}, "two corrections multiply"),
        ({"lr": "fast"}, "setting 'lr' wants float, not 'fast'"),
        ({"lr": 0.0}, "setting 'lr' cannot be 0: it must be above 0"),
        ({"lr": float("inf")}, "setting 'lr' cannot be inf"),
        ({"dropout": 1.5}, "'dropout' cannot be 1.5: it must be 0 or more, and 0.99 at most"),
        ({"batch_size": 0}, "'batch_size' cannot be 0: it must be 1 or more"),
        ({"seed": -1}, "'seed' cannot be -1"),
        ({"seed": 10**400}, "'seed' cannot be 1000*: it must be 0 or more, and"),
        ({"epochs": 10**12}, "'epochs' cannot be 1000000000000: .* and 10000 at most"),
        ({"sam": 1e300}, r"'sam' cannot be 1e\+300: it must be 0 or more, and 10 at most"),
        ({"sam": float("nan")}, "'sam' cannot be nan"),
        ({"warmup_epochs": 1e300}, r"'warmup_epochs' cannot be 1e\+300"),
        ({"mix_off": 1.5}, "'mix_off' cannot be 1.5: it must be 0 or more, and 1 at most"),
    ],
)
def test_settings_no_trial_can_be_built_from_are_refused(settings, message):
    check.check_settings({"backbone": "small_resnet"})
    with pytest.raises((LookupError, ValueError, TypeError), match=message):
        check.check_settings({"backbone": "small_resnet", **settings})


def test_every_corner_of_a_space_is_checked():
    check.check_space(space_of(dropout=Uniform(0, 0.5, 0.1)))
    with pytest.raises(ValueError, match="'dropout' cannot be 2"):
        check.check_space(space_of(dropout=Uniform(0, 2, 0.1)))
    with pytest.raises(ValueError, match="two corrections"):
        check.check_space(space_of(loss="ldam", rebalance=Choice(("none", "deferred"), "none")))


def test_a_condition_on_a_plug_in_that_does_not_exist_is_refused():
    stage = Choice(("middle", "last"), "last", {"attention": ("sse",)})
    space = space_of(attention=Choice(("none", "se"), "none"), attention_stage=stage)
    with pytest.raises(LookupError, match="of 'attention_stage': unknown attention 'sse'.*'se'"):
        check.check_conditions(space)
    for name in NAMES:
        check.check_conditions(find(name))


# --- built before the search ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"attention": "au_cross", "attention.width": 63},
            "attention 'au_cross' with width 63 .* must be a multiple",
        ),
        ({"backbone": "efficientformer_l1"}, "backbone 'efficientformer_l1' at 48 px"),
        (
            {"augment": "au_safe", "augment.protect": "mine"},
            "augment 'au_safe' with protect 'mine' at 48 px cannot be used: protect 'mine' of au_s",
        ),
        ({"mix": "remix", "mix.kappa": 0.5}, "mix 'remix' with kappa 0.5 .* kappa 0.5 is below 1"),
        ({"mix": "cutmix", "mix.alpha": 0.0}, "mix 'cutmix' with alpha 0.0 .* must be above 0"),
    ],
)
def test_a_part_that_cannot_be_built_is_refused_with_its_arguments(settings, message, bundle):
    space = sized(space_of(**settings), image_size=48)[0]
    check.check_space(space)
    with pytest.raises(ValueError, match=message):
        check.check_on_data(space, bundle)


def test_a_text_for_a_number_is_refused_before_anything_is_built():
    space = sized(space_of(**{"loss": "focal", "loss.gamma": "big"}), image_size=48)[0]
    with pytest.raises(TypeError, match="'gamma' of loss 'focal' wants a number, not 'big'"):
        check.check_space(space)


def test_a_part_is_built_once_however_many_corners_hold_it(bundle, monkeypatch):
    built = []
    monkeypatch.setattr(
        "trainables.backbones.build_backbone", lambda name, *_, **__: built.append(name)
    )
    space = sized(space_of(backbone=Choice(("resnet", "vit"), "vit"), dropout=Uniform(0, 0.5, 0)))[
        0
    ]
    check.check_on_data(space, bundle)
    assert sorted(built) == ["small_resnet", "test_resnet", "test_vit"]  # with the tier's extra


def test_the_first_trials_are_the_baseline_and_the_defaults(bundle):
    space, _ = sized(find("smoke"), image_size=48)
    anchors, notes = plan.choose_anchors(space, TIERS["tiny"], bundle, 20)
    assert [role for role, _ in anchors] == ["baseline", "default"]
    baseline, default = (flat for _, flat in anchors)
    assert (baseline["backbone"], baseline["au_loss"]) == ("test_resnet", "none")
    assert default == space.defaults()
    assert notes == []


def test_a_baseline_that_cannot_be_built_takes_the_default_backbone_and_says_so(
    bundle, monkeypatch
):
    real = check.build

    def build(flat, data):
        if flat["backbone"] == "test_resnet":
            raise LookupError("no weights")
        real(flat, data)

    monkeypatch.setattr(plan, "build", build)
    space, _ = sized(space_of(), image_size=48)
    anchors, notes = plan.choose_anchors(space, TIERS["tiny"], bundle, 20)
    assert [flat["backbone"] for _, flat in anchors] == ["small_resnet", "small_resnet"]
    assert notes == ["the baseline is small_resnet, as test_resnet cannot be built: no weights"]


def test_defaults_that_cannot_be_built_are_refused(bundle, monkeypatch):
    space, _ = sized(space_of(attention="au_spatial", head="additive"), image_size=48)
    plan.choose_anchors(space, TIERS["tiny"], bundle, 20)
    with pytest.raises(ValueError, match="the default configuration cannot be built: .*components"):
        plan.choose_anchors(space, TIERS["tiny"], replace(bundle, components=None), 20)
