"""Gaussians that cannot be drawn are left out, and counted."""

import logging
from pathlib import Path

import torch

from splat_render.errors import InputError
from splat_render.gaussians import Gaussians

MAX_LOG_SCALE = 88.0
"""Beyond it, a scale itself is not finite in float32."""

_log = logging.getLogger(__name__)


def drawable(gaussians: Gaussians, path: Path) -> Gaussians:
    """Those Gaussians of a file whose values are finite; a warning tells how many are left out.

    Rotations of length zero, which are none, become the identity.

    Raises:
        InputError: None is left of those that the file holds.
    """
    n = len(gaussians)
    finite = torch.ones(n, dtype=torch.bool)
    for values in gaussians.parameters().values():
        finite &= torch.isfinite(values[:, None].flatten(1)).all(dim=1)
    finite &= (gaussians.log_scales < MAX_LOG_SCALE).all(dim=1)
    num_broken = n - int(finite.sum())
    if num_broken == n and n:
        raise InputError(f"{path} holds values that are not finite in all of its {n} Gaussians")
    if num_broken:
        _log.warning("%s: %d of %d Gaussians hold values that are not finite, and are left out", path, num_broken, n)
        gaussians = gaussians.selected(finite)
    lost = (gaussians.quats_wxyz == 0).all(dim=1)
    if lost.any():
        gaussians.quats_wxyz[lost, 0] = 1.0
    return gaussians
