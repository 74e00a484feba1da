"""A field as Gaussians, so that any splat viewer can show it: sampled from its density, not fitted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sparsefusion.data.colmap import WorldTransform
from sparsefusion.errors import InputError
from sparsefusion.field.network import Field
from splat_render import Gaussians

MIN_OPACITY = 0.05
"""Cells that let more light through than this leaves get no Gaussian."""

SPREAD = 0.6
"""Standard deviation of a Gaussian, in cells."""


@torch.no_grad()
def field_gaussians(
    field: Field,
    R_world_axes: Float[Tensor, "3 3"],
    *,
    transform: WorldTransform | None = None,
    extent: float = 2.5,
    resolution: int = 96,
) -> Gaussians:
    """One round Gaussian for every cell of a grid in which the field is dense enough.

    Args:
        field: The field.
        R_world_axes: Rotation of the camera whose axes the field has: ``p_field = p_world @ R``.
        transform: From the photos' own world to the object's; Gaussians are given in the former.
        extent: Half of the side of the grid, in the field's units.
        resolution: Cells per side.

    Raises:
        InputError: The field is empty.
    """
    cell = 2 * extent / resolution
    line = torch.linspace(-extent + cell / 2, extent - cell / 2, resolution, device=field.aabb_train.device)
    found, colors, opacities = [], [], []
    for x in line:
        points = torch.cartesian_prod(x[None], line, line)
        densities, rgb = field(points)
        opacity = 1 - torch.exp(-densities * cell)
        chosen = opacity > MIN_OPACITY
        found.append(points[chosen])
        colors.append(rgb[chosen])
        opacities.append(opacity[chosen])
    points = torch.cat(found) @ R_world_axes.to(line.device).T
    if not len(points):
        raise InputError("the field is empty: nothing of it can be written as Gaussians")
    scale = 1.0
    if transform is not None:
        scale = 1 / transform.scale
        points = points * scale + torch.tensor(transform.center, device=points.device)
    count = len(points)
    return Gaussians.from_rgb(
        means=points.float().cpu(),
        quats_wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).contiguous(),
        scales=torch.full((count, 3), SPREAD * cell * scale),
        opacities=torch.cat(opacities).cpu(),
        rgb=torch.cat(colors).cpu(),
    )
