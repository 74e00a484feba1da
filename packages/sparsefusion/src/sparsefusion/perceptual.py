"""LPIPS (Zhang et al. 2018) with VGG16, from local files only: nothing here opens a connection."""

from __future__ import annotations

import torch
from torch import Tensor

from image_metrics import lpips_network
from sparsefusion.losses import PerceptualDistance


def find_lpips(device: torch.device | str = "cpu") -> PerceptualDistance | None:
    """LPIPS, or None where its package (extra `lpips`) or its backbone's weights are missing."""
    try:
        network = lpips_network("vgg", device)
    except (ImportError, FileNotFoundError):
        return None

    def distance(one: Tensor, two: Tensor) -> Tensor:
        place = next(network.parameters()).device
        return network(one.to(place), two.to(place)).mean()

    return distance
