"""The nearest depth at which a splat is to be drawn, as a line in the header of a PLY file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from splat_render.errors import InputError

COMMENT = "NearPlane:"
"""Beginning of the line; a depth above 0 in the file's units follows."""


def near_comments(near: float | None) -> list[str]:
    """The lines of a PLY header: none where nothing is said."""
    return [] if near is None else [f"{COMMENT} {near:.6g}"]


def near_in(comments: Sequence[str], path: Path) -> float | None:
    """The depth that the lines of a PLY header name; None without one."""
    for line in comments:
        if line.strip().startswith(COMMENT):
            text = line.strip().removeprefix(COMMENT)
            try:
                near = float(text)
            except ValueError:
                near = math.nan
            if not 0 < near < math.inf:
                raise InputError(f'{path}: "{COMMENT}{text}" is no depth above 0: repair or remove the line')
            return near
    return None
