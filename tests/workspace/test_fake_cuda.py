"""The fake CUDA device: what it refuses, what it counts, and that its renders are those of the CPU rasterizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from splat_render import make_rasterizer, rasterize
from splat_render.cpu.backend import CpuRasterizer
from splat_render.rasterizer import RenderConfig
from support.dense_splatting import assert_gradients_agree
from support.fake_cuda import DeviceMismatchError, FakeCuda
from support.splat_scenes import make_camera, make_gaussians, watched


def gradients_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {name: tensor.grad for name, tensor in tensors.items()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def test_tensors_say_where_they_are_and_keep_their_values():
    with FakeCuda() as gpu:
        a = torch.arange(3.0, device="cuda")
        b = (2 * a).exp().cpu()
        assert (a.device.type, a.is_cuda, b.device.type) == ("cuda", True, "cpu")
        assert a[1:].is_cuda
        assert torch.stack([a, a]).is_cuda
        assert (torch.cuda.is_available(), torch.cuda.device_count()) == (True, 1)
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "a fake CUDA device"
    torch.testing.assert_close(b, torch.exp(2 * torch.arange(3.0)))
    assert gpu.traffic.number("download") == 1


def test_modules_move_and_their_gradients_are_where_they_are():
    with FakeCuda():
        layer = torch.nn.Linear(3, 2).to("cuda")
        loss = layer(torch.ones(4, 3, device="cuda")).sum()
        loss.backward()
        assert all(parameter.is_cuda for parameter in layer.parameters())
        assert all(gradient.is_cuda for gradient in gradients_of(dict(layer.named_parameters())).values())
        with pytest.raises(DeviceMismatchError, match="two devices"):
            layer(torch.ones(4, 3))
        layer.cpu()(torch.ones(4, 3))
        layer.to(device="cuda", dtype=torch.float64)
        assert all(parameter.is_cuda and parameter.dtype == torch.float64 for parameter in layer.parameters())


@pytest.mark.parametrize(
    "refused",
    [
        lambda a: a + torch.ones(3),
        lambda a: torch.cat([a, torch.ones(3)]),
        lambda a: torch.ones(3)[a.long()],
        lambda a: a.numpy(),
        lambda a: np.asarray(a),
        lambda a: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda a: torch.rand(3, generator=torch.Generator(device="cuda")),
        lambda a: setattr(torch.ones(3, requires_grad=True), "grad", a),
        lambda a: a.__setitem__(torch.tensor([0], device="cuda"), torch.ones(1)),
    ],
)
def test_what_cuda_refuses_is_refused(refused):
    with FakeCuda():
        a = torch.zeros(3, device="cuda")
        with pytest.raises(DeviceMismatchError):
            refused(a)


def test_what_cuda_allows_is_allowed():
    with FakeCuda():
        a = torch.zeros(3, device="cuda")
        assert (a + torch.tensor(2.0)).is_cuda
        assert a[torch.tensor([0, 1])].is_cuda
        a[:2] = torch.ones(2)
        a.copy_(torch.ones(3))
        assert torch.rand(3, device="cuda", generator=torch.Generator(device="cuda").manual_seed(0)).is_cuda
        assert a.cpu().numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "kinds"),
    [
        (lambda a: a.sum().item(), {"wait": 1}),
        (lambda a: float(a.sum()), {"wait": 1}),
        (lambda a: bool((a > 0).any()), {"wait": 1}),
        (lambda a: torch.nonzero(a), {"wait": 1}),
        (lambda a: a[a > 0], {"wait": 1}),
        (lambda a: a.__setitem__(a > 0, 0.0), {}),
        (lambda a: a[[0, 1]], {"upload": 1}),
        (lambda a: a.cpu(), {"download": 1}),
        (lambda a: torch.tensor([1.0], device="cuda"), {"upload": 1}),
        (lambda a: a.new_tensor([1.0]), {"upload": 1}),
        (lambda a: torch.ones(3).to("cuda"), {"upload": 1}),
        (lambda a: torch.ones(3).pin_memory().to("cuda", non_blocking=True), {"background": 1}),
        (lambda a: torch.cuda.synchronize(), {"wait": 1}),
        (lambda a: torch.where(a > 0, a, 0.0) * 2 + torch.ones_like(a), {}),
        (lambda a: a.to("cuda").cuda().float(), {}),
    ],
)
def test_waits_and_copies_are_counted(call, kinds):
    with FakeCuda() as gpu:
        a = torch.zeros(3, device="cuda")
        gpu.traffic.clear()
        call(a)
        assert {event.kind: count for event, count in gpu.traffic.counts.items()} == kinds, gpu.traffic.report()


def test_lines_of_the_project_are_named():
    with FakeCuda() as gpu:
        make_rasterizer("cuda")(make_gaussians(3).to("cuda"), make_camera(12, 11), sh_degree=0)
        places = {event.place.rsplit(":")[0] for event in gpu.traffic.counts}
    assert "packages/splat-render/src/splat_render/gsplat_backend.py" in places
    assert "gsplat/cuda/_wrapper.py" in places
    assert gpu.traffic.waits(ours=False) > 0
    assert "intersect_tile" in gpu.traffic.report()


@pytest.mark.parametrize(
    "config",
    [RenderConfig(), RenderConfig(antialiased=True), RenderConfig(packed=True), RenderConfig(absgrad=True)],
    ids=["plain", "antialiased", "packed", "absgrad"],
)
def test_gsplat_over_the_stand_ins_renders_what_the_cpu_does(config: RenderConfig):
    camera = make_camera(17, 13)
    background = torch.tensor([0.1, 0.5, 0.9])
    found = []
    for device in ("cpu", "cuda"):
        with FakeCuda():
            gaussians = watched(make_gaussians(60, scale=0.2)).to(device).mapped(lambda one: one.detach())
            gaussians = gaussians.mapped(lambda one: one.requires_grad_())
            kind = CpuRasterizer(RenderConfig(antialiased=config.antialiased, absgrad=config.absgrad))
            rasterizer = kind if device == "cpu" else make_rasterizer("cuda", config)
            output = rasterizer(gaussians, camera, sh_degree=3, background=background.to(device))
            weights = torch.linspace(0, 1, output.rgb.numel()).reshape(output.rgb.shape).to(device)
            (output.rgb * weights).sum().backward()
            stats = output.stats
            images = {"rgb": output.rgb, "alpha": output.alpha, "depth": output.depth, "radii": stats.radii_px}
            gradients = gradients_of(gaussians.parameters() | {"means2d": stats.means2d})
            if config.absgrad:
                assert stats.means2d_absgrad is not None
                gradients["absgrad"] = stats.means2d_absgrad
            found.append([{name: one.detach().cpu() for name, one in kind.items()} for kind in (images, gradients)])
    (images, gradients), (on_cuda, gradients_on_cuda) = found
    for name in ("rgb", "alpha", "depth"):
        torch.testing.assert_close(on_cuda[name], images[name], atol=2e-4, rtol=1e-3)
    assert int(((on_cuda["radii"] > 0) != (images["radii"] > 0)).sum()) <= 1
    assert set(gradients) == set(gradients_on_cuda) >= {*gaussians.parameters(), "means2d"}
    for name, gradient in gradients.items():
        largest = float(gradient.abs().max())
        assert_gradients_agree(gradients_on_cuda[name], gradient, name, rtol=2e-3, atol=2e-4 * largest)


def test_several_cameras_in_one_call():
    gaussians, cameras = make_gaussians(40, scale=0.2), [make_camera(15, 12, turn=turn) for turn in (0.1, 0.3)]
    expected = rasterize(gaussians, cameras)
    with FakeCuda():
        found = rasterize(gaussians.to("cuda"), cameras).rgb.cpu()
    torch.testing.assert_close(found, expected.rgb, atol=2e-4, rtol=1e-3)
