"""Small splats and cameras for rendering tests, from seeds."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch

from splat_render import Camera, Gaussians


def make_camera(width: int = 37, height: int = 29, *, turn: float = 0.2) -> Camera:
    """Stands back from the origin and looks at it from a little to the side, principal point off center."""
    c, s = math.cos(turn), math.sin(turn)
    R = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    T_world_cam = np.eye(4)
    T_world_cam[:3, :3] = R
    T_world_cam[:3, 3] = R @ np.array([0.1, -0.05, -4.0])
    K = np.array([[1.1 * width, 0, 0.47 * width], [0, 1.2 * width, 0.54 * height], [0, 0, 1]])
    return Camera(T_world_cam=T_world_cam, K=K, width=width, height=height)


def make_gaussians(n: int, seed: int = 0, *, scale: float = 0.12, degree: int = 3, spread: float = 1.0) -> Gaussians:
    """A bumpy ball in front of a wall, as SfM points and a little training would leave them."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator)
    ball = torch.nn.functional.normalize(normal(n // 2, 3), dim=-1) * (1 + 0.1 * normal(n // 2, 1))
    wall = torch.cat([4 * torch.rand(n - n // 2, 2, generator=generator) - 2, 1.5 + 0.1 * normal(n - n // 2, 1)], 1)
    return Gaussians(
        means=spread * torch.cat([ball, wall]),
        log_scales=math.log(scale) + 0.5 * normal(n, 3),
        quats_wxyz=normal(n, 4),
        logit_opacities=0.5 + 2 * normal(n),
        sh0=normal(n, 1, 3),
        sh_rest=0.2 * normal(n, (degree + 1) ** 2 - 1, 3),
    )


def watched(gaussians: Gaussians, dtype: torch.dtype = torch.float32) -> Gaussians:
    """A copy whose tensors collect gradients."""
    return gaussians.mapped(lambda tensor: tensor.detach().to(dtype, copy=True).requires_grad_())
