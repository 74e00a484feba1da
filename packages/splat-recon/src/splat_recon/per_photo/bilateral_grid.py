"""A bilateral grid of affine color maps per photo (Wang et al. 2024, arXiv:2406.00448).

The map of a pixel is read, with trilinear interpolation, at its place in the image and at its brightness, so it may
differ across the image and between dark and bright. Total variation keeps the grid smooth.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from splat_recon.per_photo.configs import BilateralGridConfig
from splat_recon.per_photo.table import PerViewEmbedding
from splat_render.upload import constant

LUMINANCE = (0.299, 0.587, 0.114)
"""Brightness of RGB (ITU-R BT.601)."""


class BilateralGrid:
    """Affine maps of RGB by place and brightness, learned per photo; see `Appearance`."""

    def __init__(
        self, config: BilateralGridConfig, names: Sequence[str], *, max_steps: int, rate_factor: float, device: str
    ) -> None:
        self.config = config
        self.table = PerViewEmbedding(
            names,
            (12, config.levels, config.height, config.width),
            rate=config.rate * rate_factor,
            final_ratio=config.rate_final_ratio,
            max_steps=max_steps,
            device=device,
        )

    def adjust_color(self, rgb: Float[Tensor, "h w 3"], name: str) -> Float[Tensor, "h w 3"]:
        """See `Appearance.adjust_color`."""
        change = self.table.row(name)
        if change is None:
            return rgb
        affine = sliced(change - self.table.values.mean(dim=0), rgb)
        return rgb + torch.einsum("ijhw,hwj->hwi", affine[:, :3], rgb) + affine[:, 3].permute(1, 2, 0)

    def penalty(self, name: str) -> Float[Tensor, ""] | float:
        """The total variation of the photo's grid, weighted."""
        change = self.table.row(name)
        return 0.0 if change is None else self.config.smoothness * total_variation(change)


def sliced(grid: Float[Tensor, "12 levels rows columns"], rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "3 4 h w"]:
    """The affine map of each pixel. Cells span the image from edge to edge and brightness from 0 to 1."""
    height, width = rgb.shape[:2]
    x = (torch.arange(width, device=rgb.device) + 0.5) * (2 / width) - 1
    y = (torch.arange(height, device=rgb.device) + 0.5) * (2 / height) - 1
    brightness = rgb @ constant(LUMINANCE, rgb.device) * 2 - 1
    where = torch.stack([x.expand(height, width), y[:, None].expand(height, width), brightness], dim=-1)
    maps = grid_sample(grid[None], where[None, None], mode="bilinear", padding_mode="border", align_corners=True)
    return maps[0, :, 0].unflatten(0, (3, 4))


def total_variation(grid: Float[Tensor, "12 levels rows columns"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbors, summed over the three axes."""
    return sum((grid.diff(dim=axis).square().mean() for axis in (1, 2, 3)), start=grid.new_zeros(()))
