"""Color jitter of a pair and its reference, so that no color means anything by itself."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedded_weights.coarse_pairs import DETAIL_PLANE, RGB
from embedded_weights.corruptions import darkened


def color_jitter(images: Float[Tensor, "v c=4 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=4 h w"]:
    """Other colors, the same for all views: black stays black, and more becomes black.

    Detail is measured relative to the contrast of the image, so only what becomes black loses some.
    """
    images = torch.cat([images[:, torch.from_numpy(rng.permutation(3))], images[:, DETAIL_PLANE:]], dim=1)
    if rng.random() < 0.5:
        images = _blackened(images, rng)
    black = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
    white = rng.uniform(0.7, 1.1)
    gamma = float(np.exp(rng.uniform(-0.5, 0.5)))
    jittered_rgb = ((images[:, RGB] - black) / (white - black)).clamp(0, 1) ** gamma
    return torch.cat([jittered_rgb, images[:, DETAIL_PLANE:]], dim=1)


def _blackened(images: Float[Tensor, "v c=4 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=4 h w"]:
    """Surfaces of the color of some position of the photo become black, in all views."""
    _, _, height, width = images.shape
    color = images[1, RGB, rng.integers(height), rng.integers(width)]
    distance = (images[:, RGB] - color[:, None, None]).norm(dim=1)
    factors = ((distance / rng.uniform(0.1, 0.3)) ** 2).clamp(0, 1)
    return torch.stack([darkened(image, factor) for image, factor in zip(images, factors, strict=True)])
