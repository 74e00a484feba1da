"""Gaussians that show what a field shows."""

from __future__ import annotations

import numpy as np
import torch

from sparsefusion import Field, FieldConfig, render_image
from sparsefusion.data.colmap import WorldTransform
from sparsefusion.splats import field_gaussians, fit_gaussians, in_photos_world, pinhole
from splat_render import Gaussians, rasterize
from support.sparsefusion_cases import ring

FIELD = FieldConfig(
    num_levels=4,
    finest_per_bound=16,
    log2_table_size=10,
    num_steps=24,
    num_importance=24,
    blob_density=8.0,
    blob_radius=0.7,
)


def shown(gaussians: Gaussians, cameras, size: int) -> torch.Tensor:
    views = [pinhole(cameras[at], size) for at in range(len(cameras))]
    return rasterize(gaussians, views).rgb.permute(0, 3, 1, 2)


def test_a_pinhole_sees_points_where_the_camera_projects_them():
    cameras, points = ring(3), torch.randn(20, 3)
    ndc = cameras.project(points)
    for at in range(3):
        camera = pinhole(cameras[at], 64)
        p_cam = points.double().numpy() @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
        pixels = p_cam @ camera.K.T
        expected = 32 - 32 * ndc[at].double().numpy()
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], expected, atol=1e-3)


def test_gaussians_come_to_look_like_the_field():
    torch.manual_seed(0)
    cameras, size = ring(6), 32
    field = Field(FIELD)
    with torch.no_grad():
        list(field.sigma_net.parameters())[-1][0] = -5.0  # Nothing but the blob at the center.
    axes = cameras.relative_to(cameras[0], "axes")
    with torch.no_grad():
        renders = [render_image(field, axes[at], size, image_size=size) for at in range(6)]
    rgb, alpha = torch.cat([one.rgb for one in renders]), torch.cat([one.alpha for one in renders])
    sampled = field_gaussians(field, cameras.R[0], resolution=16)
    before = (shown(sampled, cameras, size) - rgb).abs().mean()
    fitted = fit_gaussians(sampled, cameras, rgb, alpha, num_steps=40)
    assert len(fitted) == len(sampled)
    assert (shown(fitted, cameras, size) - rgb).abs().mean() < 0.7 * before


def test_splats_go_back_to_the_photos_world():
    sampled = field_gaussians(Field(FIELD), torch.eye(3), resolution=16)
    moved = in_photos_world(sampled, WorldTransform((1.0, 2.0, 3.0), 4.0))
    torch.testing.assert_close(4 * (moved.means - torch.tensor([1.0, 2.0, 3.0])), sampled.means)
    torch.testing.assert_close(4 * moved.scales, sampled.scales)
    assert in_photos_world(sampled, None) is sampled
