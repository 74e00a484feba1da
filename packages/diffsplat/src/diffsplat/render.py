"""Grids of Gaussians seen by cameras, through the shared rasterizer, with the released numerical conventions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffsplat.splat_grids import ActiveGaussians
from splat_render import Camera, Gaussians, RenderConfig, rasterize

SH_C0 = 0.28209479177387814
"""Spherical harmonics of degree 0."""

OPACITY_EPS = 1e-6
"""Opacities are kept so far from 0 and 1 before their logit is taken."""

SCALE_EPS = 1e-8
"""Added to scales before their logarithm is taken."""

RENDER_CONFIG = RenderConfig(near=0.2, far=100.0, eps2d=0.0, max_alpha=0.99)
"""The released rasterizer's: nothing thickened, nothing nearer than 0.2."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedViews:
    """Renders of several objects, several views each."""

    rgb: Float[Tensor, "b v 3 h w"]
    """sRGB over the background."""
    alpha: Float[Tensor, "b v 1 h w"]
    """Opacity in [0, 1]."""


def raw_gaussians(gaussians: ActiveGaussians, index: int = 0) -> Gaussians:
    """One object's Gaussians as raw parameters, in which the splat formats hold them. Gradients pass."""
    opacities = gaussians.opacities[index].float().clamp(OPACITY_EPS, 1 - OPACITY_EPS)
    rgb = gaussians.rgb[index].float()
    return Gaussians(
        means=gaussians.xyz[index].float(),
        log_scales=torch.log(gaussians.scales[index].float() + SCALE_EPS),
        quats_wxyz=gaussians.quats_wxyz[index].float(),
        logit_opacities=torch.logit(opacities),
        sh0=((rgb - 0.5) / SH_C0)[:, None],
        sh_rest=rgb.new_zeros(len(rgb), 0, 3),
    )


def pixel_cameras(
    T_world_cam: Float[Tensor, "v 4 4"], fxfycxcy: Float[Tensor, "v 4"], height: int, width: int
) -> list[Camera]:
    """Cameras with intrinsics in pixels."""
    cameras = []
    for pose, (fx, fy, cx, cy) in zip(T_world_cam.double().cpu().numpy(), fxfycxcy.double().tolist(), strict=True):
        K = [[fx * width, 0.0, cx * width], [0.0, fy * height, cy * height], [0.0, 0.0, 1.0]]
        cameras.append(Camera(T_world_cam=pose, K=torch.tensor(K).double().numpy(), width=width, height=height))
    return cameras


def rendered(
    gaussians: ActiveGaussians,
    T_world_cam: Float[Tensor, "b v 4 4"],
    fxfycxcy: Float[Tensor, "b v 4"],
    height: int,
    width: int,
    *,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    config: RenderConfig = RENDER_CONFIG,
) -> RenderedViews:
    """Render every object as its cameras see it. Differentiable in everything but the cameras.

    Args:
        gaussians: Of the objects.
        T_world_cam: OpenCV cameras, in the Gaussians' world.
        fxfycxcy: Intrinsics as shares of the image.
        height: Rows of the images.
        width: Columns of the images.
        background: sRGB behind the objects; white as in training.
        config: Numerical conventions.
    """
    behind = torch.tensor(background, device=gaussians.xyz.device)
    colors, alphas = [], []
    for index in range(len(gaussians.xyz)):
        cameras = pixel_cameras(T_world_cam[index], fxfycxcy[index], height, width)
        views = rasterize(raw_gaussians(gaussians, index), cameras, background=behind, config=config)
        colors.append(views.rgb.permute(0, 3, 1, 2))
        alphas.append(views.alpha.permute(0, 3, 1, 2))
    return RenderedViews(rgb=torch.stack(colors), alpha=torch.stack(alphas))
