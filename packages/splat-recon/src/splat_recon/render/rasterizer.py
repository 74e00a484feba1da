"""The rasterizer's contract, its settings, and the choice of a backend."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor

    from splat_recon.gaussians.gaussians import Gaussians
    from splat_recon.geometry.cameras import Camera
    from splat_recon.render.output import RenderOutput


MAX_SH_DEGREE = 3
"""Highest degree of spherical harmonics that both backends draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """Numerical conventions of rendering; the defaults are gsplat 1.5.3's."""

    near: float = 0.01
    """Gaussians whose centre is nearer than this z-depth (scene units) are not drawn; above 0."""
    far: float = 1e10
    """Gaussians whose centre is farther than this z-depth (scene units) are not drawn."""
    eps2d: float = 0.3
    """Variance in square pixels added to every projected Gaussian, so that none is thinner than a pixel."""
    max_alpha: float = 0.999
    """Largest opacity one Gaussian may have at a pixel, in (0, 1). gsplat 1.5.3: 0.999; 1.6: 0.99. CPU only."""
    antialiased: bool = False
    """Lower the opacity of Gaussians that `eps2d` widened, so that they keep their total weight."""
    num_threads: int = 0
    """Threads of the CPU rasterizer; 0 takes every core this process may use. Results do not depend on it."""

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ValueError(f"near and far must satisfy 0 < near < far, got near={self.near}, far={self.far}")
        if not self.eps2d >= 0:
            raise ValueError(f"eps2d must be at least 0, got {self.eps2d}")
        if not 0 < self.max_alpha < 1:
            raise ValueError(f"max_alpha must be in (0, 1), got {self.max_alpha}")
        if self.num_threads < 0:
            raise ValueError(f"num_threads must be at least 0, got {self.num_threads}")

    @property
    def threads(self) -> int:
        """The number of threads that `num_threads` stands for on this machine."""
        if self.num_threads:
            return self.num_threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


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


def make_rasterizer(device: str, config: RenderConfig = RenderConfig()) -> Rasterizer:
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
