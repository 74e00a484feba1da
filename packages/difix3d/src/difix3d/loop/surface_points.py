"""The surface points that a view shows, and which other views see them, by the depth of a splat.

A view sees a point that lies in its image, with nothing opaque in front of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from splat_recon.scene.downscale import limited_size
from splat_render.cameras import Camera
from splat_render.output import RenderOutput

OPAQUE = 0.5
"""Opacity from which a pixel shows something."""

HALF_SEEN = 0.05
"""Relative difference of depths at which a view that looks at something nearer is taken by half to see a point."""

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
    def of(cls, camera: Camera, output: RenderOutput) -> "DepthView":
        """That of a render."""
        depth = output.depth[..., 0].double()
        opaque = (output.alpha[..., 0].double() > OPAQUE) & (depth > 0)
        return cls(camera=camera, depth=torch.where(opaque, depth, torch.inf))

    @classmethod
    def rendered(cls, camera: Camera, render: Render, *, max_size: int) -> "DepthView":
        """That of a render whose longer side has at most this many pixels."""
        small = camera.resized(*limited_size(camera.width, camera.height, max_size))
        return cls.of(small, render(small))


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SurfacePoints:
    """The points that the pixels of a view show, pixels that show nothing left out."""

    rows_idx: Int64[Tensor, " n"]
    """Rows of the pixels."""

    columns_idx: Int64[Tensor, " n"]
    """Columns of the pixels."""

    p_world: Float64[Tensor, "n 3"]
    """Where what they show is."""

    @classmethod
    def of(cls, view: DepthView) -> "SurfacePoints":
        """Those of a view, row by row."""
        rows, columns = torch.nonzero(torch.isfinite(view.depth), as_tuple=True)
        z = view.depth[rows, columns]
        pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(z)], dim=1).double()
        p_cam = (pixels @ _like(z, np.linalg.inv(view.camera.K)).T) * z[:, None]
        T_world_cam = _like(z, view.camera.T_world_cam)
        p_world = p_cam @ T_world_cam[:3, :3].T + T_world_cam[:3, 3]
        return cls(rows_idx=rows, columns_idx=columns, p_world=p_world)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ProjectedPoints:
    """Points as a view sees them."""

    xy: Float64[Tensor, "n 2"]
    """Where in the image, in pixels; any number where a point is not inside."""

    z: Float64[Tensor, " n"]
    """Their z-depth."""

    inside: Bool[Tensor, " n"]
    """Whether they are in front of the camera and lie in the image."""

    nearest: Float64[Tensor, " n"]
    """z-depth of what the view shows there, infinite where nothing is opaque or a point is not inside."""

    @property
    def visibility(self) -> Float64[Tensor, " n"]:
        """How surely it sees them, in [0, 1]: the less, the farther in front of them it sees something."""
        behind = (self.z / self.nearest - 1).clamp_min(0) / HALF_SEEN
        return self.inside / (1 + behind**2)


def project(p_world: Float64[Tensor, "n 3"], view: DepthView) -> ProjectedPoints:
    """Points as a view sees them."""
    T_cam_world = _like(p_world, view.camera.T_cam_world)
    p_cam = p_world @ T_cam_world[:3, :3].T + T_cam_world[:3, 3]
    z = p_cam[:, 2]
    front = z > 1e-6
    xy = (p_cam @ _like(p_world, view.camera.K).T)[:, :2] / torch.where(front, z, 1.0)[:, None]
    columns, rows = torch.floor(xy).unbind(dim=1)
    inside = front & (columns >= 0) & (columns < view.camera.width) & (rows >= 0) & (rows < view.camera.height)
    nearest = torch.full_like(z, torch.inf)
    nearest[inside] = view.depth[rows[inside].long(), columns[inside].long()]
    return ProjectedPoints(xy=xy, z=z, inside=inside, nearest=nearest)


def _like(tensor: Tensor, array: Float64[np.ndarray, "..."]) -> Float64[Tensor, "..."]:
    return torch.from_numpy(np.ascontiguousarray(array)).to(tensor)
