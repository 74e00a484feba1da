"""How much of a view each Gaussian covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from splat_render.cameras import Camera
from splat_render.gaussians import Gaussians
from splat_render.rasterizer import Rasterizer
from splat_render.spherical_harmonics import C0


def largest_coverage(gaussians: Gaussians, cameras: Sequence[Camera], rasterize: Rasterizer) -> Float[Tensor, " n"]:
    """The most that each Gaussian covers of any of the views: its mean weight in their pixels, in [0, 1].

    That is the gradient of a view's mean color with respect to the Gaussian's. Zeros where there is no camera.
    """
    most = gaussians.means.new_zeros(len(gaussians))
    background = most.new_zeros(3)
    for camera in cameras:
        sh0 = torch.zeros_like(gaussians.sh0).requires_grad_()
        colored = replace(gaussians.detach(), sh0=sh0)
        image = rasterize(colored, camera, sh_degree=0, background=background).rgb
        (gradient,) = torch.autograd.grad(image[..., 0].mean(), sh0)
        most = torch.maximum(most, gradient[:, 0, 0] / C0)
    return most
