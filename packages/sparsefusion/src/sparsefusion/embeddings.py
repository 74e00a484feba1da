"""Embeddings of lines and depths for the transformer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def harmonic(x: Float[Tensor, "*batch d"], num_octaves: int = 6) -> Float[Tensor, "*batch e"]:
    """Sines, cosines and the values themselves: ``[sin(2^k x), cos(2^k x), x]``, k from 0.

    Returns:
        ``d * (2 * num_octaves + 1)`` values; within sines and cosines all frequencies of a value stand together.
    """
    frequencies = 2.0 ** torch.arange(num_octaves, device=x.device, dtype=x.dtype)
    angles = (x[..., None] * frequencies).flatten(-2)
    return torch.cat([angles.sin(), angles.cos(), x], dim=-1)


def pluecker(origins: Float[Tensor, "*#batch 3"], directions: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch 6"]:
    """Plücker coordinates of lines: the direction d of length 1, then the moment ``origin x d``."""
    unit = torch.nn.functional.normalize(directions, dim=-1)
    origins, unit = torch.broadcast_tensors(origins, unit)
    return torch.cat([unit, torch.linalg.cross(origins, unit)], dim=-1)
