"""The corners of rendering on the CPU: nothing to draw, odd sizes, ties, giants, and values that are not numbers."""

import math

import pytest
import torch

from splat_render import Gaussians, make_rasterizer
from splat_render.cpu.backend import CpuRasterizer
from splat_render.rasterizer import RenderConfig
from support.splat_scenes import make_camera, make_gaussians, watched

RASTERIZER = CpuRasterizer(RenderConfig(num_threads=1))
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def make_plain(
    means: list[list[float]], colors: list[tuple[float, float, float]], *, scale: float = 0.5, opacity: float = 0.8
) -> Gaussians:
    """Round Gaussians of constant color."""
    n = len(means)
    return Gaussians(
        means=torch.tensor(means).reshape(n, 3),
        log_scales=torch.full((n, 3), math.log(scale)),
        quats_wxyz=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        logit_opacities=torch.full((n,), math.log(opacity / (1 - opacity))),
        sh0=((torch.tensor(colors).reshape(n, 3) - 0.5) / 0.28209479177387814)[:, None],
        sh_rest=torch.zeros(n, 0, 3),
    )


def assert_backward_gives_zeros(gaussians: Gaussians) -> None:
    output = RASTERIZER(gaussians, make_camera(), sh_degree=0)
    (output.rgb.sum() + output.alpha.sum() + output.depth.sum()).backward()
    for name, tensor in gaussians.parameters().items():
        assert tensor.grad is not None, name
        assert tensor.grad.shape == tensor.shape
        assert not tensor.grad.any(), name
    assert not output.stats.radii_px.any()


def test_no_gaussians_give_the_background():
    background = torch.tensor([0.1, 0.2, 0.3])
    gaussians = watched(make_gaussians(0))
    output = RASTERIZER(gaussians, make_camera(20, 10), sh_degree=0, background=background)
    torch.testing.assert_close(output.rgb, background.expand(10, 20, 3))
    assert not output.alpha.any()
    assert not output.depth.any()
    assert output.stats.means2d.shape == (0, 2)
    assert_backward_gives_zeros(gaussians)


def test_nothing_visible_gives_zero_gradients():
    assert_backward_gives_zeros(watched(make_plain([[0, 0, -50.0], [500.0, 0, 0]], [RED, BLUE])))


def test_opacity_below_a_255th_is_culled():
    assert_backward_gives_zeros(watched(make_plain([[0, 0, 0.0]], [RED], opacity=0.0038)))
    just_visible = RASTERIZER(make_plain([[0, 0, 0.0]], [RED], opacity=0.005), make_camera(), sh_degree=0)
    assert float(just_visible.stats.radii_px) > 0
    assert just_visible.alpha.any()


def test_a_gaussian_at_the_camera_center_is_culled():
    center = make_camera().center_world
    assert_backward_gives_zeros(watched(make_plain([center.tolist()], [RED])))


@pytest.mark.parametrize("name", ["means", "log_scales", "quats_wxyz", "logit_opacities", "sh0", "sh_rest"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_leave_the_rest_of_the_image_alone(name: str, value: float):
    gaussians = make_gaussians(40, seed=1)
    broken = gaussians.clone()
    broken.parameters()[name].reshape(40, -1)[7] = value
    without = gaussians.mapped(lambda tensor: tensor[torch.arange(40) != 7])
    own = watched(broken)
    found = RASTERIZER(own, make_camera(), sh_degree=3)
    harmless = (name, value) in {("logit_opacities", math.inf), ("log_scales", -math.inf)}
    if not harmless:
        wanted = RASTERIZER(without, make_camera(), sh_degree=3)
        torch.testing.assert_close(found.rgb.detach(), wanted.rgb, rtol=0, atol=0)
        assert float(found.stats.radii_px[7]) == 0
    assert torch.isfinite(found.rgb).all()
    (found.rgb.sum() + found.depth.sum()).backward()
    for other, tensor in own.parameters().items():
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all(), other


def test_a_zero_quaternion_is_culled():
    gaussians = make_plain([[0, 0, 0.0]], [RED])
    gaussians.quats_wxyz[:] = 0
    assert_backward_gives_zeros(watched(gaussians))


def test_empty_tiles_do_not_touch_the_gradients_of_others():
    # One Gaussian in a far corner, and the same one in an image that has only that corner.
    gaussians = make_plain([[-1.55, -1.35, 0.0]], [RED], scale=0.1)
    camera = make_camera(160, 160, turn=0.0)
    K = camera.K.copy()
    grads = []
    for width in (160, 48):
        own = watched(gaussians)
        view = type(camera)(T_world_cam=camera.T_world_cam, K=K, width=width, height=width)
        output = RASTERIZER(own, view, sh_degree=0)
        assert float(output.stats.radii_px) > 0
        (output.rgb[:48, :48] ** 2).sum().backward()
        grads.append(own.means.grad)
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=0.3, atol=1e-4)


def test_equal_depths_are_drawn_in_the_order_of_their_indices():
    camera = make_camera(turn=0.0)
    first_red = RASTERIZER(make_plain([[0, 0, 0.0]] * 2, [RED, BLUE]), camera, sh_degree=0)
    first_blue = RASTERIZER(make_plain([[0, 0, 0.0]] * 2, [BLUE, RED]), camera, sh_degree=0)
    assert (first_red.rgb[..., 0] >= first_red.rgb[..., 2]).all()
    assert float(first_red.rgb[..., 0].max()) > 2 * float(first_red.rgb[..., 2].max())
    torch.testing.assert_close(first_red.rgb.flip(-1), first_blue.rgb, rtol=0, atol=0)


def test_the_nearer_gaussian_covers_the_farther_one():
    camera = make_camera(turn=0.0)
    output = RASTERIZER(make_plain([[0, 0, 1.0], [0, 0, -1.0]], [RED, BLUE], opacity=0.95), camera, sh_degree=0)
    center = output.rgb[camera.height // 2, camera.width // 2]
    assert center[2] > 0.8 > 0.2 > center[0]
    depth = float(output.depth[camera.height // 2, camera.width // 2])
    assert 3.0 <= depth < 3.3


@pytest.mark.parametrize("scale", [50.0, 1e4, 1e15])
def test_giant_gaussians_cover_the_image(scale: float):
    gaussians = watched(make_plain([[0, 0, 0.0]], [BLUE], scale=scale, opacity=0.5))
    output = RASTERIZER(gaussians, make_camera(), sh_degree=0)
    if scale < 1e15:
        torch.testing.assert_close(output.alpha.detach(), torch.full((29, 37, 1), 0.5), rtol=1e-3, atol=1e-3)
    output.rgb.sum().backward()
    assert gaussians.means.grad is not None
    assert torch.isfinite(gaussians.means.grad).all()


def test_light_is_conserved():
    gaussians = make_gaussians(300, seed=8, scale=0.3)
    white = torch.ones(3)
    over_white = RASTERIZER(gaussians, make_camera(), sh_degree=3, background=white)
    over_black = RASTERIZER(gaussians, make_camera(), sh_degree=3)
    left = (1 - over_black.alpha).expand(-1, -1, 3)
    torch.testing.assert_close(over_white.rgb - over_black.rgb, left, atol=1e-5, rtol=0)
    assert float(over_black.alpha.min()) >= 0
    assert float(over_black.alpha.max()) <= 1


def test_without_gradients_nothing_is_kept():
    gaussians = watched(make_gaussians(10))
    with torch.no_grad():
        output = RASTERIZER(gaussians, make_camera(), sh_degree=3)
    assert not output.rgb.requires_grad
    assert not output.stats.means2d.requires_grad
    frozen = RASTERIZER(gaussians.detach(), make_camera(), sh_degree=3)
    assert not frozen.rgb.requires_grad
    assert torch.equal(frozen.rgb, output.rgb)


def test_gradients_reach_only_what_asks_for_them():
    gaussians = make_gaussians(10)
    gaussians.means.requires_grad_()
    RASTERIZER(gaussians, make_camera(), sh_degree=3).rgb.sum().backward()
    assert gaussians.means.grad is not None
    assert gaussians.sh0.grad is None


def test_two_renders_before_one_backward_keep_their_own_state():
    own, one, other = (watched(make_gaussians(30)) for _ in range(3))
    cameras = [make_camera(turn=0.0), make_camera(turn=0.4)]
    first, second = (RASTERIZER(own, camera, sh_degree=3).rgb.square().sum() for camera in cameras)
    (first + second).backward()
    for gaussians, camera in zip((one, other), cameras, strict=True):
        RASTERIZER(gaussians, camera, sh_degree=3).rgb.square().sum().backward()
    assert one.means.grad is not None
    assert other.means.grad is not None
    torch.testing.assert_close(own.means.grad, one.means.grad + other.means.grad, rtol=1e-5, atol=1e-5)


def test_requests_that_cannot_be_met_are_refused():
    gaussians = make_gaussians(5, degree=1)
    with pytest.raises(ValueError, match=r"sh_degree must be in \[0, 1\] for these Gaussians, got 2"):
        RASTERIZER(gaussians, make_camera(), sh_degree=2)
    camera = make_camera()
    K = camera.K.copy()
    K[0, 1] = 3
    skewed = type(camera)(T_world_cam=camera.T_world_cam, K=K, width=4, height=4)
    with pytest.raises(ValueError, match="no skew"):
        RASTERIZER(gaussians, skewed, sh_degree=1)
    with pytest.raises(ValueError, match="move them"):
        RASTERIZER(gaussians.to("meta"), camera, sh_degree=1)
    with pytest.raises(ValueError, match='"cpu" or "cuda"'):
        make_rasterizer("tpu")
    assert isinstance(make_rasterizer("cpu"), CpuRasterizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near": 0.0}, "near"),
        ({"near": 2.0, "far": 1.0}, "near < far"),
        ({"eps2d": -0.1}, "eps2d"),
        ({"eps2d": math.nan}, "eps2d"),
        ({"max_alpha": 1.0}, "max_alpha"),
        ({"num_threads": -1}, "num_threads"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RenderConfig(**settings)


def test_an_impossible_number_of_harmonics_is_refused():
    parameters = make_gaussians(5).parameters()
    with pytest.raises(ValueError, match="0, 3, 8 or 15"):
        Gaussians(**{**parameters, "sh_rest": torch.zeros(5, 5, 3)})
