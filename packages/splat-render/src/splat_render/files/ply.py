"""Splat files in the layout of the 3D Gaussian Splatting paper's code, which viewers and converters read.

One vertex per Gaussian with the float properties x y z nx ny nz f_dc_0..2 f_rest_0.. opacity scale_0..2 rot_0..3:
raw parameters (logarithms of scales, logits of opacities, quaternions w x y z). f_rest holds all coefficients of red,
then of green, then of blue.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from splat_render.errors import InputError
from splat_render.files import compressed_ply
from splat_render.files.whole_file import written_whole
from splat_render.files.world_offset import ZERO, Offset, offset_of
from splat_render.gaussians import Gaussians
from splat_render.spherical_harmonics import C0

MAX_NUM_REST = 15
"""Coefficients of degrees 1 to 3."""

RGB_BYTES = ("red", "green", "blue")
"""Names under which point clouds keep colors as bytes."""

INFINITE_LOGIT = 7.0
"""What an infinite logit of an opacity is read as: within 1/1000 of opaque or of transparent, and still trainable."""


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
        path: The file to write.
        gaussians: On any device.
        comments: Lines for the file's header.
        with_rgb: Also write the color of degree 0 as bytes `red green blue`, so that programs which know point clouds
            only show colors too.
        min_opacity: Gaussians of less opacity than this, in [0, 1], are left out.

    Raises:
        InputError: The file cannot be written.
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

    Properties may stand in any order, as text or binary; normals and properties of other programs are left out of
    account, and so are coefficients of degree 4. A file with red, green and blue in place of f_dc_* has these colours.

    Raises:
        InputError: The file is missing, is no PLY file, lacks a property, or holds values that are not finite.
    """
    path = Path(path)
    return gaussians_of(opened_ply(path), path)


def opened_ply(path: Path) -> PlyData:
    """A PLY file's header and elements.

    Raises:
        InputError: The file is missing or is no PLY file.
    """
    try:
        return PlyData.read(str(path))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, PlyParseError, ValueError, UnicodeDecodeError, MemoryError) as error:
        raise InputError(f"{path} is not a PLY file that can be read ({error})") from None


def double_offset(data: PlyData) -> Offset:
    """What to take off positions in double precision that single precision would round; zero for all others."""
    present = {prop.name: prop for prop in data["vertex"].properties} if "vertex" in data else {}
    if not all(axis in present and present[axis].val_dtype == "f8" for axis in "xyz"):
        return ZERO
    return offset_of(np.stack([np.asarray(data["vertex"][axis]) for axis in "xyz"], axis=1))


def gaussians_of(data: PlyData, path: Path, *, taken_off: Offset = ZERO) -> Gaussians:
    """The Gaussians of an opened PLY file; `path` is for messages, `taken_off` for positions (`double_offset`).

    Raises:
        InputError: It is no splat file, or holds values that are not finite.
    """
    if "vertex" not in data:
        raise InputError(f"{path} has no vertices: it is not a splat file")
    if compressed_ply.is_compressed(data):
        return compressed_ply.unpacked(data, path)
    vertices = data["vertex"]
    present = {prop.name for prop in vertices.properties}
    num_stored = sum(name.startswith("f_rest_") for name in present)
    if num_stored not in (0, 9, 24, 45, 72):
        raise InputError(f"{path} has {num_stored} properties f_rest_*: expected 0, 9, 24, 45 or 72 (degrees 0 to 4)")
    only_rgb = "f_dc_0" not in present and present >= set(RGB_BYTES)
    ignored = ("nx", "ny", "nz", *(("f_dc_0", "f_dc_1", "f_dc_2") if only_rgb else ()))
    missing = [name for name in _property_names(num_stored // 3) if name not in present and name not in ignored]
    if missing:
        raise InputError(f"{path} is not a splat file: it lacks the properties {', '.join(missing[:10])}")

    def columns(*names: str, less: Offset = ZERO) -> torch.Tensor:
        values = np.stack([np.asarray(vertices[name], dtype=np.float64) for name in names], axis=1)
        values = (values - (less if less != ZERO else 0.0)).astype(np.float32)
        if names == ("opacity",):
            # Converters write infinite logits for opacities of exactly 0 and 1.
            values = np.where(np.isinf(values), np.sign(values) * INFINITE_LOGIT, values).astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{path} holds values that are not finite in {names[0]}..{names[-1]}")
        return torch.from_numpy(values)

    return Gaussians(
        means=columns("x", "y", "z", less=taken_off),
        log_scales=columns(*(f"scale_{index}" for index in range(3))),
        quats_wxyz=columns(*(f"rot_{index}" for index in range(4))),
        logit_opacities=columns("opacity")[:, 0].clone(),
        sh0=_degree_0(columns, only_rgb)[:, None, :],
        sh_rest=_higher_degrees(columns, len(vertices.data), num_stored // 3),
    )


def _degree_0(columns: Callable[..., torch.Tensor], only_rgb: bool) -> torch.Tensor:
    if only_rgb:
        return (columns("red", "green", "blue") / 255 - 0.5) / C0
    return columns("f_dc_0", "f_dc_1", "f_dc_2")


def _higher_degrees(columns: Callable[..., torch.Tensor], n: int, num_stored: int) -> torch.Tensor:
    """[n k 3] of the stored coefficients, at most the 15 up to degree 3."""
    num_rest = min(num_stored, MAX_NUM_REST)
    if not num_rest:
        return torch.zeros((n, 0, 3))
    names = [f"f_rest_{channel * num_stored + index}" for channel in range(3) for index in range(num_rest)]
    return columns(*names).reshape(n, 3, num_rest).transpose(1, 2).contiguous()
