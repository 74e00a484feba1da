"""Splats far from the origin of their world: positions near zero in the file, and beside them where zero lies.

float32 has steps of 3 cm at 500 km and of half a meter at 5000 km, which is where the coordinates of maps are. A file
of such a splat therefore holds positions less an offset, and says so: PLY files in a line of their header, the others,
which have no room for words, in a JSON file beside them. World coordinates are the file's plus the offset.
"""

import math

import numpy as np
from jaxtyping import Float

from splat_render.files.three_numbers import ThreeNumbers

Offset = tuple[float, float, float]
"""What to add to positions, x y z in the world's unit."""

ZERO: Offset = (0.0, 0.0, 0.0)
"""Of files whose positions are the world's."""

OFFSET = ThreeNumbers(
    name="world offset",
    wanted="three numbers",
    comment="WorldOffset:",
    ending=".offset.json",
    key="world_offset",
    usual=ZERO,
)
"""How a splat file says it."""

FAR = 1000.0
"""So many of its own sizes from the origin a splat is written with an offset: rounding is then 1/16000 of its size."""


def offset_for(center: Float[np.ndarray, " 3"], size: float, *, far: float = FAR) -> Offset:
    """The offset of a file whose splat has a center and a size: a round number near the center; zero where it is near.

    Args:
        center: In the world.
        size: A length of the splat, in the same unit: what positions are to be exact against.
        far: So many sizes from the origin counts as far.
    """
    distance = float(np.linalg.norm(center))
    if not (math.isfinite(distance) and size > 0 and distance > far * size):
        return ZERO
    step = 10.0 ** math.ceil(math.log10(size))
    x, y, z = (float(round(value / step) * step) for value in center)
    return x, y, z


def offset_of(p_world: Float[np.ndarray, "n 3"], *, far: float = FAR) -> Offset:
    """`offset_for` positions: their median, and how far nine tenths of them are from it."""
    finite = p_world[np.isfinite(p_world).all(axis=1)]
    if not len(finite):
        return ZERO
    center = np.median(finite, axis=0)
    return offset_for(center, float(np.quantile(np.linalg.norm(finite - center, axis=1), 0.9)), far=far)


def added(one: Offset, other: Offset) -> Offset:
    """Both offsets, one after the other."""
    x, y, z = (a + b for a, b in zip(one, other, strict=True))
    return x, y, z
