"""A search of heads on features, from the command to the report; what its space becomes."""

import json

import pytest

from search import check, plan, speed
from search.pretrained import fit_to_weights
from spaces.catalog import find
from spaces.space import Choice, LogUniform, Space
from spaces.tiers import TIERS, at_tier, baseline, trains_networks
from trainables.config import TrialConfig
from trainables.data import cache
from trainables.features.settings import check_features
from trainables.store import RunStore

HEADS = find("heads")
TINY = at_tier(HEADS, TIERS["tiny"])


def test_a_search_of_heads_ends_with_a_report(ended, place) -> None:
    code, out, err = ended(
        "--space", "heads", "--inline", "--trials", "8", "--data", "faces:300:easy",
        "--image-size", "32", "--name", "h", "--sampler", "random",
    )  # fmt: skip
    assert code == 0, err
    assert "'frozen': left out" in " ".join(out.split())
    records = RunStore.open(place / "runs" / "h").records()
    assert len(records) == 8
    for record in records:
        assert record.result is not None
        assert record.result.status == "completed", record.result.error
        (row,) = record.history
        assert row["done"]
    assert records[0].role == "baseline"
    assert {records[0].config[n] for n in ("classifier", "loss", "head")} == {
        "linear", "cross_entropy", "flat",
    }  # fmt: skip
    assert records[0].config["features"] == records[1].config["features"] == "hog"
    assert (place / "runs" / "h" / "report" / "index.html").exists()
    assert json.loads((place / "runs" / "h" / "run.json").read_text())["rungs"] == []


@pytest.mark.parametrize("tier", TIERS)
def test_every_corner_of_heads_is_of_settings_that_go_together(tier) -> None:
    space = at_tier(HEADS, TIERS[tier])
    corners = list(space.corners())
    for name, dim in space.dimensions.items():
        assert set(dim.ends()) <= {flat[name] for flat in corners if name in flat}, name
    flats = (space.defaults(), *corners, baseline(space, TIERS[tier]))
    assert [told for flat in flats if (told := contradiction(flat))] == []
    clash = {**space.defaults(), "classifier": "lda", "head": "cosine"}
    assert "is not for classifier 'lda'" in contradiction(clash)


def contradiction(flat: dict) -> str:
    """Why these settings do not go together; "" where they do."""
    try:
        check_features(TrialConfig.from_flat(flat))
        check.check_settings(flat)
    except (LookupError, TypeError, ValueError) as error:
        return f"{error}: {flat}"
    return ""


@pytest.mark.parametrize("tier", TIERS)
def test_rates_of_fine_tuning_are_not_for_heads(tier) -> None:
    assert at_tier(HEADS, TIERS[tier]).settings["lr"] == HEADS.settings["lr"]
    mixed = Space("m", {"features": Choice(("none", "hog"), "none"), "lr": LogUniform(0.1, 1, 0.5)})
    assert trains_networks(mixed)
    assert at_tier(mixed, TIERS["mid"]).settings["lr"] == TIERS["mid"].settings["lr"]


def test_the_baseline_of_heads_is_a_linear_head_on_the_default_features() -> None:
    flat = baseline(TINY, TIERS["tiny"])
    assert {n: flat[n] for n in ("features", "classifier", "loss", "synthesis")} == {
        "features": "frozen", "classifier": "linear", "loss": "cross_entropy", "synthesis": "none",
    }  # fmt: skip
    assert flat["features.pool"] == "mean"


def test_frozen_features_without_weights_are_left_out_unless_alone() -> None:
    fitted, notes = fit_to_weights(TINY, "none", 64)
    assert "frozen" not in fitted.settings["features"].options
    assert "backbone" not in fitted.settings
    assert "--weights FILE" in notes[0]
    alone = TINY.fixed({"features": "frozen"})
    assert fit_to_weights(alone, "none", 64)[0].settings["features"] == "frozen"


def test_a_space_may_say_how_many_trials_it_takes() -> None:
    assert HEADS.trials == 200
    assert find("sprint2").trials is None
    more = Space(HEADS.name, HEADS.settings, trials=3)
    assert more.digest() == HEADS.digest()  # what may be tried is the same


def test_data_of_single_emotions_have_no_pairs(faces) -> None:
    from dataclasses import replace

    bundle = replace(cache.load(faces), components=None, basic_names=())
    fitted, notes = plan.fit_to_data(TINY, bundle)
    assert "pair" not in fitted.settings["synthesis"].options
    assert "classifier.shrink" not in fitted.settings
    assert "additive" not in fitted.settings["head"].options
    assert any("prototypes are not shrunk" in note for note in notes)


def test_the_speed_of_a_trial_on_features_is_that_of_all_of_it(faces, tmp_path) -> None:
    place = tmp_path / faces.name
    place.symlink_to(faces)
    flat = {**TINY.fixed({"features": "hog", "image_size": 48}).defaults(), "epochs": 4}
    (found,) = speed.sample(Space("one", flat), place, 1, 5.0)
    assert found.backbone == "hog"
    assert 0 < found.epoch_seconds < 5
    assert list(tmp_path.glob("features-*"))  # and its features are there when the search begins
