"""Schedules against the formulas of methods 2.10."""

import pytest

from trainables.schedules import SCHEDULES, warmup_cosine


@pytest.mark.parametrize(
    ("name", "arguments", "at", "fraction"),
    [
        ("none", {}, 0.0, 1.0),
        ("linear", {"start": 0.2, "full_at": 0.5}, 0.0, 0.2),
        ("linear", {"start": 0.2, "full_at": 0.5}, 0.25, 0.6),
        ("root", {"start": 0.2, "full_at": 0.5, "power": 2.0}, 0.0, 0.2),
        ("root", {"start": 0.2, "full_at": 0.5, "power": 2.0}, 0.25, (0.04 + 0.96 / 2) ** 0.5),
        ("geometric", {"start": 0.25, "full_at": 0.5}, 0.0, 0.25),
        ("geometric", {"start": 0.25, "full_at": 0.5}, 0.25, 0.5),
        ("step", {"start": 0.1, "factor": 2.0, "step_length": 0.1}, 0.09, 0.1),
        ("step", {"start": 0.1, "factor": 2.0, "step_length": 0.1}, 0.3, 0.8),
        ("step", {"start": 0.1, "factor": 2.0, "step_length": 0.1}, 0.4, 1.0),
    ],
)
def test_schedule_by_hand(
    name: str, arguments: dict[str, float], at: float, fraction: float
) -> None:
    assert SCHEDULES[name](**arguments)(at) == pytest.approx(fraction)


@pytest.mark.parametrize("name", ["linear", "root", "geometric"])
def test_start_one_switches_the_curriculum_off(name: str) -> None:
    schedule = SCHEDULES[name](start=1.0)
    assert [schedule(p / 10) for p in range(11)] == [1.0] * 11


@pytest.mark.parametrize("name", ["linear", "root", "geometric"])
def test_all_data_is_there_from_full_at_on(name: str) -> None:
    schedule = SCHEDULES[name](start=0.1, full_at=0.4)
    assert schedule(0.39) < 1
    assert schedule(0.4) == pytest.approx(1)


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "none"])
def test_a_curriculum_that_cannot_be_is_refused(name: str) -> None:
    for wrong in ({"full_at": -2}, {"full_at": 1.5}, {"start": -0.1}, {"start": 2}):
        with pytest.raises(ValueError, match="a curriculum cannot go from"):
            SCHEDULES[name](**wrong)


def test_what_grows_by_factors_cannot_start_from_nothing_and_a_line_can() -> None:
    for name in ("geometric", "step"):
        with pytest.raises(ValueError, match="never leaves 0: take 'linear'"):
            SCHEDULES[name](start=0.0)
    for name, halfway in (("linear", 0.5), ("root", 0.5**0.5)):
        schedule = SCHEDULES[name](start=0.0, full_at=0.5)
        assert [schedule(p) for p in (0.0, 0.25, 0.5)] == pytest.approx([0, halfway, 1])


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    factors = [warmup_cosine(s, 10, 2) for s in (0, 1, 2, 6, 10)]
    assert factors == pytest.approx([0.01, 0.505, 1.0, 0.5, 0.0])


def test_learning_rate_without_warmup_starts_whole() -> None:
    assert warmup_cosine(0, 10, 0) == 1


def test_learning_rate_survives_a_warmup_as_long_as_the_training() -> None:
    assert warmup_cosine(1, 2, 2) == pytest.approx(0.505)
    assert warmup_cosine(2, 2, 2) == 0


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "none"])
def test_all_data_is_in_from_full_at_on(name: str) -> None:
    fraction = SCHEDULES[name](start=0.1, full_at=0.25)
    assert fraction(0.1) < 1
    assert fraction(0.25) == fraction(0.9) == 1
