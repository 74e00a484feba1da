"""LPIPS (Zhang et al. 2018) with VGG16, from local files only: nothing here opens a connection."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsefusion.losses import PerceptualDistance

BACKBONE = "vgg16-397923af.pth"
"""torchvision's file of VGG16's weights, as it lies in torch hub's folder after any earlier use."""


def find_lpips(device: torch.device | str = "cpu") -> PerceptualDistance | None:
    """LPIPS, or None where its package (extra `lpips`) or its backbone's weights are missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE
    if not path.is_file() or importlib.util.find_spec("lpips") is None:
        return None
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision in a deprecated way.
        network: nn.Module = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for key, value in network.net.state_dict().items():  # type: ignore[union-attr]
            # LPIPS' slices keep torchvision's indices as names.
            value.copy_(weights[f"features.{key.split('.', 1)[1]}"])
    network = network.eval().requires_grad_(False).to(device)

    def distance(one: Tensor, two: Tensor) -> Tensor:
        place = next(network.parameters()).device
        return network(one.to(place), two.to(place)).mean()

    return distance
