"""A software renderer of the head: z-buffer, paint, light, camera; numpy and OpenCV, one thread.

V vertices, T triangles, P visible pixels of an S x S picture; colours are RGB in 0..255.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.data import mesh
from trainables.data.mesh import EYE, SKIN, TEETH, Difficulty, Head, Nuisance
from trainables.data.tables import CREASES, F32, Action, split_au

U8 = NDArray[np.uint8]
Ints = NDArray[np.int64]
ATLAS = 256  # texels of the paint that lies on the face, seen from the front
ATLAS_LOW, ATLAS_EXTENT = (-1.0, 5.9), (2.0, 2.4)
Pixels = tuple[Ints, Ints, F32]  # where in the picture, which triangle, barycentric weights


def f32(*values: float) -> F32:
    """A short vector in single precision."""
    return np.array(values, np.float32)


def _camera(points: F32, centre: F32, scale: float, who: Nuisance) -> tuple[F32, F32]:
    """(V, 2) places in the unit frame and (V,) depth; the eyes' midpoint lands on (.50, .38)."""
    yaw, pitch, roll = who.angles
    steps = np.array([[0, 0, roll], [pitch, 0, 0], [0, yaw, 0]], np.float64)
    tilt, nod, turn = (cv2.Rodrigues(step)[0] for step in steps)
    seen = (points - centre) @ (tilt @ nod @ turn).T.astype(np.float32)
    zoom = np.float32(scale * who.scale) * 12 / (12 - seen[:, 2:])
    place = seen[:, :2] * zoom * f32(1, -1) + f32(0.5, 0.38) + who.shift
    return place, seen[:, 2]


def _candidates(place: F32, depth: F32, head: Head, size: int) -> tuple[Ints, F32, F32]:
    """Triangles that face the viewer and whose box holds a pixel centre: ids, edges, boxes.

    Edges (9, T'): the two barycentric gradients, the depth plane, the first corner. Boxes (4, T'):
    left, top, width, height in pixels.
    """
    xy = place * np.float32(size) - np.float32(0.5)  # pixel centres at whole numbers
    a, b, c = head.corners
    x, y = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])
    ax, ay, bx, by, cx, cy = x[a], y[a], x[b], y[b], x[c], y[c]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    left = np.ceil(np.maximum(np.minimum(np.minimum(ax, bx), cx), 0))
    top = np.ceil(np.maximum(np.minimum(np.minimum(ay, by), cy), 0))
    wide = np.floor(np.minimum(np.maximum(np.maximum(ax, bx), cx), size - 1)) - left + 1
    high = np.floor(np.minimum(np.maximum(np.maximum(ay, by), cy), size - 1)) - top + 1
    t = np.flatnonzero((area < -1e-6) & (wide > 0) & (high > 0))
    ax, ay, bx, by, cx, cy = ax[t], ay[t], bx[t], by[t], cx[t], cy[t]
    i = 1 / area[t]
    za, zb, zc = depth[a[t]], depth[b[t]], depth[c[t]]
    edges = np.stack([
        (cy - ay) * i, (ax - cx) * i, (ay - by) * i, (bx - ax) * i, za, zb - za, zc - za, ax, ay,
    ])  # fmt: skip
    return t, edges, np.stack([left[t], top[t], wide[t], high[t]])


def rasterise(place: F32, depth: F32, head: Head, size: int) -> Pixels:
    """The nearest triangle at each pixel centre that one covers, all triangles at once."""
    ids, edges, (left, top, wide, high) = _candidates(place, depth, head, size)
    count = (wide * high).astype(np.int32)
    which = np.repeat(np.arange(len(ids), dtype=np.int32), count)
    start = np.repeat(np.cumsum(count, dtype=np.int32) - count, count)
    step = (np.arange(len(which), dtype=np.int32) - start).astype(np.float32)
    width = wide[which]
    row = np.floor((step + np.float32(0.5)) / width)
    px, py = left[which] + step - row * width, top[which] + row
    e = edges.T[which].T
    dx, dy = px - e[7], py - e[8]
    w1, w2 = e[0] * dx + e[1] * dy, e[2] * dx + e[3] * dy
    inside = np.flatnonzero((w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1))
    w1, w2, e, which = w1[inside], w2[inside], e[4:7, inside], which[inside]
    pixel = (py[inside] * size + px[inside]).astype(np.int64)
    near = (e[0] + e[1] * w1 + e[2] * w2 + 8) * np.float32(1 << 24)
    key = (near.astype(np.int64) << 24) | np.arange(len(inside))  # ties: by number of triangle
    order = np.sort(key) & ((1 << 24) - 1)
    best = np.full(size * size, -1)
    best[pixel[order]] = order  # of equal indices numpy keeps the last, here the nearest
    where = np.flatnonzero(best >= 0)
    best = best[where]
    w1, w2 = w1[best], w2[best]
    return where, ids[which[best]], np.stack([1 - w1 - w2, w1, w2], 1)


def spread(values: F32, head: Head, triangle: Ints, weights: F32) -> F32:
    """(P, k) values of vertices (V, k) carried to pixels."""
    a, b, c = (corner[triangle] for corner in head.corners)
    mixed: F32 = values.take(a, 0) * weights[:, :1]
    mixed += values.take(b, 0) * weights[:, 1:2]
    mixed += values.take(c, 0) * weights[:, 2:]
    return mixed


@lru_cache(maxsize=1)
def _crease_atlas() -> dict[tuple[int, int], F32]:
    """Darkness of each AU's creases by (AU, side), side 0 the subject's left."""
    atlas = {}
    for au, lines in CREASES.items():
        for side, sign in enumerate((1, -1)):
            sheet = np.zeros((ATLAS, ATLAS), np.uint8)
            for line in lines:
                texel = _texel(np.array(line, np.float32) * f32(sign, 1))
                cv2.polylines(sheet, [texel.astype(np.int32)], False, 255, 2, cv2.LINE_AA)
            soft = cv2.GaussianBlur(sheet.astype(np.float32), (0, 0), 1.3)
            atlas[au, side] = soft / soft.max()
    return atlas


@lru_cache(maxsize=1)
def _mottle() -> F32:
    """(ATLAS, ATLAS) skin texture of several grains, mean 0; a constant of the generator."""
    rng = np.random.default_rng(0)
    sheet = np.zeros((ATLAS, ATLAS), np.float32)
    for grain, height in ((1.0, 1.0), (3.0, 0.8), (9.0, 1.0)):
        layer = cv2.GaussianBlur(rng.standard_normal(sheet.shape, np.float32), (0, 0), grain)
        sheet += height * layer / layer.std()
    return sheet


def _texel(xy: F32) -> Ints:
    """(P, 2) column and row of the atlas."""
    texel = (xy - f32(*ATLAS_LOW)) * ((ATLAS - 1) / f32(*ATLAS_EXTENT))
    return np.asarray(np.clip(texel, 0, ATLAS - 1), np.int64)


def _sheet(aus: Mapping[int, Action], who: Nuisance) -> F32:
    """(ATLAS, ATLAS) share of light that the skin keeps: mottle and creases."""
    offset = (who.style[5:7] * ATLAS).astype(int)
    sheet = 1 + np.float32(0.006 + 0.012 * who.style[4]) * np.roll(_mottle(), offset, (0, 1))
    atlas, depth = _crease_atlas(), 0.12 + 0.18 * who.style[3]
    for au, action in aus.items():
        for side, is_on in enumerate((action.left, action.right)):
            if is_on and (au, side) in atlas:
                sheet -= np.float32(depth * action.intensity) * atlas[au, side]
    return sheet


def _mix(colour: F32, other: F32, share: F32) -> None:
    """Paint `other` over rows of colour, in place."""
    colour += (other - colour) * share[:, None]


def _brows(colour: F32, rest: F32, who: Nuisance) -> None:
    """Paint the eyebrows, arcs in the resting face that ride on the mesh, in place."""
    near = np.flatnonzero(np.abs(rest[:, 1] - 7.48) < 0.16)
    x, y, z = rest[near].T
    along, thick = np.abs(x) - 0.308, 0.03 + 0.016 * who.style[0]
    arch = 7.464 + 0.05 * np.cos((along - 0.03) * 5)
    taper = thick * (1 - 1.2 * np.clip(along, -0.2, 0.3))
    share = np.clip(1.6 - np.abs(y - arch) / taper, 0, 1) * (z > 0.95)
    share *= np.clip((along + 0.25) * 20, 0, 1) * np.clip((0.29 - along) * 12, 0, 1)
    kept = colour[near]
    _mix(kept, who.hair * np.float32(0.8), share * (0.7 + 0.25 * who.style[1]))
    colour[near] = kept


def _skin(rest: F32, paint: F32, sheet: F32, who: Nuisance) -> F32:
    """(P, 3) colour of skin pixels: cheeks, stubble, lips, mouth, lashes, brows, hair."""
    x, y, z = np.ascontiguousarray(rest.T)
    column, row = _texel(rest[:, :2]).T
    grain = sheet[row, column]
    colour: F32 = who.skin * grain[:, None]
    blush = np.exp(-(((np.abs(x) - 0.42) / 0.2) ** 2) - ((y - 6.95) / 0.18) ** 2)
    colour += blush[:, None] * f32(8, -8, -5)
    if who.style[2] > 0.6:
        jaw = np.clip((6.85 - y) * 3, 0, 1) * (z > 0.7)
        _mix(colour, who.hair, jaw * (0.4 * (who.style[2] - np.float32(0.6))))
    _mix(colour, who.skin * f32(0.9, 0.56, 0.6), paint[:, 0])
    _mix(colour, f32(64, 26, 28), np.minimum(paint[:, 1] * 1.3, 1))
    _mix(colour, f32(34, 24, 22), np.minimum(paint[:, 2] * 0.75, 1))
    _brows(colour, rest, who)
    if who.style[7] < 0.9:
        strand = np.clip(grain, 0.94, 1.06)  # creases stop at the hair
        line = 7.72 + 0.22 * who.style[1] + 0.6 * (strand - 1)
        scalp = np.clip((y + 0.35 * (0.9 - np.clip(z, -1, 0.9)) - line) * 12, 0, 1)
        _mix(colour, who.hair * (4 * strand - 3)[:, None], scalp)
    return colour


def _eyes(points: F32, centres: F32, who: Nuisance) -> F32:
    """(P, 3) colour of eye pixels at points (P, 3): white, iris with a dark rim, pupil, glint."""
    centre = centres[(points[:, 0] > 0).astype(int), :2]
    away = (points[:, :2] - centre) / np.linalg.norm(centres[1] - centres[0]) - who.gaze
    radius = np.sqrt((away * away).sum(1))
    colour = np.broadcast_to(f32(228, 224, 220), points.shape).copy()
    _mix(colour, who.iris, np.clip((0.1 - radius) * 60, 0, 1))
    _mix(colour, f32(12, 12, 12), np.clip((0.05 - radius) * 60, 0, 1))
    glint = away - f32(0.035, 0.035) * np.sign(who.light[:2])
    _mix(colour, f32(255, 255, 255), np.clip((0.025 - np.hypot(*glint.T)) * 90, 0, 1))
    return colour


def _shade(
    head: Head, points: F32, pixels: Pixels, aus: Mapping[int, Action], who: Nuisance
) -> F32:
    """(P, 3) lit colour of the visible pixels."""
    _, triangle, weights = pixels
    normals = mesh.vertex_normals(head, points)
    hollow = ((head.neighbours @ points - points) * normals).sum(1, keepdims=True)
    values = spread(
        np.concatenate([normals, hollow, head.rest, head.paint], 1), head, triangle, weights
    )
    group = head.group[triangle]
    skin, eye = np.flatnonzero(group == SKIN), np.flatnonzero(group == EYE)
    colour = np.empty((len(triangle), 3), np.float32)
    colour[group >= TEETH] = (224, 214, 200)
    colour[group > TEETH] = (160, 78, 80)
    colour[skin] = _skin(values[skin, 4:7], values[skin, 7:], _sheet(aus, who), who)
    middles = np.stack([points[ids].mean(0) for ids in head.eyes])
    colour[eye] = _eyes(spread(points, head, triangle[eye], weights[eye]), middles, who)
    normal = values[:, :3]
    facing = np.clip((normal @ who.light + 0.2) / 1.2, 0, 1)  # wraps round, as light in skin does
    lit = who.ambient + (1.08 - who.ambient) * facing
    lit *= np.clip(1 - 14 * np.clip(values[:, 3], -0.004, 0.03), 0, 1.1)  # folds are darker
    lit[eye] = 0.5 + 0.5 * lit[eye]
    lit[group >= TEETH] *= 0.62
    half = who.light + f32(0, 0, 1)
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 24
    shine *= np.where(group == SKIN, np.float32(who.gloss * 255), np.float32(0))
    shaded: F32 = colour * lit[:, None] + shine[:, None]
    return shaded


def _backdrop(size: int, who: Nuisance) -> F32:
    """(S, S, 3) soft background, and hair behind the head for some."""
    image = cv2.resize(who.backdrop, (size, size), interpolation=cv2.INTER_CUBIC)
    if who.style[7] < 0.6:
        middle = (float(0.5 + who.shift[0]) * size, float(0.4 + who.shift[1]) * size)
        axes = ((0.86 + 0.2 * float(who.style[6])) * size, (0.9 + 0.8 * float(who.style[5])) * size)
        cv2.ellipse(image, (middle, axes, 0.0), (0.7 * who.hair).tolist(), -1)
    return np.asarray(image, np.float32)


def _lens(image: F32, size: int, who: Nuisance, rng: np.random.Generator) -> U8:
    """The picture as a camera keeps it: occluder, resolution, blur, noise, 8 bits."""
    if who.occluder is not None:
        x, y, wide, high = (who.occluder[:4] * image.shape[0]).tolist()
        box = ((x, y), (2 * wide, 2 * high), float(who.occluder[4]))
        corners = np.round(cv2.boxPoints(box)).astype(np.int32)
        cv2.fillConvexPoly(image, corners, who.occluder[5:].tolist())
    image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    sigma = who.blur * size / 64
    if sigma > 0.15:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    image = image + np.float32(who.noise) * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(image + 0.5, 0, 255), np.uint8)


def _pose(head: Head, aus: Mapping[int, Action], who: Nuisance) -> tuple[F32, F32, F32]:
    """Deformed vertices (V, 3), their places in the frame (V, 2) and depth (V,)."""
    weights = mesh.unit_weights(head, aus, who.gains)
    weights[: head.identity] = who.identity
    points = mesh.deform(head, weights)
    left, right = (points[ids].mean(0) for ids in head.eyes)
    middle = (left + right) / 2
    # Inter-ocular distance .31, less for a long face, so that a dropped jaw keeps its chin in. The
    # chin is measured at rest: the scale must not tell which AUs are shown.
    chin = mesh.CHIN[1] + who.identity @ head.chin[: head.identity]
    scale = min(0.31 / float(np.linalg.norm(right - left)), 0.52 / float(middle[1] - chin))
    place, depth = _camera(points, middle, scale, who)
    return points, place, depth


def samples(size: int) -> int:
    """Side of the picture before it is reduced: enough for smooth edges, few enough for speed."""
    return max(size, min(size * 3 // 2, 224))


def render(
    head: Head, aus: Mapping[int, Action], level: Difficulty, size: int, rng: np.random.Generator
) -> U8:
    """(size, size, 3) RGB picture; the generator draws the nuisances, then the pixel noise."""
    who = mesh.draw_nuisance(head, level, rng)
    points, place, depth = _pose(head, aus, who)
    full = samples(size)
    pixels = rasterise(place, depth, head, full)
    image = _backdrop(full, who)
    image.reshape(-1, 3)[pixels[0]] = _shade(head, points, pixels, aus, who)
    return _lens(image, size, who, rng)


def region_masks(
    head: Head, aus: Mapping[int, Action], who: Nuisance, size: int, regions: Sequence[str | int]
) -> U8:
    """(A, size, size) 1 where the skin of this picture is what each AU would move, else 0."""
    _, place, depth = _pose(head, aus, who)
    where, triangle, weights = rasterise(place, depth, head, size)
    motion = np.stack([mesh.au_motion(au, side) for side, au in map(split_au, regions)], 1)
    moves = spread(motion, head, triangle, weights) > 0.15
    masks = np.zeros((len(regions), size * size), np.uint8)
    masks[:, where] = moves.T
    brush = np.ones((3, 3), np.uint8)  # for the pixel that a moving edge covers or bares
    return np.stack([cv2.dilate(m.reshape(size, size), brush) for m in masks]).astype(np.uint8)
