"""Features of a face's shape, from landmarks. n faces, P landmarks, R = 31 of them that have names.

Both schemes of landmarks, iBUG's 68 and MediaPipe's 468 or 478, come down to the same 31 points, so
the features of one mean what those of the other do. x runs right and y down, in any one unit.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Place = tuple[int, int, float, float]
# Name -> number among iBUG's 68 and MediaPipe's 478; place in the mean face (methods 3.3), in units
# of the inter-ocular distance from the midpoint of the eyes. l and r: of the image.
POINTS: Mapping[str, Place] = {
    "brow_outer_l": (17, 70, -0.92, -0.22), "brow_peak_l": (19, 105, -0.58, -0.36),
    "brow_inner_l": (21, 107, -0.19, -0.25), "brow_inner_r": (22, 336, 0.19, -0.25),
    "brow_peak_r": (24, 334, 0.58, -0.36), "brow_outer_r": (26, 300, 0.92, -0.22),
    "eye_outer_l": (36, 33, -0.69, 0.0), "lid_upper_outer_l": (37, 160, -0.57, -0.07),
    "lid_upper_inner_l": (38, 158, -0.42, -0.07), "eye_inner_l": (39, 133, -0.30, 0.03),
    "lid_lower_inner_l": (40, 153, -0.43, 0.05), "lid_lower_outer_l": (41, 144, -0.58, 0.05),
    "eye_inner_r": (42, 362, 0.30, 0.03), "lid_upper_inner_r": (43, 385, 0.42, -0.07),
    "lid_upper_outer_r": (44, 387, 0.57, -0.07), "eye_outer_r": (45, 263, 0.69, 0.0),
    "lid_lower_outer_r": (46, 373, 0.58, 0.05), "lid_lower_inner_r": (47, 380, 0.43, 0.05),
    "nose_tip": (30, 1, 0.0, 0.60), "ala_l": (31, 98, -0.23, 0.73), "nose_base": (33, 2, 0.0, 0.81),
    "ala_r": (35, 327, 0.23, 0.73), "mouth_l": (48, 61, -0.45, 1.09),
    "lip_peak_l": (50, 37, -0.12, 0.99), "lip_upper": (51, 0, 0.0, 1.02),
    "lip_peak_r": (52, 267, 0.12, 0.99), "mouth_r": (54, 291, 0.45, 1.09),
    "lip_lower": (57, 17, 0.0, 1.35), "gap_upper": (62, 13, 0.0, 1.11),
    "gap_lower": (66, 14, 0.0, 1.20), "chin": (8, 152, 0.0, 1.92),
}  # fmt: skip
RIGID = ("eye_outer_l", "eye_inner_l", "eye_inner_r", "eye_outer_r", "nose_tip", "nose_base")
SCHEMES = (68, 468, 478)
USES = ("all", "ratios", "distances", "shape")
RATIOS = (
    "brow_eye_inner_l", "brow_eye_inner_r", "brow_eye_peak_l", "brow_eye_peak_r", "brow_gap",
    "aperture_l", "aperture_r", "nose_lip", "nose_eye", "mouth_width", "mouth_height", "lips_gap",
    "corner_slope_l", "corner_slope_r", "jaw_drop",
)  # fmt: skip
_LEAST = 0.02  # inter-ocular distances: nearer points have no direction worth telling
_AT = {name: k for k, name in enumerate(POINTS)}
_REFERENCE = np.array([complex(u, v) for _, _, u, v in POINTS.values()])
_FIXED = [_AT[name] for name in RIGID]
_FROM, _TO = np.array(list(combinations(range(len(POINTS)), 2))).T


def features(points: F32, use: str = "all") -> F32:
    """(n, D) of landmarks (n, P, 2), after Procrustes and in inter-ocular distances.

    `ratios`: the 15 of RATIOS; `distances`: between all pairs of named points, and their directions
    as cosine and sine; `shape`: the aligned points; `all`: the three. A face of which a landmark is
    NaN has those of the mean face; the last feature says whether it was known (1) or not (0).
    """
    if use not in USES:
        raise ValueError(f"landmark features '{use}'; known: {', '.join(USES)}")
    faces = named(points)
    is_known = np.asarray(np.isfinite(faces).all(1))
    faces = np.where(is_known[:, None], faces, _REFERENCE)
    parts = {"ratios": _ratios, "distances": _distances, "shape": _shape}
    chosen = list(parts) if use == "all" else [use]
    found = [parts[name](align(faces)) for name in chosen]
    return np.concatenate([*found, is_known[:, None]], 1).astype(np.float32)


def named(points: F32) -> NDArray[np.complex128]:
    """(n, R) the named points as x + iy, of whichever scheme has so many landmarks."""
    if points.ndim != 3 or points.shape[1] not in SCHEMES or points.shape[2] != 2:
        raise ValueError(
            f"landmarks of shape {points.shape}: give (images, points, 2) with "
            f"{', '.join(map(str, SCHEMES))} points"
        )
    numbers = [place[0] if points.shape[1] == 68 else place[1] for place in POINTS.values()]
    chosen = points[:, numbers].astype(np.float64)
    return np.asarray(chosen[..., 0] + 1j * chosen[..., 1])


def align(faces: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The faces turned, scaled and moved so that what expressions hardly move (the corners of the
    eyes, the nose) lies on that of the mean face by least squares: ordinary Procrustes."""
    fixed, goal = faces[:, _FIXED], _REFERENCE[_FIXED]
    middle = fixed.mean(1, keepdims=True)
    away, wanted = fixed - middle, goal - goal.mean()
    length = (np.abs(away) ** 2).sum(1, keepdims=True)
    if (length == 0).any():
        raise ValueError("landmarks of a face lie all on one point")
    turn = (away.conj() * wanted).sum(1, keepdims=True) / length
    aligned: NDArray[np.complex128] = (faces - middle) * turn + goal.mean()
    return aligned


def _shape(faces: NDArray[np.complex128]) -> F64:
    return np.concatenate([faces.real, faces.imag], 1)


def _distances(faces: NDArray[np.complex128]) -> F64:
    step = (faces[:, _TO] - faces[:, _FROM]) / _eyes_apart(faces)[:, None]
    length = np.abs(step)
    way = step / np.maximum(length, _LEAST)
    return np.concatenate([length, way.real, way.imag], 1)


def _eyes_apart(faces: NDArray[np.complex128]) -> F64:
    """(n,) inter-ocular distance: between the midpoints of the corners of the eyes."""
    left, right = (faces[:, [_AT[f"eye_{e}_{s}"] for e in ("outer", "inner")]] for s in "lr")
    return np.asarray(np.abs(right.mean(1) - left.mean(1)))


def _ratios(faces: NDArray[np.complex128]) -> F64:
    """(n, 15) in the order of RATIOS."""
    at = {name: faces[:, k] for name, k in _AT.items()}
    apart = _eyes_apart(faces)

    def gap(a: str, b: str) -> F64:
        return np.asarray(np.abs(at[a] - at[b]))

    middle = (at["mouth_l"] + at["mouth_r"]) / 2
    width, lips = gap("mouth_l", "mouth_r"), (at["gap_upper"] + at["gap_lower"]) / 2
    eyes = (at["eye_inner_l"] + at["eye_inner_r"]) / 2
    alae = (at["ala_l"] + at["ala_r"]) / 2
    half = np.maximum(width / 2, _LEAST)
    return np.stack([
        gap("brow_inner_l", "eye_inner_l") / apart,
        gap("brow_inner_r", "eye_inner_r") / apart,
        *((_lid_line(at, s) - at[f"brow_peak_{s}"]).imag / apart for s in "lr"),
        gap("brow_inner_l", "brow_inner_r") / apart,
        *(_aperture(at, s) for s in "lr"),
        gap("nose_base", "lip_upper") / apart,
        np.abs(alae - eyes) / apart,
        width / apart,
        gap("lip_upper", "lip_lower") / (2 * half),
        gap("gap_upper", "gap_lower") / (2 * half),
        *((lips - at[f"mouth_{s}"]).imag / half for s in "lr"),  # above 0: corners pulled up
        np.abs(at["chin"] - middle) / apart,
    ], 1)  # fmt: skip


def _lid_line(at: Mapping[str, NDArray[np.complex128]], side: str) -> NDArray[np.complex128]:
    """The middle between the corners of an eye, which its lids do not move."""
    return np.asarray((at[f"eye_outer_{side}"] + at[f"eye_inner_{side}"]) / 2)


def _aperture(at: Mapping[str, NDArray[np.complex128]], side: str) -> F64:
    """Height of an eye over its width (Soukupová & Čech 2016, the eye aspect ratio)."""
    high = sum(
        np.abs(at[f"lid_upper_{k}_{side}"] - at[f"lid_lower_{k}_{side}"])
        for k in ("inner", "outer")
    )
    wide = np.abs(at[f"eye_outer_{side}"] - at[f"eye_inner_{side}"])
    return np.asarray(high / (2 * np.maximum(wide, _LEAST)))
