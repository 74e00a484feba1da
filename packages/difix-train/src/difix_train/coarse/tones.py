"""Other tones for a pair and its reference, so that no colour means anything by itself."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def toned(images: Float[Tensor, "v c=3 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=3 h w"]:
    """Other tones, the same for all views: black stays black, and more becomes it."""
    images = images[:, torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        images = _blackened(images, rng)
    black = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
    white = rng.uniform(0.7, 1.1)
    gamma = float(np.exp(rng.uniform(-0.5, 0.5)))
    return ((images - black) / (white - black)).clamp(0, 1) ** gamma


def _blackened(images: Float[Tensor, "v c=3 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=3 h w"]:
    """Surfaces of the colour of some place of the photo become black, in all views."""
    _, _, height, width = images.shape
    colour = images[1, :, rng.integers(height), rng.integers(width)]
    distance = (images - colour[:, None, None]).norm(dim=1, keepdim=True)
    return images * ((distance / rng.uniform(0.1, 0.3)) ** 2).clamp(0, 1)
