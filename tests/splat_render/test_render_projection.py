"""The projection kernel and its backward against gsplat's own PyTorch reference."""

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics

from splat_render import Camera, Gaussians
from splat_render.cpu import layout
from splat_render.cpu.backend import camera_values
from splat_render.cpu.projection import project, project_backward
from splat_render.rasterizer import RenderConfig
from support.dense_splatting import assert_gradients_agree
from support.splat_scenes import make_camera, make_gaussians, watched

DEGREE = 3


def run_project(
    start: int, stop: int, arrays: list[np.ndarray], values: np.ndarray, antialiased: bool, *out: np.ndarray
):
    means, log_scales, quats, logits, sh0, sh_rest = arrays
    splats, depths, radii = out
    project(
        start, stop, means, log_scales, quats, logits, sh0, sh_rest, values, DEGREE, antialiased, splats, depths, radii
    )


def project_ours(gaussians: Gaussians, camera: Camera, config: RenderConfig):
    """Splats, radii and the inputs of the kernels as arrays."""
    num = len(gaussians)
    arrays = [tensor.detach().numpy() for tensor in gaussians.parameters().values()]
    splats = np.empty((num, layout.NUM_SPLAT_COLUMNS), np.float32)
    depths, radii = np.empty(num, np.float32), np.zeros((num, 2), np.int32)
    values = camera_values(camera, config)
    run_project(0, num, arrays, values, config.antialiased, splats, depths, radii)
    return splats, radii, arrays, values


def project_reference(gaussians: Gaussians, camera: Camera, config: RenderConfig):
    covars, _ = _quat_scale_to_covar_preci(gaussians.quats_wxyz, gaussians.scales, compute_preci=False)
    assert covars is not None
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        gaussians.means,
        covars,
        torch.from_numpy(camera.T_cam_world).to(gaussians.means)[None],
        torch.from_numpy(camera.K).to(gaussians.means)[None],
        camera.width,
        camera.height,
        eps2d=config.eps2d,
        near_plane=config.near,
        calc_compensations=config.antialiased,
    )
    opacities = gaussians.opacities
    if compensations is not None:
        opacities = opacities * compensations[0]
    dirs = gaussians.means - torch.from_numpy(camera.center_world).to(gaussians.means)
    colors = _spherical_harmonics(DEGREE, dirs, torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1))
    return radii[0], means2d[0], depths[0], conics[0], opacities, torch.clamp_min(colors + 0.5, 0)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_values_agree_with_gsplat(antialiased: bool, spread: float):
    config = RenderConfig(antialiased=antialiased)
    gaussians = make_gaussians(1000, seed=1, spread=spread)
    splats, radii, _, _ = project_ours(gaussians, make_camera(200, 120), config)
    radii_wanted, means2d, depths, conics, opacities, colors = project_reference(
        gaussians, make_camera(200, 120), config
    )
    shown = radii[:, 0] > 0
    # gsplat's reference knows no opacities, so its boxes are at least as large.
    assert shown.sum() > 300
    assert (radii <= radii_wanted.numpy() + 1)[shown].all()
    expected = [
        (slice(layout.X, layout.Y + 1), means2d),
        (slice(layout.CONIC_XX, layout.CONIC_YY + 1), conics),
        (slice(layout.OPACITY, layout.OPACITY + 1), opacities[:, None]),
        (slice(layout.RED, layout.BLUE + 1), colors),
        (slice(layout.DEPTH, layout.DEPTH + 1), depths[:, None]),
    ]
    for columns, wanted in expected:
        np.testing.assert_allclose(splats[shown, columns], wanted.numpy()[shown], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_boxes_and_culling_of_opaque_gaussians_are_gsplats(spread: float):
    gaussians = make_gaussians(1000, seed=2, spread=spread)
    gaussians.logit_opacities[:] = 12
    _, radii, _, _ = project_ours(gaussians, make_camera(200, 120), RenderConfig())
    wanted = project_reference(gaussians, make_camera(200, 120), RenderConfig())[0].numpy()
    assert (wanted > 0).all(axis=1).sum() > 0
    assert (np.abs(radii - wanted) <= 1).all()


def test_boxes_shrink_with_the_opacity():
    gaussians = make_gaussians(500, seed=2)
    camera = make_camera(200, 120)
    splats, radii, _, _ = project_ours(gaussians, camera, RenderConfig())
    shown = radii[:, 0] > 0
    a, b, c, opacity = splats[shown, 2:6].astype(np.float64).T
    extent = np.minimum(3.33, np.sqrt(2 * np.log(255 * opacity)))
    det = a * c - b * b
    wanted = np.ceil(extent[:, None] * np.sqrt(np.stack([c, a], 1) / det[:, None]))
    assert (np.abs(radii[shown] - wanted) <= 1).all()
    assert (radii[shown] == wanted).mean() > 0.99
    assert not shown[torch.sigmoid(gaussians.logit_opacities).numpy() < 1 / 255].any()


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_gradients_agree_with_gsplat(antialiased: bool, spread: float):
    config = RenderConfig(antialiased=antialiased)
    camera = make_camera(200, 120)
    gaussians = make_gaussians(400, seed=3, spread=spread)
    splats, radii, arrays, values = project_ours(gaussians, camera, config)
    num = len(gaussians)
    moments = np.random.default_rng(0).standard_normal((num, layout.MOMENT_STRIDE)).astype(np.float32)
    grads = [np.zeros_like(array) for array in arrays]
    v_means2d = np.zeros((num, 2), np.float32)
    means, log_scales, quats, logits, _, sh_rest = arrays
    v_means, v_log_scales, v_quats, v_logits, v_sh0, v_sh_rest = grads
    project_backward(
        0, num, means, log_scales, quats, logits, sh_rest, values, DEGREE, antialiased, splats, radii,
        np.arange(num, dtype=np.int32), np.arange(num + 1), moments,
        v_means, v_log_scales, v_quats, v_logits, v_sh0, v_sh_rest, v_means2d, None,
    )  # fmt: skip

    # What the moments mean: the gradients of position, conic, opacity, color and depth of every splat.
    shown = torch.from_numpy(radii[:, 0] > 0)
    theirs = watched(gaussians, torch.float64)
    _, means2d, depths, conics, opacities, colors = project_reference(theirs, camera, config)
    m = torch.from_numpy(moments).double()
    a, b, c = conics.detach().T
    v_xy = torch.stack([a * m[:, 1] + b * m[:, 2], b * m[:, 1] + c * m[:, 2]], 1)
    v_conics = torch.stack([0.5 * m[:, 3], m[:, 4], 0.5 * m[:, 5]], 1)
    total = (v_xy * means2d + 0).sum(1) + (v_conics * conics).sum(1) - m[:, 0] / opacities.detach() * opacities
    total = total + (m[:, 6:9] * colors).sum(1) + m[:, 9] * depths
    total[shown].sum().backward()

    torch.testing.assert_close(torch.from_numpy(v_means2d)[shown].double(), v_xy[shown], rtol=1e-3, atol=1e-3)
    for grad, (name, tensor) in zip(grads, theirs.parameters().items(), strict=True):
        assert tensor.grad is not None
        assert not grad[~shown.numpy()].any(), name
        # Each Gaussian against its own size: their gradients span orders of magnitude.
        size = tensor.grad.flatten(1).norm(dim=1) if tensor.ndim > 1 else tensor.grad.abs()
        size = size.clamp(min=1e-6).reshape(-1, *[1] * (tensor.ndim - 1))
        ours = torch.from_numpy(grad).double() / size
        assert_gradients_agree(ours[shown], (tensor.grad / size)[shown], name, rtol=5e-3, atol=5e-3)


def test_ranges_fill_exactly_their_part():
    gaussians = make_gaussians(50)
    camera, config = make_camera(), RenderConfig()
    whole, radii_whole, arrays, values = project_ours(gaussians, camera, config)
    splats = np.full_like(whole, -7)
    depths, radii = np.empty(50, np.float32), np.full((50, 2), -7, np.int32)
    run_project(10, 30, arrays, values, False, splats, depths, radii)
    np.testing.assert_array_equal(radii[10:30], radii_whole[10:30])
    assert (radii[:10] == -7).all()
    assert (radii[30:] == -7).all()
    shown = radii_whole[10:30, 0] > 0
    np.testing.assert_array_equal(splats[10:30][shown], whole[10:30][shown])
