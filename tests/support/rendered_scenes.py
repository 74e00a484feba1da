"""Scenes whose photos are renders of known Gaussians, so that a training can reach them exactly."""

from __future__ import annotations

import numpy as np
import torch

from splat_recon import Points, Scene, View
from splat_recon.geometry.trajectories import looking_along
from splat_render import Camera, Gaussians, make_rasterizer


def ring_camera(index: int, count: int, *, width: int = 48, height: int = 40, radius: float = 3.0) -> Camera:
    """One of `count` cameras on a ring around the origin, at changing heights."""
    angle = 2 * np.pi * index / count
    center = radius * np.array([np.cos(angle), np.sin(angle), 0.3 * np.sin(2 * angle + 1)])
    T_world_cam = looking_along(-center, np.array([0.0, 0.0, -1.0]), center)
    K = np.array([[1.2 * width, 0, 0.5 * width], [0, 1.2 * width, 0.5 * height], [0, 0, 1]])
    return Camera(T_world_cam=T_world_cam, K=K, width=width, height=height)


def ball(num: int = 250, seed: int = 0) -> Gaussians:
    """Opaque colored Gaussians in a ball around the origin."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(num, 3, generator=generator), dim=-1)
    return Gaussians(
        means=directions * torch.rand(num, 1, generator=generator) ** (1 / 3),
        log_scales=-2.2 + 0.3 * torch.randn(num, 3, generator=generator),
        quats_wxyz=torch.randn(num, 4, generator=generator),
        logit_opacities=torch.full((num,), 2.5),
        sh0=1.2 * torch.randn(num, 1, 3, generator=generator),
        sh_rest=torch.zeros(num, 3, 3),
    )


def photographed(gaussians: Gaussians, cameras: list[Camera]) -> Scene:
    """Photos of Gaussians; the scene's points are their centers, each known to be seen where it is in the image."""
    rasterize = make_rasterizer("cpu")
    views = []
    for index, camera in enumerate(cameras):
        with torch.no_grad():
            rgb = rasterize(gaussians, camera, sh_degree=0).rgb
        rgb_u8 = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        views.append(View(name=f"{index:02d}.png", camera=camera, rgb_u8=rgb_u8))
    rgb = (0.5 + 0.28209479 * gaussians.sh0[:, 0]).clamp(0, 1)
    points = Points(p_world=gaussians.means.numpy(), rgb_u8=(rgb * 255).round().to(torch.uint8).numpy())
    return Scene(views=tuple(views), points=points, name="ball")
