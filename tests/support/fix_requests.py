"""Requests to a fixer from bare tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from difix3d import FixRequest, RenderedView
from splat_recon import View
from splat_render import Camera, RenderOutput, RenderStats


def camera_of(rgb: torch.Tensor) -> Camera:
    """A camera of an image's size at the world's origin."""
    height, width = rgb.shape[:2]
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    return Camera(T_world_cam=np.eye(4), K=K, width=width, height=height)


def request(rgb: torch.Tensor, references: torch.Tensor | None = None, alpha: torch.Tensor | None = None) -> FixRequest:
    """Renders `[b h w 3]` with one reference each, or none."""
    return FixRequest(
        rgb=rgb,
        alpha=alpha,
        cameras=tuple(camera_of(one) for one in rgb),
        references=tuple(() if references is None else (references[index],) for index in range(len(rgb))),
    )


def rendered_views(images: Sequence[torch.Tensor], references: Sequence[Sequence[View]]) -> list[RenderedView]:
    """Opaque renders with the captured views to fix them with."""
    return [
        RenderedView(rgb=rgb, alpha=torch.ones(rgb.shape[:2]), camera=camera_of(rgb), references=tuple(views))
        for rgb, views in zip(images, references, strict=True)
    ]


def flat_render(level: float) -> Callable[[Camera], RenderOutput]:
    """A splat that shows one opaque gray to every camera."""

    def render(camera: Camera) -> RenderOutput:
        size = (camera.height, camera.width)
        nothing = RenderStats(
            means2d=torch.zeros(0, 2), radii_px=torch.zeros(0), width=camera.width, height=camera.height
        )
        ones = torch.ones(*size, 1)
        return RenderOutput(rgb=torch.full((*size, 3), level), alpha=ones, depth=ones, stats=nothing)

    return render
