"""The CPU rasterizer against the dense float64 renderer: values, gradients, finite differences."""

import pytest
import torch

from splat_render import Gaussians, RenderOutput
from splat_render.cpu.backend import CpuRasterizer
from splat_render.rasterizer import RenderConfig
from support.dense_splatting import DenseOutput, assert_gradients_agree, render_densely
from support.splat_scenes import make_camera, make_gaussians, watched

TOLERANCES = {  # (rtol, atol), of the order of gsplat's own tests between CUDA and PyTorch.
    "means": (5e-3, 2e-3),
    "log_scales": (5e-3, 2e-3),
    "quats_wxyz": (5e-3, 2e-3),
    "logit_opacities": (1e-3, 2e-3),
    "sh0": (1e-4, 1e-3),
    "sh_rest": (1e-4, 1e-3),
}


def weighted_sum(output: RenderOutput | DenseOutput, seed: int = 5) -> torch.Tensor:
    """A loss that looks at color, alpha and depth of every pixel."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=output.rgb.dtype)
    for image in (output.rgb, output.alpha, output.depth):
        total = total + (image * torch.randn(image.shape, generator=generator).to(image.dtype)).sum()
    return total


def render_both(
    gaussians: Gaussians, *, sh_degree: int = 3, size: tuple[int, int] = (37, 29), absgrad: bool = False, **settings
):
    camera = make_camera(*size)
    background = torch.tensor([0.2, 0.5, 0.9])
    ours, theirs = watched(gaussians), watched(gaussians, torch.float64)
    found = CpuRasterizer(RenderConfig(num_threads=1, absgrad=absgrad, **settings))(
        ours, camera, sh_degree=sh_degree, background=background
    )
    wanted = render_densely(theirs, camera, sh_degree=sh_degree, background=background, **settings)
    return ours, theirs, found, wanted


def assert_images_agree(found: RenderOutput, wanted: DenseOutput) -> None:
    for name, rtol, atol in (("rgb", 1e-5, 2e-5), ("alpha", 1e-5, 1e-5), ("depth", 1e-4, 1e-4)):
        ours, theirs = getattr(found, name).detach().double(), getattr(wanted, name).detach()
        off = ~torch.isclose(ours, theirs, rtol=rtol, atol=atol)
        assert off.double().mean() <= 1e-3, f"{name}: {int(off.sum())} of {off.numel()} values differ"
        assert (ours - theirs).abs().max() <= 2e-2 * theirs.abs().max(), name


def assert_all_agree(ours: Gaussians, theirs: Gaussians, found: RenderOutput, wanted: DenseOutput) -> None:
    assert_images_agree(found, wanted)
    weighted_sum(found).backward()
    weighted_sum(wanted).backward()
    for name, tensor in ours.parameters().items():
        rtol, atol = TOLERANCES[name]
        grad = theirs.parameters()[name].grad
        assert tensor.grad is not None
        assert grad is not None
        scale = float(grad.abs().amax()) if grad.numel() else 0.0
        assert_gradients_agree(tensor.grad, grad, name, rtol=rtol, atol=atol * max(scale, 1e-3))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_values_and_gradients_agree_for_every_degree(degree: int):
    assert_all_agree(*render_both(make_gaussians(150, seed=degree), sh_degree=degree))


@pytest.mark.parametrize("settings", [{"antialiased": True}, {"max_alpha": 0.99}, {"eps2d": 0.0}, {"near": 3.9}])
def test_values_and_gradients_agree_under_other_conventions(settings: dict):
    assert_all_agree(*render_both(make_gaussians(150, seed=11), **settings))


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 15), (70, 3), (3, 70)])
def test_values_and_gradients_agree_for_any_image_size(size: tuple[int, int]):
    assert_all_agree(*render_both(make_gaussians(100, seed=12, scale=0.3), size=size))


def test_values_and_gradients_agree_where_pixels_fill_up():
    gaussians = make_gaussians(400, seed=3, scale=0.3)
    ours, theirs, found, wanted = render_both(gaussians)
    assert float(found.alpha.detach().max()) > 0.999
    assert_all_agree(ours, theirs, found, wanted)


def test_values_and_gradients_agree_beside_the_image_where_the_jacobian_is_held():
    gaussians = make_gaussians(200, seed=4, scale=0.5, spread=2.5)
    camera = make_camera()
    p_cam = gaussians.means @ torch.from_numpy(camera.T_cam_world[:3, :3]).float().T
    p_cam = p_cam + torch.from_numpy(camera.T_cam_world[:3, 3]).float()
    outside = (p_cam[:, 0] / p_cam[:, 2]).abs() > 0.5 * 1.3 / 1.1 + 0.1
    assert int((outside & (p_cam[:, 2] > 0.01)).sum()) > 10
    assert_all_agree(*render_both(gaussians))


def test_gradient_of_means2d_is_in_pixels_and_in_the_order_of_the_gaussians():
    gaussians = make_gaussians(60, seed=6)
    _, _, found, wanted = render_both(gaussians)
    weighted_sum(found).backward()
    weighted_sum(wanted).backward()
    camera = make_camera()
    depths = gaussians.means @ torch.from_numpy(camera.T_cam_world[2, :3]).float()
    order = torch.argsort(depths, stable=True)
    grad, grad_wanted = found.stats.means2d.grad, wanted.means2d.grad
    assert grad is not None
    assert grad_wanted is not None
    assert_gradients_agree(grad[order], grad_wanted, "means2d", rtol=5e-3, atol=2e-3 * float(grad_wanted.abs().max()))
    shown = found.stats.radii_px[order] > 0
    torch.testing.assert_close(
        found.stats.means2d.detach()[order][shown].double(), wanted.means2d.detach()[shown], rtol=1e-5, atol=1e-4
    )


def test_absgrad_sums_the_absolute_gradients_of_single_pixels():
    gaussians = make_gaussians(60, seed=6)
    ours, _, found, wanted = render_both(gaussians, absgrad=True)
    assert found.stats.means2d_absgrad is None
    weighted_sum(found).backward()
    weighted_sum(wanted).backward()
    camera = make_camera()
    order = torch.argsort(gaussians.means @ torch.from_numpy(camera.T_cam_world[2, :3]).float(), stable=True)
    absgrad, grad = found.stats.means2d_absgrad, found.stats.means2d.grad
    assert absgrad is not None
    assert grad is not None
    assert wanted.offsets.grad is not None
    absgrad_wanted = wanted.offsets.grad.abs().sum(dim=1)
    atol = 2e-3 * float(absgrad_wanted.max())
    assert_gradients_agree(absgrad[order], absgrad_wanted, "absgrad", rtol=5e-3, atol=atol)
    # Pixels pull in different directions: what they cancel is the point of it.
    shown = found.stats.radii_px > 0
    assert (absgrad[shown] >= 0.999 * grad[shown].abs()).all()
    assert float(absgrad.sum()) > 2 * float(grad.abs().sum())
    assert not absgrad[~shown].any()

    plain, _, found, _ = render_both(gaussians)
    weighted_sum(found).backward()
    assert found.stats.means2d_absgrad is None
    for name, tensor in plain.parameters().items():
        torch.testing.assert_close(tensor.grad, ours.parameters()[name].grad, rtol=1e-4, atol=1e-4)


def test_background_gets_the_light_that_is_left():
    background = torch.zeros(3, requires_grad=True)
    output = CpuRasterizer()(make_gaussians(20), make_camera(), sh_degree=0, background=background)
    output.rgb[..., 1].sum().backward()
    assert background.grad is not None
    torch.testing.assert_close(background.grad, torch.tensor([0, float((1 - output.alpha.detach()).sum()), 0]))


def test_finite_differences_of_a_small_scene():
    # So large and so translucent, and at such depths, that a step moves no pixel over a threshold and swaps no two.
    gaussians = make_gaussians(20, seed=9, scale=3.0)
    means = gaussians.means.clone()
    means[:, 2] = torch.linspace(0, 2, 20)
    gaussians = Gaussians(
        **{
            **gaussians.parameters(),
            "means": means,
            "log_scales": 1.5 + 0.1 * gaussians.log_scales,
            "logit_opacities": 0.2 * gaussians.logit_opacities - 1.5,
            "sh0": gaussians.sh0.abs() + 0.5,
        }
    )
    camera = make_camera(16, 16, turn=0.0)
    rasterizer = CpuRasterizer(RenderConfig(num_threads=1))

    def loss(values: Gaussians) -> torch.Tensor:
        output = rasterizer(values, camera, sh_degree=3)
        return ((output.rgb - 0.3) ** 2).sum() + (output.alpha**2).sum()

    own = watched(gaussians)
    loss(own).backward()
    generator = torch.Generator().manual_seed(1)
    step = 2e-3
    for name, tensor in own.parameters().items():
        direction = torch.randn(tensor.shape, generator=generator)
        moved = [
            Gaussians(**{**gaussians.parameters(), name: gaussians.parameters()[name] + sign * step * direction})
            for sign in (1, -1)
        ]
        with torch.no_grad():
            slope = float((loss(moved[0]) - loss(moved[1])).detach()) / (2 * step)
        assert tensor.grad is not None
        expected = float((tensor.grad * direction).sum())
        assert slope == pytest.approx(expected, rel=0.03, abs=0.05 * float(tensor.grad.abs().max())), name
