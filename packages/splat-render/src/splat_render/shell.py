"""A far shell of Gaussians in one color: a background that every viewer shows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from splat_render.gaussians import Gaussians
from splat_render.spherical_harmonics import C0

NUM_SHELL = 2000
"""Gaussians of a shell."""

RADIUS_FACTOR = 3.0
"""The shell's radius, in distances of the Gaussian that is farthest from the middle."""

OVERLAP = 1.5
"""Standard deviation of a shell's Gaussian, in distances to its neighbors: at least 0.999 of the light is theirs."""

LOGIT_OPAQUE = 8.0
"""Logit of their opacity."""


def with_shell(
    gaussians: Gaussians, color: tuple[float, float, float], *, center: Float[Tensor, " 3"] | None = None
) -> Gaussians:
    """The Gaussians, and around them all a sphere of flat ones in one color.

    Seen from inside, the sphere looks like a background of that color; from outside it hides everything.

    Args:
        gaussians: At least one, on any device.
        color: sRGB in [0, 1].
        center: Middle of the sphere; None: the median of the positions.

    Raises:
        ValueError: There are no Gaussians.
    """
    if not len(gaussians):
        raise ValueError("a shell needs Gaussians to be around, got none")
    means = gaussians.means.detach()
    middle = means.median(dim=0).values if center is None else center.to(means)
    radius = RADIUS_FACTOR * float((means - middle).norm(dim=1).max().clamp(min=1e-6))
    normals = _sphere(NUM_SHELL).to(means)
    spacing = radius * math.sqrt(4 * math.pi / NUM_SHELL)
    log_scales = torch.tensor([OVERLAP * spacing, OVERLAP * spacing, 1e-3 * spacing]).log().to(means)
    rgb = torch.tensor(color).to(means)
    shell = Gaussians(
        means=middle + radius * normals,
        log_scales=log_scales.expand(NUM_SHELL, 3).clone(),
        quats_wxyz=_facing(normals),
        logit_opacities=torch.full((NUM_SHELL,), LOGIT_OPAQUE).to(means),
        sh0=((rgb - 0.5) / C0).expand(NUM_SHELL, 1, 3).clone(),
        sh_rest=torch.zeros(NUM_SHELL, *gaussians.sh_rest.shape[1:]).to(means),
    )
    parts = {name: torch.cat([own.detach(), shell.parameters()[name]]) for name, own in gaussians.parameters().items()}
    return Gaussians(**parts)


def _sphere(count: int) -> Float[Tensor, "n 3"]:
    """Points spread evenly over the unit sphere, on a Fibonacci spiral."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = math.pi * (1 + math.sqrt(5)) * index
    around = (1 - z**2).sqrt()
    return torch.stack([around * angle.cos(), around * angle.sin(), z], dim=1)


def _facing(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Rotations that turn the z axis to given unit vectors."""
    x, y, z = normals.unbind(dim=1)
    # Half way from z to the normal; where they are opposite, any half turn about an axis in the plane.
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=1)
    opposite = torch.tensor([0.0, 1.0, 0.0, 0.0]).to(normals)
    quats = torch.where((1 + z)[:, None] < 1e-6, opposite, quats)
    return quats / quats.norm(dim=1, keepdim=True)
