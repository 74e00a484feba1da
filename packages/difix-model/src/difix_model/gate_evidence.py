"""How much there is to say for a fix, from render, fix and reference alone.

Three observations, made on renders of real scenes with known photos:

- A fixer that redraws texture, blurs, sharpens, shifts by a pixel, or gives the picture another tone changes nothing at
  the scale of a thirty-second of the image, once a change of brightness and contrast of the whole is taken out. What
  is wrong with bad renders, misplaced things, fog and holes, is wrong at that scale. So the size of the coarse change
  is the evidence at a place.
- Bad renders have it in many places, good ones nowhere, or in few: there it is an invented object, or something black
  that was taken for a hole. So the share of the image with evidence decides how far it is believed, and once there is
  much of it, finer changes come through as well.
- A fix that takes the colours of the whole away from those of the reference is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from difix_model.errors import InputError
from difix_model.images import ROWS_AT_ONCE

PALETTE_LEVELS = 64
"""Levels at which the distributions of two images' colours are compared."""

_TINY = 1e-6
_FLAT = 1e-4
"""Variance of a channel below which its contrast is not to be told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceConfig:
    """When a change is believed. Changes are root mean squares over colours, in [0, 1]."""

    cells: int = 32
    """Cells along the longer side of the image; a change is averaged over about three of them."""

    doubted_change: float = 0.02
    """Coarse changes up to this are no evidence."""

    believed_change: float = 0.06
    """Coarse changes from this on are."""

    doubted_share: float = 0.2
    """With evidence in this share of the image or less, nothing is let through, in [0, 1]."""

    believed_share: float = 0.4
    """With evidence in this share of the image or more, what is found is believed in full, in [0, 1]."""

    ease: float = 0.8
    """How far `doubted_change` is lowered for images that are believed in full, in [0, 1]; `believed_change` goes down
    three quarters as far."""

    palette_drift: float = 0.6
    """With a reference: a fix whose colours as a whole move away from the reference's by this share of their own change
    is not believed at all, from a third of it on less and less. Above 0; from 1 on it has hardly any effect."""

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ValueError(f"evidence.cells must be at least 1, got {self.cells}")
        for low, high in (("doubted_change", "believed_change"), ("doubted_share", "believed_share")):
            if not 0 <= getattr(self, low) < getattr(self, high) <= 1:
                raise ValueError(
                    f"evidence.{low} and evidence.{high} must be in [0, 1] and increase, got {getattr(self, low)} and "
                    f"{getattr(self, high)}"
                )
        if not 0 <= self.ease <= 1:
            raise ValueError(f"evidence.ease must be in [0, 1], got {self.ease}")
        if self.palette_drift <= 0:
            raise ValueError(f"evidence.palette_drift must be above 0, got {self.palette_drift}")


def change_trust(
    rendered: Float[Tensor, "b h w c=3"],
    fixed: Float[Tensor, "b h w c=3"],
    config: EvidenceConfig,
    *,
    references: Float[Tensor, "b h2 w2 c=3"] | None = None,
) -> Float[Tensor, "b h w"]:
    """Return the share of the change that is to be believed, in [0, 1]; images do not influence each other.

    Args:
        rendered: RGB in [0, 1] before the network.
        fixed: RGB in [0, 1] after it.
        config: When a change is believed.
        references: One per image, if there are any; of any size.
    """
    if references is not None and references.shape[0] != rendered.shape[0]:
        raise InputError(f"got {rendered.shape[0]} images, {references.shape[0]} references")
    height, width = rendered.shape[1:3]
    before, after = _cells(rendered, config.cells), _cells(fixed, config.cells)
    found = _coarse_change(before, after)
    share = _step(found, config.doubted_change, config.believed_change).mean(dim=(1, 2, 3), keepdim=True)
    belief = _step(share, config.doubted_share, config.believed_share)
    if references is not None:
        drift = _palette_drift(before, after, _cells(references, config.cells))[:, None, None, None]
        belief = belief * (1 - _step(drift, config.palette_drift / 3, config.palette_drift))
    doubted = config.doubted_change * (1 - config.ease * belief)
    believed = config.believed_change * (1 - 0.75 * config.ease * belief)
    trust = belief * _step(found, doubted, believed)
    return functional.interpolate(trust, size=(height, width), mode="bilinear", align_corners=False)[:, 0]


def _coarse_change(before: Float[Tensor, "b c h2 w2"], after: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 1 h2 w2"]:
    """Root mean square of the change around every cell, without that of the whole image's tone."""
    change = after - _with_tone_of(before, after)
    coarse = functional.avg_pool2d(change, 3, stride=1, padding=1, count_include_pad=False)
    size = coarse.square().mean(dim=1, keepdim=True)
    return functional.avg_pool2d(size, 3, stride=1, padding=1, count_include_pad=False).sqrt()


def _with_tone_of(before: Float[Tensor, "b c h2 w2"], after: Float[Tensor, "b c h2 w2"]) -> Tensor:
    """Bring one image to the other by the best brightness and contrast of every channel."""
    mean, wanted_mean = before.mean(dim=(2, 3), keepdim=True), after.mean(dim=(2, 3), keepdim=True)
    centred = before - mean
    covariance = (centred * (after - wanted_mean)).mean(dim=(2, 3), keepdim=True)
    return covariance / (centred.square().mean(dim=(2, 3), keepdim=True) + _FLAT) * centred + wanted_mean


def _palette_drift(before: Tensor, after: Tensor, reference: Tensor) -> Float[Tensor, " b"]:
    """How far the colours as a whole move away from the reference's, as a share of how far they move; in [-1, 1]."""
    before, after, wanted = _palette(before), _palette(after), _palette(reference)
    moved = (after - before).abs().mean(dim=(1, 2))
    away = (after - wanted).abs().mean(dim=(1, 2)) - (before - wanted).abs().mean(dim=(1, 2))
    return away / (moved + 1e-3)


def _palette(image: Float[Tensor, "b c=3 h2 w2"]) -> Float[Tensor, "b a l"]:
    """Sorted values of the colours, of brightness and of two differences of colours."""
    colours = rearrange(image, "b c h w -> b c (h w)")
    red, green, blue = colours.unbind(dim=1)
    further = torch.stack([colours.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    levels = torch.linspace(0.02, 0.98, PALETTE_LEVELS, device=image.device)
    return rearrange(torch.quantile(torch.cat([colours, further], dim=1), levels, dim=2), "l b a -> b a l")


def _cells(image: Float[Tensor, "b h w c"], cells: int) -> Float[Tensor, "b c h2 w2"]:
    height, width = image.shape[1:3]
    scale = cells / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    planes = rearrange(image, "b h w c -> b c h w")
    if height <= ROWS_AT_ONCE:
        return functional.adaptive_avg_pool2d(planes, size)
    # Row of cells by row of cells: pooling lays out a copy of what it is given.
    bounds = [(row * height // size[0], -((row + 1) * height // -size[0])) for row in range(size[0])]
    rows = [functional.adaptive_avg_pool2d(planes[:, :, start:end], (1, size[1])) for start, end in bounds]
    return torch.cat(rows, dim=2)


def _step(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    share = ((value - low) / (torch.as_tensor(high - low)).clamp(min=_TINY)).clamp(0.0, 1.0)
    return share * share * (3 - 2 * share)
