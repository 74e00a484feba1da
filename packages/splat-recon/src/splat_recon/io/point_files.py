"""Colored points as PLY files."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64
from plyfile import PlyData, PlyElement

from output_files import written_whole
from splat_recon.errors import InputError
from splat_recon.scene.scene import Points
from splat_render.files.ply_tables import colors_of, read_ply_tables

MAX_ROUNDING = 1e-6
"""Rounding of coordinates that does not show, as a fraction of the points' extent."""

GRAY = 128
"""Color of points that have none."""


def read_points_ply(path: Path) -> Points:
    """Read the vertices x, y, z of a PLY file, with their colors under any of the usual names and types."""
    data = read_ply_tables(path, ("vertex",))
    vertices = data["vertex"] if "vertex" in data else np.zeros(0, [])
    if not set("xyz") <= set(vertices.dtype.names or ()):
        raise InputError(f"points {path} cannot be read: the file has no vertices with x, y and z")
    p_world = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
    if not np.isfinite(p_world).all():
        raise InputError(f"points {path}: {int((~np.isfinite(p_world).all(axis=1)).sum())} are not finite")
    rgb = colors_of(vertices)
    if rgb is None:
        return Points(p_world=p_world, rgb_u8=np.full(p_world.shape, GRAY, np.uint8))
    return Points(p_world=p_world, rgb_u8=np.rint(np.nan_to_num(rgb).clip(0, 1) * 255).astype(np.uint8))


def write_points_ply(path: Path, points: Points) -> None:
    """Write points as a binary PLY file; in double precision where single would round visibly (`MAX_ROUNDING`)."""
    layout = [(axis, _precision(points.p_world)) for axis in "xyz"] + [
        (color, "u1") for color in ("red", "green", "blue")
    ]
    vertices = np.empty(len(points), dtype=layout)
    for index, axis in enumerate("xyz"):
        vertices[axis] = points.p_world[:, index]
    for index, color in enumerate(("red", "green", "blue")):
        vertices[color] = points.rgb_u8[:, index]
    with written_whole(path) as partial:
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(partial)


def _precision(p_world: Float64[np.ndarray, "n 3"]) -> str:
    """The type of coordinates that shows no rounding; readers of PLY files know both."""
    rounding = np.abs(p_world - p_world.astype(np.float32)).max(initial=0.0)
    spread = np.ptp(p_world, axis=0).max() if len(p_world) else 0.0
    return "<f4" if rounding <= MAX_ROUNDING * spread else "<f8"
