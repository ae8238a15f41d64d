"""Trials that are given: a list of configurations, each under several seeds, all to their end.

    python -m search.run --configs FILE.json --seeds 5

The file is a list of {"role": ..., "config": {...}}, settings as in a trial's config.json. Nothing
is chosen here: no sampler and no pruner, but the folder, table, forecast, resume and report of any
run. Seeds are the outer loop: a run that is cut short has every configuration equally often.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.check import PROBLEMS, build, check_parts, check_settings, reason
from search.plan import DEFAULTS, Anchors, Sizes
from search.protocols import Proposal
from spaces.space import Space, Value
from trainables.cli import say
from trainables.config import Flat, TrialConfig
from trainables.store import Row, Status

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.data.bundle import DataBundle

# Flags that say what is tried.
CHOOSING = ("space", "sampler", "pruner", "trials", "warm_start", "synthetic")
SAMPLER, PRUNER = "given", "none"  # what run.json says of such a run
KEYS = ("role", "config")
ONE_FOR_ALL = ("metric", "image_size", "epochs", "folds", "fold_seed")


class GivenProposer:
    """Hands out given trials in their order. State: those that have not been asked for."""

    def __init__(self, trials: Iterable[tuple[str, Mapping[str, Value]]]) -> None:
        proposals = [Proposal(role, TrialConfig.from_flat(flat)) for role, flat in trials]
        self.waiting = {proposal.config.trial_id: proposal for proposal in proposals}

    def ask(self) -> Proposal | None:
        """The next one; None when all have been handed out."""
        return self.waiting.pop(next(iter(self.waiting))) if self.waiting else None

    def prefer(self, paused: Mapping[str, int]) -> str | None:
        return None

    def reopen(self, config: Flat) -> None:
        self.waiting.pop(TrialConfig.from_flat(config).trial_id, None)

    def observe(self, trial: str, epoch: int, score: float) -> None: ...

    def tell(self, trial: str, history: Sequence[Row], status: Status) -> None: ...


def check_flags(args: argparse.Namespace) -> None:
    """Raise ValueError for flags that contradict a list of configurations, or need one."""
    if args.configs is not None and args.confirm is not None:
        raise ValueError("--confirm trains the best of a search anew, --configs is none: drop one")
    if args.configs is None:
        if args.seeds is not None:
            raise ValueError("--seeds is how often each of --configs is trained: give a list")
        return
    for name in CHOOSING:
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} says what is tried, and so does --configs: drop one")


def read(path: Path) -> Anchors:
    """The roles and configurations of a file, as they stand there.

    Raises FileNotFoundError, or ValueError saying which entry is wrong and how it should be.
    """
    try:
        entries = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise FileNotFoundError(f"--configs: no file at '{path}'") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--configs '{path}' cannot be read as JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"--configs '{path}' must be a list of {{role, config}}, one or more")
    found: Anchors = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_entry(entry))
        except (LookupError, ValueError, TypeError) as error:
            raise ValueError(f"--configs '{path}', entry {number}: {error}") from error
    twice = [role for role, n in Counter(role for role, _ in found).items() if n > 1]
    if twice:
        raise ValueError(
            f"--configs '{path}': '{twice[0]}' is the role of two configurations: give each its own"
        )
    return found


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a name that stands twice: only one would count."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' stands twice in one object: drop one")
        found[name] = value
    return found


def _entry(entry: Any) -> tuple[str, dict[str, Value]]:
    if not isinstance(entry, dict) or set(entry) != set(KEYS):
        raise ValueError('it must be {"role": "...", "config": {...}} and hold nothing else')
    role, flat = entry["role"], entry["config"]
    if not isinstance(role, str) or not role.strip():
        raise ValueError("its role must be a text that is not empty")
    if not isinstance(flat, dict):
        raise TypeError("its config must be {setting: value}")
    if "seed" in flat:
        raise ValueError("seeds are given by --seed (the first) and --seeds (how many): drop it")
    if flat.get("fold"):
        raise ValueError("folds are given by --folds, and all of them are trained: drop fold")
    for name, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):  # NaN, 1e999: no JSON, yet read
            raise ValueError(f"setting '{name}' cannot be {value}: give a finite number")
        if not isinstance(value, str | int | float):
            raise TypeError(f"setting '{name}' cannot be {value!r}: give one text or number")
    TrialConfig.from_flat(flat)  # raises for what no trial knows
    return role, dict(flat)


def space_of(path: Path, given: Anchors) -> Space:
    """What all configurations have in common, as a space of constants named after the file.

    Raises ValueError where they differ in what is one for a whole run.
    """
    flats = [flat for _, flat in given]
    for name in ONE_FOR_ALL:
        values = {flat[name] for flat in flats if name in flat}
        if len(values) > 1:
            raise ValueError(
                f"--configs '{path}': {name} is one for the whole run, and there are "
                f"{', '.join(map(str, sorted(values)))}: make a run of each"
            )
    first = {n: v for flat in flats for n, v in flat.items() if n in ONE_FOR_ALL} | flats[0]
    common = {
        name: value
        for name, value in first.items()
        if name in ONE_FOR_ALL or all(name in f and f[name] == value for f in flats)
    }
    return Space(path.stem, common)


def settle(args: argparse.Namespace) -> argparse.Namespace:
    """The flags with all that choosing would need made definite."""
    args = argparse.Namespace(**vars(args))
    args.seeds = args.seeds or 1
    args.sampler, args.pruner, args.trials = SAMPLER, PRUNER, len(args.given) * args.seeds
    args.trials *= args.folds
    return args


def at_size(space: Space, args: argparse.Namespace, sizes: Sizes) -> Space:
    """What all trials have in common but their seeds."""
    common = {**space.settings, **_constants(args, sizes)}
    return Space(space.name, {n: v for n, v in common.items() if n != "seed"})


def _constants(args: argparse.Namespace, sizes: Sizes) -> dict[str, Value]:
    constants: dict[str, Value] = {name: getattr(args, name) for name in DEFAULTS}
    if args.has_own_weights:  # pretraining is a technique, whose control is in the same list
        del constants["weights"]
    return {**constants, "image_size": sizes.image_size, "epochs": sizes.epochs}


def trials(args: argparse.Namespace, sizes: Sizes) -> Anchors:
    """Every trial with its role: all configurations under the first seed, then under the next.

    With folds, each repeat has a seed and folds of its own, the same for all configurations.
    Raises ValueError where two would be the same trial.
    """
    given, constants = args.given, _constants(args, sizes)
    roles: dict[str, str] = {}
    for role, flat in given:
        same = roles.setdefault(TrialConfig.from_flat({**flat, **constants}).trial_id, role)
        if same != role:
            raise ValueError(f"configurations '{same}' and '{role}' are the same: drop one")
    return [
        (role, {**flat, **constants, **repeat})
        for number in range(args.seeds)
        for repeat in _repeats(args, number)
        for role, flat in given
    ]


def _repeats(args: argparse.Namespace, number: int) -> list[dict[str, Value]]:
    """What the trials of one repeat of a configuration differ in."""
    seed = {"seed": args.seed + number}
    if args.folds == 1:
        return [{**seed}]
    dealt = {**seed, "fold_seed": args.fold_seed + number}
    return [{**dealt, "fold": fold} for fold in range(args.folds)]


def check(given: Anchors, bundle: "DataBundle") -> None:
    """Build each configuration for this data. Raises ValueError saying which cannot be, and why."""
    for role, flat in given:
        try:
            check_settings(flat)
            check_parts([flat], bundle)
            build(flat, bundle)
        except PROBLEMS as error:
            raise ValueError(
                f"configuration '{role}' cannot be trained: {reason(error)}"
            ) from error


def once(args: argparse.Namespace, anchors: Anchors) -> Anchors:
    """Every configuration once, of all trials in their order: on the first seed and fold."""
    return anchors[: len(args.given)]


def describe(console: "Console", anchors: Anchors, args: argparse.Namespace, sizes: Sizes) -> None:
    """Print what will be trained."""
    for role, flat in once(args, anchors):
        say(console, "trial", f"{role}: {TrialConfig.from_flat(flat).group_id}")
    seeds = f"seeds {args.seed} to {args.seed + args.seeds - 1}" if args.seeds > 1 else "one seed"
    seeds += f", {args.folds} folds" if args.folds > 1 else ""
    say(
        console,
        "plan",
        f"{len(args.given)} configurations, {seeds}: {sizes.trials} trials of {sizes.epochs} "
        f"epochs at {sizes.image_size} px, none stopped early",
    )


def as_record(args: argparse.Namespace, anchors: Anchors) -> dict[str, Any]:
    """What run.json keeps of the configurations, each without its seed; nothing for a search."""
    if args.configs is None:
        return {}
    kept = [
        {"role": role, "config": {n: v for n, v in flat.items() if n != "seed"}}
        for role, flat in once(args, anchors)
    ]
    return {"configs": kept}


def change(args: argparse.Namespace, anchors: Anchors, meta: Mapping[str, Any]) -> str:
    """How the configurations differ from those that the run began with; "" if they do not."""
    now, then = as_record(args, anchors).get("configs"), meta.get("configs")
    if now == then:
        return ""
    if now is None or then is None:
        return "one of the two is a search of a space, the other a run of --configs"
    before, after = ({e["role"]: e["config"] for e in entries} for entries in (then, now))
    names = [role for role in {**before, **after} if before.get(role) != after.get(role)]
    return f"the configurations have changed ({', '.join(names) or 'their order'})"
