"""The evidence for a fix, from render, fix and reference alone.

Three observations, made on renders of real scenes with known photos:

- A fixer that redraws texture, blurs, sharpens, shifts by a pixel, or gives the picture another tone changes nothing at
  the scale of a thirty-second of the image, once a change of brightness and contrast of the whole is taken out. What
  is wrong with bad renders, misplaced things, fog and holes, is wrong at that scale. So the size of the coarse change
  is the evidence at a place.
- Bad renders have it in many places, good ones nowhere, or in few: there it is an invented object, or something black
  that was taken for a hole. So the fraction of the image with evidence, the coverage, decides how much comes
  through, and once it is high, finer changes come through as well.
- A fix that takes the colors of the whole away from those of the reference is not let through.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from difix_model.errors import InputError
from difix_model.gate.config import EvidenceConfig
from difix_model.images import ROWS_AT_ONCE

PALETTE_LEVELS = 64
"""Levels at which the distributions of two images' colors are compared."""

_TINY = 1e-6
_FLAT = 1e-4
"""Variance of a channel below which its contrast is not to be told."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ChangeEvidence:
    """What was measured of a batch of changes, and what follows."""

    coverage: Float[Tensor, " b"]
    """Fraction of each image where the change is coarse, in [0, 1]."""

    palette_drift: Float[Tensor, " b"] | None
    """How far the colors move away from the reference's, in [-1, 1]; None without references."""

    coverage_confidence: Float[Tensor, " b"]
    """How far each image's change is let through by its coverage, in [0, 1]."""

    palette_confidence: Float[Tensor, " b"]
    """And by its colors, in [0, 1]."""

    confidence: Float[Tensor, "b h w"]
    """How far the change is let through at every pixel, in [0, 1]; both of the above are in it."""


def change_evidence(
    rendered: Float[Tensor, "b h w c=3"],
    fixed: Float[Tensor, "b h w c=3"],
    config: EvidenceConfig,
    *,
    references: Float[Tensor, "b h2 w2 c=3"] | None = None,
) -> ChangeEvidence:
    """Measure the evidence for a change; images do not influence each other.

    Args:
        rendered: RGB in [0, 1] before the network.
        fixed: RGB in [0, 1] after it.
        references: One per image, if there are any; of any size.
    """
    if references is not None and references.shape[0] != rendered.shape[0]:
        raise InputError(f"got {rendered.shape[0]} images, {references.shape[0]} references")
    height, width = rendered.shape[1:3]
    before, after = _cells(rendered, config.cells), _cells(fixed, config.cells)
    found = _coarse_change(before, after)
    coverage = _step(found, config.low_change, config.high_change).mean(dim=(1, 2, 3), keepdim=True)
    by_coverage = _step(coverage, config.low_coverage, config.high_coverage)
    by_palette, drift = torch.ones_like(by_coverage), None
    if references is not None:
        drift = _palette_drift(before, after, _cells(references, config.cells))
        by_palette = 1 - _step(drift[:, None, None, None], config.palette_drift / 3, config.palette_drift)
    belief = by_coverage * by_palette
    low = config.low_change * (1 - config.hysteresis * belief)
    high = config.high_change * (1 - 0.75 * config.hysteresis * belief)
    confidence = belief * _step(found, low, high)
    return ChangeEvidence(
        coverage=coverage[:, 0, 0, 0],
        palette_drift=drift,
        coverage_confidence=by_coverage[:, 0, 0, 0],
        palette_confidence=by_palette[:, 0, 0, 0],
        confidence=functional.interpolate(confidence, size=(height, width), mode="bilinear", align_corners=False)[:, 0],
    )


def _coarse_change(before: Float[Tensor, "b c h2 w2"], after: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 1 h2 w2"]:
    """Root mean square of the change around every cell, without that of the whole image's tone."""
    change = after - _with_tone_of(before, after)
    coarse = functional.avg_pool2d(change, 3, stride=1, padding=1, count_include_pad=False)
    size = coarse.square().mean(dim=1, keepdim=True)
    return functional.avg_pool2d(size, 3, stride=1, padding=1, count_include_pad=False).sqrt()


def _with_tone_of(before: Float[Tensor, "b c h2 w2"], after: Float[Tensor, "b c h2 w2"]) -> Tensor:
    """Bring one image to the other by the best brightness and contrast of every channel."""
    mean, wanted_mean = before.mean(dim=(2, 3), keepdim=True), after.mean(dim=(2, 3), keepdim=True)
    centered = before - mean
    covariance = (centered * (after - wanted_mean)).mean(dim=(2, 3), keepdim=True)
    return covariance / (centered.square().mean(dim=(2, 3), keepdim=True) + _FLAT) * centered + wanted_mean


def _palette_drift(before: Tensor, after: Tensor, reference: Tensor) -> Float[Tensor, " b"]:
    """How far the colors as a whole move away from the reference's, as a share of how far they move; in [-1, 1]."""
    before, after, wanted = _palette(before), _palette(after), _palette(reference)
    moved = (after - before).abs().mean(dim=(1, 2))
    away = (after - wanted).abs().mean(dim=(1, 2)) - (before - wanted).abs().mean(dim=(1, 2))
    return away / (moved + 1e-3)


def _palette(image: Float[Tensor, "b c=3 h2 w2"]) -> Float[Tensor, "b a l"]:
    """Sorted values of the colors, of brightness and of two differences of colors."""
    colors = rearrange(image, "b c h w -> b c (h w)")
    red, green, blue = colors.unbind(dim=1)
    further = torch.stack([colors.mean(dim=1), red - green, (red + green) / 2 - blue], dim=1)
    levels = torch.linspace(0.02, 0.98, PALETTE_LEVELS, device=image.device)
    return rearrange(torch.quantile(torch.cat([colors, further], dim=1), levels, dim=2), "l b a -> b a l")


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
    fraction = ((value - low) / (torch.as_tensor(high - low)).clamp(min=_TINY)).clamp(0.0, 1.0)
    return fraction * fraction * (3 - 2 * fraction)
