"""The configurations that are worth trying first: every network, and what the space names."""

from spaces.space import Choice, Dimension, Space, Value, is_met, needs_of


def on_each_network(space: Space) -> dict[str, dict[str, Value]]:
    """The default configuration on every network but the default one.

    Networks differ by more than most settings, and one seen under random settings alone looks
    worse than it is.
    """
    backbone = space.settings.get("backbone")
    if not isinstance(backbone, Choice):
        return {}
    found = {}
    for option in backbone.options:
        flat = space.nearest({"backbone": option})
        is_possible = flat.get("backbone") == option and is_met(needs_of(backbone, option), flat)
        if is_possible and option != backbone.default:
            found[f"default on {option}"] = flat
    return found


def first_tries(space: Space) -> dict[str, dict[str, Value]]:
    """The anchors as configurations, but for those that ask for what is not in the space."""
    return {
        name: space.nearest(wanted)
        for name, wanted in space.anchors.items()
        if not lacking(space, name)
    }


def lacking(space: Space, anchor: str) -> list[str]:
    """The settings of an anchor whose values the space does not hold, or not together."""
    wanted = space.anchors[anchor]
    flat = space.nearest(wanted)
    return [n for n, value in wanted.items() if flat.get(n) != value or not _holds(space, n, value)]


def _holds(space: Space, name: str, value: Value) -> bool:
    dim = space.settings[name]
    return dim.contains(value) if isinstance(dim, Dimension) else dim == value
