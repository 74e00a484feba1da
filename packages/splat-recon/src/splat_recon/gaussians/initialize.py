"""The first Gaussians of a training: one per structure-from-motion point, or random ones where there are none.

What is random is drawn on the CPU from a given generator: the rotations (which do not matter while Gaussians are round,
as they all are at first) and, without points, positions and colors.
"""

import logging
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splat_recon.config import MIN_GAUSSIANS, TrainConfig
from splat_recon.gaussians.nearest_neighbors import neighbor_distances
from splat_recon.scene.scene import Points
from splat_render.gaussians import Gaussians

NUM_NEIGHBORS = 3
"""A Gaussian's first size is the root mean square distance to this many nearest points (gsplat's rule)."""

MIN_POINTS = MIN_GAUSSIANS
"""With fewer points than this, random Gaussians are taken instead."""

MIN_RELATIVE_SCALE = 1e-6
"""Least first size as a fraction of the extent: points that coincide get this instead of zero."""

NUM_RANDOM = 20_000
"""Random Gaussians where there are too few points."""

RANDOM_EXTENT = 3.0
"""Random Gaussians fill a cube of this half size, in units of the extent (gsplat's default)."""

SH_BASIS_0 = 0.28209479177387814
"""Value of the spherical harmonic of degree 0."""

_log = logging.getLogger(__name__)


def from_points(points: Points, extent: float, config: TrainConfig, generator: torch.Generator) -> Gaussians:
    """One round Gaussian per point, in the point's color.

    With fewer than four points there is nothing to size Gaussians by: `at_random` is used, and the log says so. Of
    more points than density control may have Gaussians (`cap_max`), a random choice is taken.

    Args:
        points: In the coordinates of a normalized scene, which float32 holds.
        extent: Size of the scene in scene units.
        config: Gives the first opacity, the first size relative to the neighbors' distance, and the SH degree.
        generator: On the CPU.
    """
    cap = len(points) if config.strategy.cap_max is None else config.strategy.cap_max
    if len(points) < MIN_POINTS:
        number = NUM_RANDOM if config.strategy.cap_max is None else min(NUM_RANDOM, cap)
        _log.warning("the scene has %d points, too few to start from: %d random Gaussians", len(points), number)
        return at_random(number, extent, config, generator)
    if len(points) > cap:
        _log.warning("the scene has %d points, and there may be %d Gaussians: a random choice", len(points), cap)
        chosen = torch.randperm(len(points), generator=generator)[:cap].sort().values.numpy()
        points = Points(p_world=points.p_world[chosen], rgb_u8=points.rgb_u8[chosen])
    means = torch.from_numpy(points.p_world.astype(np.float32))
    rgb = torch.from_numpy(points.rgb_u8 / np.float32(255))
    return _round_gaussians(means, rgb, extent, config, generator)


def at_random(
    num_gaussians: int,
    extent: float,
    config: TrainConfig,
    generator: torch.Generator,
    *,
    half_size: float = RANDOM_EXTENT,
) -> Gaussians:
    """Round Gaussians at random places in a cube around the origin, in random colors.

    Args:
        num_gaussians: How many, at least four.
        extent: Size of the scene in scene units.
        config: As for `from_points`.
        generator: On the CPU.
        half_size: Half the cube's size in units of the extent.

    Raises:
        ValueError: There are fewer than four.
    """
    if num_gaussians < MIN_POINTS:
        raise ValueError(f"num_gaussians must be at least {MIN_POINTS}, got {num_gaussians}")
    means = half_size * extent * (torch.rand((num_gaussians, 3), generator=generator) * 2 - 1)
    rgb = torch.rand((num_gaussians, 3), generator=generator)
    return _round_gaussians(means, rgb, extent, config, generator)


def _round_gaussians(
    means: Float[Tensor, "n 3"],
    rgb: Float[Tensor, "n 3"],
    extent: float,
    config: TrainConfig,
    generator: torch.Generator,
) -> Gaussians:
    n = len(means)
    squared = torch.from_numpy(neighbor_distances(means.numpy(), NUM_NEIGHBORS) ** 2)
    distances = squared.mean(dim=1).sqrt().clamp_min(max(extent, 1e-12) * MIN_RELATIVE_SCALE)
    log_scales = torch.log(distances * config.init_scale).to(torch.float32)
    return Gaussians(
        means=means,
        log_scales=log_scales[:, None].repeat(1, 3),
        quats_wxyz=torch.rand((n, 4), generator=generator),
        logit_opacities=torch.full((n,), math.log(config.init_opacity / (1 - config.init_opacity))),
        sh0=((rgb - 0.5) / SH_BASIS_0)[:, None, :],
        sh_rest=torch.zeros((n, (config.sh_degree + 1) ** 2 - 1, 3)),
    )
