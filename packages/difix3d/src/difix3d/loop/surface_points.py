"""The surface points that a view shows, and which other views see them, by the depth of a splat.

A view sees a point that lies in its image, with nothing opaque in front of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from splat_recon.scene.downscale import limited_size
from splat_render.cameras import Camera
from splat_render.output import RenderOutput

OPAQUE = 0.5
"""Opacity from which a pixel shows something."""

SAME_DEPTH = 0.1
"""Relative difference of depths up to which two views see the same point."""

Render = Callable[[Camera], RenderOutput]
"""What a splat shows to a camera."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DepthView:
    """How far a camera sees."""

    camera: Camera
    """Where it is; its size is that of the depth."""

    depth: Float64[Tensor, "h w"]
    """z-depth in world units, infinite where nothing is opaque."""

    @classmethod
    def rendered(cls, camera: Camera, render: Render, *, max_size: int) -> "DepthView":
        """That of a render whose longer side has at most this many pixels."""
        small = camera.resized(*limited_size(camera.width, camera.height, max_size))
        output = render(small)
        depth = output.depth[..., 0].double()
        opaque = (output.alpha[..., 0].double() > OPAQUE) & (depth > 0)
        return cls(camera=small, depth=torch.where(opaque, depth, torch.inf))

    def surface_points(self) -> Float64[Tensor, "n 3"]:
        """The points in the world that the pixels show, row by row; pixels that show nothing are left out."""
        rows, columns = torch.nonzero(torch.isfinite(self.depth), as_tuple=True)
        z = self.depth[rows, columns]
        pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(z)], dim=1).double()
        p_cam = (pixels @ _like(z, np.linalg.inv(self.camera.K)).T) * z[:, None]
        T_world_cam = _like(z, self.camera.T_world_cam)
        return p_cam @ T_world_cam[:3, :3].T + T_world_cam[:3, 3]

    def sees(self, p_world: Float64[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which points are in front of the camera and in its image, and not behind something."""
        T_cam_world = _like(p_world, self.camera.T_cam_world)
        p_cam = p_world @ T_cam_world[:3, :3].T + T_cam_world[:3, 3]
        z = p_cam[:, 2]
        front = z > 1e-6
        xy = (p_cam @ _like(p_world, self.camera.K).T)[:, :2] / torch.where(front, z, 1.0)[:, None]
        columns, rows = torch.floor(xy).unbind(dim=1)
        inside = front & (columns >= 0) & (columns < self.camera.width) & (rows >= 0) & (rows < self.camera.height)
        nearest = torch.full_like(z, torch.inf)
        nearest[inside] = self.depth[rows[inside].long(), columns[inside].long()]
        return inside & (z <= (1 + SAME_DEPTH) * nearest)


def _like(tensor: Tensor, array: Float64[np.ndarray, "..."]) -> Float64[Tensor, "..."]:
    return torch.from_numpy(np.ascontiguousarray(array)).to(tensor)
