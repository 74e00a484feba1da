"""Settings of rendering; imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from output_files import check_range


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """Numerical conventions of rendering; the defaults are gsplat 1.5.3's."""

    near: float = 0.01
    """Gaussians whose center is nearer than this z-depth (scene units) are not drawn; above 0."""
    far: float = 1e10
    """Gaussians whose center is farther than this z-depth (scene units) are not drawn."""
    eps2d: float = 0.3
    """Variance in square pixels added to every projected Gaussian, so that none is thinner than a pixel."""
    max_alpha: float = 0.999
    """Largest opacity one Gaussian may have at a pixel, in (0, 1). gsplat 1.5.3: 0.999; 1.6: 0.99. CPU only."""
    antialiased: bool = False
    """Lower the opacity of Gaussians that `eps2d` widened, so that they keep their total weight."""
    absgrad: bool = False
    """Let the backward also sum the absolute values of every pixel's gradient of the projected centers (AbsGS); see
    `RenderStats.means2d_absgrad`."""
    packed: bool = False
    """Let gsplat keep visible Gaussians only between its kernels: slower and smaller. CUDA only."""
    sparse_grad: bool = False
    """Let gsplat give sparse gradients of centers, rotations and scales; needs `packed`. CUDA only."""
    depth: bool = True
    """Whether depths are wanted. Without them, gsplat renders three channels in place of four and
    `RenderOutput.depth` is zero everywhere; the CPU rasterizer finds them in any case."""
    num_threads: int = 0
    """Threads of the CPU rasterizer; 0 takes every core this process may use. Results do not depend on it."""

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ValueError(f"near and far must satisfy 0 < near < far, got near={self.near}, far={self.far}")
        check_range(self, "at least 0", "eps2d", "num_threads")
        check_range(self, "in (0, 1)", "max_alpha")
        if (self.sparse_grad and not self.packed) or (self.absgrad and self.packed):
            raise ValueError("sparse_grad needs packed, and packed does not go with absgrad")

    @property
    def threads(self) -> int:
        """The number of threads that `num_threads` stands for on this machine."""
        if self.num_threads:
            return self.num_threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
