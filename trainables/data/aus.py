"""Action unit (AU) strings such as "1+L12+26" as data. N images, A AUs of the vocabulary.

A coding -> (N, A) int8 in {1 shown, 0 not shown, -1 unknown}. Sides are folded (L12 shows AU12) or
kept (AU12 is two: AUL12 and AUR12, of the left and the right half of the subject's face).
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

NullPolicy = Literal["mask", "zeros"]
SidePolicy = Literal["fold", "keep"]

MIN_SUPPORT = 20  # positives an AU needs in a training set of 1000 images or more
MIN_READABLE = 0.8  # share of AU lines that must make sense (methods 2.1)
PLAN_18 = tuple(
    f"AU{au}" for au in (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 24, 25, 26, 43, 45)
)  # omits 16, 22 and 27, and RAF-CE never shows 45: kept for comparison with earlier work
PRESETS: Mapping[str, tuple[str, ...]] = {"plan18": PLAN_18}

_SEPARATORS = re.compile(r"[+,;\s|]+")
_TOKEN = re.compile(r"^(?:AU|au)?(AD|[LRTBlrtb]{1,2})?0*(\d{1,2})([A-Ea-eLR])?$")
_NULL = {"null", "none", "nan", "0"}


@dataclass(frozen=True)
class Policy:
    """How AU strings become targets. Raises ValueError for what is unknown."""

    vocabulary: str = "auto"  # which AUs: auto, none, a preset, or a list
    null: NullPolicy = "mask"  # "null" is unlabelled, or zeros: shows no AU
    sides: SidePolicy = "fold"

    def __post_init__(self) -> None:
        named_vocabulary(self.vocabulary)
        for what, chosen, known in (
            ("null", self.null, get_args(NullPolicy)),
            ("side", self.sides, get_args(SidePolicy)),
        ):
            if chosen not in known:
                raise ValueError(f"unknown {what} policy '{chosen}'; known: {', '.join(known)}")

    def content(self) -> list[str]:
        """What data prepared in this way is known by, as before sides could be kept."""
        return [self.vocabulary, self.null, *([self.sides] if self.sides != "fold" else [])]


@dataclass(frozen=True, order=True)
class Unit:
    """One AU of a coding: its number, side ("", "L", "BL", …), and intensity A to E or ""."""

    au: int
    side: str = ""
    intensity: str = ""


@dataclass(frozen=True)
class Coding:
    """What the coder said of one image."""

    units: tuple[Unit, ...] = ()
    unknown: tuple[str, ...] = ()  # tokens that are no AU
    is_null: bool = False  # coded "null": the coder saw no AU, or gave up
    is_unlabelled: bool = False  # not in the AU file at all

    @property
    def is_readable(self) -> bool:
        return self.is_null or bool(self.units)


def parse(text: str | None) -> Coding:
    """The coding that a string stands for; None stands for an image nobody coded. Never raises."""
    if text is None:
        return Coding(is_unlabelled=True)
    tokens = [token for token in _SEPARATORS.split(text) if token]
    if not text.strip() or (tokens and all(token.lower() in _NULL for token in tokens)):
        return Coding(is_null=True)
    units: list[Unit] = []
    unknown: list[str] = []
    for token in tokens:
        unit = _unit(token)
        if unit is None:
            unknown.append(token)
        else:
            units.append(unit)
    return Coding(tuple(units), tuple(unknown))


def _unit(token: str) -> Unit | None:
    match = _TOKEN.match(token)
    if match is None or int(match[2]) == 0:
        return None
    prefix, suffix = (match[1] or "").upper(), match[3] or ""
    letters = set("" if prefix == "AD" else prefix)  # AD19, an action descriptor, is numbered as 19
    if suffix in {"L", "R"}:
        letters.add(suffix)
        suffix = ""
    if {"L", "R"} <= letters:  # both sides is the whole AU
        letters -= {"L", "R"}
    return Unit(int(match[2]), "".join(sorted(letters)), suffix.upper())


def format_coding(coding: Coding) -> str | None:
    """The coding in canonical form: sorted, each unit once; `parse` reads it back."""
    if coding.is_unlabelled:
        return None
    units = [f"{u.side}{u.au}{u.intensity}" for u in sorted(set(coding.units))]
    return "+".join(units + sorted(set(coding.unknown))) or "null"


def normalise(text: str) -> str:
    """The canonical form of an AU string."""
    return format_coding(parse(text)) or "null"


def check_readable(codings: Sequence[Coding]) -> None:
    """Raise ValueError when under 80 % of the AU lines hold a known AU or null."""
    lines = [c for c in codings if not c.is_unlabelled]
    readable = sum(c.is_readable for c in lines)
    if lines and readable < MIN_READABLE * len(lines):
        odd = ", ".join(repr(token) for token, _ in unknown_tokens(lines).most_common(5))
        raise ValueError(
            f"only {readable} of {len(lines)} AU lines hold a known AU or 'null'; unknown: {odd}. "
            "An AU line reads like '1+L12+26' or 'null': check that this is the AU file, and its "
            "separator"
        )


def unknown_tokens(codings: Iterable[Coding]) -> Counter[str]:
    """How often each token that is no AU occurs."""
    return Counter(token for coding in codings for token in coding.unknown)


def support(codings: Iterable[Coding]) -> Counter[str]:
    """Images per AU, sides folded."""
    return Counter(f"AU{au}" for coding in codings for au in {u.au for u in coding.units})


def default_support(labelled: int) -> int:
    """Positives that an AU needs: 20, but 2 % of the labelled images of a small set, at least 2."""
    return max(2, min(MIN_SUPPORT, labelled // 50))


def vocabulary(codings: Sequence[Coding], min_support: int | None = None) -> tuple[str, ...]:
    """The AUs with enough positives, by number; give it the training images only."""
    if min_support is None:
        min_support = default_support(sum(not c.is_unlabelled for c in codings))
    enough = (au for au, count in support(codings).items() if count >= min_support)
    return tuple(sorted(enough, key=_number))


def named_vocabulary(choice: str) -> tuple[str, ...] | None:
    """The AUs that "none", a preset or a list such as "1,2,12" stands for; None for "auto".

    Raises ValueError for anything else.
    """
    if choice == "auto":
        return None
    return () if choice == "none" else PRESETS.get(choice) or _listed(choice)


def keep_sides(names: Sequence[str], codings: Sequence[Coding]) -> tuple[str, ...]:
    """The vocabulary with each AU that is one-sided in enough codings as two, left and right.

    The others stay whole: the two halves would be the same column twice.
    """
    least = default_support(sum(not c.is_unlabelled for c in codings))
    lone = Counter(au for coding in codings for au in _one_sided(coding))
    halves = {f"AU{au}" for au, count in lone.items() if count >= least}
    pairs = ((f"AUL{_number(n)}", f"AUR{_number(n)}") if n in halves else (n,) for n in names)
    return tuple(name for pair in pairs for name in pair)


def _one_sided(coding: Coding) -> set[int]:
    """The AUs that the face shows on one side only."""
    by_au: dict[int, set[str]] = {}
    for unit in coding.units:
        by_au.setdefault(unit.au, set()).update(_sides(unit))
    return {au for au, sides in by_au.items() if len(sides) == 1}


def _sides(unit: Unit) -> set[str]:
    return {"L", "R"} & set(unit.side) or {"L", "R"}


def mirror(names: Sequence[str]) -> list[int] | None:
    """Which column (A) each column becomes in a mirror; None where all stay as they are."""
    swapped = [name.translate(str.maketrans("LR", "RL")) for name in names]
    return [names.index(name) for name in swapped] if swapped != list(names) else None


def unseen(codings: Sequence[Coding], names: Sequence[str]) -> tuple[str, ...]:
    """The AUs of a vocabulary without a positive image, with a warning: nothing teaches them."""
    shown = (encode(codings, names) == 1).any(0)
    absent = tuple(name for name, is_shown in zip(names, shown, strict=True) if not is_shown)
    if absent:
        log.warning("no training image shows %s: nothing can be learned of it", ", ".join(absent))
    return absent


def _listed(choice: str) -> tuple[str, ...]:
    coding = parse(choice)
    if coding.unknown or not coding.units:
        raise ValueError(
            f"unknown AU vocabulary '{choice}'; known: auto, none, {', '.join(PRESETS)}, or a list "
            "of AUs such as '1,2,12'"
        )
    return tuple(f"AU{au}" for au in sorted({u.au for u in coding.units}))


def _number(name: str) -> int:
    return int(name.lstrip("AULR"))


def encode(
    codings: Sequence[Coding], names: Sequence[str], null: NullPolicy = "mask"
) -> NDArray[np.int8]:
    """(N, A) in {1, 0, -1 unknown}.

    Unknown are images without a line or with no readable token, and null lines too unless they
    are to count as "shows no AU" (null="zeros"): in RAF-AU null is not neutral (methods 2.1 b).
    """
    out = np.full((len(codings), len(names)), -1, np.int8)
    columns: dict[tuple[int, str], list[int]] = {}
    for k, name in enumerate(names):
        for side in {"L", "R"} & set(name) or {"L", "R"}:
            columns.setdefault((_number(name), side), []).append(k)
    for row, coding in zip(out, codings, strict=True):
        if coding.units or (coding.is_null and null == "zeros"):
            row[:] = 0
        for unit in coding.units:
            for side in _sides(unit):
                row[columns.get((unit.au, side), [])] = 1
    return out
