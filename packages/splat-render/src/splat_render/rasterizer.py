"""The rasterizer's contract and the choice of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from splat_render.cameras import Camera
from splat_render.config import RenderConfig
from splat_render.gaussians import Gaussians
from splat_render.output import RenderBatch, RenderOutput

__all__ = ["MAX_SH_DEGREE", "Rasterizer", "RenderConfig", "check_request", "make_rasterizer", "rasterize"]

MAX_SH_DEGREE = 3
"""Highest degree of spherical harmonics that both backends draw."""

DEFAULT_CONFIG = RenderConfig()


@runtime_checkable
class Rasterizer(Protocol):
    """Renders Gaussians as one camera sees them; differentiable in every tensor of the Gaussians."""

    def __call__(
        self,
        gaussians: Gaussians,
        camera: Camera,
        *,
        sh_degree: int,
        background: Float[Tensor, " c=3"] | None = None,
    ) -> RenderOutput:
        """Render one image.

        Args:
            gaussians: What to draw, in the world that the camera's pose refers to.
            camera: Pinhole camera; gives the image size.
            sh_degree: Degree of spherical harmonics to use, at most `gaussians.sh_degree_max`.
            background: RGB behind everything; black when None.

        Raises:
            ValueError: If the degree is not available, or the tensors live on a device the backend cannot use.
        """
        ...


def check_request(gaussians: Gaussians, camera: Camera, sh_degree: int, *, kind: str) -> None:
    """Refuse what a backend for devices of this kind cannot draw.

    Raises:
        ValueError: The degree is not stored, the Gaussians live elsewhere, or the camera's K has a skew.
    """
    if not 0 <= sh_degree <= min(gaussians.sh_degree_max, MAX_SH_DEGREE):
        most = min(gaussians.sh_degree_max, MAX_SH_DEGREE)
        raise ValueError(f"sh_degree must be in [0, {most}] for these Gaussians, got {sh_degree}")
    if gaussians.device.type != kind:
        raise ValueError(f"this rasterizer draws Gaussians on {kind}, got {gaussians.device}; move them with .to()")
    if camera.K[0, 1] != 0:
        raise ValueError(f"K must have no skew, got {camera.K[0, 1]}; undistort the images first")


def make_rasterizer(device: str, config: RenderConfig = DEFAULT_CONFIG) -> Rasterizer:
    """Choose the backend for a device.

    Args:
        device: "cpu", or "cuda" with or without an index.

    Raises:
        ValueError: If the device is of another kind.
        RuntimeError: If CUDA was asked for and gsplat cannot use it; the message holds the reason.
    """
    kind = str(device).split(":")[0]
    if kind == "cpu":
        from splat_render.cpu.backend import CpuRasterizer

        return CpuRasterizer(config)
    if kind == "cuda":
        from splat_render.gsplat_backend import GsplatRasterizer

        return GsplatRasterizer(config, device=device)
    raise ValueError(f'device must be "cpu" or "cuda", got {device!r}; pass one of those')


def rasterize(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    background: Float[Tensor, " c=3"] | None = None,
    sh_degree: int | None = None,
    config: RenderConfig = DEFAULT_CONFIG,
) -> RenderBatch:
    """Render Gaussians as several cameras of one size see them, on the device where the Gaussians are.

    Differentiable in every tensor of the Gaussians. On CUDA all cameras go through gsplat in one call; on a CPU they
    are rendered one after the other, each on every core.

    Args:
        gaussians: What to draw, in the world that the cameras' poses refer to.
        cameras: At least one, all of the same width and height.
        background: RGB behind everything; black when None.
        sh_degree: Degree of spherical harmonics to use; the stored one, at most 3, when None.
        config: Numerical conventions; `eps2d=0` draws Gaussians as thin as they are.

    Raises:
        ValueError: There are no cameras, their sizes differ, one has a skew, or the degree is not stored.
        RuntimeError: The Gaussians are on CUDA and gsplat cannot use it; the message holds the reason.
    """
    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) != 1:
        raise ValueError(f"cameras must be at least one, all of one size, got sizes {sorted(sizes)}")
    degree = min(gaussians.sh_degree_max, MAX_SH_DEGREE) if sh_degree is None else sh_degree
    backend = make_rasterizer(str(gaussians.device), config)
    if gaussians.device.type == "cuda":
        from splat_render.gsplat_backend import rasterize_batch

        for camera in cameras:
            check_request(gaussians, camera, degree, kind="cuda")
        return rasterize_batch(gaussians, cameras, sh_degree=degree, background=background, config=config)
    outputs = [backend(gaussians, camera, sh_degree=degree, background=background) for camera in cameras]
    return RenderBatch(
        rgb=torch.stack([output.rgb for output in outputs]),
        alpha=torch.stack([output.alpha for output in outputs]),
        depth=torch.stack([output.depth for output in outputs]),
    )
