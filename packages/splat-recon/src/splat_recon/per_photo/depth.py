"""Depths of structure-from-motion points as a teacher: the disparity loss of gsplat's trainer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import grid_sample

from splat_recon.per_photo.configs import DepthConfig
from splat_recon.scene.scene import Points
from splat_render.cameras import Camera
from splat_render.output import RenderOutput
from splat_render.upload import constant, uploaded

logger = logging.getLogger(__name__)

NUM_CELLS = 32
"""Without tracks, a point counts as visible where it is among the nearest of its cell; an image has this many cells
along its longer side."""

NEAREST_MARGIN = 1.05
"""Among the nearest: at most this many times as far as the nearest of all."""

MIN_ALPHA = 0.5
"""Pixels with less opacity have no depth to compare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PointDepths:
    """Where one camera sees points, and how far they are."""

    xy_px: Float[Tensor, "m 2"]
    """In pixels, (0, 0) the top-left corner."""

    depths: Float[Tensor, " m"]
    """z-depth in scene units."""


class DepthSupervision:
    """Compares rendered depths with those of the points that structure from motion matched in a photo.

    Where the scene does not say which points a photo shows (`Points.seen_in`), the nearest points of each part of the
    image are taken, which may let some hidden ones through; the log says so.

    Args:
        points: In scene coordinates.
        near: Points nearer than this z-depth are left out.
        extent: Size of the scene in scene units.
    """

    def __init__(
        self,
        config: DepthConfig,
        points: Points,
        names: Sequence[str],
        *,
        near: float,
        extent: float,
        device: str,
    ) -> None:
        self.config = config
        self._points = points
        self._names = frozenset(names)
        self._near, self._extent, self._device = near, extent, device
        self._known: dict[str, tuple[Camera, PointDepths]] = {}
        unknown = sorted(self._names - points.seen_in.keys())
        if unknown:
            logger.warning(
                "the scene does not say which points %d of %d photos show (%s): the nearest ones teach depth",
                len(unknown), len(self._names), unknown[0],
            )  # fmt: skip

    def loss(
        self, output: RenderOutput, camera: Camera, name: str, pixel_weight: Float[Tensor, "h w"] | None = None
    ) -> Float[Tensor, ""] | float:
        """Weighted mean absolute difference of disparities, times the extent; 0.0 for images that are no photos.

        Args:
            pixel_weight: Points where it is zero do not count.
        """
        if name not in self._names:
            return 0.0
        seen = self._seen(camera, name)
        if len(seen.depths) == 0:
            return 0.0
        size = constant((camera.width, camera.height), seen.xy_px.device)
        where = (2 * seen.xy_px / size - 1)[None, None]
        alpha = output.alpha.detach()[..., 0]
        usable = (alpha >= MIN_ALPHA) if pixel_weight is None else (alpha >= MIN_ALPHA) & (pixel_weight > 0)
        counts = _sampled(usable.float(), where) == 1
        depth = _sampled(output.depth[..., 0], where)
        disparity = 1 / torch.where(counts, depth, 1.0)
        error = torch.where(counts, (disparity - 1 / seen.depths).abs(), 0.0)
        return self.config.weight * self._extent * error.sum() / counts.sum().clamp_min(1)

    def _seen(self, camera: Camera, name: str) -> PointDepths:
        """What `visible` finds, kept for as long as the camera of a photo is the same."""
        known = self._known.get(name)
        if known is None or known[0] is not camera:
            known = self._known[name] = (camera, self.visible(camera, name))
        return known[1]

    def visible(self, camera: Camera, name: str) -> PointDepths:
        """The points that a photo shows, seen through a camera."""
        idx = self._points.seen_in.get(name)
        p_world = self._points.p_world if idx is None else self._points.p_world[idx]
        xy_px, depths = projected(p_world, camera)
        inside = (depths > self._near) & (xy_px > 0).all(axis=1) & (xy_px < (camera.width, camera.height)).all(axis=1)
        if idx is None:
            inside[inside] = nearest_in_cells(xy_px[inside], depths[inside], max(camera.width, camera.height))
        return PointDepths(xy_px=uploaded(xy_px[inside], self._device), depths=uploaded(depths[inside], self._device))


def projected(
    p_world: Float[np.ndarray, "n 3"], camera: Camera
) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """Pixel coordinates and z-depths; coordinates mean nothing where the depth is not positive."""
    p_cam = p_world @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
    z = p_cam[:, 2]
    in_front = np.where(z > 0, z, 1.0)
    xy_px = p_cam[:, :2] / in_front[:, None] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]
    return xy_px.astype(np.float32), z.astype(np.float32)


def nearest_in_cells(
    xy_px: Float32[np.ndarray, "n 2"], depths: Float32[np.ndarray, " n"], longer_side: int
) -> Bool[np.ndarray, " n"]:
    """True for points that are about as near as the nearest one in the same part of the image."""
    cells: Int64[np.ndarray, "n 2"] = (xy_px * (NUM_CELLS / longer_side)).astype(np.int64)
    flat = cells[:, 1] * (NUM_CELLS + 1) + cells[:, 0]
    nearest = np.full((NUM_CELLS + 1) ** 2, np.inf, dtype=np.float32)
    np.minimum.at(nearest, flat, depths)
    return depths <= NEAREST_MARGIN * nearest[flat]


def _sampled(image: Float[Tensor, "h w"], where: Float[Tensor, "1 1 m 2"]) -> Float[Tensor, " m"]:
    return grid_sample(image[None, None], where, mode="bilinear", padding_mode="border", align_corners=False)[0, 0, 0]
