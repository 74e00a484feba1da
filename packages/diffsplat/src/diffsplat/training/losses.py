"""Losses of renders and of grids, and what diffusion trainings compare."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diffsplat.cameras import FOCAL, RADIUS
from diffsplat.render import RenderedViews
from diffsplat.splat_grids import CHANNELS, LARGEST_SCALE, SMALLEST_SCALE, SplatGrids
from diffsplat.training.views import ObjectViews

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Takes two batches of images in [-1, 1] and gives one distance per image."""

OFF_WEIGHT = 0.05
"""What pixels off the object count in the error of maps, against those on it."""


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
    """How far grids are from what the ray-cast maps say.

    On the object: its color and depth, and Gaussians about as wide as a pixel. Off it: white, at the origin's distance.
    Opacity and an unturned frame everywhere. What is off the object is not seen, and is only kept simple.
    """
    on = (views.mask[:, : views.num_inputs] > 0.5).to(grids.depth)
    return map_errors(
        grids.channels().movedim(2, -1), wanted_maps(views).movedim(2, -1), on.movedim(2, -1),
        pixel_scale(views.rgb.shape[-1]),
    )  # fmt: skip


def wanted_maps(views: ObjectViews) -> Float[Tensor, "b i c=4 h w"]:
    """Color in [-1, 1] and depth relative to the cameras' distance, of the input views."""
    color = 2 * views.rgb[:, : views.num_inputs] - 1
    return torch.cat([color, torch.where(views.depth > 0, views.depth - RADIUS, 0)], dim=2)


def pixel_scale(size: int) -> float:
    """The scale channels' value of Gaussians of 0.35 pixels at the origin's distance, within their range."""
    std = 0.35 * RADIUS / (FOCAL * size)
    share = (LARGEST_SCALE - std) / (LARGEST_SCALE - SMALLEST_SCALE)
    return 2 * min(max(share, 0.0), 1.0) - 1


def map_errors(
    channels: Float[Tensor, "*n c=12"],
    wanted: Float[Tensor, "*n c=4"],
    on: Float[Tensor, "*n 1"],
    scale: float,
) -> Float[Tensor, ""]:
    """The error of `map_loss` on pixels of any order.

    Args:
        channels: Of a network.
        wanted: Color and depth, of `wanted_maps`.
        on: 1 on the object, else 0.
        scale: What the scale channels are to be, of `pixel_scale`.
    """
    rgb, scales, rotation, opacity, depth = channels.split(list(CHANNELS.values()), dim=-1)
    weight = on + OFF_WEIGHT * (1 - on)
    total = weight.sum().clamp(min=1)
    unturned = torch.zeros_like(rotation)
    unturned[..., 0] = 1

    def mean(errors: Tensor) -> Tensor:
        return (errors.mean(dim=-1, keepdim=True) * weight).sum() / total

    return (
        mean((rgb - wanted[..., :3]).square())
        + 10 * mean((depth - wanted[..., 3:]).square())
        + mean((scales - scale).square())
        + 0.2 * mean((rotation - unturned).square())
        + 0.5 * (opacity - (2 * on - 1)).square().mean()
    )
