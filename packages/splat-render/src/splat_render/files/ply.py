"""Splat files in the layout of the 3D Gaussian Splatting paper's code, which viewers and converters read.

One vertex per Gaussian with the float properties x y z nx ny nz f_dc_0..2 f_rest_0.. opacity scale_0..2 rot_0..3:
raw parameters (logarithms of scales, logits of opacities, quaternions w x y z). f_rest holds all coefficients of red,
then of green, then of blue.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement

from output_files import written_whole
from splat_render.errors import InputError
from splat_render.files import compressed_ply
from splat_render.files.finite import drawable
from splat_render.files.ply_tables import PlyTables, colors_of, read_ply_tables
from splat_render.files.world_offset import ZERO, Offset, offset_of
from splat_render.gaussians import Gaussians
from splat_render.spherical_harmonics import C0

MAX_NUM_REST = 15
"""Coefficients of degrees 1 to 3."""

RGB_BYTES = ("red", "green", "blue")
"""Names under which point clouds keep colors as bytes."""

MIP_FILTER = "filter_3d"
"""Property, in lower case, of Mip-Splatting's files: standard deviation of the filter of each Gaussian."""

THINNEST = 1e-3
"""Thickness of what has none, in parts of its width."""

SMALLEST_SCALE = 1e-30
"""Scale of what has none at all."""

INFINITE_LOGIT = 7.0
"""What an infinite logit of an opacity is read as: within 1/1000 of opaque or of transparent, and still trainable."""

_log = logging.getLogger(__name__)


def write_ply(
    path: Path | str,
    gaussians: Gaussians,
    *,
    comments: Sequence[str] = (),
    with_rgb: bool = False,
    min_opacity: float = 0.0,
) -> None:
    """Write Gaussians as they are, in the frame they are in, as a binary PLY file.

    The file appears under its name only when it is complete.

    Args:
        with_rgb: Also write the color of degree 0 as bytes `red green blue`, so that programs which know point clouds
            only show colors too.
        min_opacity: Gaussians of less opacity than this, in [0, 1], are left out.
    """
    if min_opacity > 0:
        gaussians = gaussians.selected(gaussians.opacities >= min_opacity)
    n, num_rest = len(gaussians), gaussians.sh_rest.shape[1]
    columns = {name: tensor.detach().cpu().float().numpy() for name, tensor in gaussians.parameters().items()}
    table = np.concatenate(
        [
            columns["means"],
            np.zeros((n, 3), dtype=np.float32),
            columns["sh0"].reshape(n, 3),
            columns["sh_rest"].transpose(0, 2, 1).reshape(n, 3 * num_rest),
            columns["logit_opacities"][:, None],
            columns["log_scales"],
            columns["quats_wxyz"],
        ],
        axis=1,
    )
    names = _property_names(num_rest)
    dtype = [(name, "<f4") for name in names] + [(name, "u1") for name in RGB_BYTES if with_rgb]
    vertices = np.empty(n, dtype=dtype)
    for index, name in enumerate(names):
        vertices[name] = table[:, index]
    if with_rgb:
        rgb_u8 = np.rint(255 * np.clip(columns["sh0"].reshape(n, 3) * C0 + 0.5, 0, 1)).astype(np.uint8)
        for index, name in enumerate(RGB_BYTES):
            vertices[name] = rgb_u8[:, index]
    with written_whole(Path(path)) as partial:
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<", comments=list(comments)).write(str(partial))


def _property_names(num_rest: int) -> list[str]:
    names = ["x", "y", "z", "nx", "ny", "nz"]
    names += [f"f_dc_{index}" for index in range(3)]
    names += [f"f_rest_{index}" for index in range(3 * num_rest)]
    return [*names, "opacity", *(f"scale_{index}" for index in range(3)), *(f"rot_{index}" for index in range(4))]


def read_ply(path: Path | str) -> Gaussians:
    """Read a splat file of this layout, or of the compressed one.

    Properties may stand in any order and of any type, as text or binary; normals and properties of other programs are
    left out of account, and so are coefficients of degree 4. What else is read:

    - colors red, green, blue in place of f_dc_*, as floats, bytes or 16 bits (`ply_tables.colors_of`);
    - Mip-Splatting's own files: their filter is applied (`filter_3D`);
    - 2D Gaussians (scale_0 and scale_1 only) and flat ones (a scale of zero): as thin as `THINNEST` of their width;
    - Gaussians that are not finite are left out, with a warning.

    Raises:
        InputError: The file is missing, is no PLY file, lacks a property, or holds no finite Gaussian.
    """
    path = Path(path)
    return gaussians_of(opened_ply(path), path)


def opened_ply(path: Path) -> PlyTables:
    """A PLY file's header and those of its elements that splats are in."""
    return read_ply_tables(path, ("vertex", "chunk", "sh"))


def double_offset(data: PlyTables) -> Offset:
    """What to take off positions in double precision that single precision would round; zero for all others."""
    rows = data["vertex"] if "vertex" in data else np.zeros(0, [])
    if not all(axis in (rows.dtype.names or ()) and rows.dtype[axis].itemsize == 8 for axis in "xyz"):
        return ZERO
    positions = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
    return offset_of(positions[np.isfinite(positions).all(axis=1)])


def gaussians_of(data: PlyTables, path: Path, *, taken_off: Offset = ZERO) -> Gaussians:
    """The Gaussians of an opened PLY file; `path` is for messages, `taken_off` for positions (`double_offset`)."""
    if "vertex" not in data:
        raise InputError(f"{path} has no vertices: it is not a splat file")
    if compressed_ply.is_compressed(data):
        return drawable(compressed_ply.unpacked(data, path), path)
    rows = data["vertex"]
    present = set(rows.dtype.names or ())
    num_stored = sum(name.startswith("f_rest_") for name in present)
    if num_stored not in (0, 9, 24, 45, 72):
        raise InputError(f"{path} has {num_stored} properties f_rest_*: expected 0, 9, 24, 45 or 72 (degrees 0 to 4)")
    rgb = None if "f_dc_0" in present else colors_of(rows)
    is_2d = present >= {"scale_0", "scale_1"} and "scale_2" not in present
    ignored = {"nx", "ny", "nz", *(("f_dc_0", "f_dc_1", "f_dc_2") if rgb is not None else ())}
    ignored |= {"scale_2"} if is_2d else set()
    missing = [name for name in _property_names(num_stored // 3) if name not in present and name not in ignored]
    if missing:
        kind = "; it is a point cloud or a mesh" if not present & {"opacity", "scale_0", "rot_0"} else ""
        raise InputError(f"{path} is not a splat file: it lacks the properties {', '.join(missing[:10])}{kind}")
    if is_2d:
        _log.warning("%s holds 2D Gaussians: they are read as flat ones", path)

    def columns(*names: str, less: Offset = ZERO) -> np.ndarray:
        # Double precision beyond single's range becomes infinite, and is left out as such.
        with np.errstate(over="ignore", invalid="ignore"):
            if less == ZERO:
                return np.stack([rows[name].astype(np.float32) for name in names], axis=1)
            return (np.stack([rows[name].astype(np.float64) for name in names], axis=1) - less).astype(np.float32)

    log_scales = columns(*(f"scale_{index}" for index in range(2 if is_2d else 3)))
    # Converters write infinite logits for opacities of exactly 0 and 1.
    logits = columns("opacity")[:, 0]
    logits = np.where(np.isinf(logits), np.sign(logits) * INFINITE_LOGIT, logits).astype(np.float32)
    log_scales = _flattened(log_scales)
    if filters := mip_filters(data):
        log_scales, logits = _filtered(log_scales, logits, columns(filters[0])[:, 0])
        _log.warning("%s holds Mip-Splatting's %s: it is applied to scales and opacities", path, filters[0])
    sh0 = columns("f_dc_0", "f_dc_1", "f_dc_2") if rgb is None else ((rgb - 0.5) / C0).astype(np.float32)
    gaussians = Gaussians(
        means=torch.from_numpy(columns("x", "y", "z", less=taken_off)),
        log_scales=torch.from_numpy(log_scales),
        quats_wxyz=torch.from_numpy(columns(*(f"rot_{index}" for index in range(4)))),
        logit_opacities=torch.from_numpy(logits),
        sh0=torch.from_numpy(sh0)[:, None, :],
        sh_rest=_higher_degrees(columns, len(rows), num_stored // 3),
    )
    return drawable(gaussians, path)


def mip_filters(data: PlyTables) -> list[str]:
    """Names of the properties that hold Mip-Splatting's filter: none or one."""
    return [name for name in data["vertex"].dtype.names or () if name.lower() == MIP_FILTER] if "vertex" in data else []


def _flattened(log_scales: np.ndarray) -> np.ndarray:
    """[n 3] logarithms of which those that are lacking, or of zero, are those of thin discs and needles."""
    if log_scales.shape[1] == 2:
        log_scales = np.concatenate([log_scales, np.full((len(log_scales), 1), -np.inf, np.float32)], axis=1)
    flat = np.isneginf(log_scales)
    if not flat.any():
        return log_scales
    widest = np.where(flat, -np.inf, log_scales).max(axis=1, keepdims=True)
    # Nothing says how small a Gaussian without any size was: it is kept, where nobody can see it.
    thin = np.where(np.isneginf(widest), np.log(SMALLEST_SCALE), widest + np.log(THINNEST))
    return np.where(flat, thin, log_scales).astype(np.float32)


def _filtered(log_scales: np.ndarray, logits: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and opacities after a convolution with a Gaussian of a standard deviation of their own each.

    Mip-Splatting (Yu et al., CVPR 2024), equation 9: variances grow by the filter's, opacities fall by the ratio of the
    volumes before and after.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        variances = np.exp(2 * log_scales.astype(np.float64))
        grown = variances + width.astype(np.float64)[:, None] ** 2
        log_ratio = 0.5 * (np.log(variances) - np.log(grown)).sum(axis=1)
        # log(a r / (1 - a r)) for the opacity a = sigmoid(logit), without loss where it is small.
        log_opacity = -np.logaddexp(0, -logits.astype(np.float64)) + log_ratio
        changed = log_opacity - np.log(-np.expm1(np.minimum(log_opacity, -1e-12)))
    return (0.5 * np.log(grown)).astype(np.float32), changed.astype(np.float32)


def _higher_degrees(columns: Callable[..., np.ndarray], n: int, num_stored: int) -> torch.Tensor:
    """[n k 3] of the stored coefficients, at most the 15 up to degree 3."""
    num_rest = min(num_stored, MAX_NUM_REST)
    if not num_rest:
        return torch.zeros((n, 0, 3))
    names = [f"f_rest_{channel * num_stored + index}" for channel in range(3) for index in range(num_rest)]
    return torch.from_numpy(columns(*names)).reshape(n, 3, num_rest).transpose(1, 2).contiguous()
