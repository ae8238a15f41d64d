"""Where the 68 facial landmarks of an embedded face lie: vertices of its mesh as its camera sees.

The order is that of iBUG 300-W (Sagonas et al. 2013): jaw 0-16 from the left of the image, brows
17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67. Occluders hide no landmark. This
is a module of its own because the cache keys embedded faces by the source of what draws them.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainables.data import render
from trainables.data.faces import FacesSpec, draw_people
from trainables.data.mesh import SKIN, draw_nuisance, load_head
from trainables.data.tables import F32

POINTS = 68
# Rest positions on the midline and on the right of the image, found on the mesh once: brows along
# the painted arcs, lids where a blink moves most and where it ends, lips at the edge of their paint
# and where they touch. The jaw between the chin and the temples is approximate.
REST = {
    8: (0.000, 6.201, 1.434), 9: (0.176, 6.191, 0.783), 10: (0.356, 6.300, 1.111),
    11: (0.458, 6.415, 1.050), 12: (0.538, 6.526, 0.909), 13: (0.598, 6.663, 0.895),
    14: (0.690, 6.878, 0.642), 15: (0.733, 7.062, 0.492), 16: (0.720, 7.283, 0.646),
    22: (0.068, 7.465, 1.515), 23: (0.154, 7.515, 1.503), 24: (0.337, 7.502, 1.423),
    25: (0.423, 7.518, 1.373), 26: (0.571, 7.488, 1.213), 27: (0.000, 7.292, 1.508),
    28: (0.000, 7.148, 1.562), 29: (0.000, 7.034, 1.631), 30: (0.000, 6.909, 1.681),
    33: (0.000, 6.789, 1.563), 34: (0.082, 6.800, 1.533), 35: (0.139, 6.839, 1.500),
    42: (0.152, 7.265, 1.402), 43: (0.268, 7.337, 1.408), 44: (0.348, 7.346, 1.406),
    45: (0.487, 7.274, 1.313), 46: (0.398, 7.220, 1.377), 47: (0.270, 7.224, 1.398),
    51: (0.000, 6.683, 1.602), 52: (0.081, 6.705, 1.588), 53: (0.145, 6.689, 1.548),
    54: (0.249, 6.612, 1.426), 55: (0.184, 6.562, 1.477), 56: (0.057, 6.495, 1.542),
    57: (0.000, 6.489, 1.556), 62: (0.000, 6.608, 1.553), 63: (0.076, 6.613, 1.545),
    64: (0.229, 6.607, 1.412), 65: (0.104, 6.607, 1.508), 66: (0.000, 6.606, 1.527),
}  # fmt: skip
MIRRORED = {
    **{16 - k: k for k in range(9, 17)}, **{43 - k: k for k in range(22, 27)}, 31: 35, 32: 34,
    36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 58: 56, 59: 55,
    60: 64, 61: 63, 67: 65,
}  # fmt: skip


@lru_cache(maxsize=1)
def vertices() -> NDArray[np.int64]:
    """(68,) the vertex of each landmark."""
    head = load_head()
    skin = np.unique(head.faces[head.group == SKIN])
    rest = REST | {k: (-REST[m][0], *REST[m][1:]) for k, m in MIRRORED.items()}
    wanted = np.array([rest[k] for k in range(POINTS)], np.float32)
    gaps = np.abs(head.rest[skin] - wanted[:, None]).sum(2)
    return np.asarray(skin[gaps.argmin(1)], np.int64)


def landmarks(spec: FacesSpec, indices: Sequence[int] | None = None) -> F32:
    """(n, 68, 2) places in pixels from the top left corner of the pictures, of all or of some."""
    head, people, ids = load_head(), draw_people(spec), vertices()
    chosen = range(spec.count) if indices is None else indices
    found = np.empty((len(chosen), POINTS, 2), np.float32)
    for row, index in enumerate(chosen):
        who = draw_nuisance(head, spec.level, np.random.default_rng([spec.seed, index]))
        # private: to rename it would give every cache of embedded faces a new key
        _, place, _ = render._pose(head, people[index].aus, who)
        found[row] = place[ids] * spec.size
    return found
