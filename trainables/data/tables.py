"""Facts about faces: classes, action units (AUs), their regions, and the AUs that a class shows.

C classes, A AUs, S joint states of AUs. (C, A) probabilities; (A, size, size) region maps.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Box = tuple[float, float, float, float]

ASSETS = Path(__file__).parent / "assets"
CLASS_NAMES = (
    "happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised",
    "sadly disgusted", "fearfully angry", "fearfully surprised", "fearfully disgusted",
    "angrily surprised", "angrily disgusted", "disgustedly surprised", "happily fearful",
    "happily sad",
)  # fmt: skip
BASIC_NAMES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger")
CLASS_PAIRS = (
    (3, 0), (3, 2), (4, 1), (4, 5), (4, 0), (4, 2), (1, 5), (1, 0), (1, 2), (5, 0), (5, 2), (2, 0),
    (3, 1), (3, 4),
)  # fmt: skip
SPLITS = ("train", "val", "test")
CLASS_COUNTS = {  # of RAF-CE, 4549 images
    "train": (394, 171, 109, 136, 71, 495, 120, 352, 24, 124, 582, 108, 6, 17),
    "val": (156, 54, 26, 50, 24, 162, 32, 138, 6, 42, 201, 32, 4, 4),
    "test": (126, 54, 36, 44, 25, 178, 43, 113, 6, 44, 194, 37, 1, 8),
}
# The 18 commonest AUs of RAF-CE, with 23 and 43. AU 11 of the prototypes is left out: the face
# units of the mesh cannot show it, and RAF-CE never codes it.
AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 43)
AU_NAMES = tuple(f"AU{au}" for au in AUS)
SIDED = frozenset({1, 2, 4, 6, 10, 12, 15})  # AUs that people do show on one side
LIPS, EYES = (23, 24, 25, 26, 27), (5, 43)
# Where the skin creases under an AU: lines in the mesh's own x, y on one side; mirrored.
CREASES: Mapping[int, list[list[tuple[float, float]]]] = {
    1: [[(0, 7.66), (0.2, 7.69)], [(0, 7.76), (0.22, 7.79)]],
    2: [[(0.26, 7.66), (0.42, 7.68), (0.56, 7.6)], [(0.28, 7.76), (0.44, 7.77), (0.56, 7.7)]],
    4: [[(0.05, 7.36), (0.07, 7.5)]],
    6: [[(0.53, 7.27), (0.63, 7.33)], [(0.53, 7.24), (0.64, 7.23)], [(0.18, 7.13), (0.4, 7.1)]],
    7: [[(0.2, 7.16), (0.32, 7.13), (0.44, 7.17)]],
    9: [[(0, 7.24), (0.07, 7.23)], [(0, 7.18), (0.08, 7.16)], [(0.1, 7.12), (0.17, 7.0)]],
    10: [[(0.17, 6.95), (0.27, 6.82), (0.3, 6.74)]],
    12: [[(0.18, 6.93), (0.32, 6.78), (0.38, 6.62)]],
    15: [[(0.28, 6.55), (0.33, 6.42)]],
    17: [[(0, 6.44), (0.1, 6.42), (0.14, 6.38)]],
    20: [[(0.33, 6.68), (0.35, 6.54)]],
}
_BOX_OF = {13: 12, 28: 24}  # no box of their own in the table: the region of a near relative
_AU = re.compile(r"^(?:AU|au)?([LRTB]{0,2})0*(\d{1,2})$")


class Action(NamedTuple):
    """How strongly an AU is shown, and on which of the subject's sides."""

    intensity: float
    left: bool = True
    right: bool = True


@lru_cache(maxsize=1)
def _raw() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads((ASSETS / "fer_tables.json").read_text())
    return tables


def split_au(name: str | int) -> tuple[str, int]:
    """Side ("", "L", "R", …) and number of an AU written "12", "AU12" or "L12"."""
    match = _AU.match(str(name))
    if match is None:
        raise ValueError(f"cannot read AU {name!r}; write it as 12, AU12 or L12")
    return match[1], int(match[2])


def prototype(label: int) -> tuple[frozenset[int], Mapping[int, float]]:
    """Core AUs of a class, and its secondary AUs with the fraction of people who show them."""
    entry = _raw()["prototypes"][CLASS_NAMES[label].capitalize()]
    return frozenset(entry["core"]), {int(au): p for au, p in entry["secondary"].items()}


def split_counts(count: int) -> dict[str, NDArray[np.int64]]:
    """(14,) pictures of each class by split: RAF-CE to scale, none without a picture."""
    table = np.array([CLASS_COUNTS[split] for split in SPLITS])
    least = np.array([[2], [1], [1]])
    quota = table * (count / table.sum())
    dealt = np.maximum(np.floor(quota).astype(np.int64), least)
    while dealt.sum() != count:  # largest remainder; the floor of rare classes is paid by the rest
        missing = count - dealt.sum()
        owed = quota - dealt if missing > 0 else np.where(dealt > least, dealt - quota, -np.inf)
        dealt.flat[owed.argmax()] += np.sign(missing)
    return dict(zip(SPLITS, dealt, strict=True))


def _coverage(lo: float, hi: float, size: int) -> F64:
    """(size,) share of each pixel that the interval [lo, hi] of the unit frame covers."""
    edges = np.arange(size + 1) / size
    shared = np.minimum(hi, edges[1:]) - np.maximum(lo, edges[:-1])
    return np.asarray(np.clip(shared, 0, None) * size)


def au_boxes(name: str | int) -> list[Box]:
    """x0, y0, x1, y1 in the unit frame of an AU's boxes, one or mirrored two; none if unknown."""
    frame, (side, au) = _raw()["frame"], split_au(name)
    box = _raw()["au_box_iod"].get(str(_BOX_OF.get(au, au)))
    (ex, ey), iod = frame["eye_mid"], frame["iod"]
    wings = [] if box is None else _wings(box, side)
    return [
        (ex + iod * a, ey + iod * box["v0"], ex + iod * b, ey + iod * box["v1"]) for a, b in wings
    ]


def region_maps(au_names: Sequence[str | int], size: int) -> F32:
    """(A, size, size) share of each pixel inside the AU's box; ones for an AU without a box."""
    maps = np.ones((len(au_names), size, size), np.float32)
    for k, name in enumerate(au_names):
        if boxes := au_boxes(name):
            columns = sum(_coverage(x0, x1, size) for x0, _, x1, _ in boxes)
            rows = _coverage(boxes[0][1], boxes[0][3], size)
            maps[k] = np.outer(rows, np.clip(columns, 0, 1))
    return maps


def _wings(box: Mapping[str, Any], side: str) -> list[tuple[float, float]]:
    """Where a box begins and ends across the face, on one side or both, in eye distances."""
    wings = [(box["u0"], box["u1"])]
    if box["pair"]:
        wings.append((-box["u1"], -box["u0"]))
    if side in {"L", "R"}:  # the subject's left is on the right of the image
        wings = [(max(a, 0), b) if side == "L" else (a, min(b, 0)) for a, b in wings]
        wings = [(a, b) for a, b in wings if a < b]
    return wings


def box_around(aus: Sequence[int], side: str = "") -> Box:
    """(x0, y0, x1, y1) of the unit frame around the boxes of these AUs, or of a side of them."""
    boxes = [box for au in aus for box in au_boxes(f"{side}{au}")]
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return max(min(x0), 0.0), max(min(y0), 0.0), min(max(x1), 1.0), min(max(y1), 1.0)


@dataclass(frozen=True)
class AuLaw:
    """P(AUs | class): core AUs at p_core, secondary at their scaled fraction, others at p_off.

    Independent Bernoulli draws, conditioned on being a face that can be made (`is_possible`). The
    condition couples the lips group and the eyes group only, so the law stays a product of small
    tables and the likelihood is exact.
    """

    p_core: float
    secondary_scale: float
    p_off: float

    def marginals(self) -> F64:
        """(C, A) probabilities before the condition."""
        p = np.full((len(CLASS_NAMES), len(AUS)), self.p_off)
        for label in range(len(CLASS_NAMES)):
            core, secondary = prototype(label)
            for k, au in enumerate(AUS):
                if au in core:
                    p[label, k] = self.p_core
                elif au in secondary:
                    p[label, k] = max(self.p_off, self.secondary_scale * secondary[au])
        return p

    def factors(self) -> list[tuple[tuple[int, ...], NDArray[np.bool_], F64]]:
        """Independent parts of the law: their AUs, (S, k) joint states, (C, S) probabilities."""
        p = self.marginals()
        parts = []
        for group in [*((au,) for au in AUS if au not in LIPS + EYES), LIPS, EYES]:
            states = [s for s in product((False, True), repeat=len(group)) if is_possible(group, s)]
            on = np.array(states)
            q = p[:, None, [AUS.index(au) for au in group]]
            weights = np.where(on[None], q, 1 - q).prod(2)
            parts.append((tuple(group), on, weights / weights.sum(1, keepdims=True)))
        return parts


def is_possible(group: Sequence[int], state: Sequence[bool]) -> bool:
    """Whether one face can show these AUs together; images and labels both obey.

    24 presses the lips that 25, 26, 27 part; 27 stretches the lips that 23 tightens; 26 and 27 are
    two degrees of one jaw and each parts the lips (25); 43 closes the eye that 5 widens.
    """
    on = {au for au, is_on in zip(group, state, strict=True) if is_on}
    if on & {26, 27} and 25 not in on:
        return False
    pairs = ({24, 25}, {24, 26}, {24, 27}, {23, 27}, {26, 27}, {5, 43})
    return not any(pair <= on for pair in pairs)


def draw_aus(law: AuLaw, labels: NDArray[np.int64], uniforms: F64) -> NDArray[np.bool_]:
    """(N, A) AUs drawn for the labels; uniforms (N, A) in [0, 1) are the whole of chance."""
    shown = np.zeros((len(labels), len(AUS)), bool)
    for column, (group, states, probs) in enumerate(law.factors()):
        steps = probs.cumsum(1)[labels]  # (N, S)
        picked = (uniforms[:, column, None] >= steps[:, :-1]).sum(1)
        shown[:, [AUS.index(au) for au in group]] = states[picked]
    return shown


def show_aus(
    shown: Iterable[int],
    intensity: tuple[float, float],
    side_rate: float,
    rng: np.random.Generator,
) -> dict[int, Action]:
    """Intensity and sides of the AUs shown; draws for all AUs, so that one cannot shift another."""
    strength = rng.uniform(*intensity, len(AUS))
    one_sided, is_left = rng.random(len(AUS)) < side_rate, rng.random(len(AUS)) < 0.5
    aus = {}
    for au in shown:
        k = AUS.index(au)
        sided = bool(one_sided[k]) and au in SIDED
        aus[au] = Action(
            float(strength[k]), not sided or bool(is_left[k]), not sided or not is_left[k]
        )
    return aus


def write_aus(
    aus: Mapping[int, Action], label_noise: float, null_rate: float, rng: np.random.Generator
) -> str:
    """AUs as an annotator writes them: some are missed, some are seen that are not there."""
    chance = rng.random((2, len(AUS)))
    is_null = rng.random() < null_rate
    extra = iter(rng.permutation(AUS))
    tokens = []
    for k, (au, action) in enumerate(sorted(aus.items())):
        side = "" if action.left and action.right else "L" if action.left else "R"
        if chance[0, k] >= label_noise:
            tokens.append((au, f"{side}{au}"))
        if chance[1, k] < label_noise:
            wrong = next(int(au) for au in extra if au not in aus)
            tokens.append((wrong, str(wrong)))
    return "null" if is_null or not tokens else "+".join(t for _, t in sorted(tokens))


def _joint(law: AuLaw, prior: F64) -> F64:
    """(C, S) probability of class and AU state; AUs that no class differs in are summed out."""
    joint = prior[:, None]
    for _, _, probs in law.factors():
        if not np.allclose(probs, probs[:1]):
            joint = (joint[:, :, None] * probs[:, None]).reshape(len(prior), -1)
    return joint


def law_ceiling(
    law: AuLaw,
    prior: ArrayLike,
    draws: int | None = None,
    seed: int = 0,
    classes: Iterable[int] | None = None,
) -> dict[str, float]:
    """Scores of the Bayes classifier that sees the true AUs of every image.

    It assumes: the law and the prior are known, the AUs are read without error, and nothing else in
    the image tells of the class (which holds here: every nuisance is drawn apart from it). A model
    that sees pixels can only come below, but for the luck of a finite test split. Exact, by
    enumeration of all states; with `draws`, by that many draws of (class, AUs). The prior's weight
    in the decision is set for each score: 1 for accuracy and 0 for UAR, where these are optimal;
    the best of a grid for macro-F1. UAR and macro-F1 average over `classes` (all by default).
    """
    weights = np.asarray(prior, np.float64)
    weights = weights / weights.sum()
    true = _joint(law, weights)
    mass = true
    if draws is not None:
        flat = np.random.default_rng(seed).multinomial(draws, true.ravel() / true.sum())
        mass = flat.reshape(true.shape) / draws
    kept = np.array(sorted(range(len(weights)) if classes is None else set(classes)))
    with np.errstate(divide="ignore"):
        log_prior = np.log(weights)[:, None]
        log_likelihood = np.log(true) - np.where(weights[:, None] > 0, log_prior, 0)
    log_likelihood[weights == 0] = -np.inf

    def scores(strength: float) -> tuple[float, float, float]:
        lean = np.where(np.isfinite(log_prior), strength * log_prior, 0)
        pick = (log_likelihood + lean).argmax(0)
        confusion = np.stack([np.bincount(pick, row, len(weights)) for row in mass])
        hits, said, held = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
        recall = hits / np.maximum(held, 1e-12)
        f1 = 2 * hits / np.maximum(said + held, 1e-12)
        return float(hits.sum()), float(recall[kept].mean()), float(f1[kept].mean())

    grid = [scores(strength) for strength in np.linspace(0, 1, 11)]
    return {"accuracy": grid[-1][0], "uar": grid[0][1], "macro_f1": max(g[2] for g in grid)}
