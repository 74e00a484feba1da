"""The rasterizer's contract and the choice of a backend."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from splat_recon.gaussians.gaussians import Gaussians
from splat_recon.geometry.cameras import Camera
from splat_recon.render.config import RenderConfig
from splat_recon.render.output import RenderOutput

__all__ = ["MAX_SH_DEGREE", "Rasterizer", "RenderConfig", "check_request", "make_rasterizer"]

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
        config: Numerical conventions.

    Raises:
        ValueError: If the device is of another kind.
        RuntimeError: If CUDA was asked for and gsplat cannot use it; the message holds the reason.
    """
    kind = str(device).split(":")[0]
    if kind == "cpu":
        from splat_recon.render.cpu_backend import CpuRasterizer

        return CpuRasterizer(config)
    if kind == "cuda":
        from splat_recon.render.gsplat_backend import GsplatRasterizer

        return GsplatRasterizer(config, device=device)
    raise ValueError(f'device must be "cpu" or "cuda", got {device!r}; pass one of those')
