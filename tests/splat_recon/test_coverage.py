"""How much of a view each Gaussian covers."""

import numpy as np
import pytest
import torch

from splat_recon.gaussians.coverage import largest_coverage
from splat_render import Camera, Gaussians, make_rasterizer

K = np.array([[40.0, 0, 24], [0, 40, 18], [0, 0, 1]])


def camera_at(x: float) -> Camera:
    T_world_cam = np.eye(4)
    T_world_cam[0, 3] = x
    return Camera(T_world_cam=T_world_cam, K=K, width=48, height=36)


def in_a_row(*places: tuple[float, float], scale: float = 0.2) -> Gaussians:
    """Gaussians of one size at some x and z."""
    means = torch.tensor([[x, 0.0, z] for x, z in places])
    return Gaussians.from_rgb(
        means=means,
        scales=torch.full((len(means), 3), scale),
        quats_wxyz=torch.tensor([1.0, 0, 0, 0]).repeat(len(means), 1),
        opacities=torch.full((len(means),), 0.9),
        rgb=torch.rand(len(means), 3),
    )


def test_coverage_is_each_gaussians_weight_in_the_pixels():
    rasterize = make_rasterizer("cpu")
    gaussians = in_a_row((0, 2), (0.1, 4), (-0.8, 3))
    alpha = rasterize(gaussians, camera_at(0), sh_degree=0, background=torch.zeros(3)).alpha
    covered = largest_coverage(gaussians, [camera_at(0)], rasterize)
    assert covered.sum().item() == pytest.approx(alpha.mean().item(), rel=1e-4)
    assert covered[0] > 10 * covered[1] > 0  # The second stands behind the first.


def test_coverage_is_the_largest_of_all_views_and_zero_without_any():
    rasterize = make_rasterizer("cpu")
    gaussians = in_a_row((0, 2), (3, 2))
    both = largest_coverage(gaussians, [camera_at(0), camera_at(3)], rasterize)
    torch.testing.assert_close(both, largest_coverage(gaussians, [camera_at(0)], rasterize)[[0, 0]])
    assert not largest_coverage(gaussians, [], rasterize).any()
