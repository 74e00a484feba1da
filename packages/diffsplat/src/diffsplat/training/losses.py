"""Losses of renders and of grids, and what diffusion trainings compare."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diffsplat.cameras import RADIUS
from diffsplat.render import RenderedViews
from diffsplat.splat_grids import SplatGrids
from diffsplat.training.views import ObjectViews

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Takes two batches of images in [-1, 1] and gives one distance per image."""


def render_losses(
    views: RenderedViews,
    rgb: Float[Tensor, "b v 3 h w"],
    mask: Float[Tensor, "b v 1 h w"],
    *,
    perceptual: Perceptual | None = None,
    perceptual_size: int = 256,
) -> dict[str, Float[Tensor, " b"]]:
    """Squared errors of color and opacity, and a perceptual distance where one is given; one value per object."""
    terms = {
        "rgb": (views.rgb - rgb).square().mean(dim=(1, 2, 3, 4)),
        "mask": (views.alpha - mask).square().mean(dim=(1, 2, 3, 4)),
    }
    if perceptual is not None:
        pair = [_at_size(values.flatten(0, 1), perceptual_size) * 2 - 1 for values in (views.rgb, rgb)]
        terms["lpips"] = perceptual(*pair).reshape(rgb.shape[:2]).mean(dim=1)
    return terms


def _at_size(images: Float[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 y x"]:
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def map_loss(grids: SplatGrids, views: ObjectViews) -> Float[Tensor, ""]:
    """How far the grids are from what the ray-cast maps say: depth and color on the object, opacity everywhere."""
    on = (views.mask[:, : views.num_inputs] > 0.5).to(grids.depth)
    wanted = views.depth - RADIUS
    share = on.sum().clamp(min=1)
    depth = ((grids.depth - wanted).square() * on).sum() / share
    color = ((grids.rgb - (2 * views.rgb[:, : views.num_inputs] - 1)).square() * on).sum() / (3 * share)
    opacity = (grids.opacity - (2 * on - 1)).square().mean()
    return 10 * depth + color + 0.5 * opacity
