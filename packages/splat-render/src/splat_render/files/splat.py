"""The `.splat` files of web viewers: 32 bytes for each Gaussian, and no view-dependent color.

Position and scale as six float32, then red, green, blue and opacity, then the rotation w x y z, as bytes. The
Gaussians that matter most stand first, so that a file shows something before it has arrived. The axes are those of
the PLY file.
"""

from pathlib import Path

import numpy as np

from output_files import written_whole
from splat_render.errors import InputError
from splat_render.files.finite import drawable
from splat_render.files.quantized import SplatArrays, to_u8
from splat_render.files.whole_file import read_bytes
from splat_render.gaussians import Gaussians
from splat_render.spherical_harmonics import C0

_RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])

SMALLEST_SCALE = 1e-30
"""Scales of zero, whose logarithm is not finite, are read as this."""


def write_splat(path: Path | str, gaussians: Gaussians) -> None:
    """Write Gaussians in the frame they are in, the largest and most opaque first; only degree 0 of their colors."""
    arrays = SplatArrays.of(gaussians)
    weight = np.exp(arrays.log_scales.astype(np.float64).sum(axis=1)) * arrays.opacities
    arrays = arrays.ordered(np.argsort(-weight, kind="stable"))
    records = np.empty(len(arrays.means), dtype=_RECORD)
    records["mean"] = arrays.means
    records["scale"] = np.exp(arrays.log_scales)
    records["rgba"][:, :3] = to_u8((arrays.sh0 * C0 + 0.5) * 255)
    records["rgba"][:, 3] = to_u8(arrays.opacities * 255)
    records["quat"] = to_u8(arrays.quats_wxyz * 128 + 128)
    with written_whole(Path(path)) as partial:
        partial.write_bytes(records.tobytes())


def read_splat(path: Path | str) -> Gaussians:
    """Read Gaussians of SH degree 0."""
    path = Path(path)
    content = read_bytes(path)
    if len(content) % _RECORD.itemsize:
        raise InputError(f"{path} is no .splat file: its {len(content)} bytes are not a multiple of {_RECORD.itemsize}")
    records = np.frombuffer(content, dtype=_RECORD)
    rgba = records["rgba"] / 255.0
    quats = (records["quat"].astype(np.float64) - 128) / 128
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    quats = np.where(length > 0, quats / np.where(length > 0, length, 1), [1.0, 0, 0, 0])
    gaussians = SplatArrays(
        means=records["mean"].astype(np.float32),
        log_scales=np.log(np.maximum(records["scale"], SMALLEST_SCALE)).astype(np.float32),
        quats_wxyz=quats.astype(np.float32),
        opacities=rgba[:, 3].astype(np.float32),
        sh0=((rgba[:, :3] - 0.5) / C0).astype(np.float32),
        sh_rest=np.zeros((len(records), 0, 3), dtype=np.float32),
    ).gaussians()
    return drawable(gaussians, path)
