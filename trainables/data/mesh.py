"""The head: packed mesh, identity and action-unit deformation, and the nuisances of one picture.

V vertices, T triangles, K deformation columns (identity first, then face units); y is up, z to the
viewer, x to the subject's left, which is the right of the image. CC0, see assets/NOTICE.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trainables.data.tables import ASSETS, F32, Action, AuLaw

I32 = NDArray[np.int32]
SKIN, EYE, TEETH, TONGUE = range(4)
CHIN = np.array([0, 6.33, 1.5], np.float32)
# AU -> face units and weights; a unit with an L and an R half is written without its ending.
AU_UNITS: Mapping[int, Mapping[str, float]] = {
    1: {"browInnerUp": 1.3}, 2: {"browOuterUp": 1.3}, 4: {"browDown": 1.2}, 5: {"eyeWide": 1.2},
    6: {"cheekSquint": 1.2}, 7: {"eyeSquint": 1.2}, 9: {"noseSneer": 1.3},
    10: {"mouthUpperUp": 1.0}, 12: {"mouthSmile": 1.0}, 14: {"mouthDimple": 1.0},
    15: {"mouthFrown": 1.2}, 16: {"mouthLowerDown": 1.0}, 17: {"mouthShrugLower": 1.3},
    18: {"mouthPucker": 1.0}, 20: {"mouthStretch": 1.2}, 22: {"mouthFunnel": 1.0},
    23: {"mouthRollUpper": 0.5, "mouthRollLower": 0.5}, 24: {"mouthPress": 1.2},
    25: {"mouthLowerDown": 0.7, "mouthUpperUp": 0.4, "jawOpen": 0.1}, 26: {"jawOpen": 0.45},
    27: {"jawOpen": 1.0}, 28: {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    43: {"eyeBlink": 1.0},
}  # fmt: skip
SHOWN_AUS = tuple(AU_UNITS)
MOST = {"jawOpen": 1.0, "eyeBlink": 1.0}  # a jaw or a lid goes no further, whatever AUs add up to


@dataclass(frozen=True)
class Head:
    """The mesh and everything of it that is the same for all people."""

    rest: F32  # (V, 3)
    faces: I32  # (T, 3)
    group: NDArray[np.uint8]  # (T,) one of SKIN, EYE, TEETH, TONGUE
    corners: tuple[I32, I32, I32]  # the columns of faces, contiguous
    paint: F32  # (V, 3): lips, inside of the mouth, lid margin
    basis: sparse.csr_matrix  # (3 V, K)
    macros: int
    locals: int
    units: Mapping[str, int]  # name -> column
    incidence: sparse.csr_matrix  # (V, T): sums triangle normals into vertex normals
    neighbours: sparse.csr_matrix  # (V, V): mean over the vertices around one
    chin: F32  # (K,) how each column moves the tip of the chin up
    eyes: tuple[NDArray[np.int64], NDArray[np.int64]]  # vertices of the image's left and right eye

    @property
    def identity(self) -> int:
        """Number of identity columns."""
        return self.macros + self.locals


def _halves(name: str, offsets: F32, rest: F32) -> dict[str, F32]:
    """A unit of the whole brow as two that fade into each other at the midline."""
    left = (1 / (1 + np.exp(-rest[:, :1] / 0.03))).astype(np.float32)
    return {f"{name}Left": offsets * left, f"{name}Right": offsets * (1 - left)}


def _lid_margin(rest: F32, skin: NDArray[np.int64], eyes: tuple[NDArray[np.int64], ...]) -> F32:
    """(V,) how much a skin vertex lies on the rim of an eyelid, where lashes grow."""
    rim = np.zeros(len(rest), np.float32)
    for ids in eyes:
        centre = rest[ids].mean(0)
        radius = np.linalg.norm(rest[ids] - centre, axis=1).max()
        gap = np.abs(np.linalg.norm(rest[skin] - centre, axis=1) - radius)
        rim[skin] += np.exp(-((gap / 0.018) ** 2)) * (rest[skin, 2] > centre[2])
    return rim


def _is_front(rest: F32, faces: I32, group: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(T,) triangles that some allowed pose can show; the rest of the head is never needed."""
    tri = rest[faces]
    normal = np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
    depth = normal[:, 2] / (np.linalg.norm(normal, axis=1) + 1e-9)
    centre = tri.mean(1)
    front = (depth > -0.55) & (np.abs(centre[:, 0]) < 1.2) & (centre[:, 2] > -0.1)
    return np.asarray(np.where(group == SKIN, front, depth > -0.8))


def _columns(z: Mapping[str, F32], used: NDArray[np.int64]) -> tuple[dict[str, F32], int, int]:
    """Offsets (V, 3) by name, macros first, then local shapes, then face units; and the counts."""
    full = np.zeros_like(z["v"])

    def dense(prefix: str) -> F32:
        offsets = full.copy()
        offsets[z[f"{prefix}/i"]] = z[f"{prefix}/d"]
        return offsets[used]

    macros = {n: z[n].astype(np.float32)[used] for n in sorted(z) if n.startswith("macro/")}
    shapes = {n: dense(n[:-2]) for n in sorted(z) if n.startswith("loc/") and n.endswith("/i")}
    columns = macros | shapes
    for name in (n[3:-2] for n in sorted(z) if n.startswith("fu/") and n.endswith("/i")):
        offsets = dense(f"fu/{name}")
        halves = _halves(name, offsets, z["v"][used]) if name == "browInnerUp" else {name: offsets}
        columns |= halves
    return columns, len(macros), len(shapes)


@lru_cache(maxsize=1)
def load_head() -> Head:
    """The packed head, read once a process."""
    with np.load(ASSETS / "mhface.npz") as packed:
        z = {name: packed[name] for name in packed.files}
    rest, faces, group = z["v"], z["f"].astype(np.int32), z["gid"]
    keep = _is_front(rest, faces, group)
    group = group[keep]
    used, flat = np.unique(faces[keep], return_inverse=True)
    faces, rest = flat.reshape(-1, 3).astype(np.int32), rest[used]
    columns, macros, shapes = _columns(z, used)
    basis = np.stack(list(columns.values())).reshape(len(columns), -1).T
    ids = np.unique(faces[group == EYE])
    eyes = (ids[rest[ids, 0] < 0], ids[rest[ids, 0] > 0])
    rim = _lid_margin(rest, np.unique(faces[group == SKIN]), eyes)
    paint = np.stack([z["lips"][used] / 255, z["inside"][used] / 255, rim], 1)
    chin = int(np.abs(rest - CHIN).sum(1).argmin())
    corner = faces.T.ravel(), np.tile(np.arange(len(faces)), 3)
    incidence = sparse.csr_matrix(
        (np.ones(faces.size, np.float32), corner), shape=(len(rest), len(faces))
    )
    around = sparse.csr_matrix(((incidence @ incidence.T) > 0).astype(np.float32))
    around = sparse.csr_matrix(around.multiply(1 / around.sum(1)))
    names = {n: k for k, n in enumerate(columns) if k >= macros + shapes}
    return Head(
        rest, faces, group, (faces[:, 0].copy(), faces[:, 1].copy(), faces[:, 2].copy()),
        paint.astype(np.float32), sparse.csr_matrix(basis), macros, shapes,
        names, incidence, around.astype(np.float32), basis[3 * chin + 1], eyes,
    )  # fmt: skip


def unit_weights(head: Head, aus: Mapping[int, Action], gains: F32) -> F32:
    """(K,) weights of the face units for the AUs shown; gains (23, 2) vary them left and right."""
    weights = np.zeros(head.basis.shape[1], np.float32)
    for au, action in aus.items():
        row = gains[SHOWN_AUS.index(au)] * action.intensity
        for name, amount in AU_UNITS[au].items():
            if name in head.units:
                weights[head.units[name]] += amount * row.mean()
                continue
            weights[head.units[f"{name}Left"]] += amount * row[0] * action.left
            weights[head.units[f"{name}Right"]] += amount * row[1] * action.right
    for name, column in head.units.items():
        most = MOST.get(name.removesuffix("Left").removesuffix("Right"), 1.5)
        weights[column] = min(weights[column], most)
    return weights


def deform(head: Head, weights: F32) -> F32:
    """(V, 3) vertices of a person making a face."""
    moved: F32 = head.rest + (head.basis @ weights).reshape(-1, 3)
    return moved


def vertex_normals(head: Head, points: F32) -> F32:
    """(V, 3) unit normals, area-weighted over the triangles at each vertex."""
    axes = np.ascontiguousarray(points.T)
    a, b, c = (axes[:, corner] for corner in head.corners)
    u, w = b - a, c - a
    cross = np.stack([u[i] * w[j] - u[j] * w[i] for i, j in ((1, 2), (2, 0), (0, 1))], 1)
    normals: F32 = head.incidence @ cross
    length = np.sqrt((normals * normals).sum(1, keepdims=True)) + np.float32(1e-9)
    normals /= length
    return normals


@lru_cache(maxsize=256)
def _au_motion(au: int, side: str) -> F32:
    head = load_head()
    action = Action(1.0, side != "R", side != "L")
    weights = unit_weights(head, {au: action}, np.ones((len(SHOWN_AUS), 2), np.float32))
    length = np.linalg.norm((head.basis @ weights).reshape(-1, 3), axis=1)
    return np.asarray(length / length.max(), np.float32)


def au_motion(au: int, side: str = "") -> F32:
    """(V,) how far each vertex moves when the AU is shown alone, as a share of the farthest."""
    if au not in AU_UNITS:
        raise LookupError(f"the mesh cannot show AU {au}; it shows {', '.join(map(str, AU_UNITS))}")
    return _au_motion(au, side)


@dataclass(frozen=True)
class Difficulty:
    """How far pictures vary, and how loosely AUs follow the class and labels follow AUs."""

    law: AuLaw
    pose_degrees: tuple[float, float, float]  # standard deviation of yaw, pitch, roll
    light_side: float  # standard deviation of the light's sideways slope
    ambient: tuple[float, float]
    occlusion: float  # probability
    blur: float  # largest sigma, in pixels of a 64 px picture
    noise: float  # largest sigma, in grey levels
    jitter: float  # standard deviation of the alignment, in units of the frame
    identity: float  # spread of the shape; 1 is that of the MakeHuman targets
    intensity: tuple[float, float]
    label_noise: float  # probability that a written AU is dropped; the same that one is added
    null_rate: float  # share of pictures whose AUs are written "null" whatever they show
    side_rate: float  # probability that an AU with two sides is shown and written on one


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(
        AuLaw(0.97, 1.0, 0.01), (2, 2, 1), 0.15, (0.5, 0.6), 0.0, 0.3, 2, 0.003, 0.5, (0.9, 1.15),
        0.0, 0.0, 0.0,
    ),
    "medium": Difficulty(
        AuLaw(0.92, 1.0, 0.03), (5, 3, 2), 0.3, (0.4, 0.6), 0.05, 0.5, 4, 0.006, 0.8, (0.8, 1.1),
        0.02, 0.03, 0.05,
    ),
    "hard": Difficulty(
        AuLaw(0.8, 1.0, 0.08), (13, 7, 5), 0.6, (0.25, 0.5), 0.15, 0.9, 8, 0.015, 1.0, (0.5, 1.0),
        0.08, 0.055, 0.12,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Nuisance:
    """All of a picture but its AUs; colours are RGB in 0..255, places are in units of the frame."""

    identity: F32  # (macros + locals,)
    gains: F32  # (AUs, 2) how much this person's left and right side move
    angles: F32  # yaw, pitch, roll in radians
    scale: float
    shift: F32
    light: F32
    ambient: float
    gloss: float
    skin: F32
    hair: F32
    iris: F32
    gaze: F32
    style: F32  # 8 uniforms in [0, 1): brow, hairline, stubble, crease, texture, …
    backdrop: F32  # (5, 5, 3)
    occluder: F32 | None  # x, y, half width, half height, angle, R, G, B
    blur: float
    noise: float


SKINS = np.array([[122, 84, 62], [228, 186, 150], [224, 174, 146]], np.float32)
HAIRS = np.array([[28, 22, 20], [74, 48, 32], [150, 112, 70], [116, 110, 106]], np.float32)
IRISES = np.array([[92, 62, 42], [66, 106, 140], [48, 34, 26], [84, 112, 80]], np.float32)


def _draw_identity(head: Head, spread: float, rng: np.random.Generator) -> tuple[F32, F32]:
    """Shape weights, and the share of African, Asian and Caucasian ancestry they mix."""
    people, sex, age = rng.dirichlet([0.5] * 3), rng.beta(0.5, 0.5), rng.dirichlet([0.3, 1, 3])
    people = people * spread + (1 - spread) / 3
    # columns run people x (female, male) x (child, old, young), sorted by name
    macro = np.einsum("i,j,k->ijk", people, [1 - sex, sex], age).ravel()
    size = np.abs(rng.normal(0, 0.3 * spread, head.locals))
    shape = np.where(rng.random(head.locals) < 0.25, size, 0)
    return np.concatenate([macro, shape]).astype(np.float32), people.astype(np.float32)


def draw_nuisance(head: Head, level: Difficulty, rng: np.random.Generator) -> Nuisance:
    """One picture's nuisances; class and AUs are not arguments, so nothing can depend on them."""
    identity, people = _draw_identity(head, level.identity, rng)
    lean = np.clip(rng.normal(size=6), -2.2, 2.2).astype(np.float32)
    light = np.array([rng.normal(0, level.light_side), rng.uniform(0.1, 0.7), 1.0], np.float32)
    tint = rng.uniform(0.82, 1.1) * (1 + rng.normal(0, 0.02, 3))
    low, most = [0.1, 0.15, 0.08, 0.05, 0, 20, 20, 20], [0.9, 1, 0.3, 0.14, 180, 220, 220, 220]
    block = rng.uniform(low, most)
    drift = rng.normal(0, 30, 3) + rng.normal(0, 22, (5, 5, 3))
    is_blocked = rng.random() < level.occlusion
    return Nuisance(
        identity=identity,
        gains=rng.uniform(0.88, 1.12, (len(SHOWN_AUS), 2)).astype(np.float32),
        angles=np.deg2rad(np.array(level.pose_degrees, np.float32) * lean[:3]),
        scale=float(1 + level.jitter * 3 * lean[3]),
        shift=np.float32(level.jitter) * lean[4:],
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(*level.ambient),
        gloss=rng.uniform(0.04, 0.18),
        skin=(people @ SKINS * tint).astype(np.float32),
        hair=HAIRS[rng.integers(4)] * np.float32(rng.uniform(0.8, 1.2)),
        iris=IRISES[rng.integers(4)],
        gaze=rng.normal(0, 0.012, 2).astype(np.float32),
        style=rng.random(8).astype(np.float32),
        backdrop=(rng.uniform(30, 220) + drift).astype(np.float32),
        occluder=block.astype(np.float32) if is_blocked else None,
        blur=rng.uniform(0.0, level.blur),
        noise=rng.uniform(0.5, level.noise),
    )
