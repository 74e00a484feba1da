"""How far each pixel of a fixed view is relied on, by what captured views know of the surface that it shows.

Visibility and photo consistency are both found with the splat's own depth, so they are as good as its geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from difix3d.fixers.batches import photo
from difix3d.loop.surface_points import DepthView, ProjectedPoints, Render, SurfacePoints, project
from difix_model.references.poses import ranked_poses
from splat_recon.scene.scene import View
from splat_render.cameras import Camera

if TYPE_CHECKING:
    from difix3d.loop.config import ProgressiveConfig

VISIBILITY_SIZE = 128
"""Longer side, in pixels, of the renders by which it is found which captured views see a point."""

NUM_COMPARED = 3
"""A fixed view is compared with so many captured photos, the nearest ones."""


class PixelConfidence:
    """The confidence in the fixed views of one round, while the splat stays as it is.

    Args:
        config: What counts, and how much (`MixtureConfig.unseen_weight`, `photo_tolerance`).
        unit: What lengths are measured in where poses are compared, in world units.
    """

    def __init__(
        self, captured: Sequence[View], render: Render, config: ProgressiveConfig, *, unit: float = 1.0
    ) -> None:
        self.captured = tuple(captured)
        self.config = config
        self.unit = unit
        self._render = render
        self._small: list[DepthView] = []
        self._full: dict[int, DepthView] = {}

    def of(self, camera: Camera, fixed: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w"] | None:
        """The confidence in each pixel of a view, in [0, 1]; None where the config asks for none."""
        mixture = self.config.mixture
        maps = []
        if mixture.unseen_weight < 1:
            maps.append(self.visibility(camera))
        if mixture.photo_tolerance is not None:
            maps.append(self.photo_consistency(camera, fixed, tolerance=mixture.photo_tolerance))
        return torch.stack(maps).prod(dim=0).to(fixed) if maps else None

    def visibility(self, camera: Camera) -> Float64[Tensor, "h w"]:
        """1 where a captured view sees what a pixel shows, the config's weight where none does, between in doubt.

        One view is enough: a point that is seen more often is no better known.
        """
        shown = DepthView.rendered(camera, self._render, max_size=VISIBILITY_SIZE)
        points = SurfacePoints.of(shown)
        if not self._small:
            sizes = {"max_size": VISIBILITY_SIZE}
            self._small = [DepthView.rendered(view.camera, self._render, **sizes) for view in self.captured]
        count = torch.zeros_like(points.p_world[:, 0])
        for view in self._small:
            count += project(points.p_world, view).visibility
        unseen = self.config.mixture.unseen_weight
        weight = torch.full_like(shown.depth, unseen)
        weight[points.rows_idx, points.columns_idx] = unseen + (1 - unseen) * count.clamp_max(1)
        size = (camera.height, camera.width)
        return interpolate(weight[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]

    def photo_consistency(
        self, camera: Camera, fixed: Float[Tensor, "h w 3"], *, tolerance: float
    ) -> Float64[Tensor, "h w"]:
        """1 where a fixed view has the colors that the nearest photos have of the same points, less where it differs.

        It falls with the square of the difference, to one half at the tolerance. Several photos count by their mean
        difference. Where none of them sees what a pixel shows, it is 1.
        """
        shown = DepthView.of(camera, self._render(camera))
        points = SurfacePoints.of(shown)
        rgb = fixed[points.rows_idx, points.columns_idx].double()
        seen, difference = torch.zeros_like(rgb[:, 0]), torch.zeros_like(rgb[:, 0])
        for index in self._nearest(camera):
            visibility, photo_rgb = self._sampled(index, points)
            seen += visibility
            difference += visibility * (rgb - photo_rgb).abs().mean(dim=1)
        difference /= seen.clamp_min(1e-9)
        agreed = 1 / (1 + (difference / tolerance) ** 2)
        confidence = torch.ones_like(shown.depth)
        confidence[points.rows_idx, points.columns_idx] = 1 - seen.clamp_max(1) * (1 - agreed)
        return confidence

    def _nearest(self, camera: Camera) -> list[int]:
        poses = np.stack([view.camera.T_world_cam for view in self.captured])
        weights = {"extent": self.unit, "rotation_weight": self.config.stepping.rotation_weight}
        return ranked_poses(camera.T_world_cam[None], poses, NUM_COMPARED, **weights)[0].tolist()

    def _sampled(self, index: int, points: SurfacePoints) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n 3"]]:
        view = self.captured[index]
        if index not in self._full:
            self._full[index] = DepthView.of(view.camera, self._render(view.camera))
        return sampled_photo(view, self._full[index], points)


def sampled_photo(
    view: View, depth: DepthView, points: SurfacePoints
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n 3"]]:
    """How surely a photo shows surface points, in [0, 1], and the colors that it has there."""
    found = project(points.p_world, depth)
    size = found.xy.new_tensor([view.camera.width, view.camera.height])
    # Pixel centers are at +0.5, as they are here for align_corners=False.
    where = (2 * found.xy / size - 1)[None, None]
    image = photo(view, device=found.xy.device).double().permute(2, 0, 1)[None]
    rgb = grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0].T
    visibility = found.visibility
    if view.mask is not None:
        visibility = visibility * _masked(torch.from_numpy(view.mask.copy()).to(visibility.device), found)
    return visibility, rgb


def _masked(mask: Bool[Tensor, "h w"], found: ProjectedPoints) -> Bool[Tensor, " n"]:
    """What a mask says of the points that are inside; False for the others."""
    looked_up = torch.zeros_like(found.inside)
    columns, rows = found.xy[found.inside].floor().long().unbind(dim=1)
    looked_up[found.inside] = mask[rows, columns]
    return looked_up
