"""Splats far from the origin of their world: positions near zero in the file, and beside them where zero lies.

float32 has steps of 3 cm at 500 km and of half a meter at 5000 km, which is where the coordinates of maps are. A file
of such a splat therefore holds positions less an offset, and says so: PLY files in a line of their header, the others,
which have no room for words, in a JSON file beside them. World coordinates are the file's plus the offset.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from output_files import write_text_whole
from splat_render.errors import InputError

Offset = tuple[float, float, float]
"""What to add to positions, x y z in the world's unit."""

ZERO: Offset = (0.0, 0.0, 0.0)
"""Of files whose positions are the world's."""

COMMENT = "WorldOffset:"
"""Beginning of the line in the header of a PLY file; three numbers follow."""

SIDECAR_ENDING = ".offset.json"
"""What is added to a file's name for the JSON beside it."""

SIDECAR_KEY = "world_offset"
"""Its entry."""

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


def comments_of(offset: Offset) -> list[str]:
    """The lines of a PLY header: none for zero."""
    return [] if offset == ZERO else [" ".join([COMMENT, *map(repr, offset)])]


def offset_in(comments: Sequence[str], path: Path) -> Offset:
    """The offset that the lines of a PLY header name; zero without one."""
    for line in comments:
        if line.strip().startswith(COMMENT):
            return _checked(line.strip().removeprefix(COMMENT).split(), path)
    return ZERO


def sidecar(path: Path) -> Path:
    """The JSON file beside a splat file."""
    return path.with_name(path.name + SIDECAR_ENDING)


def write_sidecar(path: Path, offset: Offset) -> None:
    """Write the JSON file beside a splat file; for zero, remove what an earlier splat of that name left."""
    beside = sidecar(path)
    if offset != ZERO:
        write_text_whole(beside, json.dumps({SIDECAR_KEY: list(offset)}) + "\n")
        return
    try:
        if beside.is_file() and SIDECAR_KEY in beside.read_text(encoding="utf-8", errors="replace"):
            beside.unlink()
    except OSError as error:
        raise InputError(f"cannot write {beside}: {error.strerror or error}") from None


def read_sidecar(path: Path) -> Offset:
    """The offset that the JSON file beside a splat file names; zero without such a file."""
    beside = sidecar(path)
    if not beside.is_file():
        return ZERO
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))[SIDECAR_KEY]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f'{beside} does not hold "{SIDECAR_KEY}" ({error!r}): repair or remove it') from None
    return _checked(values, beside)


def _checked(values: object, path: Path) -> Offset:
    try:
        x, y, z = (float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        x = y = z = math.nan
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError(f"{path}: its world offset {values} is not three numbers: repair or remove it")
    return x, y, z
