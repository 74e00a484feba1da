"""What a render is compared by."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

HUBER_SCALE = 0.1
"""Differences well below this count quadratically, well above it linearly."""

OPACITY_FLOOR = 0.01
"""Added to squared opacities before the root, so that it has a slope at zero."""

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]
"""Distance of two batches of images with values in [-1, 1]; one number."""


def huber(prediction: Float[Tensor, "*b"], target: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """A smooth mixture of squared and absolute difference."""
    scaled = (prediction - target).square() / HUBER_SCALE**2
    return ((1 + scaled).sqrt() - 1) * HUBER_SCALE


def opacity_penalty(alpha: Float[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Mean opacity, smoothed at zero."""
    return (alpha.square() + OPACITY_FLOOR).sqrt().mean()
