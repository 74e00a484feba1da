"""The CPU rasterizer against a plain PyTorch tile loop, and its share of a training step; prints a markdown table.

    uv run python benchmarks/rasterizer.py [--gaussians 10000] [--size 256] [--repeats 7] [--cuda]

Everything runs on one thread and is timed by the processor time it took, so that other work on the machine
does not count; each figure is the least of the repeats. Both sides render forward and backward from raw parameters,
with projection and spherical harmonics of degree 3, over the same tile lists. `--cuda` adds gsplat's, by the clock.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat_recon import Points, Scene, SplatTrainer, TrainConfig, View, ViewSet
from splat_render import Camera, Gaussians
from splat_render.cpu.backend import CpuRasterizer, _Rasterize
from splat_render.rasterizer import RenderConfig
from splat_render.spherical_harmonics import evaluate_sh

TILE = 16
DEGREE = 3


def make_scene(n: int, size: int, seed: int = 0) -> tuple[Gaussians, Camera]:
    """A bumpy ball before a wall, with sizes and opacities like those of a trained splat."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator)
    half = n // 2
    dirs = torch.nn.functional.normalize(normal(half, 3), dim=-1)
    ball = dirs * (1 + 0.08 * torch.sin(9 * dirs[:, :1]) * torch.cos(7 * dirs[:, 1:2]))
    flat = 6 * torch.rand(n - half, 2, generator=generator) - 3
    wall = torch.cat([flat, 1.6 + 0.05 * normal(n - half, 1)], dim=1)
    on_ball, on_wall = math.sqrt(4 * math.pi / half), 6 / math.sqrt(n - half)
    spacing = torch.cat([torch.full((half,), on_ball), torch.full((n - half,), on_wall)])
    gaussians = Gaussians(
        means=torch.cat([ball, wall]),
        log_scales=torch.log(0.55 * spacing)[:, None] + 0.4 * normal(n, 3),
        quats_wxyz=normal(n, 4),
        logit_opacities=0.5 + 2 * normal(n),
        sh0=normal(n, 1, 3),
        sh_rest=0.1 * normal(n, 15, 3),
    )
    T_world_cam = np.eye(4)
    T_world_cam[2, 3] = -3.2
    K = np.array([[1.1 * size, 0, size / 2], [0, 1.1 * size, size / 2], [0, 0, 1]])
    camera = Camera(T_world_cam=T_world_cam, K=K, width=size, height=size)
    return gaussians.mapped(lambda tensor: tensor.requires_grad_()), camera


def project_in_torch(gaussians: Gaussians, camera: Camera) -> tuple[Tensor, ...]:
    """Centers, conics, opacities, colors, depths and radii; the textbook way, differentiated by autograd."""
    T_cam_world = torch.from_numpy(camera.T_cam_world).float()
    R, t = T_cam_world[:3, :3], T_cam_world[:3, 3]
    p_cam = gaussians.means @ R.T + t
    w, x, y, z = torch.nn.functional.normalize(gaussians.quats_wxyz, dim=-1).unbind(-1)
    rotations = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ], dim=-1,
    ).reshape(-1, 3, 3)  # fmt: skip
    axes = R @ (rotations * gaussians.scales[:, None])
    px, py, pz = p_cam.unbind(-1)
    fx, fy, cx, cy = (float(camera.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    zero = torch.zeros_like(pz)
    J = torch.stack([fx / pz, zero, -fx * px / pz**2, zero, fy / pz, -fy * py / pz**2], -1).reshape(-1, 2, 3)
    flat = J @ axes
    covariances = flat @ flat.mT + 0.3 * torch.eye(2)
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    det = a * c - b * b
    means2d = torch.stack([fx * px / pz + cx, fy * py / pz + cy], -1)
    conics = torch.stack([c / det, -b / det, a / det], -1)
    dirs = gaussians.means - torch.from_numpy(camera.center_world).float()
    coefficients = torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1)
    colors = torch.clamp_min(evaluate_sh(DEGREE, dirs, coefficients) + 0.5, 0)
    opacities = gaussians.opacities
    with torch.no_grad():
        extents = torch.sqrt(2 * torch.log((255 * opacities).clamp(min=1))).clamp(max=3.33)
        radii = torch.ceil(extents[:, None] * torch.sqrt(torch.stack([a, c], -1)))
        radii[(pz < 0.01) | (opacities < 1 / 255)] = 0
    return means2d, conics, opacities, colors, pz, radii


def render_in_torch(gaussians: Gaussians, camera: Camera) -> Tensor:
    """The baseline: a Python loop over tiles, each a few dense operations on its Gaussians."""
    means2d, conics, opacities, colors, depths, radii = project_in_torch(gaussians, camera)
    order = torch.argsort(depths.detach(), stable=True)
    order = order[radii[order, 0] > 0]
    low, high = (means2d.detach() - radii), (means2d.detach() + radii)
    rows = []
    for top in range(0, camera.height, TILE):
        in_row = order[(high[order, 1] > top) & (low[order, 1] < top + TILE)]
        tiles = []
        for left in range(0, camera.width, TILE):
            ids = in_row[(high[in_row, 0] > left) & (low[in_row, 0] < left + TILE)]
            bottom, right = min(top + TILE, camera.height), min(left + TILE, camera.width)
            y, x = torch.meshgrid(torch.arange(top, bottom) + 0.5, torch.arange(left, right) + 0.5, indexing="ij")
            dx = means2d[ids, 0] - x.reshape(-1, 1)
            dy = means2d[ids, 1] - y.reshape(-1, 1)
            a, b, c = conics[ids].unbind(-1)
            alphas = opacities[ids] * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))
            alphas = torch.clamp(alphas, max=0.999)
            alphas = torch.where(alphas >= 1 / 255, alphas, 0.0)
            light = torch.cumprod(1 - alphas, dim=1)
            before = torch.cat([torch.ones_like(light[:, :1]), light[:, :-1]], dim=1) if len(ids) else light
            weights = torch.where(light > 1e-4, before * alphas, 0.0)
            tiles.append((weights @ colors[ids]).reshape(bottom - top, right - left, 3))
        rows.append(torch.cat(tiles, dim=1))
    return torch.cat(rows, dim=0)


def least_ms(repeats: int, function: Callable[[], object]) -> float:
    """Least processor time of a call after one to warm up, in milliseconds."""
    function()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        spent.append(1e3 * (time.process_time() - start))
    return min(spent)


class Stopwatch:
    """Adds up the processor time of a rasterizer's calls and of their backward passes."""

    def __init__(self) -> None:
        self.spent = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            result = function(*arguments, **named)
            self.spent += time.process_time() - start
            return result

        return timed


def step_over_rasterizer(gaussians: Gaussians, camera: Camera, repeats: int) -> tuple[float, float]:
    """Milliseconds of a training step of `SplatTrainer`, and of the rasterizer's forward and backward inside it."""
    photo = np.zeros((camera.height, camera.width, 3), np.uint8)
    photo[...] = np.random.default_rng(0).integers(0, 255, photo.shape)
    points = Points(p_world=np.zeros((1, 3), np.float32), rgb_u8=np.zeros((1, 3), np.uint8))
    scene = Scene(views=(View(name="photo", camera=camera, rgb_u8=photo),), points=points)
    # All harmonics from the second step on; density control has not begun in so few steps.
    config = TrainConfig(sh_degree_every=1)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config, gaussians=gaussians.clone())
    watch = Stopwatch()
    forward, backward = _Rasterize.forward, _Rasterize.backward
    _Rasterize.forward, _Rasterize.backward = staticmethod(watch.wrap(forward)), staticmethod(watch.wrap(backward))
    try:
        trainer.train_until(5)
        best = (math.inf, math.inf)
        for step in range(6, 6 + repeats):
            watch.spent = 0.0
            start = time.process_time()
            trainer.train_until(step)
            best = min(best, (1e3 * (time.process_time() - start), 1e3 * watch.spent))
    finally:
        _Rasterize.forward, _Rasterize.backward = forward, backward
    return best


def gsplat_ms(gaussians: Gaussians, camera: Camera, repeats: int) -> float:
    """Median milliseconds by the clock of gsplat's forward and backward on the GPU, after three to warm up."""
    from splat_render import make_rasterizer

    rasterizer = make_rasterizer("cuda")
    on_gpu = gaussians.to("cuda").detach()
    for parameter in on_gpu.parameters().values():
        parameter.requires_grad_(True)
    spent = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        rasterizer(on_gpu, camera, sh_degree=DEGREE).rgb.sum().backward()
        torch.cuda.synchronize()
        spent.append(1e3 * (time.perf_counter() - start))
    return sorted(spent[3:])[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the CPU rasterizer.")
    parser.add_argument("--gaussians", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cuda", action="store_true", help="also measure gsplat's rasterizer on the GPU")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    gaussians, camera = make_scene(arguments.gaussians, arguments.size)
    rasterizer = CpuRasterizer(RenderConfig(num_threads=1))
    weights = torch.randn(camera.height, camera.width, 3, generator=torch.Generator().manual_seed(1))

    def forward() -> Tensor:
        return rasterizer(gaussians, camera, sh_degree=DEGREE).rgb

    def ours() -> None:
        (forward() * weights).sum().backward()

    def baseline() -> None:
        (render_in_torch(gaussians, camera) * weights).sum().backward()

    with torch.no_grad():
        difference = (forward() - render_in_torch(gaussians, camera)).abs()
    # Both draw the same: they differ only where a value lies on a threshold.
    if float((difference > 1e-3).float().mean()) > 1e-3:
        raise RuntimeError(f"the two renderers disagree by up to {float(difference.max()):.3g}")
    with torch.no_grad():
        forward_ms = least_ms(3 * arguments.repeats, forward)
    ours_ms = least_ms(3 * arguments.repeats, ours)
    baseline_ms = least_ms(max(3, arguments.repeats // 2), baseline)

    step_ms, inside_ms = step_over_rasterizer(gaussians, camera, 3 * arguments.repeats)

    print(f"{arguments.gaussians} Gaussians, {arguments.size} x {arguments.size}, one thread, processor time\n")
    print("| what | ms | ratio |")
    print("|---|---|---|")
    print(f"| PyTorch tile loop, forward + backward | {baseline_ms:.1f} | {baseline_ms / ours_ms:.1f} x |")
    print(f"| CPU rasterizer, forward + backward | {ours_ms:.1f} | 1 x |")
    print(f"| CPU rasterizer, forward only | {forward_ms:.1f} | {forward_ms / ours_ms:.2f} x |")
    if arguments.cuda:
        cuda_ms = gsplat_ms(gaussians, camera, 10 * arguments.repeats)
        print(f"| gsplat on CUDA, forward + backward, by the clock | {cuda_ms:.2f} | {cuda_ms / ours_ms:.3f} x |")
    print(f"| whole training step, over the rasterizer's part in it | {step_ms:.1f} | {step_ms / inside_ms:.2f} x |")


if __name__ == "__main__":
    main()
