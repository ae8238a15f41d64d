"""Before a search starts: the space fitted to the wishes and the data, its size and its time."""

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rich.console import Console

from search.check import PROBLEMS, build, constants_of, reason
from search.options import LARGEST, MOST_EPOCHS, SMALLEST
from spaces.anchors import first_tries, lacking, on_each_network
from spaces.show import space_table
from spaces.space import Choice, Dimension, Space, Value, prune
from spaces.tiers import TIERS, Tier, at_tier, baseline, overruled
from trainables.cli import say
from trainables.config import SHORTCUTS, TrialConfig
from trainables.data.bundle import DataBundle
from trainables.data.listing import several
from trainables.registry import unknown

AU_ATTENTION = ("au_spatial", "au_cross")
AU_AUGMENTS = ("au_safe",)
AU_PRIORS = ("co_annotation", "distribution_matching")
COMPOUNDS = (  # options that need classes of two basic emotions, and what to say of them
    ("head", ("additive", "additive_residual"), "additive heads are"),
    ("synthesis", ("pair",), "synthesis by pairs is"),
    ("basics", ("two_stage", "three_stage"), "learning basic emotions first is"),
)
SEQUENCE_FEATURES = ("optical_flow",)
DEFAULTS: dict[str, Value] = {
    "seed": 0, "weights": "none", "metric": "macro_f1", "folds": 1, "fold_seed": 0
}  # fmt: skip
Anchors = list[tuple[str, dict[str, Value]]]  # role and configuration of the first trials


def settle(args: argparse.Namespace, space: Space) -> tuple[argparse.Namespace, list[str]]:
    """The flags, where not given taken from the space; a sentence for each that overrules it.

    Raises ValueError for a space that varies what is one for the whole run.
    """
    settled, notes = dict(vars(args)), []
    for name in (*DEFAULTS, "image_size", "epochs"):
        own, asked = space.settings.get(name), settled[name]
        flag = f"--{name.replace('_', '-')}"
        if isinstance(own, Dimension):
            raise ValueError(
                f"space '{space.name}' varies {name}, which is one for the whole run: make it a "
                f"constant, or leave it out and make one run for each value of {flag}"
            )
        if own is not None:
            TrialConfig.from_flat({name: own})  # raises TypeError for a wrong type
            if asked is not None and asked != own:
                notes.append(f"{flag} {asked} overrules the {own} of space '{space.name}'")
        settled[name] = next((v for v in (asked, own) if v is not None), DEFAULTS.get(name))
    return argparse.Namespace(**settled), notes


@dataclass(frozen=True)
class Sizes:
    """What the command line or the space may set of a tier."""

    tier: Tier
    image_size: int
    epochs: int
    trials: int
    first_rung: int

    def space(self, space: Space) -> Space:
        sized = at_tier(space, self.tier)
        return sized.fixed({"image_size": self.image_size, "epochs": self.epochs})


def choose_sizes(
    tier: str | None,
    source: str,
    gpus: int,
    image_size: int | None,
    epochs: int | None,
    trials: int | None,
) -> Sizes:  # six: one a flag
    """The tier asked for, or tiny on embedded data and on machines without a GPU, mid elsewhere."""
    from trainables.data.loaders import is_faces

    name = tier or ("tiny" if gpus == 0 or is_faces(source) else "mid")
    if name not in TIERS:
        raise LookupError(unknown("tier", name, TIERS))
    chosen = TIERS[name]
    if image_size is not None and not SMALLEST <= image_size <= LARGEST:
        raise ValueError(f"image_size {image_size} is not within {SMALLEST} to {LARGEST}")
    for what, value in (("epochs", epochs), ("trials", trials)):
        if value is not None and value < 1:
            raise ValueError(f"{what} {value} is too small: give 1 or more")
    if epochs is not None and epochs > MOST_EPOCHS:
        raise ValueError(f"epochs {epochs} is too large: give {MOST_EPOCHS} at most")
    length = epochs or chosen.epochs
    scaled = max(1, round(chosen.first_rung * length / chosen.epochs))
    return Sizes(chosen, image_size or chosen.image_size, length, trials or chosen.trials, scaled)


def fit_to_tier(space: Space, sizes: Sizes, args: argparse.Namespace) -> tuple[Space, list[str]]:
    """The space at its size, with the run's constants; a sentence for what can never apply."""
    sized = sizes.space(replace(space, settings={**space.settings, **_constants(args)}))
    tier = sizes.tier
    notes = [
        f"'{name}' never applies at tier {tier.name}: its condition cannot hold"
        for name in space.settings
        if name not in sized.settings
    ]
    of_tier = overruled(space, tier)
    if theirs := [n for n, dim in of_tier.items() if space.settings[n] != dim]:
        notes.append(f"tier {tier.name} overrules {', '.join(theirs)} of space '{space.name}'")
    return sized, notes


def _constants(args: argparse.Namespace) -> dict[str, Value]:
    return {name: getattr(args, name) for name in DEFAULTS}


def fit_to_data(space: Space, bundle: DataBundle) -> tuple[Space, list[str]]:
    """The space without what this data cannot feed, and a sentence for each thing left out.

    Raises ValueError when a space insists on it.
    """
    fitted, notes, before = _without_au_loss(space, bundle), list[str](), space
    for lack in lacks(bundle):
        for name, options in lack.options.items():
            if not name.startswith("curriculum_") or _has_curriculum(fitted):
                fitted = _leave_out(fitted, name, options, lack.why)
        if fitted != before:
            notes.append(f"{lack.why}: {lack.what} off")
        before = fitted
    fitted, more = _unshrunk(fitted, bundle)
    notes += more
    if bundle.train.distributions is None and fitted.settings.get("soft_labels", 0.0) != 0.0:
        why = "the data has no crowd votes"
        fitted = _one_hot(fitted, why)
        notes.append(f"{why}: soft labels are off")
    return fitted, notes + _shortcuts(fitted)


def _unshrunk(space: Space, bundle: DataBundle) -> tuple[Space, list[str]]:
    """The space without what prototypes of compounds are shrunk to, where there are none."""
    if bundle.components is not None or "classifier.shrink" not in space.settings:
        return space, []
    kept = {n: d for n, d in space.settings.items() if n != "classifier.shrink"}
    why = "the classes are not compounds of basic emotions"
    return replace(space, settings=kept), [f"{why}: prototypes are not shrunk to anything"]


def _shortcuts(space: Space) -> list[str]:
    """A sentence for each part of the space that gives the label away."""
    return [
        f"{part} '{name}' is a shortcut risk: {why}"
        for (part, name), why in SHORTCUTS.items()
        if name in constants_of(space, part)
    ]


@dataclass(frozen=True)
class Lack:
    """What the data does not have, and the options that need it."""

    why: str
    what: str  # is off, in words
    options: Mapping[str, tuple[str, ...]]


def lacks(bundle: DataBundle) -> Iterator[Lack]:
    """All that this data cannot feed, but for the AU loss and soft labels."""
    if not bundle.au_names:
        why = "the data has no AU labels"
        yield Lack(why, "AU loss and AU-guided attention are", {"attention": AU_ATTENTION})
        yield Lack(why, "augmentation that spares active AUs is", {"augment": AU_AUGMENTS})
        curricula = {"curriculum_drives": ("au_weight",), "curriculum_order": ("au_prototype",)}
        yield Lack(why, "curricula by AUs are", curricula)
    elif without := bundle.unlabelled_classes():
        why = f"no training image of {several(without)} has AU labels"
        yield Lack(why, "AU priors are", {"au_prior": AU_PRIORS})
    if bundle.components is None:
        why = "the classes are not compounds of basic emotions"
        yield from (Lack(why, what, {name: options}) for name, options, what in COMPOUNDS)
    if bundle.train.distributions is None:
        why = "the data has no crowd votes"
        yield Lack(why, "the order by their entropy is", {"curriculum_order": ("crowd_entropy",)})
    if bundle.train.sequences is None:
        why = "the data holds stills, without frames before them"
        yield Lack(why, "optical flow is", {"features": SEQUENCE_FEATURES})


def _has_curriculum(space: Space) -> bool:
    return space.settings.get("curriculum", "none") != "none"


def _one_hot(space: Space, why: str) -> Space:
    """The space with soft labels off. Raises ValueError when it cannot do without."""
    dim = space.settings["soft_labels"]
    if not isinstance(dim, Dimension) or not dim.contains(0.0):
        raise ValueError(
            f"space '{space.name}' asks for soft_labels, but {why}: take other --data, or a space "
            "with soft_labels 0"
        )
    return space.fixed({"soft_labels": 0.0})


def _without_au_loss(space: Space, bundle: DataBundle) -> Space:
    """The space without AU loss and all that goes with it, where the data has no AUs."""
    if bundle.au_names or space.settings.get("au_loss", "none") == "none":
        return space
    kept = {n: d for n, d in space.settings.items() if n == "au_loss" or not n.startswith("au_")}
    return replace(space, settings=prune({**kept, "au_loss": "none"}))


def _leave_out(space: Space, name: str, options: tuple[str, ...], why: str) -> Space:
    dim = space.settings.get(name)
    asked = dim.options if isinstance(dim, Choice) else (dim,)
    if set(asked) <= set(options):
        raise ValueError(
            f"space '{space.name}' asks for {name} {' or '.join(map(str, asked))}, but {why}: "
            f"take other --data, or a space with another {name}"
        )
    return space.without(name, options) if set(asked) & set(options) else space


def choose_anchors(
    space: Space, tier: Tier, bundle: DataBundle, trials: int
) -> tuple[Anchors, list[str]]:
    """The baseline and the defaults, both tried, then the defaults on other networks and what is
    left of a quarter of the trials for the space's own; a sentence where the baseline had to
    change, and on what is left out.

    Raises ValueError when the first two cannot be built.
    """
    default, notes = space.defaults(), []
    plain = baseline(space, tier)
    try:
        build(plain, bundle)
    except PROBLEMS as error:
        own = default.get("backbone", TrialConfig().backbone.name)
        notes.append(
            f"the baseline is {own}, as {plain['backbone']} cannot be built: {reason(error)}"
        )
        plain = {**plain, "backbone": own}
    anchors: Anchors = [("baseline", plain), ("default", default)]
    for role, flat in anchors[0 if notes else 1 :]:
        try:
            build(flat, bundle)
        except PROBLEMS as error:
            raise ValueError(
                f"the {role} configuration cannot be built: {reason(error)}"
            ) from error
    left_out = [
        f"anchor '{name}' is left out, for its {', '.join(lacks)}"
        for name in space.anchors
        if (lacks := lacking(space, name))
    ]
    more, most = list((on_each_network(space) | first_tries(space)).items()), trials // 4
    if crowded_out := [name for name, _ in more[most:]]:
        left_out.append(
            f"no room, in a quarter of the trials, to begin with {several(crowded_out)}"
        )
    return anchors + more[:most], notes + left_out


def combinations(space: Space) -> int:
    """How many different choices of parts there are, ranges not counted."""
    return math.prod(
        len(d.options) for n, d in space.dimensions.items() if isinstance(d, Choice) and not d.when
    )


def describe_plan(console: Console, space: Space, sizes: Sizes, rungs: list[int]) -> None:
    """Print the space, and the plan of trials and rungs."""
    console.print(space_table(space, console.width))
    judged = f"judged after epoch {', '.join(map(str, rungs))}" if rungs else "none stopped early"
    say(
        console,
        "space",
        f"dimensions: {len(space.dimensions)}; the choices that always apply combine in "
        f"{combinations(space):,} ways, each with its further arguments",
    )
    say(
        console,
        "plan",
        f"{sizes.trials} trials of up to {sizes.epochs} epochs at {sizes.image_size} px, {judged}; "
        "the baseline and the defaults first",
    )
