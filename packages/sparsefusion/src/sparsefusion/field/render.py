"""Volume rendering of the field: even samples along rays, then more where they found density (Mildenhall et al. 2020).

Rays need not be of length one: distances along a ray are in units of its direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsefusion.cameras import Cameras, grid_rays
from sparsefusion.field.network import Field

MISSED = torch.finfo(torch.float32).max
"""Start and end of rays that miss the cube."""

MIN_PDF = 1e-5
"""Added to weights before positions are drawn from them; narrower bins count as of width one."""

MIN_PASSED = 1e-15
"""Added to the share of light that passes a sample, so that products stay positive."""

Uniform = Callable[[tuple[int, ...]], Tensor]
"""Draws numbers in [0, 1) of a shape; two shapes are asked for per render, (rays, even samples) and (rays, further)."""


@dataclass(frozen=True)
class FieldRender:
    """What rays see of the field, before a black background."""

    rgb: Float[Tensor, "r 3"]
    """Colors in [0, 1]."""

    alpha: Float[Tensor, " r"]
    """Opacities in [0, 1]."""

    depth: Float[Tensor, " r"]
    """Mean place on the ray's part within the cube, from 0 at its start to 1 at its end; 0 for rays that miss it."""

    hits: Bool[Tensor, " r"]
    """Rays that meet the cube."""


def near_far(
    field: Field, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Where rays enter and leave the cube, in units of their directions; both are `MISSED` for rays that miss it."""
    low, high = field.aabb_train.view(2, 3)
    inverse = 1 / directions
    a, b = (low - origins) * inverse, (high - origins) * inverse
    near = torch.minimum(a, b).amax(dim=-1)
    far = torch.maximum(a, b).amin(dim=-1)
    missed = ~(near <= far)
    near = near.clamp_min(field.config.min_near)
    missed = missed | (far < near)
    return near.masked_fill(missed, MISSED), far.masked_fill(missed, MISSED)


def _weights(
    places: Float[Tensor, "r s"], densities: Float[Tensor, "r s"], last: Float[Tensor, "r 1"]
) -> Float[Tensor, "r s"]:
    """Share of the light of every sample that reaches the camera."""
    lengths = torch.cat([places[:, 1:] - places[:, :-1], last], dim=-1)
    alphas = 1 - torch.exp(-lengths * densities)
    passed = torch.cumprod(torch.cat([torch.ones_like(last), 1 - alphas + MIN_PASSED], dim=-1), dim=-1)
    return alphas * passed[:, :-1]


def _draw_places(
    bins: Float[Tensor, "r b"], weights: Float[Tensor, "r w"], quantiles: Float[Tensor, "r q"]
) -> Float[Tensor, "r q"]:
    """Invert the cumulative distribution of weights over bins, linearly within each."""
    pdf = weights + MIN_PDF
    cdf = torch.cumsum(pdf / pdf.sum(dim=-1, keepdim=True), dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=-1)
    index = torch.searchsorted(cdf, quantiles.contiguous(), right=True)
    below, above = (index - 1).clamp_min(0), index.clamp_max(cdf.shape[-1] - 1)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    start, end = bins.gather(-1, below), bins.gather(-1, above)
    width = cdf_above - cdf_below
    width = torch.where(width < MIN_PDF, torch.ones_like(width), width)
    return start + (quantiles - cdf_below) / width * (end - start)


def render_rays(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    *,
    uniform: Uniform | None = None,
) -> FieldRender:
    """Render rays.

    Args:
        directions: Where they go; their length is the unit of places along them.
        uniform: Moves samples about by random numbers, as training needs; None puts them in the middle.
    """
    config = field.config
    low, high = field.aabb_train.view(2, 3)
    near, far = near_far(field, origins, directions)
    hits = near < far
    # Rays that miss the cube are sampled at their origin only, over no length, so that they see nothing.
    near, far = (bound.masked_fill(~hits, 0.0)[:, None] for bound in (near, far))
    spacing = (far - near) / config.num_steps
    places = near + (far - near) * torch.linspace(0, 1, config.num_steps, device=origins.device)
    if uniform is not None:
        places = places + (uniform(tuple(places.shape)) - 0.5) * spacing

    def query(places: Float[Tensor, "r s"]) -> tuple[Tensor, Tensor]:
        points = origins[:, None] + directions[:, None] * places[..., None]
        points = points.clamp(low, high)
        densities, colors = field(points.reshape(-1, 3))
        return densities.view(places.shape), colors.view(*places.shape, 3)

    densities, colors = query(places)
    if config.num_importance:
        with torch.no_grad():
            weights = _weights(places, densities, spacing)
            middles = (places[:, 1:] + places[:, :-1]) / 2
            shape = (len(places), config.num_importance)
            if uniform is not None:
                quantiles = uniform(shape)
            else:
                half = 0.5 / config.num_importance
                line = torch.linspace(half, 1 - half, config.num_importance, device=origins.device)
                quantiles = line.expand(shape)
            further = _draw_places(middles, weights[:, 1:-1], quantiles)
        more_densities, more_colors = query(further)
        places, order = torch.sort(torch.cat([places, further], dim=-1), dim=-1)
        densities = torch.cat([densities, more_densities], dim=-1).gather(-1, order)
        colors = torch.cat([colors, more_colors], dim=1).gather(1, order[..., None].expand(-1, -1, 3))
    weights = _weights(places, densities, spacing)
    fraction = ((places - near) / (far - near).masked_fill(~hits[:, None], 1.0)).clamp(0, 1)
    return FieldRender(
        rgb=(weights[..., None] * colors).sum(dim=1),
        alpha=weights.sum(dim=1),
        depth=(weights * fraction).sum(dim=1),
        hits=hits,
    )


@dataclass(frozen=True)
class FieldImage:
    """A render as an image."""

    rgb: Float[Tensor, "1 3 h w"]
    """Colors in [0, 1] before a black background."""

    alpha: Float[Tensor, "1 1 h w"]
    """Opacities in [0, 1]."""

    depth: Float[Tensor, "1 1 h w"]
    """See `FieldRender.depth`."""


def render_image(
    field: Field, camera: Cameras, size: int, *, image_size: int = 256, uniform: Uniform | None = None
) -> FieldImage:
    """Render what one camera sees.

    Args:
        camera: One camera, in the field's axes.
        size: Rays per side.
        image_size: Side of the image whose pixel centers the rays span.
        uniform: Moves samples about by random numbers; None puts them in the middle.

    Without gradients, rays are rendered in chunks that bound the memory (`FieldConfig.max_points`).
    """
    rays = grid_rays(camera, size, image_size)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    chunk = len(origins)
    if not torch.is_grad_enabled():
        chunk = max(1, field.config.max_points // (field.config.num_steps + field.config.num_importance))
    parts = [
        render_rays(field, origins[at : at + chunk], directions[at : at + chunk], uniform=uniform)
        for at in range(0, len(origins), chunk)
    ]

    def image(values: list[Tensor]) -> Tensor:
        return torch.cat(values).view(1, size, size, -1).permute(0, 3, 1, 2)

    return FieldImage(
        image([part.rgb for part in parts]),
        image([part.alpha for part in parts]),
        image([part.depth for part in parts]),
    )
