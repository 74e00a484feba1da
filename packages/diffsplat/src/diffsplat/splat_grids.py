"""Grids of Gaussians: one Gaussian per pixel of each view, as the networks see them and as a renderer does."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from diffsplat.cameras import unprojected

CHANNELS = {"rgb": 3, "scale": 3, "rotation": 4, "opacity": 1, "depth": 1}
"""Order and number of the twelve channels."""

NUM_CHANNELS = sum(CHANNELS.values())

SMALLEST_SCALE = 0.0005
LARGEST_SCALE = 0.02
"""Standard deviations in scene units at the ends of the scale channels' range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatGrids:
    """What networks predict for every pixel of every view, in [-1, 1]."""

    rgb: Float[Tensor, "b v 3 h w"]
    """Color; -1 is 0 and 1 is 1 in sRGB."""
    scale: Float[Tensor, "b v 3 h w"]
    """Size; **larger values are smaller Gaussians**: -1 is 0.02, 1 is 0.0005 scene units."""
    rotation: Float[Tensor, "b v 4 h w"]
    """Quaternion, wxyz, in the world."""
    opacity: Float[Tensor, "b v 1 h w"]
    """Opacity; -1 is 0 and 1 is 1."""
    depth: Float[Tensor, "b v 1 h w"]
    """z-depth, relative to the camera's distance from the origin."""

    @classmethod
    def from_channels(cls, channels: Float[Tensor, "b v c=12 h w"]) -> SplatGrids:
        """The grids out of their twelve channels."""
        parts = channels.split(list(CHANNELS.values()), dim=2)
        return cls(**dict(zip(CHANNELS, parts, strict=True)))

    def channels(self) -> Float[Tensor, "b v c=12 h w"]:
        """The twelve channels in one tensor."""
        return torch.cat([getattr(self, field.name) for field in fields(self)], dim=2)


@dataclass(frozen=True, kw_only=True, eq=False)
class ActiveGaussians:
    """Gaussians of `b` objects in the world, `n` each, with their activations applied."""

    xyz: Float[Tensor, "b n 3"]
    """Centers, in the world."""
    rgb: Float[Tensor, "b n 3"]
    """sRGB, within [0, 1] up to rounding."""
    scales: Float[Tensor, "b n 3"]
    """Standard deviations in scene units."""
    quats_wxyz: Float[Tensor, "b n 4"]
    """Unit quaternions."""
    opacities: Float[Tensor, "b n"]
    """In [0, 1]."""


def activated(
    grids: SplatGrids,
    T_world_cam: Float[Tensor, "b v 4 4"],
    fxfycxcy: Float[Tensor, "b v 4"],
    *,
    opacity_threshold: float = 0.0,
) -> ActiveGaussians:
    """The Gaussians that grids stand for, view after view, row after row.

    Args:
        grids: What a network predicts.
        T_world_cam: OpenCV cameras of the views that the grids belong to.
        fxfycxcy: Their intrinsics, as shares of the image.
        opacity_threshold: Gaussians that are not more opaque than this get opacity 0.
    """
    depth = grids.depth[:, :, 0] + T_world_cam[:, :, :3, 3].norm(dim=-1)[..., None, None]
    fraction = grids.scale / 2 + 0.5
    opacities = grids.opacity / 2 + 0.5
    opacities = opacities * (opacities > opacity_threshold)

    def listed(values: Tensor) -> Tensor:
        return values.permute(0, 1, 3, 4, 2).flatten(1, 3)

    return ActiveGaussians(
        xyz=listed(unprojected(depth, T_world_cam, fxfycxcy)),
        rgb=listed(grids.rgb / 2 + 0.5),
        scales=listed(SMALLEST_SCALE * fraction + LARGEST_SCALE * (1 - fraction)),
        quats_wxyz=torch.nn.functional.normalize(listed(grids.rotation), dim=-1),
        opacities=listed(opacities)[..., 0],
    )
