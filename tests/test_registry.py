"""The plug-in mechanism."""

import pytest

from trainables.registry import Registry


@pytest.fixture
def registry() -> Registry:
    shapes: Registry = Registry("shape")

    @shapes.register
    def circle(centre: int, *, radius: float = 1.0) -> float:
        return centre + radius

    @shapes.register
    def none_() -> None: ...

    return shapes


def test_a_builder_is_known_by_its_name(registry) -> None:
    assert list(registry) == ["circle", "none"]
    assert registry["circle"](1, radius=2.0) == 3.0
    assert registry.arguments("circle") == {"radius": 1.0}


def test_an_unknown_name_suggests_the_nearest(registry) -> None:
    with pytest.raises(
        LookupError, match=r"unknown shape 'circel'; known: circle, none. Did you mean 'circle'"
    ):
        registry["circel"]


def test_an_unknown_argument_is_refused(registry) -> None:
    with pytest.raises(LookupError, match="Did you mean 'radius'"):
        registry.check("circle", ["radus"])


def test_a_collision_is_refused(registry) -> None:
    def circle() -> None: ...

    with pytest.raises(ValueError, match="twice"):
        registry.register(circle)


def test_a_text_for_a_number_is_refused(registry) -> None:
    registry.check("circle", {"radius": 2})
    with pytest.raises(TypeError, match="'radius' of shape 'circle' wants a number, not 'wide'"):
        registry.check("circle", {"radius": "wide"})
