"""Splat files in the layout of the 3D Gaussian Splatting paper's code, which viewers and converters read.

One vertex per Gaussian with the float properties x y z nx ny nz f_dc_0..2 f_rest_0.. opacity scale_0..2 rot_0..3:
raw parameters (logarithms of scales, logits of opacities, quaternions w x y z). f_rest holds all coefficients of red,
then of green, then of blue.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from splat_recon.errors import InputError
from splat_recon.gaussians.gaussians import Gaussians


def write_ply(path: Path | str, gaussians: Gaussians, *, comments: Sequence[str] = ()) -> None:
    """Write Gaussians as they are, in the frame they are in, as a binary PLY file.

    The file appears under its name only when it is complete.

    Args:
        path: The file to write.
        gaussians: On any device.
        comments: Lines for the file's header.

    Raises:
        InputError: The file cannot be written.
    """
    path = Path(path)
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
    dtype = [(name, "<f4") for name in _property_names(num_rest)]
    vertices = np.ascontiguousarray(table, dtype="<f4").view(dtype).reshape(n)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        element = PlyElement.describe(vertices, "vertex")
        PlyData([element], byte_order="<", comments=list(comments)).write(str(partial))
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from None


def _property_names(num_rest: int) -> list[str]:
    names = ["x", "y", "z", "nx", "ny", "nz"]
    names += [f"f_dc_{index}" for index in range(3)]
    names += [f"f_rest_{index}" for index in range(3 * num_rest)]
    return [*names, "opacity", *(f"scale_{index}" for index in range(3)), *(f"rot_{index}" for index in range(4))]


def read_ply(path: Path | str) -> Gaussians:
    """Read a splat file; properties may stand in any order, and others are left out of account.

    Raises:
        InputError: The file is missing, is no PLY file, lacks a property, or holds values that are not finite.
    """
    path = Path(path)
    try:
        elements = PlyData.read(str(path))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, PlyParseError, ValueError, UnicodeDecodeError, MemoryError) as error:
        raise InputError(f"{path} is not a PLY file that can be read ({error})") from None
    if "vertex" not in elements:
        raise InputError(f"{path} has no vertices: it is not a splat file")
    vertices = elements["vertex"]
    present = {prop.name for prop in vertices.properties}
    num_rest_properties = sum(name.startswith("f_rest_") for name in present)
    if num_rest_properties not in (0, 9, 24, 45):
        raise InputError(f"{path} has {num_rest_properties} properties f_rest_*: expected 0, 9, 24 or 45 (degrees 0-3)")
    num_rest = num_rest_properties // 3
    missing = [name for name in _property_names(num_rest) if name not in present and name not in ("nx", "ny", "nz")]
    if missing:
        raise InputError(f"{path} is not a splat file: it lacks the properties {', '.join(missing[:10])}")

    def columns(*names: str) -> torch.Tensor:
        values = np.stack([np.asarray(vertices[name], dtype=np.float32) for name in names], axis=1)
        if not np.isfinite(values).all():
            raise InputError(f"{path} holds values that are not finite in {names[0]}..{names[-1]}")
        return torch.from_numpy(values)

    n = len(vertices.data)
    sh_rest = torch.zeros((n, 0, 3))
    if num_rest:
        sh_rest = columns(*(f"f_rest_{index}" for index in range(3 * num_rest)))
        sh_rest = sh_rest.reshape(n, 3, num_rest).transpose(1, 2).contiguous()
    return Gaussians(
        means=columns("x", "y", "z"),
        log_scales=columns(*(f"scale_{index}" for index in range(3))),
        quats_wxyz=columns(*(f"rot_{index}" for index in range(4))),
        logit_opacities=columns("opacity")[:, 0].clone(),
        sh0=columns(*(f"f_dc_{index}" for index in range(3)))[:, None, :],
        sh_rest=sh_rest,
    )
