"""Other tones for a pair and its reference, so that no colour means anything by itself."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from difix_train.coarse.damage import faded
from difix_train.coarse.pairs import DETAIL_PLANE, RGB


def toned(images: Float[Tensor, "v c=4 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=4 h w"]:
    """Other tones, the same for all views: black stays black, and more becomes it.

    Detail is measured relative to the contrast of the image, so only what becomes black loses some.
    """
    images = torch.cat([images[:, torch.from_numpy(rng.permutation(3))], images[:, DETAIL_PLANE:]], dim=1)
    if rng.random() < 0.5:
        images = _blackened(images, rng)
    black = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
    white = rng.uniform(0.7, 1.1)
    gamma = float(np.exp(rng.uniform(-0.5, 0.5)))
    toned_rgb = ((images[:, RGB] - black) / (white - black)).clamp(0, 1) ** gamma
    return torch.cat([toned_rgb, images[:, DETAIL_PLANE:]], dim=1)


def _blackened(images: Float[Tensor, "v c=4 h w"], rng: np.random.Generator) -> Float[Tensor, "v c=4 h w"]:
    """Surfaces of the colour of some place of the photo become black, in all views."""
    _, _, height, width = images.shape
    colour = images[1, RGB, rng.integers(height), rng.integers(width)]
    distance = (images[:, RGB] - colour[:, None, None]).norm(dim=1)
    kept = ((distance / rng.uniform(0.1, 0.3)) ** 2).clamp(0, 1)
    return torch.stack([faded(image, share) for image, share in zip(images, kept, strict=True)])
