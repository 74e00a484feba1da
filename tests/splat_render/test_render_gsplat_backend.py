"""The CUDA backend: what it asks of gsplat, what it makes of the answer, and what it says when gsplat is broken."""

import inspect
import sys
import types

import pytest
import torch
from gsplat.rendering import rasterization  # Here, before a fake stands in for the package.

from splat_render import gsplat_backend, make_rasterizer
from splat_render.cpu.backend import CpuRasterizer
from splat_render.rasterizer import RenderConfig
from support.dense_splatting import assert_gradients_agree
from support.splat_scenes import make_camera, make_gaussians, watched


class FakeGsplat(types.ModuleType):
    """Records the call and answers with tensors that depend on the inputs."""

    def __init__(self, radii: torch.Tensor) -> None:
        super().__init__("gsplat")
        self.calls: list[dict] = []
        self.radii = radii

    def rasterization(self, **arguments):
        self.calls.append(arguments)
        n, height, width = len(arguments["means"]), arguments["height"], arguments["width"]
        means2d = arguments["means"][None, :, :2] * 10
        colors = torch.zeros(1, height, width, 4) + means2d.sum()
        colors = colors + torch.tensor([0.0, 1.0, 2.0, 3.0])
        alphas = torch.full((1, height, width, 1), 0.25) * arguments["opacities"].sum() / n
        if arguments["absgrad"]:
            # gsplat leaves it on the tensor as the backward of its rasterization runs, before hooks on the tensor.
            colors.register_hook(lambda gradient: setattr(means2d, "absgrad", 7 * torch.ones_like(means2d)))
        return colors, alphas, {"means2d": means2d, "radii": self.radii, "width": width, "height": height}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGsplat:
    module = FakeGsplat(radii=torch.tensor([[[3, 4], [0, 0], [9, 2]]], dtype=torch.int32))
    monkeypatch.setitem(sys.modules, "gsplat", module)
    return module


def test_request_is_put_in_gsplats_words(fake: FakeGsplat):
    gaussians, camera = watched(make_gaussians(3)), make_camera(20, 12)
    config = RenderConfig(near=0.02, far=50.0, eps2d=0.1, antialiased=True)
    gsplat_backend.rasterize(gaussians, camera, sh_degree=2, background=None, config=config)
    (call,) = fake.calls
    assert {name: call[name] for name in ("width", "height", "near_plane", "far_plane", "eps2d", "sh_degree")} == {
        "width": 20,
        "height": 12,
        "near_plane": 0.02,
        "far_plane": 50.0,
        "eps2d": 0.1,
        "sh_degree": 2,
    }
    assert call["packed"] is False
    assert call["render_mode"] == "RGB+ED"
    assert call["rasterize_mode"] == "antialiased"
    torch.testing.assert_close(call["viewmats"][0].double(), torch.from_numpy(camera.T_cam_world), atol=1e-6, rtol=0)
    torch.testing.assert_close(call["Ks"][0].double(), torch.from_numpy(camera.K), atol=1e-5, rtol=0)
    torch.testing.assert_close(call["scales"], gaussians.log_scales.exp())
    torch.testing.assert_close(call["opacities"], gaussians.logit_opacities.sigmoid())
    assert call["colors"].shape == (3, 16, 3)


def test_every_argument_is_one_that_gsplat_takes(fake: FakeGsplat):
    gsplat_backend.rasterize(make_gaussians(3), make_camera(), sh_degree=3, background=None, config=RenderConfig())
    bound = inspect.signature(rasterization).bind(**fake.calls[0])  # A TypeError names what it does not take.
    assert set(bound.arguments) == set(fake.calls[0])


def test_answer_is_put_in_our_words(fake: FakeGsplat):
    gaussians = watched(make_gaussians(3))
    background = torch.tensor([0.0, 0.5, 1.0])
    output = gsplat_backend.rasterize(
        gaussians, make_camera(20, 12), sh_degree=0, background=background, config=RenderConfig()
    )
    base = float(10 * gaussians.means.detach()[:, :2].sum())
    left = 1 - output.alpha.detach()
    wanted = base + torch.tensor([0.0, 1.0, 2.0]) + left * background
    torch.testing.assert_close(output.rgb.detach(), wanted)
    torch.testing.assert_close(output.depth.detach(), torch.full((12, 20, 1), base + 3))
    assert output.stats.radii_px.tolist() == [4, 0, 9]
    assert output.stats.means2d.grad is None
    for times in (1, 2):
        output.rgb[0, 0, 0].backward(retain_graph=True)
        torch.testing.assert_close(output.stats.means2d.grad, torch.full((3, 2), float(times)))


def test_absgrad_is_asked_for_and_read_where_gsplat_leaves_it(fake: FakeGsplat):
    found = {}
    for absgrad in (False, True):
        output = gsplat_backend.rasterize(
            watched(make_gaussians(3)), make_camera(20, 12), sh_degree=0, background=None,
            config=RenderConfig(absgrad=absgrad),
        )  # fmt: skip
        assert fake.calls[-1]["absgrad"] is absgrad
        assert output.stats.means2d_absgrad is None
        output.rgb.sum().backward()
        found[absgrad] = output.stats.means2d_absgrad
    assert found[False] is None
    torch.testing.assert_close(found[True], torch.full((3, 2), 7.0))


def test_packed_answers_are_spread_over_all_gaussians(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def rasterization(**arguments):
        calls.append(arguments)
        visible = torch.tensor([0, 2])
        means2d = arguments["means"][visible, :2] * 10
        meta = {"means2d": means2d, "radii": torch.tensor([[3, 4], [9, 2]], dtype=torch.int32), "gaussian_ids": visible}
        return torch.zeros(1, 12, 20, 4) + means2d.sum(), torch.ones(1, 12, 20, 1), meta

    module = types.ModuleType("gsplat")
    module.rasterization = rasterization  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat", module)
    gaussians = watched(make_gaussians(3))
    config = RenderConfig(packed=True, sparse_grad=True)
    output = gsplat_backend.rasterize(gaussians, make_camera(20, 12), sh_degree=0, background=None, config=config)
    assert calls[0]["packed"] is True
    assert calls[0]["sparse_grad"] is True
    output.rgb.mean().backward()
    assert output.stats.radii_px.tolist() == [4, 0, 9]
    torch.testing.assert_close(output.stats.means2d[0], 10 * gaussians.means[0, :2])
    assert output.stats.means2d.grad is not None
    assert output.stats.means2d.grad.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_radii_of_one_number_are_read_too(fake: FakeGsplat):
    fake.radii = torch.tensor([[5, 0, 7]], dtype=torch.int32)
    output = gsplat_backend.rasterize(
        make_gaussians(3), make_camera(), sh_degree=0, background=None, config=RenderConfig()
    )
    assert output.stats.radii_px.tolist() == [5, 0, 7]
    assert not output.stats.means2d.requires_grad


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_without_cuda_the_error_says_so():
    with pytest.raises(RuntimeError, match=r"cannot render on cuda:0: .*CUDA.*device='cpu'"):
        make_rasterizer("cuda:0")


def test_broken_gsplat_is_reported_with_the_real_reason(monkeypatch: pytest.MonkeyPatch):
    def fail_like_an_unfinished_build(device: str) -> None:
        try:
            raise OSError("nvcc: unsupported GNU version")
        except OSError:
            raise ImportError("gsplat_cuda.so: cannot open shared object file")  # noqa: B904

    def fail_like_no_toolkit(device: str) -> None:
        raise AttributeError("'NoneType' object has no attribute 'CameraModelType'")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gsplat_backend, "_probe", fail_like_an_unfinished_build)
    with pytest.raises(RuntimeError, match=r"gsplat cannot render on cuda: OSError: nvcc: unsupported GNU version"):
        gsplat_backend.GsplatRasterizer()
    monkeypatch.setattr(gsplat_backend, "_probe", fail_like_no_toolkit)
    with pytest.raises(RuntimeError, match="found no CUDA toolkit") as caught:
        make_rasterizer("cuda")
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.gpu
@pytest.mark.parametrize("antialiased", [False, True])
def test_cpu_and_cuda_agree(antialiased: bool):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    camera, background = make_camera(120, 90), torch.tensor([0.1, 0.4, 0.8])
    config = RenderConfig(antialiased=antialiased, absgrad=True)
    base = make_gaussians(2000, seed=3)
    rendered = {}
    for device, rasterizer in (("cpu", CpuRasterizer(config)), ("cuda", make_rasterizer("cuda", config))):
        own = watched(base.to(device))
        output = rasterizer(own, camera, sh_degree=3, background=background.to(device))
        (output.rgb.square().sum() + output.alpha.sum()).backward()
        rendered[device] = (own, output)
    (ours, found), (theirs, wanted) = rendered["cpu"], rendered["cuda"]
    for name, rtol, atol in (("rgb", 1e-3, 1e-3), ("alpha", 1e-3, 1e-3), ("depth", 1e-3, 1e-3)):
        off = ~torch.isclose(getattr(found, name), getattr(wanted, name).cpu(), rtol=rtol, atol=atol)
        assert off.float().mean() <= 2e-3, name
    radii_off = (found.stats.radii_px - wanted.stats.radii_px.cpu()).abs()
    assert (radii_off <= 1).float().mean() > 0.999
    pairs = [(name, ours.parameters()[name].grad, theirs.parameters()[name].grad) for name in ours.parameters()]
    pairs.append(("means2d", found.stats.means2d.grad, wanted.stats.means2d.grad))
    pairs.append(("means2d_absgrad", found.stats.means2d_absgrad, wanted.stats.means2d_absgrad))
    for name, grad, wanted_grad in pairs:
        assert grad is not None
        assert wanted_grad is not None
        atol = 5e-3 * float(wanted_grad.abs().max())
        assert_gradients_agree(grad, wanted_grad.cpu(), name, rtol=1e-2, atol=atol)
