"""The rasterizer for machines without CUDA: numba kernels joined to autograd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splat_render.cameras import Camera
from splat_render.cpu import layout
from splat_render.cpu.blend import NUM_KEPT, blend, blend_backward
from splat_render.cpu.projection import project, project_backward
from splat_render.cpu.recycling import RECYCLER
from splat_render.cpu.tiles import bin_splats
from splat_render.cpu.workers import Workers, workers
from splat_render.gaussians import Gaussians
from splat_render.output import RenderOutput, RenderStats
from splat_render.rasterizer import DEFAULT_CONFIG, RenderConfig, check_request


def camera_values(camera: Camera, config: RenderConfig) -> Float[np.ndarray, " m"]:
    """The camera and the projection's settings as the flat float32 array that the kernels read."""
    values = np.zeros(layout.NUM_CAMERA_VALUES, np.float32)
    values[:9] = camera.T_cam_world[:3, :3].reshape(-1)
    values[9:12] = camera.T_cam_world[:3, 3]
    values[layout.CAMERA_FX] = camera.K[0, 0]
    values[layout.CAMERA_FY] = camera.K[1, 1]
    values[layout.CAMERA_CX] = camera.K[0, 2]
    values[layout.CAMERA_CY] = camera.K[1, 2]
    values[layout.CAMERA_WIDTH] = camera.width
    values[layout.CAMERA_HEIGHT] = camera.height
    values[layout.CAMERA_CENTER : layout.CAMERA_CENTER + 3] = camera.T_world_cam[:3, 3]
    values[layout.CAMERA_NEAR] = config.near
    values[layout.CAMERA_FAR] = config.far
    values[layout.CAMERA_EPS2D] = config.eps2d
    return values


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """What one render needs besides its tensors."""

    camera: np.ndarray
    width: int
    height: int
    degree: int
    config: RenderConfig
    workers: Workers
    radii: np.ndarray
    means2d: Tensor

    @property
    def tiles_x(self) -> int:
        return -(-self.width // layout.TILE)

    @property
    def tiles_y(self) -> int:
        return -(-self.height // layout.TILE)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


class _Rasterize(torch.autograd.Function):
    """From raw parameters to the image, and back. `means2d` is an input to hand its gradient out."""

    @staticmethod
    def forward(ctx, call: _Call, means2d, background, means, log_scales, quats, logits, sh0, sh_rest):
        """Project, bin and blend; fills `means2d` and `call.radii`."""
        parameters = tuple(_array(tensor) for tensor in (means, log_scales, quats, logits, sh0, sh_rest))
        means, log_scales, quats, logits, sh0, sh_rest = parameters
        num = means.shape[0]
        splats = RECYCLER.empty((num, layout.NUM_SPLAT_COLUMNS), np.float32)
        depths = RECYCLER.empty(num, np.float32)
        antialiased = call.config.antialiased
        call.workers.run_ranges(
            num,
            lambda start, stop: project(
                start, stop, means, log_scales, quats, logits, sh0, sh_rest, call.camera, call.degree, antialiased,
                splats, depths, call.radii,
            ),
        )  # fmt: skip
        _array(means2d)[:] = splats[:, : layout.Y + 1]
        bins = bin_splats(splats, depths.view(np.uint32), call.radii, call.tiles_x, call.tiles_y)
        ids, _, tile_starts, _ = bins
        shape = (call.height, call.width)
        rgb = RECYCLER.empty((*shape, 3), np.float32)
        alpha, depth = RECYCLER.empty(shape, np.float32), RECYCLER.empty(shape, np.float32)
        reached = RECYCLER.empty(ids.shape[0], np.uint16)
        kept = RECYCLER.empty((call.tiles_x * call.tiles_y, NUM_KEPT * layout.TILE**2), np.float32)
        behind = _array(background)
        max_alpha = np.float32(call.config.max_alpha)
        call.workers.run(
            lambda worker: blend(
                worker, call.workers.num_threads, call.tiles_x, tile_starts, ids, splats, behind, max_alpha,
                rgb, alpha, depth, reached, kept,
            )
        )  # fmt: skip
        ctx.call = call
        ctx.state = (parameters, splats, bins, behind, reached, kept, alpha, depth)
        ctx.set_materialize_grads(True)
        return torch.from_numpy(rgb), torch.from_numpy(alpha)[..., None], torch.from_numpy(depth)[..., None]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v_rgb, v_alpha, v_depth):
        """Walk the tiles back to front, then each Gaussian from the image to the world."""
        call: _Call = ctx.call
        parameters, splats, (ids, places, tile_starts, place_starts), behind, reached, kept, alpha, depth = ctx.state
        moments = RECYCLER.empty((ids.shape[0], layout.MOMENT_STRIDE), np.float32)
        gradients = (_array(v_rgb), _array(v_alpha)[..., 0], _array(v_depth)[..., 0])
        max_alpha = np.float32(call.config.max_alpha)
        num = splats.shape[0]
        absgrad = RECYCLER.zeros((num, 2)) if call.config.absgrad else None
        call.workers.run(
            lambda worker: blend_backward(
                worker, call.workers.num_threads, call.tiles_x, tile_starts, ids, splats, behind, max_alpha,
                reached, kept, alpha, depth, *gradients, moments, absgrad,
            )
        )  # fmt: skip
        means, log_scales, quats, logits, _, sh_rest = parameters
        v_parameters = tuple(RECYCLER.zeros(parameter.shape) for parameter in parameters)
        v_means, v_log_scales, v_quats, v_logits, v_sh0, v_sh_rest = v_parameters
        v_means2d = RECYCLER.zeros((num, 2))
        call.workers.run_ranges(
            num,
            lambda start, stop: project_backward(
                start, stop, means, log_scales, quats, logits, sh_rest, call.camera, call.degree,
                call.config.antialiased, splats, call.radii, places, place_starts, moments,
                v_means, v_log_scales, v_quats, v_logits, v_sh0, v_sh_rest, v_means2d, absgrad,
            ),
        )  # fmt: skip
        if absgrad is not None:
            call.means2d.absgrad = torch.from_numpy(absgrad)  # pyright: ignore[reportAttributeAccessIssue]
        v_background = None
        if ctx.needs_input_grad[2]:
            v_background = torch.einsum("hwc,hw->c", v_rgb, 1 - torch.from_numpy(alpha))
        found = (torch.from_numpy(array) for array in (v_means2d, *v_parameters))
        v_means2d_tensor, *rest = found
        return None, v_means2d_tensor, v_background, *rest


class CpuRasterizer:
    """Renders on the CPU with gsplat's conventions; the same bits for any number of threads.

    Safe to call from several Python threads at once.
    """

    def __init__(self, config: RenderConfig = DEFAULT_CONFIG) -> None:
        self.config = config
        self._workers = workers(config.threads)

    def __call__(
        self,
        gaussians: Gaussians,
        camera: Camera,
        *,
        sh_degree: int,
        background: Float[Tensor, " c=3"] | None = None,
    ) -> RenderOutput:
        """Render one image; see `Rasterizer`."""
        check_request(gaussians, camera, sh_degree, kind="cpu")
        num = len(gaussians)
        parameters = [tensor.float() for tensor in gaussians.parameters().values()]
        if background is None:
            background = torch.zeros(3)
        needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters)
        means2d = torch.zeros(num, 2, requires_grad=needs_grad)
        call = _Call(
            camera=camera_values(camera, self.config),
            width=camera.width,
            height=camera.height,
            degree=sh_degree,
            config=self.config,
            workers=self._workers,
            radii=np.zeros((num, 2), np.int32),
            means2d=means2d,
        )
        rgb, alpha, depth = _Rasterize.apply(call, means2d, background.float(), *parameters)
        radii_px = torch.from_numpy(np.maximum(call.radii[:, 0], call.radii[:, 1]).astype(np.float32))
        stats = RenderStats(
            means2d=means2d,
            radii_px=radii_px,
            width=camera.width,
            height=camera.height,
            absgrad_holder=means2d if self.config.absgrad else None,
        )
        return RenderOutput(rgb=rgb, alpha=alpha, depth=depth, stats=stats)
