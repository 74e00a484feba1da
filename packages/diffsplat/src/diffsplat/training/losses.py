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
from diffsplat.training.config import GSReconTrainConfig, GSVAETrainConfig
from diffsplat.training.views import ObjectViews
from image_metrics import psnr

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Takes two batches of images in [-1, 1] and gives one distance per image."""

OFF_WEIGHT = 0.05
"""What pixels off the object count in the error of maps, against those on it."""

ON_FRACTION = 0.7
"""A place is on the object if it covers at least this share of a pixel there: less would make silhouettes too wide."""

SOLID = 0.98
"""Opacity on the object."""

DISK_PIXELS = 0.57
"""Standard deviation of the disks in pixels at the origin's distance: of some tried, renders came nearest with it."""


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


def render_terms(
    views: RenderedViews,
    batch: ObjectViews,
    config: GSReconTrainConfig | GSVAETrainConfig,
    perceptual: Perceptual | None,
) -> dict[str, Float[Tensor, ""]]:
    """The means of `render_losses` against a batch, times their weights."""
    found = render_losses(views, batch.rgb, batch.mask, perceptual=perceptual)
    weights = {"lpips": config.lpips_weight}
    return {name: weights.get(name, config.render_weight) * values.mean() for name, values in found.items()}


def psnr_of_views(rgb: Float[Tensor, "b v 3 h w"], truth: Float[Tensor, "b v 3 h w"]) -> list[float]:
    """PSNR of every view in dB, object after object."""
    pairs = zip(rgb.flatten(0, 1), truth.flatten(0, 1), strict=True)
    return [psnr(one.permute(1, 2, 0), other.permute(1, 2, 0)) for one, other in pairs]


def _at_size(images: Float[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 y x"]:
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def map_loss(grids: SplatGrids, views: ObjectViews) -> Float[Tensor, ""]:
    """How far grids are from `wanted_grids`."""
    wanted, on = wanted_grids(views)
    return map_errors(grids.channels().movedim(2, -1), wanted.movedim(2, -1), on.movedim(2, -1))


def wanted_grids(views: ObjectViews) -> tuple[Float[Tensor, "b i c=12 h w"], Float[Tensor, "b i 1 h w"]]:
    """Grids that ray-cast maps amount to, and where the object is.

    On the object: its color and depth, and disks along its surface, a little wider than a pixel. Off it white,
    transparent, at the origin's distance and level, which nobody sees and which is simple. The maps are taken where the
    Gaussians of the grid's pixels lie, which is not quite the pixels' middles (see `cameras.unprojected`).
    """
    num = views.num_inputs
    color, mask, depth, normal = _at_grid_places(
        [views.rgb[:, :num], views.mask[:, :num], views.depth * views.mask[:, :num], views.normal]
    )
    on = (mask > ON_FRACTION).to(mask)
    covered = mask.clamp(min=ON_FRACTION)
    # Colors and normals were over white, depths over 0.
    depth = on * (depth / covered - RADIUS)
    normal = 2 * (normal - (1 - covered)) / covered - 1
    up = torch.zeros_like(normal)
    up[:, :, 1] = 1
    normal = functional.normalize(torch.where(on > 0, normal, up), dim=2)
    x, y, z = normal.unbind(dim=2)
    # The turn that takes the y axis, along which the disks are thin, to the normal.
    rotation = functional.normalize(torch.stack([1 + y, z, torch.zeros_like(x), -x], dim=2), dim=2)
    wide = _scale_value(DISK_PIXELS * RADIUS / (FOCAL * views.rgb.shape[-1]))
    scale = torch.tensor([wide, 1.0, wide], device=mask.device)[:, None, None].expand_as(color)
    return torch.cat([2 * color - 1, scale, rotation, 2 * SOLID * on - 1, depth], dim=2), on


def _at_grid_places(maps: list[Tensor]) -> list[Tensor]:
    """Maps of views where a grid's Gaussians lie: from edge to edge, instead of from middle to middle of pixels."""
    joined = torch.cat(maps, dim=2)
    height, width = joined.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=joined.device)
    columns = torch.linspace(-1, 1, width, device=joined.device)
    places = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1)
    flat = joined.flatten(0, 1)
    found = functional.grid_sample(
        flat, places.expand(len(flat), -1, -1, -1), padding_mode="border", align_corners=False
    )
    return list(found.unflatten(0, joined.shape[:2]).split([one.shape[2] for one in maps], dim=2))


def _scale_value(std: float) -> float:
    """The scale channels' value of a standard deviation in scene units, within their range."""
    return 2 * min(max((LARGEST_SCALE - std) / (LARGEST_SCALE - SMALLEST_SCALE), 0.0), 1.0) - 1


def map_errors(
    channels: Float[Tensor, "*n c=12"], wanted: Float[Tensor, "*n c=12"], on: Float[Tensor, "*n 1"]
) -> Float[Tensor, ""]:
    """The error of `map_loss` on pixels of any order."""
    errors = (channels - wanted).square()
    rgb, scale, rotation, opacity, depth = (
        part.mean(dim=-1, keepdim=True) for part in errors.split(list(CHANNELS.values()), dim=-1)
    )
    weight = on + OFF_WEIGHT * (1 - on)
    seen = (rgb + scale + rotation + 10 * depth) * weight
    return seen.sum() / weight.sum().clamp(min=1) + 0.5 * opacity.mean()
