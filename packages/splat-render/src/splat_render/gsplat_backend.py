"""The rasterizer for CUDA: gsplat, called through its one stable function."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splat_render import gsplat_build
from splat_render.cameras import Camera
from splat_render.errors import InputError
from splat_render.gaussians import Gaussians
from splat_render.output import RenderBatch, RenderOutput, RenderStats, SharedRenderOutput
from splat_render.rasterizer import DEFAULT_CONFIG, RenderConfig, check_request
from splat_render.upload import uploaded

_ADVICE = (
    "gsplat compiles its CUDA code when it is first used, which needs a C++ compiler and a CUDA compiler that fits "
    f"torch, which {gsplat_build.EXTRA} installs; or pass device='cpu'."
)


@functools.cache
def _probe(device: str) -> None:
    """Render one Gaussian at 16 x 16, so that a broken installation shows here and not in the middle of training.

    Once per process: it waits for the device.
    """
    gsplat_build.ensure_compiled()
    from gsplat import rasterization

    one = torch.ones(1, device=device)
    rasterization(
        means=torch.tensor([[0.0, 0.0, 2.0]], device=device),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]], device=device),
        scales=one.expand(1, 3).contiguous(),
        opacities=0.5 * one,
        colors=torch.zeros(1, 1, 3, device=device),
        viewmats=torch.eye(4, device=device)[None],
        Ks=torch.tensor([[[8.0, 0.0, 8.0], [0.0, 8.0, 8.0], [0.0, 0.0, 1.0]]], device=device),
        width=16,
        height=16,
        sh_degree=0,
        render_mode="RGB+ED",
        packed=False,
    )
    torch.cuda.synchronize(device)


def check_gsplat(device: str) -> None:
    """Make sure that gsplat can render on a CUDA device; the first time it may have to be compiled.

    Raises:
        RuntimeError: If it cannot; the message and the chained exception hold the reason.
    """
    if not torch.cuda.is_available():
        built_for = torch.version.cuda
        why = "this torch is built without CUDA" if built_for is None else f"no usable GPU for CUDA {built_for}"
        raise RuntimeError(f"cannot render on {device}: {why}; pass device='cpu' or install a CUDA build of torch")
    try:
        _probe(device)
    except Exception as error:
        raise RuntimeError(f"gsplat cannot render on {device}: {real_reason(error)}. {_ADVICE}") from error


def real_reason(error: BaseException) -> str:
    """What lies behind the exception that gsplat let through.

    Without a toolkit its compiled part is None, and the first call fails with an AttributeError on that None. When
    compiling fails with an OSError, gsplat goes on to load the file that was never built and reports only that it
    is missing; the first exception is then the context of the last.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, AttributeError) and "NoneType" in str(error):
        return "it found no CUDA toolkit, so its CUDA code is not compiled"
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return f"{type(error).__name__}: {error}"


class GsplatRasterizer:
    """Renders on CUDA with gsplat."""

    def __init__(self, config: RenderConfig = DEFAULT_CONFIG, *, device: str = "cuda") -> None:
        """Check at once that gsplat works on this device.

        Raises:
            RuntimeError: If it does not; the message holds the reason.
        """
        check_gsplat(device)
        if config.sparse_grad:
            # gsplat makes sparse tensors without saying that nobody need check them, of which torch warns.
            torch.sparse.check_sparse_tensor_invariants.disable()
        self.config = config

    def __call__(
        self,
        gaussians: Gaussians,
        camera: Camera,
        *,
        sh_degree: int,
        background: Float[Tensor, " c=3"] | None = None,
    ) -> RenderOutput:
        """Render one image; see `Rasterizer`."""
        check_request(gaussians, camera, sh_degree, kind="cuda")
        return rasterize(gaussians, camera, sh_degree=sh_degree, background=background, config=self.config)


def rasterize(
    gaussians: Gaussians,
    camera: Camera,
    *,
    sh_degree: int,
    background: Float[Tensor, " c=3"] | None,
    config: RenderConfig,
) -> RenderOutput:
    """Translate one request into gsplat's words, and its answer into ours."""
    batch, meta = _rendered(gaussians, [camera], sh_degree=sh_degree, background=background, config=config)
    gaussian_ids = meta["gaussian_ids"] if config.packed else None
    stats = RenderStats(
        means2d=_watched(meta["means2d"], gaussian_ids, len(gaussians)),
        radii_px=_largest_radii(meta["radii"], gaussian_ids, len(gaussians)),
        width=camera.width,
        height=camera.height,
        absgrad_holder=meta["means2d"] if config.absgrad else None,
    )
    return RenderOutput(rgb=batch.rgb[0], alpha=batch.alpha[0], depth=batch.depth[0], stats=stats)


def rasterize_batch(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    sh_degree: int,
    background: Float[Tensor, " c=3"] | None,
    config: RenderConfig,
) -> RenderBatch:
    """Many cameras of one size in one call of gsplat."""
    return _rendered(gaussians, cameras, sh_degree=sh_degree, background=background, config=config)[0]


def _rendered(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    sh_degree: int,
    background: Float[Tensor, " c=3"] | None,
    config: RenderConfig,
    **more: Any,
) -> tuple[RenderBatch, dict[str, Any]]:
    """The only call of gsplat's rasterizer for images that are kept, with what it returns beside them."""
    from gsplat import rasterization

    placed = [_placed(camera, gaussians.device) for camera in cameras]
    viewmats, Ks = (torch.stack(matrices) for matrices in zip(*placed, strict=True))
    colors, alpha, meta = rasterization(
        means=gaussians.means,
        quats=gaussians.quats_wxyz,
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        colors=torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1),
        viewmats=viewmats,  # gsplat: world to camera.
        Ks=Ks,
        width=cameras[0].width,
        height=cameras[0].height,
        near_plane=config.near,
        far_plane=config.far,
        eps2d=config.eps2d,
        sh_degree=sh_degree,
        rasterize_mode="antialiased" if config.antialiased else "classic",
        render_mode="RGB+ED" if config.depth else "RGB",
        packed=config.packed,
        sparse_grad=config.sparse_grad,
        absgrad=config.absgrad,
        **more,
    )
    rgb = colors[..., :3]
    depth = colors[..., 3:] if config.depth else alpha.new_zeros(()).expand_as(alpha)
    if background is not None:
        # gsplat would also lay a background under the depth; its releases disagree on how many channels it takes.
        rgb = rgb + (1 - alpha) * background.to(rgb)
    return RenderBatch(rgb=rgb, alpha=alpha, depth=depth), meta


_PLACED: WeakKeyDictionary[Camera, dict[torch.device, tuple[Tensor, Tensor]]] = WeakKeyDictionary()
"""Matrices of cameras by device, for as long as the cameras live: those of photos are rendered again and again."""


def _placed(camera: Camera, device: torch.device) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    """World to camera, and intrinsics, on a device."""
    known = _PLACED.setdefault(camera, {})
    if device not in known:
        matrices = np.concatenate([camera.T_cam_world, camera.K], axis=None)
        flat = uploaded(matrices, device, torch.float32)
        known[device] = (flat[:16].view(4, 4), flat[16:].view(3, 3))
    return known[device]


def _watched(means2d: Tensor, gaussian_ids: Int64[Tensor, " m"] | None, num: int) -> Float[Tensor, "n 2"]:
    """A leaf with the one camera's values, whose `.grad` receives what `backward()` finds for gsplat's tensor.

    gsplat's tensor is [1 n 2], or [m 2] with the indices of the m visible Gaussians where it is packed.
    """
    leaf = _unpacked(means2d.detach(), gaussian_ids, num).clone()
    if means2d.requires_grad:
        leaf.requires_grad_()

        def receive(gradient: Tensor) -> None:
            found = _unpacked(gradient, gaussian_ids, num)
            leaf.grad = found if leaf.grad is None else leaf.grad + found

        means2d.register_hook(receive)
    return leaf


def _unpacked(values: Tensor, gaussian_ids: Int64[Tensor, " m"] | None, num: int) -> Tensor:
    """One row per Gaussian; zeros where it is not visible."""
    if gaussian_ids is None:
        return values[0]
    rows = values.new_zeros((num, *values.shape[1:]))
    rows[gaussian_ids] = values
    return rows


def _largest_radii(radii: Tensor, gaussian_ids: Int64[Tensor, " m"] | None, num: int) -> Float[Tensor, " n"]:
    """Half the larger side of each box in pixels; gsplat up to 1.4 gave one number, later ones one per axis."""
    rows = _unpacked(radii, gaussian_ids, num)
    return (rows if rows.ndim == 1 else rows.amax(dim=-1)).float()


class SharedGsplatRasterizer:
    """gsplat's distributed mode; every process must render at the same time, images of the same size."""

    def __init__(self, config: RenderConfig = DEFAULT_CONFIG) -> None:
        self.config = config

    def __call__(
        self, gaussians: Gaussians, camera: Camera, *, sh_degree: int, background: Float[Tensor, " c=3"] | None = None
    ) -> SharedRenderOutput:
        """Render this process's photo from everybody's Gaussians."""
        batch, meta = _rendered(
            gaussians, [camera], sh_degree=sh_degree, background=background, config=self.config, distributed=True
        )
        stats = tuple(
            RenderStats(means2d=means2d, radii_px=radii, width=camera.width, height=camera.height)
            for means2d, radii in zip(
                _watched_per_camera(meta["means2d"]), meta["radii"].amax(dim=-1).float(), strict=True
            )
        )
        return SharedRenderOutput(
            rgb=batch.rgb[0], alpha=batch.alpha[0], depth=batch.depth[0], stats=stats[0], all_stats=stats
        )


def _watched_per_camera(means2d: Float[Tensor, "cameras n 2"]) -> list[Float[Tensor, "n 2"]]:
    """A leaf per camera that receives the gradient which `backward()` finds for its part of gsplat's tensor."""
    leaves = [part.detach().clone().requires_grad_(means2d.requires_grad) for part in means2d]
    if means2d.requires_grad:

        def receive(gradient: Tensor) -> None:
            for leaf, part in zip(leaves, gradient, strict=True):
                leaf.grad = part

        means2d.register_hook(receive)
    return leaves


def selective_adam(groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """Gsplat's Adam for CUDA, whose `step` takes a mask of the Gaussians to update."""
    from gsplat import SelectiveAdam

    return SelectiveAdam(groups, eps=eps, betas=betas)
