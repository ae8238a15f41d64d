"""Spaces as data: conditions, corners, restriction, identity."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.encoding import Encoder
from search.generated import name_set
from spaces.anchors import first_tries, lacking
from spaces.catalog import NAMES, find
from spaces.space import Choice, Dimension, IntRange, LogUniform, Space, Uniform, applies
from spaces.tiers import TIERS, at_tier, baseline
from trainables.config import TrialConfig
from trainables.contradictions import check_config, check_rebalancing

TOY = Space(
    "toy",
    {
        "loss": Choice(("ce", "focal"), "ce"),
        "loss.gamma": Uniform(0.0, 3.0, 2.0, {"loss": ("focal",)}),
        "lr": LogUniform(1e-4, 1e-2, 1e-3),
        "width": IntRange(8, 64, 16, log=True),
        "epochs": 3,
    },
)
SIZED = [(name, tier) for name in NAMES for tier in TIERS]


def sized(name: str, tier: str) -> Space:
    return at_tier(find(name), TIERS[tier])


def test_arguments_appear_only_with_their_part() -> None:
    assert TOY.defaults() == {"loss": "ce", "lr": 1e-3, "width": 16, "epochs": 3}
    assert TOY.nearest({"loss": "focal"})["loss.gamma"] == 2.0


@given(st.integers(0, 10**6))
def test_samples_stay_in_their_ranges(seed: int) -> None:
    flat = TOY.sample(random.Random(seed))
    assert all(TOY.dimensions[n].contains(v) for n, v in flat.items() if n in TOY.dimensions)
    assert ("loss.gamma" in flat) == (flat["loss"] == "focal")


def test_corners_reach_both_ends_of_every_dimension() -> None:
    corners = list(TOY.corners())
    for name, dim in TOY.dimensions.items():
        assert set(dim.ends()) <= {c[name] for c in corners if name in c}


RAMPED = Space(
    "ramped",
    {
        "loss": Choice(("ce", "balanced"), "ce"),
        "mix": Choice(("none", "mixup"), "none"),
        "pace": Choice(("none", "linear"), "none"),
        "drives": Choice(
            ("data", "tau", "mix"),
            "data",
            {"pace": ("linear",)},
            needs={"tau": {"loss": ("balanced",)}, "mix": {"mix": ("mixup",)}},
        ),
        "order": Choice(("count", "random"), "count", {"drives": ("data",)}),
    },
)


def is_sound(flat: dict) -> bool:
    drives = flat.get("drives", "data")
    needs = {"data": True, "tau": flat["loss"] == "balanced", "mix": flat["mix"] == "mixup"}
    return needs[drives] and ("order" in flat) == (flat.get("drives") == "data")


@given(st.integers(0, 10**6))
def test_an_option_is_drawn_only_with_what_it_needs(seed: int) -> None:
    assert is_sound(RAMPED.sample(random.Random(seed)))


def test_every_option_is_drawn_and_has_a_corner_with_what_it_needs() -> None:
    rng = random.Random(0)
    drawn = {RAMPED.sample(rng).get("drives") for _ in range(200)}
    assert drawn == {None, "data", "tau", "mix"}
    corners = list(RAMPED.corners())
    assert all(map(is_sound, corners))
    assert {flat["drives"] for flat in corners if "drives" in flat} == {"data", "tau", "mix"}


def test_what_the_model_draws_has_what_it_needs_too() -> None:
    encoder, rng = Encoder(RAMPED), np.random.default_rng(0)
    points = encoder.mutate(encoder.sample(300, rng), rng)
    flats = [encoder.flat(point) for point in points]
    assert all(map(is_sound, flats))
    assert {flat.get("drives") for flat in flats} == {None, "data", "tau", "mix"}
    for point, flat in zip(points, flats, strict=True):
        assert np.array_equal(encoder.point(flat), point, equal_nan=True)


def test_an_option_goes_with_what_it_needs() -> None:
    left = RAMPED.fixed({"loss": "ce"})
    assert left.settings["drives"].options == ("data", "mix")
    assert left.without("mix", ("mixup",)).settings["drives"] == "data"
    assert "order" in left.without("mix", ("mixup",)).settings


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"data": {"loss": ("ce",)}}, "needs are for options but the default"),
        ({"tua": {"loss": ("ce",)}}, "needs are for options but the default"),
        ({"tau": {"lsos": ("ce",)}}, "must stand before it"),
    ],
)
def test_needs_that_cannot_be_read_are_refused(needs, message) -> None:
    drives = Choice(("data", "tau"), "data", needs=needs)
    with pytest.raises(ValueError, match=message):
        Space("odd", {"loss": Choice(("ce", "focal"), "ce"), "drives": drives})


def test_a_removed_option_takes_its_arguments_along() -> None:
    left = TOY.without("loss", ("focal",))
    assert left.settings["loss"] == "ce"
    assert "loss.gamma" not in left.settings


def test_fixing_an_unknown_setting_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match="loss"):
        TOY.fixed({"los": "ce"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a": Choice(("x",), "x")}, "two options"),
        ({"a": Uniform(1.0, 1.0, 1.0)}, "below"),
        ({"a": LogUniform(0.0, 1.0, 0.5)}, "low > 0"),
        ({"a": Uniform(0.0, 1.0, 2.0)}, "default"),
        ({"a": Uniform(0.0, 1.0, 0.5, {"b": ("x",)}), "b": "x"}, "before"),
    ],
)
def test_a_malformed_dimension_is_refused(settings: dict[str, Choice], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space("bad", settings)


def test_digest_follows_content_and_order_only() -> None:
    assert TOY.digest() == Space("other name", dict(TOY.settings)).digest()
    assert TOY.digest() != TOY.fixed({"epochs": 4}).digest()


@pytest.mark.parametrize(("name", "tier"), SIZED)
def test_every_corner_of_every_space_is_a_valid_configuration(name: str, tier: str) -> None:
    for flat in sized(name, tier).corners():
        config = TrialConfig.from_flat(flat)
        check_rebalancing(config)
        assert TrialConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(("name", "tier"), SIZED)
def test_baseline_is_one_task_with_cross_entropy(name: str, tier: str) -> None:
    config = TrialConfig.from_flat(baseline(sized(name, tier), TIERS[tier]))
    assert config.backbone.name == TIERS[tier].backbones["resnet"]
    assert config.au_weight == 0
    assert {config.attention.name, config.fusion.name, config.curriculum.name} == {"none"}
    assert config.loss.name == "cross_entropy"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "heads"])
def test_lambda_zero_is_in_every_space(name: str) -> None:
    dim = sized(name, "tiny").settings["au_loss"]
    assert isinstance(dim, Choice)
    assert dim.contains("none")
    assert "au_weight" not in sized(name, "tiny").nearest({"au_loss": "none"})


def test_a_users_file_is_a_space(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from spaces.space import Choice, Space\n"
        "SPACE = Space('mine', {'lr': Choice((0.1, 0.2), 0.1)})\n"
    )
    assert find(str(path)).name == "mine"
    path.write_text("SPACE = 3\n")
    with pytest.raises(ValueError, match="defines no SPACE"):
        find(str(path))
    path.write_text("1 / 0\n")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        find(str(path))


def test_an_unknown_space_suggests_the_nearest() -> None:
    with pytest.raises(LookupError, match="Did you mean 'sprint2'"):
        find("sprnt2")


def test_a_condition_needs_all_its_settings() -> None:
    dim = Uniform(0.0, 1.0, 0.5, {"a": ("x",), "b": ("y",)})
    assert applies(dim, {"a": "x", "b": "y"})
    assert not applies(dim, {"a": "x", "b": "z"})
    assert not applies(dim, {"a": "x"})


@pytest.mark.parametrize("tier", TIERS.values(), ids=TIERS)
def test_curricula_end_before_the_first_rung(tier) -> None:
    dim = sized("sprint2", tier.name).dimensions["curriculum.full_at"]
    last_before = (tier.first_rung - 1) / tier.epochs  # progress when that epoch starts
    assert max(float(end) for end in dim.ends()) <= last_before


@pytest.mark.parametrize("name", ["sprint1", "sprint2"])
def test_without_lambda_no_part_learns_from_action_units(name: str) -> None:
    flat = sized(name, "tiny").nearest({"attention": "au_spatial", "au_loss": "none"})
    config = TrialConfig.from_flat(flat)
    assert config.au_weight == 0
    assert config.region_weight == 0


def test_conditions_on_families_become_conditions_on_networks() -> None:
    mine = Space("mine", {
        "backbone": Choice(("resnet", "vit"), "vit"),
        "drop_path": Uniform(0.0, 0.3, 0.1, {"backbone": ("vit",)}),
    })  # fmt: skip
    space = at_tier(mine, TIERS["mid"])
    assert space.defaults()["drop_path"] == 0.1
    assert "drop_path" not in space.nearest({"backbone": TIERS["mid"].backbones["resnet"]})


@given(seed=st.integers(0, 10**6), confidence=st.sampled_from([0.0, 0.5, 0.99]))
def test_draws_with_a_belief_stay_in_range(seed, confidence):
    dims = {
        "a": Uniform(-1.0, 3.0, 3.0, confidence=confidence),
        "b": LogUniform(1e-5, 1.0, 1e-5, confidence=confidence),
        "c": IntRange(1, 64, 1, log=True, confidence=confidence),
        "d": Choice(("x", "y"), "y", confidence=confidence),
    }
    drawn = Space("s", dims).sample(random.Random(seed))
    for name, dim in dims.items():
        assert dim.contains(drawn[name]), name


def test_a_belief_is_part_of_the_record_and_none_leaves_it_as_it_was():
    plain, sure = Uniform(0.0, 1.0, 0.5), Uniform(0.0, 1.0, 0.5, confidence=0.5)
    assert "confidence" not in Space("s", {"lr": plain}).as_dict()["lr"]
    assert Space("s", {"lr": sure}).as_dict()["lr"]["confidence"] == 0.5
    assert Space("s", {"lr": sure}).digest() != Space("s", {"lr": plain}).digest()


def test_a_belief_beyond_doubt_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        Space("s", {"lr": Uniform(0.0, 1.0, 0.5, confidence=1.0)})


def test_a_family_without_a_network_in_the_tier_is_left_out() -> None:
    tiny = Space("s", {"backbone": Choice(("facenet", "vit", "test_resnet"), "facenet")})
    dim = at_tier(tiny, TIERS["tiny"]).settings["backbone"]
    assert dim == Choice(("test_vit", "test_resnet", "small_resnet"), "test_vit")


@pytest.mark.parametrize("asked", ["facenet", Choice(("facenet", "arcface"), "arcface")])
def test_a_tier_without_any_network_asked_for_is_refused(asked) -> None:
    with pytest.raises(ValueError, match="tier tiny has no network for backbone facenet"):
        at_tier(Space("s", {"backbone": asked}), TIERS["tiny"])


@pytest.mark.parametrize(("name", "tier"), SIZED)
def test_every_anchor_is_in_its_space_and_differs_from_the_others(name: str, tier: str) -> None:
    space = sized(name, tier)
    assert list(first_tries(space)) == list(space.anchors)
    configs = [TrialConfig.from_flat(flat) for flat in first_tries(space).values()]
    for config in configs:
        check_rebalancing(config)
    assert len({config.trial_id for config in configs}) == len(configs)


def test_anchors_of_sprint2_are_those_of_the_evidence() -> None:
    tries = first_tries(sized("sprint2", "tiny"))
    assert tries["cross-entropy"]["loss"] == "cross_entropy"
    assert tries["deferred"]["rebalance.start"] == 0.7
    assert tries["deferred, AUs"]["au_weight"] == 0.3
    assert tries["deferred, AUs, additive"]["head"] == "additive"
    corrections = [flat["loss"] == "balanced_softmax" for flat in tries.values()]
    assert corrections == [False, True, False, False, False]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("later", "earlier", "left"),
    [
        ("sprint2", "sprint1", ("au_balance", "curriculum", "au_prior", "au_reading")),
        ("sprint3", "sprint2", ()),
        ("sprint4", "sprint3", ()),
        ("full", "sprint4", ()),
        ("full", "sprint1", ("curriculum.start",)),
    ],
)
def test_a_space_holds_what_the_one_before_may_find_but_for_what_it_leaves_there(
    later: str, earlier: str, left: tuple[str, ...], tier: str
) -> None:
    ours = sized(later, tier).settings
    for flat in sized(earlier, tier).corners():
        for name, value in flat.items():
            if not name.startswith(left or "-"):
                dim = ours[name]
                assert dim.contains(value) if isinstance(dim, Dimension) else dim == value, name


def test_later_sprints_lean_to_what_the_earlier_believe_in_and_full_does_not() -> None:
    third, everything = find("sprint3").dimensions, find("full").dimensions
    for name in ("backbone", "loss", "lr", "au_weight"):  # of sprint2
        assert third[name].confidence == 0.5
    for name in ("sam", "augment", "mix", "curriculum", "basics"):  # the question of sprint3
        assert third[name].confidence == 0
        assert find("sprint4").dimensions[name].confidence == 0.5
    assert {name for name, dim in everything.items() if dim.confidence} == {"au_balance"}


@pytest.mark.parametrize("name", ["sprint3", "full"])
def test_what_a_curriculum_drives_is_there_in_every_draw(name: str) -> None:
    space, rng, driven = name_set(sized(name, "tiny"), None)[0], random.Random(0), set()
    for _ in range(400):
        config = TrialConfig.from_flat(space.sample(rng))
        check_config(config)  # raises for a curriculum of what is not there
        if config.curriculum.name != "none":
            driven.add(config.curriculum_drives)
    assert driven == {"data", "size", "sampler", "tau", "au_weight", "mix"}


def test_anchor_says_where_it_leaves_the_defaults() -> None:
    anchors = {"near": {"loss": "focal", "loss.gamma": 1.0}, "wide": {"width": 64}}
    toy = Space("toy", TOY.settings, anchors)
    assert first_tries(toy)["near"] == {**toy.nearest({"loss": "focal"}), "loss.gamma": 1.0}
    assert toy.digest() == TOY.digest()  # what may be tried is the same
    narrow = toy.without("loss", ("focal",))
    assert list(first_tries(narrow)) == ["wide"]
    assert lacking(narrow, "near") == ["loss", "loss.gamma"]
    assert lacking(toy.fixed({"width": 8}), "wide") == ["width"]
    assert list(first_tries(TOY.union(toy, "both"))) == ["near", "wide"]


@pytest.mark.parametrize(
    "wanted", [{"loss": "hinge"}, {"lr": 1.0}, {"los": "ce"}, {"loss": "ce", "loss.gamma": 1.0}]
)
def test_anchor_outside_the_space_is_no_first_try(wanted) -> None:
    toy = Space("toy", TOY.settings, {"odd": wanted})
    assert first_tries(toy) == {}
    assert lacking(toy, "odd") == [list(wanted)[-1]]
