"""Threads change neither bits nor survival."""

from concurrent.futures import ThreadPoolExecutor

import torch

from splat_render import Gaussians
from splat_render.cpu.backend import CpuRasterizer
from splat_render.rasterizer import RenderConfig
from support.splat_scenes import make_camera, make_gaussians, watched


def render_and_step_back(rasterizer: CpuRasterizer, gaussians: Gaussians, turn: float = 0.1) -> list[torch.Tensor]:
    own = watched(gaussians)
    output = rasterizer(own, make_camera(90, 70, turn=turn), sh_degree=3, background=torch.full((3,), 0.4))
    (output.rgb.square().sum() + output.alpha.sum() + output.depth.square().sum()).backward()
    tensors = [output.rgb, output.alpha, output.depth, output.stats.means2d, output.stats.radii_px]
    grads = [tensor.grad for tensor in (*own.parameters().values(), output.stats.means2d)]
    assert all(grad is not None for grad in grads)
    return [tensor.detach() for tensor in (*tensors, *grads) if tensor is not None]


def test_results_are_the_same_bits_for_any_number_of_threads():
    gaussians = make_gaussians(700, seed=1)
    one = render_and_step_back(CpuRasterizer(RenderConfig(num_threads=1)), gaussians)
    assert len(one) == 12
    for num_threads in (2, 3, 7):
        several = render_and_step_back(CpuRasterizer(RenderConfig(num_threads=num_threads)), gaussians)
        for found, wanted in zip(several, one, strict=True):
            assert torch.equal(found, wanted)


def test_more_threads_than_gaussians_are_fine():
    one, many = (
        render_and_step_back(CpuRasterizer(RenderConfig(num_threads=number)), make_gaussians(3)) for number in (1, 8)
    )
    assert all(torch.equal(found, wanted) for found, wanted in zip(many, one, strict=True))


def test_python_threads_may_render_at_once():
    rasterizer = CpuRasterizer(RenderConfig(num_threads=2))
    gaussians = make_gaussians(300, seed=2)
    turns = [0.1 * k for k in range(6)]
    alone = [render_and_step_back(rasterizer, gaussians, turn) for turn in turns]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda turn: render_and_step_back(rasterizer, gaussians, turn), turns))
    for found, wanted in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
