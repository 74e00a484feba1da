"""Compressed PLY: the chunked form that PlayCanvas and SuperSplat read, about a quarter to a fifteenth of a PLY file.

Gaussians stand in chunks of 256 neighbors. A chunk has the bounds of its positions, scales and colors; a Gaussian
has four 32-bit integers: its position and scale between those bounds (11, 10 and 11 bits), its rotation (which
component is largest in 2 bits, the others in 10 each) and its color and opacity (8 bits each). Spherical harmonics
from degree 1 on are bytes over [-4, 4], up to the highest degree that is not nearly zero everywhere. Logarithms of
scales are limited to `MAX_LOG_SCALE`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from output_files import written_whole
from splat_render.errors import InputError
from splat_render.files.ply_tables import PlyTables
from splat_render.files.quantized import MAX_SMALLER, SplatArrays, from_unorm, unorm, with_largest, without_largest
from splat_render.gaussians import Gaussians
from splat_render.spherical_harmonics import C0

CHUNK = 256
"""Gaussians per chunk; the last one may have fewer."""

MAX_LOG_SCALE = 20.0
"""Largest size of a logarithm of a scale; beyond, they are cut off."""

SH_RANGE = 8.0
"""Width of the interval about 0 that the bytes of the spherical harmonics cover."""

_BOUNDS = [
    f"{side}_{name}" for group in ("xyz", ("scale_x", "scale_y", "scale_z"), "rgb")
    for side in ("min", "max") for name in group
]  # fmt: skip
_PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]


def is_compressed(data: PlyTables) -> bool:
    """Whether a PLY file is of this form."""
    return "chunk" in data and "vertex" in data and "packed_position" in (data["vertex"].dtype.names or ())


def write_compressed_ply(path: Path | str, gaussians: Gaussians, *, comments: Sequence[str] = ()) -> None:
    """Write Gaussians, in the frame they are in; their order changes to that of a space-filling curve."""
    arrays = SplatArrays.of(gaussians)
    arrays = arrays.ordered(np.argsort(morton_codes(arrays.means), kind="stable"))
    n = len(arrays.means)
    log_scales = np.clip(arrays.log_scales, -MAX_LOG_SCALE, MAX_LOG_SCALE)
    position, position_bounds = _in_chunks(arrays.means)
    scale, scale_bounds = _in_chunks(log_scales)
    color, color_bounds = _in_chunks(arrays.sh0 * C0 + 0.5)
    largest, others = without_largest(arrays.quats_wxyz)
    rotation = unorm(others / (2 * MAX_SMALLER) + 0.5, 10)
    red, green, blue, alpha = unorm(np.concatenate([color, arrays.opacities[:, None]], axis=1), 8).T
    packed = np.empty(n, dtype=[(name, "<u4") for name in _PACKED])
    packed["packed_position"] = _11_10_11(position)
    packed["packed_rotation"] = largest << 30 | rotation[:, 0] << 20 | rotation[:, 1] << 10 | rotation[:, 2]
    packed["packed_scale"] = _11_10_11(scale)
    packed["packed_color"] = red << 24 | green << 16 | blue << 8 | alpha
    bounds = np.concatenate([*position_bounds, *scale_bounds, *color_bounds], axis=1).astype("<f4")
    chunks = np.ascontiguousarray(bounds).view([(name, "<f4") for name in _BOUNDS]).reshape(-1)
    elements = [PlyElement.describe(chunks, "chunk"), PlyElement.describe(packed, "vertex")]
    num_rest = _num_noticeable(arrays.sh_rest)
    if num_rest:
        # Channel by channel, as in the uncompressed form; the byte b stands for the middle of its interval.
        sh_rest = arrays.sh_rest[:, :num_rest].astype(np.float64)
        sh = np.clip(np.floor((sh_rest / SH_RANGE + 0.5) * 256), 0, 255).astype("u1")
        sh = np.ascontiguousarray(sh.transpose(0, 2, 1).reshape(n, 3 * num_rest))
        dtype = [(f"f_rest_{index}", "u1") for index in range(3 * num_rest)]
        elements.append(PlyElement.describe(sh.view(dtype).reshape(n), "sh"))
    with written_whole(Path(path)) as partial:
        PlyData(elements, byte_order="<", comments=list(comments)).write(str(partial))


def _num_noticeable(sh_rest: np.ndarray) -> int:
    """Coefficients up to the highest degree of which one is nearer to some byte's value than to none.

    No byte stands for zero, so that storing a degree that is (nearly) zero everywhere would tint what is gray.
    """
    num_rest = sh_rest.shape[1]
    for degree in range(math.isqrt(num_rest + 1) - 1, 0, -1):
        if np.abs(sh_rest[:, degree * degree - 1 : (degree + 1) ** 2 - 1]).max(initial=0.0) > SH_RANGE / 512:
            return (degree + 1) ** 2 - 1
    return 0


def _in_chunks(values: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Values [n 3] between their chunk's bounds, in [0, 1], and those bounds, each [chunks 3]."""
    starts = np.arange(0, len(values), CHUNK)
    if not len(starts):
        return np.zeros((0, 3)), (np.zeros((0, 3)), np.zeros((0, 3)))
    lowest = np.minimum.reduceat(values, starts, axis=0).astype(np.float32)
    highest = np.maximum.reduceat(values, starts, axis=0).astype(np.float32)
    chunk = np.arange(len(values)) // CHUNK
    size = (highest - lowest).astype(np.float64)
    return (values - lowest[chunk]) / np.where(size > 0, size, 1)[chunk], (lowest, highest)


def _11_10_11(values: np.ndarray) -> np.ndarray:
    return unorm(values[:, 0], 11) << 21 | unorm(values[:, 1], 10) << 11 | unorm(values[:, 2], 11)


def unpacked(data: PlyTables, path: Path) -> Gaussians:
    """The Gaussians of an opened file of this form.

    Raises:
        InputError: An element or property is missing, or the elements' lengths do not fit.
    """
    chunks, vertices = data["chunk"], data["vertex"]
    n = len(vertices)
    missing = [name for name in _BOUNDS[:12] if name not in (chunks.dtype.names or ())]
    missing += [name for name in _PACKED if name not in (vertices.dtype.names or ())]
    if missing:
        raise InputError(f"{path} is not a compressed splat file: it lacks {', '.join(missing[:10])}")
    if len(chunks) != -(-n // CHUNK):
        raise InputError(f"{path} has {len(chunks)} chunks for {n} Gaussians: expected {-(-n // CHUNK)}")
    chunk = np.arange(n) // CHUNK
    bounds = {name: chunks[name].astype(np.float64)[chunk] for name in _BOUNDS if name in (chunks.dtype.names or ())}
    # Files of the first version have no color bounds: their colors lie in [0, 1].
    bounds = {f"min_{c}": np.zeros(n) for c in "rgb"} | {f"max_{c}": np.ones(n) for c in "rgb"} | bounds

    def between(packed: np.ndarray, name: str, shift: int, bits: int) -> np.ndarray:
        t = from_unorm(packed, shift, bits)
        return bounds[f"min_{name}"] * (1 - t) + bounds[f"max_{name}"] * t

    position, rotation, scale, color = (vertices[name].astype(np.uint32) for name in _PACKED)
    axes = (("x", 21, 11), ("y", 11, 10), ("z", 0, 11))
    others = np.stack([from_unorm(rotation, shift, 10) for shift in (20, 10, 0)], axis=1)
    rgb = np.stack([between(color, name, shift, 8) for name, shift in (("r", 24), ("g", 16), ("b", 8))], axis=1)
    arrays = SplatArrays(
        means=np.stack([between(position, name, *bits) for name, *bits in axes], axis=1).astype(np.float32),
        log_scales=np.stack([between(scale, f"scale_{name}", *bits) for name, *bits in axes], axis=1).astype("f4"),
        quats_wxyz=with_largest((rotation >> np.uint32(30)).astype(np.int64), (others - 0.5) * 2 * MAX_SMALLER),
        opacities=from_unorm(color, 0, 8).astype(np.float32),
        sh0=((rgb - 0.5) / C0).astype(np.float32),
        sh_rest=_harmonics(data, n, path),
    )
    return arrays.gaussians()


def _harmonics(data: PlyTables, n: int, path: Path) -> np.ndarray:
    if "sh" not in data:
        return np.zeros((n, 0, 3), dtype=np.float32)
    table = data["sh"]
    names = table.dtype.names or ()
    if len(table) != n or len(names) not in (9, 24, 45) or set(names) != {f"f_rest_{i}" for i in range(len(names))}:
        raise InputError(f"{path}: its element sh does not hold 9, 24 or 45 coefficients of {n} Gaussians")
    byte = np.stack([table[f"f_rest_{index}"] for index in range(len(names))], axis=1).astype(np.float64)
    values = ((byte + 0.5) / 256 - 0.5) * SH_RANGE
    return values.reshape(n, 3, len(names) // 3).transpose(0, 2, 1).astype(np.float32)


def morton_codes(points: np.ndarray) -> np.ndarray:
    """Places [n 3] along a curve that keeps neighbors together: the bits of the three coordinates take turns."""
    if not len(points):
        return np.zeros(0, dtype=np.uint64)
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    cell = ((points - low) / np.where(high > low, high - low, 1) * (2**21 - 1)).astype(np.uint64)
    code = np.zeros(len(points), dtype=np.uint64)
    for bit in range(21):
        for axis in range(3):
            code |= ((cell[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return code
