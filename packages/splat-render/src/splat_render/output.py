"""What a rasterizer returns."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderStats:
    """What densification needs to know about one render."""

    means2d: Float[Tensor, "n 2"]
    """Projected centers in pixels, (0, 0) the top-left corner; those of culled Gaussians mean nothing. After
    `backward()` its `.grad` holds the loss's gradient in 1/pixels. It is there to be read: a loss put on `means2d`
    itself does not reach the Gaussians."""
    radii_px: Float[Tensor, " n"]
    """Half the larger side of the box that bounds the Gaussian in the image, whole pixels; 0 = culled."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    absgrad_holder: Tensor | None = None
    """The tensor on which `backward()` leaves its `absgrad`; read `means2d_absgrad` instead."""

    @property
    def means2d_absgrad(self) -> Float[Tensor, "n 2"] | None:
        """Sum over pixels of the absolute gradient of `means2d`, 1/pixels; what AbsGS decides densification by.

        None before `backward()`, and always unless `RenderConfig.absgrad` asks for it. It is the last backward pass's:
        those of several do not add up.
        """
        absgrad = getattr(self.absgrad_holder, "absgrad", None)
        return absgrad if absgrad is None or absgrad.ndim == 2 else absgrad[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderOutput:
    """One rendered image."""

    rgb: Float[Tensor, "h w 3"]
    """Color over the background; at least 0, may exceed 1."""
    alpha: Float[Tensor, "h w 1"]
    """Accumulated opacity in [0, 1]."""
    depth: Float[Tensor, "h w 1"]
    """Expected z-depth in scene units, sum(w z) / sum(w); 0 where alpha is 0, and everywhere without
    `RenderConfig.depth`."""
    stats: RenderStats
    """Per-Gaussian by-products."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderBatch:
    """Images of several cameras of one size, in the cameras' order."""

    rgb: Float[Tensor, "b h w 3"]
    """Color over the background; at least 0, may exceed 1."""
    alpha: Float[Tensor, "b h w 1"]
    """Accumulated opacity in [0, 1]."""
    depth: Float[Tensor, "b h w 1"]
    """Expected z-depth in scene units, sum(w z) / sum(w); 0 where alpha is 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedRenderOutput(RenderOutput):
    """An image of this process's photo, with what density control needs of the photos of all."""

    all_stats: tuple[RenderStats, ...]
    """This process's Gaussians in the photo of each process."""
