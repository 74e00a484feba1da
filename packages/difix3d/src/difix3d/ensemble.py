"""What several splats of the same photos show together, and how far they agree.

Splats of few photos err at random: trained from another seed or another start, they put their fog and floaters
elsewhere. Their median is closer to the truth than most of them (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Combine = Literal["median", "mean"]
"""How several renders become one; the median of an even number is the mean of the middle two."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EnsembleView:
    """One view as several splats show it."""

    rgb: Float[Tensor, "h w c=3"]
    """Their median or mean, sRGB in [0, 1]."""

    alpha: Float[Tensor, "h w"]
    """The mean of their opacities, in [0, 1]."""

    deviation: Float[Tensor, "h w"]
    """Standard deviation of their colors, mean over red, green and blue; 0 where there is one splat."""


@runtime_checkable
class ShownView(Protocol):
    """What one splat shows from a camera, as a rasterizer gives it."""

    @property
    def rgb(self) -> Float[Tensor, "h w 3"]:
        """sRGB; clamped to [0, 1] here."""
        ...

    @property
    def alpha(self) -> Float[Tensor, "h w 1"]:
        """Opacity; clamped to [0, 1] here."""
        ...


def ensemble_view(outputs: Sequence[ShownView], combine: Combine) -> EnsembleView:
    """Combine the renders of one camera.

    Raises:
        ValueError: There is no render.
    """
    if not outputs:
        raise ValueError("expected at least one render")
    rgb = torch.stack([output.rgb.clamp(0, 1) for output in outputs])
    alpha = torch.stack([output.alpha[..., 0].clamp(0, 1) for output in outputs])
    if combine == "mean":
        combined = rgb.mean(dim=0)
    else:
        ordered, middle = rgb.sort(dim=0).values, len(outputs) // 2
        combined = ordered[middle] if len(outputs) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    # Not by torch.std, which takes ten times as long across few images.
    variance = (rgb - rgb.mean(dim=0)).square().sum(dim=0) / max(len(outputs) - 1, 1)
    return EnsembleView(rgb=combined, alpha=alpha.mean(dim=0), deviation=variance.sqrt().mean(dim=-1))


def confidence_of_fix(
    combined: Float[Tensor, "*n h w c=3"],
    fixed: Float[Tensor, "*n h w c=3"],
    deviation: Float[Tensor, "*n h w"],
    contradiction: float,
) -> Float[Tensor, "*n h w"]:
    """Confidence in a fix of an ensemble's view, in [0, 1].

    Where the splats differ, a fixer that changes the view decides between them. A change beyond what they differ by
    contradicts all of them, as a tint does, and counts less the farther it goes.

    Args:
        contradiction: Change beyond that, mean over the colors in [0, 1], at which a pixel counts exp(-1).
    """
    change = (fixed - combined).abs().mean(dim=-1)
    beyond = (change - NUM_DEVIATIONS * deviation).clamp_min(0)
    return torch.exp(-((beyond / contradiction) ** 2))


NUM_DEVIATIONS = 2.0
"""A fix may go this many standard deviations from the splats' view without contradicting them."""
